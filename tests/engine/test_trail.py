"""What a running fortress writes down of its tunnel and of commands, and the report that is made of it."""

import json
import re
from pathlib import Path
from typing import Any

from fortress import in_gateway, review
from render import trails
from tests.deployment import Client, Deployment, docker, printed

LOOKS_EVERY_S = 5


def events(fortress: Deployment) -> list[dict[str, Any]]:
    text = docker("exec", fortress.container("vpn-node"), "cat", "/var/log/vpn-node/events.json")
    return [json.loads(line) for line in text.splitlines()]


def figures(fortress: Deployment) -> str:
    return docker("exec", fortress.container("vpn-node"), "cat", "/var/log/vpn-node/metrics.prom")


def watcher(fortress: Deployment) -> str:
    script = "for p in /proc/[0-9]*; do grep -qa tunnel-watch $p/cmdline && echo ${p#/proc/}; done"
    found = docker("exec", fortress.container("vpn-node"), "sh", "-c", f"{script} | sort -n | head -1")
    return found.strip()


def test_devices_that_come_and_roam_are_told_and_counted(fortress: Deployment):
    told = len(events(fortress))
    bob = Client(fortress, "bob")
    try:
        assert bob.ask().status == 200
        Client.wait_until(lambda: "peer-came" in _new(fortress, told), "coming of bob", 3 * LOOKS_EVERY_S)
        bob.move(beside=True)
        Client.wait_until(lambda: "peer-roamed" in _new(fortress, told), "roaming of bob", 3 * LOOKS_EVERY_S)
        assert bob.ask().status == 200
    finally:
        bob.close()
    came = next(line for line in events(fortress)[told:] if (line["event"], line["user"]) == ("peer-came", "bob"))
    assert came["device"] == "default"
    assert re.fullmatch(r"[\d.]+:\d+", came["endpoint"])
    text = figures(fortress)
    assert "fortress_tunnel_up 1" in text
    series = r'fortress_peer_received_bytes_total\{user="bob",device="default"\} (\d+)'
    received = re.search(series, text)
    assert received is not None
    assert int(received[1]) > 1000
    written = text + json.dumps(events(fortress))
    assert not re.search(r"[A-Za-z0-9+/]{43}=", written), "a key is in what is written down"


def _new(fortress: Deployment, told: int) -> list[str]:
    return [line["event"] for line in events(fortress)[told:] if line["user"] == "bob"]


def test_a_watcher_that_dies_ends_no_tunnel_and_comes_back(fortress: Deployment, bob: Client):
    node = fortress.container("vpn-node")
    started = docker("inspect", "-f", "{{.State.StartedAt}}", node)
    with bob.stream() as stream:
        assert stream.flows()
        before = watcher(fortress)
        docker("exec", node, "sh", "-c", f"kill -9 {before}")
        Client.wait_until(lambda: watcher(fortress) not in ("", before), "new watcher")
        assert stream.flows()
    assert docker("inspect", "-f", "{{.State.StartedAt}}", node) == started
    Client.wait_until(lambda: "tunnel-watch ended; it is started again" in printed(node), "word of it")


def test_every_trail_knows_how_old_it_may_grow(fortress: Deployment):
    for part in ("gateway", "vpn-node"):
        assert docker("exec", fortress.container(part), "cat", f"/config/current/{trails.FILE}").splitlines()[1:] == [
            "400"
        ]


def test_a_new_device_is_told_by_its_name_without_a_restart(fortress: Deployment):
    node, told = fortress.container("vpn-node"), len(events(fortress))
    started = docker("inspect", "-f", "{{.State.StartedAt}}", node)
    fortress.config["users"]["erin"] = {"devices": ["tablet"]}
    try:
        fortress.pulumi_up()

        def new() -> list[tuple[str, str, str]]:
            return [(line["event"], line["user"], line["device"]) for line in events(fortress)[told:]]

        Client.wait_until(lambda: ("peer-new", "erin", "tablet") in new(), "new device", 3 * LOOKS_EVERY_S)
    finally:
        del fortress.config["users"]["erin"]
        fortress.pulumi_up()
    assert docker("inspect", "-f", "{{.State.StartedAt}}", node) == started
    Client.wait_until(lambda: "erin" not in figures(fortress), "end of the removed device's series", 3 * LOOKS_EVERY_S)


def test_commands_are_told_and_the_report_counts_what_was_asked(fortress: Deployment, bob: Client, tmp_path: Path):
    assert bob.ask().status == 200
    assert bob.ask(key="0" * 64).status == 401
    fortress.fortress("bundle", "bob", "--out", str(tmp_path / "bundle"))
    assert fortress.fortress("bundle", "nobody", check=False)
    told = [(line["command"], line["about"], line["result"]) for line in fortress.commands()]
    assert told[0] == ("up", fortress.stack, "done")
    assert told[-2:] == [("bundle", "bob", "done"), ("bundle", "nobody", "failed")]
    assert {line["by"] for line in fortress.commands()} == {in_gateway.operator()}

    month = f"{review.now():%Y-%m}"
    Client.wait_until(lambda: fortress.audit()[-1]["status"] == 401, "line of the last request")
    lines = [line for line in fortress.audit() if line["time"].startswith(month)]
    listed = fortress.fortress("logs", "--user", "bob", "--verdict", "allowed", "--since", "1h", "--json").splitlines()
    his_own = [line for line in listed if '"principal":"bob"' in line]
    assert his_own
    assert json.loads(his_own[-1])["route"] == "/api/generate"
    denied = fortress.fortress("logs", "--verdict", "denied")
    assert "401" in denied
    used = fortress.fortress("usage", "--user", "bob", "--since", "30d", "--json")
    counted = json.loads(used[used.index("{") :])["users"]["bob"]
    assert counted["requests"] == sum(line["principal"] == "bob" for line in fortress.audit())
    fortress.fortress("report", "--month", month, "--out", str(tmp_path))
    page = (tmp_path / f"report-{fortress.stack}-{month}.html").read_text()
    text = (tmp_path / f"report-{fortress.stack}-{month}.md").read_text()
    assert f"- Requests: **{len(lines)}**" in text
    his = re.search(r"\| bob \| user \| (\d+) \|", text)
    assert his is not None
    assert int(his[1]) == sum(line["principal"] == "bob" for line in lines)
    assert "| bob | API key | 1 |  | 0 d |" in text
    assert re.search(r"\| fortress-pki-server \| 20\d\d-\d\d-\d\d \| \d+ \|", text)
    assert "| bundle | bob |" in text
    for secret in (bob.key, *re.findall(r"[A-Za-z0-9+/]{43}=", json.dumps(fortress.bundle("bob")))):
        assert secret not in page + text
    said = " ".join(fortress.fortress("report", "--month", "11.2026", check=False).split())
    assert "'11.2026' is no month; write it like 2026-11" in said
