"""What the command line says when it stops."""

import io
import sys
from pathlib import Path

import pytest
from rich.console import Console

from fortress import cli, commands, paths, status, up
from fortress.errors import Stop
from settings import ConfigRefused


@pytest.mark.parametrize(
    ("error", "title"), [(Stop, "stopped: "), (ConfigRefused, "the stack config is refused:\n")], ids=["stop", "config"]
)
def test_words_from_outside_are_printed_as_they_stand(
    error: type[Exception], title: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    said = f"'Bob' does not match [a-z_][a-z0-9_-]* [/bold] [red]; run `pulumi config set {'word ' * 20}`"

    def stopped(**_: object) -> None:
        raise error(said)

    monkeypatch.setattr(cli, "app", stopped)
    monkeypatch.setattr(sys, "argv", ["fortress"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    assert capsys.readouterr().err == f"{title}{said}\n"


def test_what_an_engine_said_keeps_its_brackets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    said = "dial tcp [fe80::1]:2375: no route"
    out = io.StringIO()
    console = Console(file=out, width=200)
    shown = {"stack": "dev", "endpoint": "", "tunnel_endpoint": "", "containers": []}
    status.show(console, {**shown, "blocked": None, "blocked_unknown": said})

    def unreachable(*_: object) -> None:
        raise Stop(said)

    monkeypatch.setattr(paths, "stack_file", lambda _: tmp_path)
    monkeypatch.setattr(up, "reached", unreachable)
    commands._tell(console, "dev", "up", "dev", "begun")
    assert out.getvalue().count(said) == 2
