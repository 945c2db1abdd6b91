"""The audit trail of the real gateway: one valid line for every request, and what is known of those that are lost."""

import http.client
import json
import os
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from images import reference
from tests.unit.gateway.harness import DOMAIN, KEYS, STRANGER, Bench, settings
from tests.unit.gateway.test_deployed_policy import CHAT, generate, opened, read_until, request
from tests.unit.gateway.test_metrics import families

BOB = KEYS["bob"]
ENGINE = os.environ.get("FORTRESS_ENGINE", "registry-only")
FOLDER = "/var/log/gateway"
FULL = f"{FOLDER}/somebody-elses"


@pytest.fixture
def trail(bench: Bench) -> Iterator[Bench]:
    """A bench whose trail is small, and which afterwards is as it was."""
    bench.shell(f"rm -f {FOLDER}/*")
    bench.until_ready()
    yield bench
    bench.shell(f"rm -f {FULL} {FOLDER}/audit-*")
    bench.reload(settings(model_upload=True))
    until(lambda: bench.ask("GET", "/api/version", key=BOB).status == 200, "open again")


def until(condition: Callable[[], bool], what: str, seconds: float = 5) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not {what} within {seconds} s"
        time.sleep(0.1)


def observed(bench: Bench, **section: Any) -> None:
    bench.reload(settings(stack={"observability": section}, model_upload=True))


def fill(bench: Bench) -> None:
    bench.shell(f"cat /dev/zero > {FULL} 2>/dev/null || true")


def figure(bench: Bench, series: str) -> float:
    rows = [line for line in bench.scrape().splitlines() if line.startswith(series + " ")]
    return float(rows[0].split()[1]) if rows else 0


EVIL = b"\x00\xff\xfe\"\\\x01'\xc3\x28"
HEAD = f"Host: {DOMAIN}\r\nConnection: close\r\n".encode()
MALFORMED = {
    "nul in the path": b"GET /a\x00b HTTP/1.1\r\n" + HEAD + b"\r\n",
    "quotes in the path": b'GET /"},{\\"x HTTP/1.1\r\n' + HEAD + b"\r\n",
    "no utf-8 in the path": b"GET /\xff\xfe\xc3\x28 HTTP/1.1\r\n" + HEAD + b"\r\n",
    "escaped, no utf-8": b"GET /%ff%00%22%5c%0a HTTP/1.1\r\n" + HEAD + b"\r\n",
    "agent without meaning": b"GET /api/tags HTTP/1.1\r\n" + HEAD + b"User-Agent: " + EVIL[1:] + b"\r\n\r\n",
    "nul in a header": b"GET /api/tags HTTP/1.1\r\n" + HEAD + b"User-Agent: a\x00b\r\n\r\n",
    "a megabyte of path": b"GET /" + b"x" * 1_000_000 + b" HTTP/1.1\r\n" + HEAD + b"\r\n",
    "a megabyte of header": b"GET / HTTP/1.1\r\n" + HEAD + b"User-Agent: " + b"x" * 1_000_000 + b"\r\n\r\n",
    "no method": b"\x16\x03\x01 / HTTP/1.1\r\n" + HEAD + b"\r\n",
    "a method of one's own": b"BREW / HTTP/1.1\r\n" + HEAD + b"\r\n",
    "http/0.9": b"GET /\r\n",
    "http/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "two hosts": b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "a foreign host": b"GET / HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n",
    "a length that is none": b"POST /api/chat HTTP/1.1\r\n" + HEAD + b"Content-Length: -1\r\n\r\n",
    "nothing but noise": EVIL * 100 + b"\r\n\r\n",
}


@pytest.mark.parametrize("name", MALFORMED)
def test_whatever_is_sent_leaves_one_line_that_is_json_and_none_of_its_words(name: str, trail: Bench):
    before = trail.audit()
    trail.raw(MALFORMED[name])
    until(lambda: len(trail.audit()) > len(before), "written")
    [line] = trail.audit()[len(before) :]
    assert (line["address"], line["verdict"]) == (STRANGER, "refused")
    assert line["route"] in ("unknown", "/api/chat", "/api/tags", "/")
    assert line["agent"] == "unknown"
    text = json.dumps(line)
    assert len(text) < 1000
    assert "xxx" not in text
    assert "evil" not in text


def test_plain_http_and_a_name_that_is_nobodys_leave_their_lines(trail: Bench):
    before = len(trail.audit())
    with trail.plain() as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b" 400 " in connection.recv(65536)
    trail.raw(request("GET / HTTP/1.1", host="evil.example"), sni=None)
    assert [line["status"] for line in trail.audit()[before:]] == [400, 444]


def test_every_line_has_the_id_that_the_client_was_told(trail: Bench):
    reply = trail.ask("POST", "/api/chat", key=BOB, body=CHAT, headers={"User-Agent": "ollama-python/0.6"})
    line = trail.audit()[-1]
    assert line["request_id"] == reply.headers["x-request-id"]
    assert (line["agent"], line["model"], line["method"]) == ("ollama", "tiny", "POST")
    assert line["time"].endswith("Z")
    assert 0 <= line["first_token_s"] <= line["duration_s"] + 0.01


def test_as_many_lines_as_requests_through_reloads_and_rotations(trail: Bench):
    """Refused, aborted, streamed and malformed ones, while workers come and go and files are set aside."""
    observed(trail, audit_file_mb=1)
    before, sent, over = {line.get("request_id") for line in trail.audit()}, [0] * 4, threading.Event()

    def send(number: int) -> None:
        while not over.is_set():
            kind = sent[number] % 4
            if kind == 0:
                with opened(trail, "bob", "20 20") as stream:
                    read_until(stream, b'"n":1')  # and away
            elif kind == 1:
                trail.raw(b"GET /\x00 HTTP/1.1\r\n\r\n")
            else:
                key, path = (BOB, "/api/generate") if kind == 2 else (None, "/api/chat")
                trail.ask("POST", path, key=key, body=generate("3 5"))
            sent[number] += 1

    threads = [threading.Thread(target=send, args=(number,)) for number in range(len(sent))]
    for thread in threads:
        thread.start()
    padding = json.dumps({"event": "padding", "of": "x" * 1000})
    for turn in range(3):
        # As much as thousands of requests would write; the periodic sets it aside within a second.
        trail.shell(f"for i in $(seq 1100); do echo '{padding}'; done >> {FOLDER}/audit.json")
        observed(trail, audit_file_mb=1, audit_files_days=300 + turn)
        time.sleep(1.2)
    over.set()
    for thread in threads:
        thread.join()
    trail.until_ready()  # asks until it is answered, so it may leave some lines more
    own = [line for line in trail.audit() if line.get("route") not in (None, "/api/version")]
    ids = [line["request_id"] for line in own if line["request_id"] not in before]
    assert len(ids) == len(set(ids)) == sum(sent)
    assert sum(sent) > 100
    assert len(trail.shell(f"ls {FOLDER}/audit-*.json").split()) >= 3


def test_old_files_go_when_all_together_are_too_large(trail: Bench):
    observed(trail, audit_file_mb=1, audit_files_mb=3)
    names = [
        f"audit-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime(time.time() - days * 86400))}.json"
        for days in range(5, 0, -1)
    ]
    for name in names:
        trail.shell(f"head -c 900000 /dev/zero | tr '\\0' ' ' > {FOLDER}/{name}")
    deleted = figure(trail, "fortress_audit_files_deleted_total")
    trail.shell(f"head -c 1100000 /dev/zero | tr '\\0' ' ' >> {FOLDER}/audit.json; echo >> {FOLDER}/audit.json")
    until(lambda: len(trail.shell(f"ls {FOLDER}").split()) == 2, "cut down to what may be kept")
    kept = trail.shell(f"ls {FOLDER}").decode().split()
    assert kept[0] == names[-1]
    assert kept[1] > names[-1]
    assert figure(trail, "fortress_audit_files_deleted_total") - deleted == len(names) - 1


def test_files_age_where_none_is_set_aside(trail: Bench):
    trail.shell(f"touch {FOLDER}/audit-20200101T000000Z.json")
    trail.kill()  # else it would look again within the hour
    trail.start_again()
    until(lambda: "audit-2020" not in trail.shell(f"ls {FOLDER}").decode(), "deleted")


def test_a_full_disk_stops_nothing_and_every_lost_line_is_counted(trail: Bench):
    lost, said = figure(trail, "fortress_audit_lost_total"), trail.logs("gateway").count("lines are lost")
    fill(trail)
    for _ in range(40):  # the file's last block may have room for a few
        assert trail.ask("POST", "/api/chat", key=BOB, body=CHAT).status == 200
    missing = figure(trail, "fortress_audit_lost_total") - lost
    assert missing > 5
    assert trail.logs("gateway").count("lines are lost") == said + 1
    trail.shell(f"rm {FULL}")
    until(lambda: trail.audit()[-1].get("event") == "audit-lost", "said in the trail how many are missing", 3)
    gap = trail.audit()[-1]
    assert gap["lines"] == missing
    trail.ask("POST", "/api/chat", key=BOB, body=CHAT)
    after = trail.audit()
    assert after[-1]["route"] == "/api/chat"
    assert figure(trail, "fortress_audit_lost_total") == lost + missing


def test_lines_that_are_missing_are_told_by_the_gateway_that_comes_after_a_kill(trail: Bench):
    lost = figure(trail, "fortress_audit_lost_total")
    fill(trail)
    for _ in range(40):
        trail.ask("GET", "/api/version", key=BOB)
    missing = int(figure(trail, "fortress_audit_lost_total") - lost)
    assert missing > 5
    kept = trail.state / "missing"
    until(lambda: kept.read_text() == f"{missing:012}", "kept")
    trail.kill()
    trail.start_again()
    until(lambda: any("lines" in line for line in trail.audit()), "told of what is missing")
    assert [line["lines"] for line in trail.audit() if "lines" in line] == [missing]
    until(lambda: kept.read_text() == "0" * 12, "told once")
    trail.kill()
    trail.start_again()
    trail.ask("GET", "/api/version", key=BOB)
    time.sleep(1.5)
    assert not [line for line in trail.audit() if "lines" in line]


def test_a_strict_gateway_answers_503_until_its_trail_can_be_written(trail: Bench):
    observed(trail, audit="strict")
    fill(trail)
    seen = [trail.ask("POST", "/api/chat", key=BOB, body=CHAT).status for _ in range(40)]
    assert seen[-1] == 503
    assert seen == sorted(seen), "answered again without a trail"
    refused = trail.ask("POST", "/api/chat", key=BOB, body=CHAT)
    assert (refused.status, refused.headers["retry-after"]) == (503, "1")
    assert "audit trail" in refused.json["error"]
    trail.shell(f"rm {FULL}")
    until(lambda: trail.ask("POST", "/api/chat", key=BOB, body=CHAT).status == 200, "open again", 3)
    assert trail.audit()[-1]["verdict"] == "allowed"


def test_a_stream_that_runs_is_not_cut_by_a_full_disk(trail: Bench):
    observed(trail, audit="strict")
    with opened(trail, "bob", "20 50") as stream:
        read_until(stream, b'"n":1')
        fill(trail)
        for _ in range(40):
            trail.ask("GET", "/api/version", key=BOB)
        assert b'"done":true' in read_until(stream, b"0\r\n\r\n")


def test_a_scrape_says_what_was_counted(trail: Bench):
    before = figure(trail, 'fortress_tokens_total{principal="bob",model="tiny",direction="out"}')
    reply = trail.ask("POST", "/api/generate", key=BOB, body=generate("3 40"))
    assert reply.status == 200
    line = trail.audit()[-1]
    trail.ask("POST", "/api/chat", body=CHAT)
    found = families(trail.scrape())
    after = figure(trail, 'fortress_tokens_total{principal="bob",model="tiny",direction="out"}')
    assert after - before == line["tokens_out"]
    assert found["fortress_ollama_up"] == ["fortress_ollama_up 1"]
    assert found["fortress_slots"] == ["fortress_slots 100"]
    names = {row.split('"')[1] for row in found["fortress_certificate_expires_timestamp_seconds"]}
    assert names == {"server", "hop_client", "hop_authority"}
    for name in ("first_token", "chunk_gap", "request", "queue"):
        assert int(found[f"fortress_{name}_seconds"][-1].split()[1]) > 0, name
    assert any('reason="no-identity"' in row for row in found["fortress_refusals_total"])


def test_promtool_takes_a_scrape_for_what_it_says_it_is(trail: Bench):
    trail.ask("POST", "/api/generate", key=BOB, body=generate("3 5"))
    trail.ask("POST", "/api/chat", body=CHAT)
    words = ["docker", "run", "--rm", "-i", "--network", "none", "--entrypoint", "promtool"]
    words += [reference("prometheus", ENGINE), "check", "metrics"]
    done = subprocess.run(words, input=trail.scrape().encode(), capture_output=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_ten_thousand_paths_and_models_add_no_series(trail: Bench):
    proof = {"Host": DOMAIN, "Authorization": f"Bearer {BOB}"}

    def ask(first: int) -> list[int]:
        """As many as one connection carries. Returns: their statuses."""
        connection = http.client.HTTPConnection(DOMAIN)
        connection.sock = trail.connect()
        connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        found: list[int] = []
        for n in range(first, first + 1000):
            if n % 10:
                connection.request("GET", f"/path-{n}?{n}", headers=proof | {"User-Agent": f"agent-{n}"})
            else:
                body = json.dumps({"model": f"llama3.2:chosen-{n}", "prompt": "x", "stream": False})
                connection.request("POST", "/api/generate", body, proof)
            reply = connection.getresponse()
            reply.read()
            found.append(reply.status)
        return found

    def series() -> set[str]:
        return {line.rpartition(" ")[0] for line in trail.scrape().splitlines()}

    trail.ask("GET", "/first", key=BOB)
    trail.ask("POST", "/api/generate", key=BOB, body={"model": "llama3.2:first", "prompt": "x"})
    before, ended = series(), figure(trail, "fortress_audit_lines_total")
    with ThreadPoolExecutor(4) as several:
        statuses = Counter(status for each in several.map(ask, range(0, 10_000, 1000)) for status in each)
    assert statuses == {404: 9000, 200: 1000}
    assert figure(trail, "fortress_audit_lines_total") - ended == 10_000
    assert series() == before
    assert "chosen" not in json.dumps(trail.audit()[-1000:])


def test_a_users_first_request_after_a_restart_is_an_increase(trail: Bench):
    asked = 'fortress_requests_total{principal="bob",class="inference",verdict="allowed"}'
    tokens = 'fortress_tokens_total{principal="bob",model="tiny",direction="out"}'
    trail.kill()
    trail.start_again()
    assert {f"{asked} 0", f"{tokens} 0"} <= set(trail.scrape().splitlines())
    assert trail.ask("POST", "/api/generate", key=BOB, body=generate("3 0")).status == 200
    assert (figure(trail, asked), figure(trail, tokens)) == (1, trail.audit()[-1]["tokens_out"])


def test_a_dead_ollama_holds_a_scrape_up_for_two_seconds_at_most(trail: Bench):
    trail.containers["sidecar"].pause()
    try:
        time.sleep(5.1)  # what was asked before is not asked again sooner
        start = time.monotonic()
        assert families(trail.scrape())["fortress_ollama_up"] == ["fortress_ollama_up 0"]
        assert time.monotonic() - start < 2
        start = time.monotonic()
        trail.scrape()
        assert time.monotonic() - start < 0.5, "asked again within five seconds"
    finally:
        trail.containers["sidecar"].unpause()
    time.sleep(5.1)
    assert families(trail.scrape())["fortress_ollama_up"] == ["fortress_ollama_up 1"]


def test_a_stop_waits_for_streams_and_one_that_is_too_long_still_leaves_its_line(trail: Bench):
    """A stop ends in a kill after 30 s; whoever is killed writes nothing."""
    gateway = trail.containers["gateway"]
    until(lambda: bool(trail.audit()), "a trail to follow")
    words = ["docker", "exec", gateway.id, "tail", "-n", "+1", "-f", f"{FOLDER}/audit.json"]
    try:
        with subprocess.Popen(words, stdout=subprocess.PIPE) as follower:
            with opened(trail, "bob", "20 250") as short, opened(trail, "alice", "600 100") as long:
                read_until(short, b'"n":1')
                read_until(long, b'"n":1')
                gateway.kill("QUIT")
                assert b'"done":true' in read_until(short, b"0\r\n\r\n")
                start = time.monotonic()
                while long.recv(65536):
                    assert time.monotonic() - start < 25
            gateway.wait(timeout=10)
            assert follower.stdout is not None
            lines = [json.loads(line) for line in follower.stdout.read().splitlines()]
    finally:
        trail.start_again()
    ends = {line["principal"]: (line["verdict"], line["reason"], line["completion"]) for line in lines[-2:]}
    assert ends == {"bob": ("allowed", "", "finished"), "alice": ("cut", "stopping", "cut")}
