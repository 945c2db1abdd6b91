"""The `pulumi` command of this checkout: its environment, and calls to it."""

import json
import os
import re
import secrets
import subprocess
from pathlib import Path
from typing import Any

from docker import DockerClient

from fortress import paths, stack_lock
from fortress.deployed import remove_half_made
from fortress.errors import Stop
from settings import PROJECT


def environment(home: Path, bin_dir: Path) -> dict[str, str]:
    """The exports with which plain `pulumi` works in this checkout (`make env` prints them)."""
    backend = paths.state() / "pulumi"
    exports = {
        "PATH": f"{bin_dir}:{paths.CHECKOUT / '.venv' / 'bin'}:{_path_without(bin_dir)}",
        "PULUMI_HOME": str(home),
        "PULUMI_BACKEND_URL": os.environ.get("PULUMI_BACKEND_URL") or f"file://{backend}",
        "PULUMI_SKIP_UPDATE_CHECK": "true",
        "PULUMI_ERROR_OUTPUT_STRING": "true",
        "UV_FROZEN": "1",
    }
    if not os.environ.get("PULUMI_CONFIG_PASSPHRASE"):
        exports["PULUMI_CONFIG_PASSPHRASE_FILE"] = os.environ.get("PULUMI_CONFIG_PASSPHRASE_FILE") or str(
            passphrase_file()
        )
    if (folder := paths.file_backend(exports["PULUMI_BACKEND_URL"])) is not None:
        folder.mkdir(parents=True, exist_ok=True)
    return exports


def deployed_before(stack: str) -> bool:
    """Whether the state has resources of this stack. Other backends than file:// are not asked: false."""
    folder = paths.file_backend(os.environ.get("PULUMI_BACKEND_URL") or f"file://{paths.state() / 'pulumi'}")
    if folder is None or not (state := folder / ".pulumi" / "stacks" / PROJECT / f"{stack}.json").exists():
        return False
    return bool((json.loads(state.read_text())["checkpoint"].get("latest") or {}).get("resources"))


def _path_without(bin_dir: Path) -> str:
    """PATH without what an earlier `make env` put in front, so that repeating does not grow it."""
    own = {str(bin_dir), str(paths.CHECKOUT / ".venv" / "bin")}
    return ":".join(part for part in os.environ.get("PATH", "").split(":") if part not in own)


def passphrase_file() -> Path:
    """The passphrase that encrypts secrets in the state; made once, readable by its owner alone."""
    path = paths.state() / "passphrase"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        fresh = path.with_name(f".passphrase-{os.getpid()}")
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_hex(32))
        try:
            os.link(fresh, path)  # fails where another run was first: its passphrase counts
        except FileExistsError:
            pass
        finally:
            fresh.unlink()
    return path


class Pulumi:
    """Calls `pulumi` for one stack."""

    def __init__(self, stack: str, exports: dict[str, str]) -> None:
        self.stack = stack
        self.environment = {**os.environ, **exports}

    def run(self, *arguments: str, check: bool = True) -> int:
        """Run with the terminal attached; what it prints is for the person."""
        command = ["pulumi", *arguments, "--stack", self.stack]
        code, _, _ = _ended(subprocess.Popen(command, env=self.environment, cwd=paths.CHECKOUT))
        if check and code != 0:
            raise Stop(f"pulumi {arguments[0]} did not finish (code {code}); the lines above say why")
        return code

    def read(self, *arguments: str, check: bool = True) -> str:
        return self._said(*arguments, "--stack", self.stack, check=check)

    def _said(self, *arguments: str, check: bool = True) -> str:
        process = subprocess.Popen(
            ["pulumi", *arguments],
            env=self.environment,
            cwd=paths.CHECKOUT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        code, stdout, stderr = _ended(process)
        if check and code != 0:
            raise Stop(explain(stderr or stdout))
        return stdout

    def exists(self) -> bool:
        """Whether the backend knows this stack. It is asked of no other, whose state may just be half written."""
        try:
            self.read("stack", "--show-name")
        except Stop as stop:
            if "no stack named" in str(stop):
                return False
            raise
        return True

    def outputs(self) -> dict[str, Any]:
        return json.loads(self.read("stack", "output", "--json", "--show-secrets"))

    def deployment(self) -> dict[str, Any]:
        """What the state holds, secrets encrypted; empty before the first `up`."""
        return json.loads(self.read("stack", "export")).get("deployment") or {}

    def recover(self, there: DockerClient) -> None:
        """Undo what a killed run left on that engine: its lock, and operations whose end was never written down."""
        self._unlock()
        deployment = self.deployment()
        if deployment.get("pending_operations"):
            # Creates that may or may not have happened: they happen again.
            remove_half_made(deployment, there)
            self.read("refresh", "--yes", "--skip-preview", "--clear-pending-creates")

    def _unlock(self) -> None:
        found = stack_lock.holders(self.environment["PULUMI_BACKEND_URL"], self.stack)
        alive = [holder for holder in found if holder.may_be_alive]
        if alive:
            raise Stop(
                f"stack {self.stack!r} is locked by {alive[0]}. Wait for that run to end; if you know that it died, "
                f"`pulumi cancel --stack {self.stack}` clears its lock"
            )
        if found:
            self.read("cancel", "--yes", check=False)


def _ended(process: "subprocess.Popen[Any]") -> tuple[int, Any, Any]:
    """Wait for Pulumi: its code, and what it said where that is read.

    The terminal gives Ctrl-C to Pulumi too, which then ends what is in flight and saves its state, and at a second one
    ends at once: it is never killed from here, as `subprocess.run` would do after a quarter of a second.
    """
    interrupted: KeyboardInterrupt | None = None
    while True:
        try:
            stdout, stderr = process.communicate()
        except KeyboardInterrupt as pressed:
            interrupted = pressed
            continue
        if interrupted is not None:
            raise interrupted
        return process.returncode, stdout, stderr


def explain(text: str) -> str:
    """Pulumi's error in one sentence where we know better what to do."""
    if re.search(r"incorrect passphrase|decrypt", text):
        return (
            "the passphrase does not open this stack's state. Set PULUMI_CONFIG_PASSPHRASE_FILE to the file that "
            f"was used when it was made (by default {paths.state() / 'passphrase'})"
        )
    if "currently locked" in text:
        return (
            "another run holds this stack. Wait for it to end; if it was killed, `make up` clears its lock, "
            "and so does `pulumi cancel`"
        )
    lines = [line for line in text.splitlines() if line.strip()]
    return "\n".join(lines[-12:]) or "pulumi failed without a word"
