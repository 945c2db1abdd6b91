"""While a key is renewed, old and new one are the same user; afterwards the old one is nobody."""

import contextlib
from typing import Any

from tests.unit.gateway.harness import KEYS, PREVIOUS, USERS, Bench, settings
from tests.unit.gateway.test_deployed_policy import opened, read_until

OLD, NEW = PREVIOUS["bob"], KEYS["bob"]


def test_both_keys_are_valid_until_the_line_goes_and_then_only_the_old_ones_streams_end(bench: Bench):
    rotating: dict[str, Any] = USERS | {"bob": {**USERS["bob"], "epoch": "2", "previous_epoch": "1"}}
    assert bench.ask("GET", "/api/tags", key=OLD).status == 401
    bench.reload(settings(rotating, model_upload=True))
    for key in (OLD, NEW):
        assert bench.ask("GET", "/api/tags", key=key).status == 200
        assert bench.audit()[-1]["principal"] == "bob"
    with opened(bench, "bob", "300 50", key=OLD) as old, opened(bench, "bob", "120 50", key=NEW) as new:
        read_until(old, b'"n":1')
        read_until(new, b'"n":1')
        bench.reload(settings(model_upload=True))
        old.settimeout(6)
        data = b""
        with contextlib.suppress(OSError):
            data = read_until(old, b'"done":true')
        assert b'"done":true' not in data, "a stream by the old key went on"
        assert bench.ask("GET", "/api/tags", key=OLD).status == 401
        assert bench.ask("GET", "/api/tags", key=NEW).status == 200
        assert b'"done":true' in read_until(new, b'"done":true'), "the new key's stream was cut too"
