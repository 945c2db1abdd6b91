"""What the README tells a newcomer to type works, in that order, on a machine that has seen nothing of it."""

import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from fortress import engine, paths
from images import NAMES, reference
from tests.deployment import copy_of_the_checkout
from tests.own_engine import OwnEngine, own_engine

README = (paths.CHECKOUT / "README.md").read_text()
ELSEWHERE = {
    "make test": "this run",
    **{
        line: "tests/unit/test_readme.py has them from the bundle's page; tests/live joins the tunnel of the same file"
        for line in (
            "sudo install -m 600 wireguard-laptop.conf /etc/wireguard/fortress.conf",
            "sudo wg-quick up fortress",
            "echo '10.66.0.1 ollama.fortress.internal chat.ollama.fortress.internal' | sudo tee -a /etc/hosts",
        )
    },
    "./fortress-run ollama run tiny": "tests/live runs it in the tunnel",
    "make up STACK=home": "tests/program builds every example",
    "make bench": "its limits ask for a quiet machine; tests/unit computes with its parts",
    "make bench-peers": "it installs other gateways; tests/unit computes with its parts",
    "bin/fortress status": "tests/engine/test_blocking.py runs it",
    "bin/fortress block bob --for 1h": "tests/engine/test_blocking.py runs it",
    "bin/fortress unblock bob": "tests/engine/test_blocking.py runs it",
    "bin/fortress logs --follow": "tests/engine/test_trail.py runs it",
    "bin/fortress usage --since 30d": "tests/engine/test_trail.py runs it",
    "make soak": "it takes more than an hour; tests/engine/test_observability.py is its short form",
    "bin/fortress report --month 2026-11": "tests/engine/test_trail.py runs it",
    "bin/fortress dashboards": "tests/unit/test_dashboards.py writes them",
    **{
        f"make {tier}": "a part of `make test`"
        for tier in ("test-unit", "test-program", "test-engine", "test-live", "test-browser", "lint")
    },
}
"""Commands of the README that other tests run."""


def commands() -> set[str]:
    """Every command in the README: in its blocks of shell, in its tables, and in its text."""
    blocks = re.findall(r"```(?:console|sh)\n(.*?)```", README, re.DOTALL)
    typed = [
        line.removeprefix("$ ")
        for block in blocks
        for line in block.splitlines()
        if line.startswith(("$", "bin/", "sudo ", "echo ", "./"))
    ]
    inline = re.findall(r"`((?:make |bin/|sudo |\./|eval )[^`\n]+)`", README)
    tiers = [f"make {target}" for target in re.findall(r"`(test-\w+|lint)`", README)]
    return {line.partition("  #")[0].strip() for line in (*typed, *inline, *tiers)}


class Newcomer:
    """A clean clone, an account without a past, an engine without images but those that `make up` would build."""

    def __init__(self, machine: OwnEngine, folder: Path) -> None:
        self.machine, self.checkout = machine, copy_of_the_checkout(folder / "ollama-fortress")
        own = {
            "DOCKER_HOST": f"unix://{machine.socket}",
            "XDG_STATE_HOME": str(folder / "state"),
            "FORTRESS_ENGINE": engine.choose(),
        }
        # A `make` inside of `make test` would say so between the lines that it prints.
        self.environment = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")} | own
        (folder / "state" / "ollama-fortress").mkdir(parents=True)
        plugins = paths.state() / "pulumi-home"
        if plugins.exists():  # downloaded by the online engine; there is no way out of that machine
            (folder / "state" / "ollama-fortress" / plugins.name).symlink_to(plugins)
        self.typed: set[str] = set()

    def types(self, line: str) -> str:
        """One line as the README has it, at a shell in the checkout."""
        self.typed.add(line)
        done = subprocess.run(
            self.machine.inside("bash", "-c", line),
            cwd=self.checkout,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=600,
        )
        assert done.returncode == 0, f"{line} ended with {done.returncode}:\n{done.stdout[-4000:]}"
        return done.stdout


@pytest.fixture(scope="module")
def newcomer() -> Iterator[Newcomer]:
    with tempfile.TemporaryDirectory(prefix="fortress-") as folder:
        (Path(folder) / "engine").mkdir()
        with own_engine(Path(folder) / "engine") as machine:
            machine.load(*(reference(name, engine.choose()) for name in NAMES))
            yield Newcomer(machine, Path(folder))


def test_the_readme_from_its_first_command_to_its_last(newcomer: Newcomer):
    said = newcomer.types("make up")
    for words in ("through the tunnel, model tiny", "endpoint  https://ollama.fortress.internal", "bundles/dev/"):
        assert words in said, f"the README shows {words!r}"
        assert words in README
    again = newcomer.types("make preview")
    assert "unchanged" in again
    assert not re.search(r"[+~-] .*(create|update|replace|delete)", again)

    [users] = re.findall(r"```yaml\n(  ollama-fortress:users:\n.*?)```", README, re.DOTALL)
    stack = newcomer.checkout / "stacks" / "Pulumi.dev.yaml"
    written = yaml.safe_load(stack.read_text())
    written["config"]["ollama-fortress:users"] |= yaml.safe_load(users)["ollama-fortress:users"]
    stack.write_text(yaml.safe_dump(written, sort_keys=False))
    newcomer.types("make up")

    bundle = newcomer.types("bin/fortress bundle alice")
    assert bundle.count("scan with the WireGuard app") == 2
    assert "█" in bundle
    files = {path.name for path in (newcomer.checkout / "bundles" / "dev" / "alice").iterdir()}
    assert {"wireguard-laptop.conf", "wireguard-laptop.png", "api_key", "ca.pem", "fortress-run", "README.md"} <= files

    endpoint = newcomer.types('eval "$(make env)" && pulumi stack output endpoint --stack dev')
    assert "https://ollama.fortress.internal" in endpoint
    newcomer.typed |= {"make env", 'eval "$(make env)"'}

    newcomer.types("make down")
    label = ["--filter", "label=fortress.stack=dev"]
    for kind in (["ps", "-aq"], ["network", "ls", "-q"], ["volume", "ls", "-q"]):
        assert newcomer.machine.docker(*kind, *label) == ""
    assert not (newcomer.checkout / "bundles" / "dev").exists()
    assert commands() - newcomer.typed - set(ELSEWHERE) == set(), "the README shows commands that no test runs"
