"""The question that ends `make up`: where it goes, whom it believes, and when it is not asked."""

from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from fortress import ask, up
from settings import StackSettings, load

BUNDLES = {"bundles": {"probe": {}}, "tunnel_address": "10.66.0.1"}


def settings(**more: Any) -> StackSettings:
    given = {
        "users": {"probe": {"service": True}},
        "wireguard": {"endpoint": "vpn.example.com:51820"},
        "engine": "registry-only",
    } | more
    return load("test", {f"ollama-fortress:{key}": value for key, value in given.items()})


@pytest.fixture(autouse=True)
def _no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ask, "reference", lambda *_: "client")


@pytest.mark.parametrize(
    ("more", "url", "also_believed"),
    [
        ({}, "https://ollama.fortress.internal", ""),
        (
            {"wireguard": {"endpoint": "vpn.example.com:51820", "relay_port": 8443}},
            "https://ollama.fortress.internal:8443",
            "",
        ),
        (
            {"gateway": {"certificate_file": "chain.pem", "key_file": "key.pem"}},
            "https://ollama.fortress.internal",
            ask.AUTHORITIES,
        ),
    ],
    ids=["as it is", "another port", "a certificate of one's own"],
)
def test_it_goes_where_the_api_is_and_believes_whom_the_users_believe(
    more: dict[str, Any], url: str, also_believed: str
):
    *words, where, _, believed = ask.command(settings(**more), "10.66.0.1", "client")
    assert (where, believed) == (url, also_believed)
    assert words[:4] == ["docker", "run", "--pull", "never"], "it is handed a user's keys"


@pytest.mark.parametrize(
    ("more", "why"),
    [({"models": []}, "declares no model"), ({"users": {"ada": {}}}, "has no user `probe")],
)
def test_where_it_cannot_be_asked_one_sentence_says_why(more: dict[str, Any], why: str):
    out = StringIO()
    bundles = {} if "users" in more else BUNDLES["bundles"]
    up._ask(Console(file=out, width=200), settings(**more), BUNDLES | {"bundles": bundles})
    assert why in out.getvalue() and out.getvalue().startswith("no question asked")
