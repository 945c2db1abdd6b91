"""A fortress that is watched in full: each line once in Loki, whatever fails.

`FORTRESS_SOAK=1` (`make soak`) takes the long form: 10,000 requests, two minutes without Loki, an hour of figures.
"""

import json
import os
import re
import secrets
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from components.observability import UIDS
from images import WATCHERS
from tests.deployment import DOMAIN, Client, Deployment, deployed, docker, printed
from tests.watched import Told, Watched

SOAK = os.environ.get("FORTRESS_SOAK") == "1"
REQUESTS, OUTAGE_S, MEASURE_S = (10_000, 120, 3600) if SOAK else (3_000, 20, 120)
VISIBLE_WITHIN_S = 5
MEMORY_MB = 400

SEND = f"""
import http.client, json, socket, ssl, sys, threading
count, key = int(sys.argv[1]), sys.argv[2]
tls = ssl.create_default_context(cafile="/tmp/bundle/ca.pem")
seen, lock = [], threading.Lock()
answered = {{"n": 0}}
def one(n):
    proof = {{"Authorization": f"Bearer {{key if n % 5 else 'wrong'}}"}}
    if n % 50 == 7:  # asked, and gone before the answer
        with tls.wrap_socket(socket.create_connection(("{DOMAIN}", 443)), server_hostname="{DOMAIN}") as raw:
            body = json.dumps({{"model": "tiny", "prompt": "x"}}).encode()
            head = f"POST /api/generate HTTP/1.1\\r\\nHost: {DOMAIN}\\r\\nAuthorization: Bearer {{key}}\\r\\n"
            raw.sendall(head.encode() + f"Content-Length: {{len(body)}}\\r\\n\\r\\n".encode() + body)
        return
    there = http.client.HTTPSConnection("{DOMAIN}", context=tls, timeout=60)
    there.request("GET", ("/api/tags", f"/nowhere/{{n}}", "/v1/models")[n % 3], headers=proof)
    answer = there.getresponse()
    answer.read()
    there.close()
    with lock:
        seen.append(answer.headers["X-Request-Id"])
def some(numbers):
    for n in numbers:
        one(n)
threads = [threading.Thread(target=some, args=(range(first, count, 4),)) for first in range(4)]
[each.start() for each in threads]; [each.join() for each in threads]
print(json.dumps(seen))
"""
# Each address once, over four connections.
ASK_EVERYTHING = f"""
import http.client, json, ssl, sys
from concurrent.futures import ThreadPoolExecutor
count, key = int(sys.argv[1]), sys.argv[2]
tls = ssl.create_default_context(cafile="/tmp/bundle/ca.pem")
def some(first):
    there, seen = http.client.HTTPSConnection("{DOMAIN}", context=tls, timeout=60), []
    for n in range(first, count, 4):
        there.request("GET", f"/{{n}}/{{n}}?{{n}}", headers={{"Authorization": f"Bearer {{key}}"}})
        answer = there.getresponse()
        answer.read()
        seen.append(answer.headers["X-Request-Id"])
    return seen
with ThreadPoolExecutor(4) as several:
    print(json.dumps(sum(several.map(some, range(4)), [])))
"""


@pytest.fixture(scope="module")
def watched(told: Told) -> Iterator[Watched]:
    deployment = Deployment.fresh()
    deployment.config["observability"] = {"form": "full", "alerts": {"webhook": {}}}
    deployment.encrypt("observability.alerts.webhook.url", told.url)
    with deployed(deployment) as made:
        yield Watched(made)


@pytest.fixture
def bob(watched: Watched) -> Iterator[Client]:
    made = Client(watched.deployment, "bob")
    yield made
    made.close()


def test_everything_is_healthy_asked_for_its_figures_and_no_more_than_it_must_be(watched: Watched):
    for part in WATCHERS:
        assert watched.health(part) == "healthy", part
        config = json.loads(docker("inspect", watched.deployment.container(part)))[0]
        assert config["Config"]["User"] == f"{UIDS[part]}:{UIDS[part]}"
        assert config["HostConfig"]["ReadonlyRootfs"] is True
        assert not config["HostConfig"]["PortBindings"]
        networks = {name.rpartition("-")[2] for name in config["NetworkSettings"]["Networks"]}
        expected = {"prometheus": {"telemetry", "watch"}, "alertmanager": {"telemetry", "notify"}}
        assert networks == expected.get(part, {"telemetry"})
    for part in ("vpn-node", "ollama", "ollama-sidecar"):
        config = json.loads(docker("inspect", watched.deployment.container(part)))[0]
        assert not [name for name in config["NetworkSettings"]["Networks"] if name.endswith(("telemetry", "watch"))]
    asked = {"node", "collector", "loki", "prometheus", "alertmanager"}
    Client.wait_until(lambda: {job for job, up in watched.prometheus("up").items() if up} >= asked, "figures", 45)


def test_the_secret_address_of_whom_to_tell_is_to_be_seen_nowhere(watched: Watched, told: Told):
    made = watched.deployment
    shown = made.pulumi("stack", "export")
    for id_ in made.containers().values():
        shown += docker("inspect", id_) + printed(id_)
    there = watched.plan.telemetry.alertmanager
    shown += json.dumps(watched.ask("alertmanager", f"http://{there}:9093/api/v2/status"))
    assert told.secret not in shown


def test_a_requests_line_is_in_loki_within_five_seconds(watched: Watched, bob: Client):
    times: list[float] = []
    sent, id_ = time.time(), ""
    for _ in range(5):
        sent = time.time()
        id_ = bob.curl("/api/tags").headers["x-request-id"]
        answered = time.time()
        while not watched.is_there(id_, sent):
            assert time.time() - answered < 3 * VISIBLE_WITHIN_S
        times.append(time.time() - answered)
    print(f"in Loki after {max(times):.1f} s")
    assert max(times) <= VISIBLE_WITHIN_S, times
    [line] = [line for line in watched.lines(sent) if id_ in line]
    assert json.loads(line)["principal"] == "bob"
    start = int((sent - 5) * 1e9)
    by_metadata = watched.loki("query_range", query=f'{{kind="audit"}} | request_id="{id_}"', start=start)
    assert len(by_metadata["result"]) == 1, "what is not a label can be asked for all the same"


@pytest.mark.timeout(1800)
def test_every_line_is_in_loki_exactly_once_whatever_fails(watched: Watched, bob: Client):
    made = watched.deployment
    began = time.time()
    before = len(watched.trail())
    seen: list[str] = []
    faults_at: list[str] = []
    chunk = REQUESTS // 5

    def send(count: int) -> None:
        seen.extend(json.loads(bob.python(SEND, str(count), bob.key, timeout=600)))

    def while_sending(*faults: Any) -> None:
        sending = threading.Thread(target=send, args=(chunk,))
        sending.start()
        for fault in faults:
            time.sleep(1)
            faults_at.append(time.strftime("%H:%M:%SZ", time.gmtime()))
            fault()
        sending.join()

    def rotate() -> None:
        name = time.strftime("audit-%Y%m%dT%H%M%SZ.json", time.gmtime())
        script = f"cd /var/log/gateway && mv audit.json {name} && kill -USR1 1"
        docker("exec", made.container("gateway"), "sh", "-c", script)

    def reload() -> None:
        docker("exec", made.container("gateway"), "sh", "-c", "kill -HUP 1")

    try:
        while_sending(rotate, reload)
        while_sending(lambda: watched.kill("collector"))
        docker("stop", made.container("loki"))
        stopped = time.time()
        while_sending(lambda: watched.kill("collector"), rotate)
        time.sleep(max(0.0, OUTAGE_S - (time.time() - stopped)))
    finally:
        docker("start", made.container("loki"))
    # Killed in the second in which it came back, it once lost a batch that it had just taken (docs/observability.md).
    Client.wait_until(lambda: watched.answers("loki"), "Loki", 60)
    while_sending(lambda: watched.kill("loki"))
    while_sending(reload)

    trail = watched.trail()
    written = [line["request_id"] for line in trail[before:]] if len(trail) > before else []
    assert len(set(written)) == len(written)
    assert set(seen) <= set(written), "a request left no line in the gateway's own files"
    assert len(written) == chunk * 5, f"{len(written)} lines of {chunk * 5} requests"
    wanted = set(written)

    found: Counter[str] = Counter()

    def all_there() -> bool:
        nonlocal found
        try:
            found = watched.ids(began)
        except AssertionError:
            return False  # Loki is on its way back
        return wanted <= set(found)

    deadline = time.monotonic() + 120
    while not all_there() and time.monotonic() < deadline:
        time.sleep(1)

    def places(ids: set[str]) -> str:
        found = [f"{place} ({line['time']})" for place, line in enumerate(trail) if line["request_id"] in ids]
        return f"{len(found)} of {len(trail)}: {found[:3]} to {found[-1:]}; faults at {faults_at}"

    missing, doubled = wanted - set(found), {id_ for id_ in wanted if found[id_] > 1}
    words = printed(made.container("collector"))[-3000:] if missing else ""
    assert not missing, f"not in Loki: {places(missing)}; it said {words}"
    assert not doubled, f"twice in Loki: {places(doubled)}"
    assert not set(found) - {line["request_id"] for line in trail}


def test_a_line_that_is_read_twice_is_one(watched: Watched, bob: Client):
    """As after a kill between a line's way to Loki and the note of it, but for all lines at once."""
    began = time.time()
    ids = {bob.curl("/api/tags").headers["x-request-id"] for _ in range(20)}
    Client.wait_until(lambda: ids <= set(watched.ids(began)), "lines of them all", 15)
    docker("exec", watched.deployment.container("collector"), "sh", "-c", "rm -rf /var/lib/collector/*")
    watched.kill("collector")
    last = bob.curl("/api/tags").headers["x-request-id"]
    Client.wait_until(lambda: watched.is_there(last, began), "a line after its return", 60)
    found = watched.ids(began)
    assert {id_: found[id_] for id_ in ids} == dict.fromkeys(ids, 1)


def test_strange_lines_stop_nothing(watched: Watched, bob: Client):
    """Written by hand: the gateway itself writes none of them."""
    mark = secrets.token_hex(6)
    sent = time.time()
    script = (
        f"import sys; f=open(sys.argv[1],'ab'); f.write(b'no json {mark} 1\\n');"
        f'f.write(b\'\\xff\\xfe {mark} 2\\n\'); f.write(b\'{{"time":"2100-01-01T00:00:00.000Z","m":"{mark} 3"}}\\n\');'
        f'f.write(b\'{{"time":"never","m":"{mark} 4"}}\\n\');'
        f"f.write(b'{{\"m\":\"{mark} 5 ' + b'x'*1000000 + b'\"}}\\n'); f.write(b'{{\"m\":\"{mark} 6\"}}\\n')"
    )
    volume = json.loads(docker("volume", "inspect", f"fortress-{watched.deployment.stack}-audit"))[0]["Mountpoint"]
    strange = Path(volume) / "audit-strange.json"
    subprocess.run([sys.executable, "-c", script, str(strange)], check=True)
    try:
        seen = {}

        def all_of_them() -> bool:
            found = watched.lines(sent, f'{{kind="audit"}} |= "{mark}"')
            seen["n"] = {each for line in found for each in re.findall(rf"{mark} (\d)", line)}
            return seen["n"] == set("123456")

        Client.wait_until(all_of_them, f"all strange lines, {seen}", 20)
        id_ = bob.curl("/api/tags").headers["x-request-id"]
        Client.wait_until(lambda: watched.is_there(id_, sent), "a line after them", VISIBLE_WITHIN_S)
    finally:
        strange.unlink()


def test_what_a_client_says_is_seen_nowhere(watched: Watched, bob: Client):
    """Neither prompt nor key, answer, query or made-up name: in no line, label, figure or log of any part."""
    mark, sent = secrets.token_hex(8), time.time()
    answer = bob.ask(prompt=f"say {mark}", options={"num_predict": 24})
    assert answer.status == 200
    bob.ask(model=f"m{mark}")
    agent, cookie = f"User-Agent: {mark}", f"Cookie: __Host-fortress={mark}"
    id_ = bob.curl(f"/{mark}?{mark}", "-H", agent, "-H", cookie, "-H", f"X-Request-Id: {mark}").headers["x-request-id"]
    wrong = secrets.token_hex(32)
    assert bob.curl("/api/tags", key=wrong).status == 401
    Client.wait_until(lambda: watched.is_there(id_, sent), "its line", 15)
    time.sleep(16)  # until the figures have been asked for once more

    shown = watched.shown(sent)
    assert id_ in shown, "nothing was looked at"
    for secret in (mark, bob.key, wrong, json.loads(answer.body)["response"].strip()):
        assert secret
        assert secret not in shown


def test_figures_come_back_after_their_folder_is_gone(watched: Watched):
    made = watched.deployment
    docker("exec", made.container("prometheus"), "sh", "-c", "rm -rf /var/lib/prometheus/*")
    watched.kill("prometheus")

    def asked() -> bool:
        try:
            return watched.prometheus("up").get("loki") == 1
        except AssertionError:
            return False

    Client.wait_until(asked, "figures", 60)


def test_together_they_need_little_memory(watched: Watched, bob: Client):
    """Five requests a second."""
    script = SEND.replace("one(n)\nthreads", "one(n)\n        import time; time.sleep(0.8)\nthreads")
    bob.python(script, str(5 * MEASURE_S), bob.key, timeout=MEASURE_S * 2 + 60)
    used = {part: watched.resident_mb(part) for part in ("collector", "loki", "prometheus", "alertmanager")}
    print(f"resident after {MEASURE_S} s of 5 requests/s: {sum(used.values()):.0f} MB", used)
    assert sum(used.values()) <= MEMORY_MB, used


def test_an_unchanged_program_changes_nothing(watched: Watched):
    assert set(watched.deployment.planned()) == {"same"}


def test_ten_thousand_addresses_of_requests_are_one_stream(watched: Watched, bob: Client):
    """The last one: so many lines are more than Loki says at once to whoever asks for this time."""
    sent = time.time()
    ids = json.loads(bob.python(ASK_EVERYTHING, "10000", bob.key))
    assert len(set(ids)) == 10_000

    def arrived() -> int:
        window = int(time.time() - sent) + 1
        found = watched.loki("query", query=f'sum(count_over_time({{kind="audit"}}[{window}s]))')["result"]
        return int(found[0]["value"][1]) if found else 0

    Client.wait_until(lambda: arrived() >= len(ids), "lines of them all", 60)
    assert watched.is_there(ids[-1], sent)
    series = watched.loki("series", **{"match[]": '{kind="audit"}', "start": int((sent - 5) * 1e9)})
    assert series == [{"kind": "audit", "service_name": "gateway"}]
