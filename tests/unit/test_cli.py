"""What the command line says when it stops."""

import io
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
import typer
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


@pytest.mark.parametrize(
    ("ends", "code", "said"),
    [
        (KeyboardInterrupt(), 130, "interrupted; run the same command again to go on\n"),
        (typer.Exit(3), 3, ""),
        (None, None, ""),
    ],
    ids=["Ctrl-C", "a code of its own", "done"],
)
def test_a_command_ends_with_its_code(
    ends: BaseException | None,
    code: int | None,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    def exports(*_: object) -> dict[str, str]:
        if ends is not None:
            raise ends
        return {}

    monkeypatch.setattr(up, "exports", exports)
    monkeypatch.setattr(sys, "argv", ["fortress", "env"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert (ended.value.code, capsys.readouterr().err) == (code, said)


@pytest.mark.parametrize(("words", "code"), [(["-f"], None), ([], 130)], ids=["following", "once"])
def test_what_is_followed_until_somebody_ends_it_ends_well(
    words: list[str], code: int | None, monkeypatch: pytest.MonkeyPatch
):
    def read(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(up, "reached", lambda *_: nullcontext((None, None)))
    monkeypatch.setattr(cli.logs, "read", read)
    monkeypatch.setattr(sys, "argv", ["fortress", "logs", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == code


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
