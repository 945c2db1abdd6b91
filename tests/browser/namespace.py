"""Network namespaces: a Chromium that is in one sees that network and no other.

A namespace of its own also keeps this machine's network out of the tests: Chromium breaks off every request
(ERR_NETWORK_CHANGED) when an interface comes or goes anywhere it can see, as one does for each container.
"""

import ctypes
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

CLONE_NEWNET = 0x40000000
Made = TypeVar("Made")


class Namespace:
    """The network namespace that a process is in."""

    def __init__(self, pid: int) -> None:
        self.path = f"/proc/{pid}/ns/net"

    def make(self, factory: Callable[[], Made]) -> Made:
        """What `factory` makes inside: a socket stays where it was made, whoever uses it."""
        result: list[Made] = []
        failed: list[BaseException] = []

        def inside() -> None:
            try:
                with Path(self.path).open() as namespace:
                    libc = ctypes.CDLL(None, use_errno=True)
                    if libc.setns(namespace.fileno(), CLONE_NEWNET) != 0:
                        raise OSError(ctypes.get_errno(), f"cannot enter {self.path}")
                result.append(factory())
            except BaseException as error:
                failed.append(error)

        thread = threading.Thread(target=inside)  # entered by this thread alone, which ends here
        thread.start()
        thread.join()
        if failed:
            raise failed[0]
        return result[0]

    def wrapper(self, program: str, folder: Path) -> Path:
        """An executable that starts `program` inside."""
        file = folder / Path(program).name
        file.write_text(f'#!/bin/sh\nexec nsenter --net={self.path} -- {program} "$@"\n')
        file.chmod(0o700)
        return file


@contextmanager
def empty() -> Iterator[Namespace]:
    """A namespace with nothing but its own loopback, for as long as the block lasts."""
    assert os.geteuid() == 0, "these tests give Chromium a network of its own, as root alone may: run them as root"
    script = "ip link set lo up && echo ready && exec sleep infinity"
    with subprocess.Popen(["unshare", "--net", "sh", "-c", script], stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout is not None and holder.stdout.readline() == "ready\n", "no network namespace here"
            yield Namespace(holder.pid)
        finally:
            holder.kill()
