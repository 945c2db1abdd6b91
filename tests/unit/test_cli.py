"""What the command line says when it stops."""

import sys

import pytest

from fortress import cli
from fortress.errors import Stop
from settings import ConfigRefused


@pytest.mark.parametrize(
    ("error", "title"), [(Stop, "stopped: "), (ConfigRefused, "the stack config is refused:\n")], ids=["stop", "config"]
)
def test_words_from_outside_are_printed_as_they_stand(
    error: type[Exception], title: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    said = "'Bob' does not match [a-z_][a-z0-9_-]* [/bold] [red]"

    def stopped(**_: object) -> None:
        raise error(said)

    monkeypatch.setattr(cli, "app", stopped)
    monkeypatch.setattr(sys, "argv", ["fortress"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    assert capsys.readouterr().err == f"{title}{said}\n"
