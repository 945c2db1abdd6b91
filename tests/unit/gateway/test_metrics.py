"""The gateway's figures: their text, and what a scrape of the real gateway says."""

import base64
import json
import re
import time
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from render.principals import POLICY
from tests.unit.gateway.harness import Authority, Bench

KNOWN = {"tiny:latest": "tiny"}


def families(text: str) -> dict[str, list[str]]:
    """Samples by family, in order; every family has its HELP and TYPE before it."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            found[line.split()[2]] = []
        elif not line.startswith("#"):
            found[next(reversed(found))].append(line)
    return found


def test_counters_of_losses_are_there_from_the_start(bench: Bench):
    found = families(bench.call("text", {}, []))
    assert found["fortress_audit_lost_total"] == ["fortress_audit_lost_total 0"]
    assert found["fortress_auth_failures_total"] == ["fortress_auth_failures_total 0"]
    assert found["fortress_audit_files_deleted_total"] == ["fortress_audit_files_deleted_total 0"]
    assert "fortress_tokens_total" not in found


def test_what_was_counted_stands_beneath_its_family_in_order(bench: Bench):
    counts = {"x|b": 2, "x|a": 1, "missing": 3, "r|bob|read|allowed": 4, "r||other|refused": 2, "lost": 1, "u": 2}
    counts |= {"l|bob|concurrent": 1, "t|bob|tiny|in": 26, "t|bob|llama3.2:3b|out": 2}
    text = bench.call("text", counts, [["fortress_slots", 4]])
    found = families(text)
    assert found["fortress_refusals_total"] == [
        'fortress_refusals_total{reason="a"} 1',
        'fortress_refusals_total{reason="b"} 2',
    ]
    assert found["fortress_requests_total"] == [
        'fortress_requests_total{principal="bob",class="read",verdict="allowed"} 4',
        'fortress_requests_total{principal="",class="other",verdict="refused"} 2',
    ]
    assert found["fortress_limits_hit_total"] == ['fortress_limits_hit_total{principal="bob",limit="concurrent"} 1']
    assert 'fortress_tokens_total{principal="bob",model="llama3.2:3b",direction="out"} 2' in text
    assert found["fortress_audit_lines_total"] == ["fortress_audit_lines_total 5"]
    assert found["fortress_audit_lost_total"] == ["fortress_audit_lost_total 1"]
    assert found["fortress_auth_failures_total"] == ["fortress_auth_failures_total 2"]
    assert found["fortress_slots"] == ["fortress_slots 4"]
    assert "missing" not in text


NONE = {"tokens_per_day": None, "tokens_per_month": None}
USERS = {
    "alice": {"role": "admin", "models": ["*"], "limits": NONE | {"tokens_per_day": 5}},
    "bob": {"role": "user", "models": ["tiny"], "limits": NONE},
}


def test_what_the_config_names_counts_from_zero(bench: Bench):
    """`increase` sees nothing of how a series begins: a user's only request, or one burst of refusals."""
    found = bench.call("born", {"users": USERS, "models": ["tiny", "llama3.2:3b"]})
    assert set(found.values()) == {0}
    assert [key for key in found if key.startswith("t|")] == [
        *(f"t|alice|{model}|{way}" for model in ("tiny", "llama3.2:3b") for way in ("in", "out")),
        *("t|bob|tiny|in", "t|bob|tiny|out"),
    ]
    assert {"r|bob|inference|allowed", "r|bob|inference|refused", "r||inference|refused", "x|no-identity"} <= set(found)
    assert ("r|alice|admin|allowed" in found, "r|bob|admin|allowed" in found) == (True, False)
    assert ("l|alice|tokens_per_day" in found, "l|bob|tokens_per_day" in found) == (True, False)
    assert not [key for key in found if key.startswith("r||") and not key.endswith("|refused")]
    text = bench.call("text", found, [])
    assert 'fortress_limits_hit_total{principal="bob",limit="requests_per_minute"} 0' in text


def test_limits_are_named_as_the_policy_names_them():
    said = "".join(path.read_text() for path in [*POLICY.glob("*.js"), POLICY / "says.json"])
    for limit in json.loads((POLICY / "figures.json").read_text())["limits"]:
        assert re.search(f"\\b{limit}\\b", said), limit


@pytest.mark.parametrize(("users", "models"), [(200, 25), (600, 6), (1000, 0)])
def test_many_users_of_many_models_are_fewer_series_than_prometheus_takes(users: int, models: int, bench: Bench):
    limits = dict.fromkeys(USERS["alice"]["limits"], 1)
    alike = USERS["alice"] | {"limits": limits}
    many = {"users": {f"user-{n}": alike for n in range(users)}, "models": [f"model:{n}" for n in range(100)]}
    found = bench.call("born", many)
    assert sum(key.startswith("t|") for key in found) == users * models * 2
    assert len(found) <= 19_000
    assert bench.call("born", {"users": {}, "models": []})


def test_a_bucket_of_a_histogram_holds_those_below_it(bench: Bench):
    counts = {"q|0": 2, "q|14": 1, "q|sum": 400.5}
    rows = families(bench.call("text", counts, []))["fortress_queue_seconds"]
    assert rows[0] == 'fortress_queue_seconds_bucket{le="0.01"} 2'
    assert rows[13:] == [
        'fortress_queue_seconds_bucket{le="300"} 2',
        'fortress_queue_seconds_bucket{le="+Inf"} 3',
        "fortress_queue_seconds_sum 400.5",
        "fortress_queue_seconds_count 3",
    ]


def test_a_label_says_its_value_whatever_is_in_it(bench: Bench):
    assert bench.call("series", "up", {}) == "up"
    assert bench.call("series", "up", {"a": 'x"\\\n', "b": 1}) == 'up{a="x\\"\\\\\\n",b="1"}'


def test_an_ollama_that_says_nothing_is_down(bench: Bench):
    assert bench.call("ollama", None, KNOWN) == [["fortress_ollama_up", 0]]


def test_loaded_models_are_shown_by_their_declared_names(bench: Bench):
    models: list[dict[str, Any]] = [
        {"name": "tiny:latest", "size": 300, "size_vram": 200},
        {"name": "somebody's", "size": 10},
        {"name": "another", "size": 5, "size_vram": 7},
        {"name": "third"},
    ]
    assert bench.call("ollama", {"version": "0.35.0", "models": models}, KNOWN) == [
        ["fortress_ollama_up", 1],
        ['fortress_ollama_info{version="0.35.0"}', 1],
        ['fortress_ollama_model_bytes{model="tiny",where="ram"}', 100],
        ['fortress_ollama_model_bytes{model="tiny",where="vram"}', 200],
        ['fortress_ollama_model_bytes{model="unknown",where="ram"}', 10],
        ['fortress_ollama_model_bytes{model="unknown",where="vram"}', 7],
    ]


def test_the_end_of_a_certificate_is_the_one_that_cryptography_reads(bench: Bench):
    authority = Authority("a name of sixty-four characters, as long as one may ever be ....")
    for pem in (authority.pem, authority.leaf("one.example")[0], authority.leaf("two.example")[0] + authority.pem):
        wanted = x509.load_pem_x509_certificate(pem.encode()).not_valid_after_utc
        assert bench.call("ends", pem) == wanted.timestamp()


def dated(authority: Authority, end: datetime) -> str:
    builder = (
        x509.CertificateBuilder()
        .subject_name(authority.name)
        .issuer_name(authority.name)
        .public_key(authority.key.public_key())
        .serial_number(1)
        .not_valid_before(datetime(1950, 1, 2, tzinfo=UTC))
        .not_valid_after(end)
    )
    return builder.sign(authority.key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()


@pytest.mark.parametrize("year", [1999, 2049, 2050, 2199])
def test_certificates_of_either_way_to_write_a_time_are_read(year: int, bench: Bench):
    end = datetime(year, 12, 31, 23, 59, 58, tzinfo=UTC)
    assert bench.call("ends", dated(Authority("x"), end)) == end.timestamp()


def test_a_certificate_without_its_version_is_read(bench: Bench):
    der = Authority("x").certificate.public_bytes(Encoding.DER)
    assert der.count(b"\xa0\x03\x02\x01\x02") == 1
    der = der.replace(b"\xa0\x03\x02\x01\x02", b"")
    pem = f"-----BEGIN CERTIFICATE-----\n{base64.b64encode(der).decode()}\n-----END CERTIFICATE-----\n"
    assert bench.call("ends", pem) > time.time()


@pytest.mark.parametrize("pem", ["", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"])
def test_what_is_no_certificate_is_said(pem: str, bench: Bench):
    with pytest.raises(AssertionError, match="Error"):
        bench.call("ends", pem)
