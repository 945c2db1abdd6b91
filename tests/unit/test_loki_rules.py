"""Loki's rules, asked of a real Loki about lines of known times: promtool tests only those of Prometheus."""

import json
import os
import subprocess
import time
from collections.abc import Iterator
from typing import Any
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

import pytest
import yaml

from components.observability import LOKI, UIDS
from images import reference
from render import loki
from tests.unit.test_render_observability import CASES

MINUTE = 60
RULES = {rule["alert"]: rule["expr"] for group in yaml.safe_load(loki.rules())["groups"] for rule in group["rules"]}


class Loki:
    """One in a container of its own, without a volume; this process is its only client."""

    def __init__(self, id_: str) -> None:
        self.id = id_
        look = ["docker", "inspect", "-f", "{{.NetworkSettings.IPAddress}}", id_]
        self.url = f"http://{subprocess.check_output(look, text=True).strip()}:{loki.PORT}"

    def ask(self, path: str, body: Any = None) -> bytes:
        data = None if body is None else json.dumps(body).encode()
        with urlopen(Request(self.url + path, data, {"Content-Type": "application/json"}), timeout=10) as reply:
            return reply.read()

    def write(self, at: float, kind: str, **fields: str) -> None:
        row = [str(int(at * 1e9)), json.dumps(fields), fields]
        self.ask("/loki/api/v1/push", {"streams": [{"stream": {"kind": kind, "service_name": "x"}, "values": [row]}]})

    def fires(self, alert: str, at: float) -> list[dict[str, str]]:
        """Of whom or what an alert is, at a time."""
        found = json.loads(self.ask("/loki/api/v1/query?" + urlencode({"query": RULES[alert], "time": at})))
        return [row["metric"] for row in found["data"]["result"]]


@pytest.fixture(scope="module")
def there() -> Iterator[Loki]:
    of = CASES["plain"]
    config = loki.config(of, of.plan).replace(f'"{of.plan.telemetry.loki}"', '"0.0.0.0"')
    image = reference(LOKI, os.environ.get("FORTRESS_ENGINE", "registry-only"))
    run = ["docker", "run", "-d", "-i", "--rm", "--read-only", "--cap-drop", "ALL", "--memory", "512m"]
    for folder in ("/var/lib/loki", "/config/current", "/tmp"):
        run += ["--tmpfs", f"{folder}:uid={UIDS[LOKI]}"]
    run += ["-e", f"CONFIG={config}", "--entrypoint", "sh"]
    script = 'printf "%s" "$CONFIG" > /tmp/loki.yaml && exec loki -config.file=/tmp/loki.yaml'
    made = Loki(subprocess.check_output([*run, image, "-c", script], text=True).strip())
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                made.ask("/ready")
                break
            except (URLError, OSError) as error:
                assert time.monotonic() < deadline, error
                time.sleep(0.3)
        yield made
    finally:
        subprocess.run(["docker", "rm", "-f", made.id], capture_output=True, check=False)


def test_an_admins_route_is_told_for_an_hour_of_each_who_tried(there: Loki):
    tried = time.time() - 2 * 60 * MINUTE
    there.write(tried, "audit", principal="bob", reason="never", verdict="refused")
    there.write(tried, "audit", principal="", reason="admin-only", verdict="refused")
    there.write(tried, "audit", principal="ada", reason="wrong-method", verdict="refused")
    there.write(tried, "login", principal="eve", reason="never", verdict="refused")
    for after, told in ((-1, 0), (1, 2), (59 * MINUTE, 2), (61 * MINUTE, 0)):
        found = there.fires("AdminRouteTried", tried + after)
        assert sorted(row.get("principal", "") for row in found) == ["", "bob"][:told], after


def test_a_new_key_is_told_of_its_device(there: Loki):
    came = time.time() - 3 * 60 * MINUTE
    there.write(came, "tunnel", event="peer-new", user="crew", device="phone")
    there.write(came, "tunnel", event="peer-came", user="crew", device="laptop")
    assert there.fires("NewPeer", came + 59 * MINUTE) == [{"user": "crew", "device": "phone"}]
    assert there.fires("NewPeer", came + 61 * MINUTE) == []


def test_a_device_roams_with_more_than_twelve_moves_in_a_day(there: Loki):
    began = time.time() - 40 * 60 * MINUTE
    for move in range(13):
        there.write(began + move * MINUTE, "tunnel", event="peer-roamed", user="ada", device="phone")
        there.write(began + move * 3 * 60 * MINUTE, "tunnel", event="peer-roamed", user="bob", device="phone")
    assert there.fires("PeerRoams", began + 11.5 * MINUTE) == []
    assert there.fires("PeerRoams", began + 13 * MINUTE) == [{"user": "ada", "device": "phone"}]
    assert there.fires("PeerRoams", began + 25 * 60 * MINUTE) == []
