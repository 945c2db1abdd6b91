"""A Docker engine of the tests' own, in network and mount namespaces of its own.

It can be stopped, killed and started again, and the paths it mounts are nobody else's: to a deployment it is a fresh
machine. Needs root.
"""

import os
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from components.host import ROOT

START_TIMEOUT_S = 60
ADDRESS = "198.18.0.1"
"""Of the machine that the engine believes to be on (RFC 2544, for tests)."""


class OwnEngine:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.socket = folder / "docker.sock"
        self.namespace = f"fortress-{secrets.token_hex(3)}"
        self.process: subprocess.Popen[bytes] | None = None
        for name in ("data", "exec", "host-files"):
            (folder / name).mkdir()

    def inside(self, *command: str) -> list[str]:
        """The command, run on that machine's network."""
        return ["nsenter", f"--net=/run/netns/{self.namespace}", *command]

    def docker(self, *arguments: str) -> str:
        done = subprocess.run(
            ["docker", "-H", f"unix://{self.socket}", *arguments], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"docker {arguments[0]}: {done.stderr[-1000:]}"
        return done.stdout

    def prepare(self) -> None:
        subprocess.run(["ip", "netns", "add", self.namespace], check=True)
        for words in (
            "link set lo up",
            "link add outside type bridge",
            f"address add {ADDRESS}/24 dev outside",
            "link set outside up",
            "route add default dev outside",
        ):
            subprocess.run(self.inside("ip", *words.split()), check=True)

    def start(self) -> None:
        Path(ROOT).mkdir(parents=True, exist_ok=True)
        # Its mounts are seen by nobody else, and end with it. Restarting sees the same files: they lie in the folder.
        script = 'mount --bind "$1" "$2" && shift 2 && exec "$@"'
        command = [
            *("unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh"),
            *(str(self.folder / "host-files"), ROOT),
            *("dockerd", "--host", f"unix://{self.socket}", "--data-root", str(self.folder / "data")),
            *("--exec-root", str(self.folder / "exec"), "--pidfile", str(self.folder / "pid")),
        ]
        with (self.folder / "dockerd.log").open("ab") as log:
            self.process = subprocess.Popen(
                self.inside(*command), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + START_TIMEOUT_S
        probe = ["docker", "-H", f"unix://{self.socket}", "info"]
        while subprocess.run(probe, capture_output=True, check=False).returncode != 0:
            if self.process.poll() is not None or time.monotonic() > deadline:
                said = (self.folder / "dockerd.log").read_text()[-2000:]
                raise AssertionError(f"an engine of the tests' own did not start: {said}")
            time.sleep(0.2)

    def stop(self) -> None:
        """As `systemctl stop docker` and a shutdown do it."""
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(timeout=60)

    def crash(self) -> None:
        """As a power failure does it: engine, containerd, shims and what runs in containers, all at once."""
        doomed = self._processes()
        for pid in doomed:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        if self.process is not None:
            self.process.wait(timeout=30)
        # The kernel lets go of the last ones a little later.
        deadline = time.monotonic() + 10
        while self._processes() and time.monotonic() < deadline:
            time.sleep(0.1)
        (self.folder / "pid").unlink(missing_ok=True)
        # As /run is empty after a boot; containerd would wait for the dead one's socket otherwise.
        shutil.rmtree(self.folder / "exec", ignore_errors=True)
        (self.folder / "exec").mkdir(exist_ok=True)
        # The network too: a dead container's interface would stay, and answer for its successor's address, as long as
        # the kernel tries to deliver what was on its way.
        self._delete_network()
        self.prepare()

    def _processes(self) -> set[int]:
        """Everything whose command line names this engine's folder, and all their descendants."""
        parents: dict[int, int] = {}
        found: set[int] = set()
        for entry in Path("/proc").iterdir():
            if not entry.name.isdecimal() or int(entry.name) == os.getpid():
                continue
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except (FileNotFoundError, ProcessLookupError):
                continue
            program = words[0].rpartition(b"/")[2]
            if program.startswith((b"dockerd", b"containerd")) and str(self.folder).encode() in b" ".join(words):
                found.add(int(entry.name))
        while True:
            more = {pid for pid, parent in parents.items() if parent in found} - found
            if not more:
                return found
            found |= more

    def load(self, *images: str) -> None:
        """Bring images over from this machine's engine."""
        with subprocess.Popen(["docker", "save", *images], stdout=subprocess.PIPE) as saving:
            subprocess.run(
                ["docker", "-H", f"unix://{self.socket}", "load", "-q"],
                stdin=saving.stdout,
                stdout=subprocess.DEVNULL,
                check=True,
            )
        assert saving.returncode == 0, f"docker save {' '.join(images)} failed"

    def _delete_network(self) -> None:
        subprocess.run(["ip", "netns", "delete", self.namespace], check=False)

    def remove(self) -> None:
        self.crash()
        self._delete_network()
        shutil.rmtree(self.folder, ignore_errors=True)


@contextmanager
def own_engine(folder: Path) -> Iterator[OwnEngine]:
    """folder: empty, with a short path: a socket's has at most 107 characters."""
    engine = OwnEngine(folder)
    try:
        engine.prepare()
        engine.start()
        yield engine
    finally:
        engine.remove()
