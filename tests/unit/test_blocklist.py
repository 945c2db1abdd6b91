"""Whom a word means, how long a duration lasts, and what is written of it."""

from typing import Any

import pytest

from fortress import blocklist
from fortress.blocklist import Blocked, Target
from fortress.errors import Stop

NOW = 1_800_000_000
KNOWN: dict[str, Any] = {
    "users": {"alice": {}, "bob": {}, "10.66.1.1": {}},
    "addresses": {
        "wireguard|10.66.3.4": {"user": "alice", "device": "laptop"},
        "wireguard|fd66:66:66:66::34": {"user": "alice", "device": "laptop"},
        "wireguard|10.66.3.8": {"user": "alice", "device": "phone"},
    },
}


@pytest.mark.parametrize(
    ("text", "seconds"), [("30s", 30), ("10m", 600), ("1h", 3600), ("7d", 604800), ("99999s", 99999)]
)
def test_a_duration_has_a_number_and_a_letter(text: str, seconds: int):
    assert blocklist.lasting(text) == seconds


@pytest.mark.parametrize("text", ["", "0s", "1", "h", "1w", "1h30m", "-1h", "1 h", "1.5h", "1H", "100000s", "1h\n"])
def test_what_is_no_duration_is_refused_with_the_way_to_write_one(text: str):
    with pytest.raises(Stop, match="is no duration; write it like 30s, 10m, 1h or 7d"):
        blocklist.lasting(text)


@pytest.mark.parametrize(
    ("word", "target"),
    [
        ("bob", Target("users", ("bob",))),
        ("10.66.9.9", Target("addresses", ("10.66.9.9",))),
        ("::ffff:10.66.9.9", Target("addresses", ("10.66.9.9",))),
        ("[FD66:0:0::1]", Target("addresses", ("fd66::1",))),
        ("10.66.1.1", Target("users", ("10.66.1.1",))),
        ("10.66.3.4", Target("addresses", ("10.66.3.4", "fd66:66:66:66::34"), "alice/laptop")),
        ("fd66:66:66:66:0:0:0:34", Target("addresses", ("10.66.3.4", "fd66:66:66:66::34"), "alice/laptop")),
        ("10.66.3.8", Target("addresses", ("10.66.3.8",), "alice/phone")),
    ],
)
def test_a_word_means_a_user_or_every_address_of_the_device_that_has_this_one(word: str, target: Target):
    assert blocklist.meant(word, KNOWN) == target


@pytest.mark.parametrize("word", ["bop", "", "10.66.3", "10.66.3.4/24", "fe80::1%eth0", "alice bob", "*"])
def test_any_other_word_is_refused_and_the_known_users_are_named(word: str):
    with pytest.raises(Stop, match=r"neither an address nor a user .* known users: 10\.66\.1\.1, alice, bob"):
        blocklist.meant(word, KNOWN)


def test_what_is_written_is_read_again_without_what_is_over():
    rows = [
        Blocked("users", "bob", 0, "root"),
        Blocked("users", "carol", NOW + 1, "root"),
        Blocked("addresses", "10.66.9.9", NOW, "ops"),
    ]
    assert blocklist.parse(blocklist.written(rows), NOW) == rows[:2]
    assert blocklist.parse(blocklist.NOBODY, NOW) == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        '{"v":1,"users":{}}',
        '{"v":2,"users":{},"addresses":{}}',
        '{"v":1,"users":{"bob":{}}}',
        "[]x",
        '{"users":{"b":1}}',
    ],
)
def test_a_list_that_cannot_be_read_names_the_way_out(text: str):
    with pytest.raises(Stop, match="`fortress unblock --all` writes an empty one"):
        blocklist.parse(text, NOW)
