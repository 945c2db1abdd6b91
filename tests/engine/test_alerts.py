"""Each rule fires for its cause and reaches a receiver, in a deployment whose watchers live faster.

All times of the deployed rules, scrapes and messages are divided by one number; expressions, labels and thresholds are
those that `up` wrote. Every cause but the GPU's is a real one: what is said to be down is down, who is said to guess
guesses.
"""

import json
import re
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import yaml

from components.host import ROOT
from fortress import stack_file
from render import prometheus
from tests.deployment import DOMAIN, Client, Deployment, deployed, docker, meanwhile
from tests.unit import test_gpu_watch as gpu
from tests.unit.gateway.harness import Authority
from tests.watched import FASTER, Told, Watched, faster

RULES = [
    rule
    for file in sorted(prometheus.RULES.parent.glob("*.yml"))
    for group in yaml.safe_load(file.read_text())["groups"]
    for rule in group["rules"]
]
CREW = [f"device-{n}" for n in range(10)]


def live_faster(watched: Watched) -> None:
    """Rewrite what was delivered, and tell its readers as `up` does."""
    for part, file, reload in (
        ("prometheus", "rules.yml", ""),
        ("prometheus", "prometheus.yml", "HUP"),
        ("alertmanager", "alertmanager.yml", "HUP"),
        ("loki", "rules/fake/rules.yml", ""),
        ("loki", "loki.yaml", "TERM"),
    ):
        path = host_file(watched, part, file)
        text = path.read_text()
        if file == "loki.yaml":  # of its many times, only how often it looks at the rules
            text = re.sub(r"evaluation_interval: \w+", lambda found: faster(found[0]), text)
        elif file == "prometheus.yml":  # a busy machine has as long as there is to answer
            text = faster(text.replace("scrape_timeout: 10s", "scrape_timeout: 15s"))
        else:
            text = faster(text)
        path.write_text(text)
        if reload:
            docker("exec", watched.deployment.container(part), "sh", "-c", f"kill -{reload} 1")
    Client.wait_until(lambda: watched.answers("loki"), "Loki", 60)


def host_file(watched: Watched, part: str, file: str) -> Path:
    return Path(ROOT) / watched.deployment.stack / part / "current" / file


class World:
    """What is brought about, once each, and held until all rules that it is for have been heard of."""

    def __init__(self, watched: Watched, told: Told) -> None:
        self.watched, self.told, self.deployment = watched, told, watched.deployment
        self.bob, self.ada = Client(self.deployment, "bob"), Client(self.deployment, "ada", "laptop")
        self.held: dict[Bring, ExitStack] = {}

    def begin(self, bring: "Bring") -> None:
        if bring not in self.held:
            self.held[bring] = ExitStack()
            self.held[bring].enter_context(bring(self))

    def heard(self, name: str) -> None:
        rest = list(CAUSES)[list(CAUSES).index(name) + 1 :]
        bring = CAUSES[name].bring
        if bring not in {CAUSES[other].bring for other in rest}:
            self.held[bring].close()

    def close(self) -> None:
        with ExitStack() as everything:
            for client in (self.bob, self.ada):
                everything.callback(client.close)
            for held in self.held.values():
                everything.push(held)

    def told_of(self, name: str, about: dict[str, str]) -> list[dict[str, Any]]:
        return [alert for alert in self.told.of(name) if about.items() <= alert["labels"].items()]

    def volume(self, name: str) -> Path:
        """Where it lies on this machine."""
        return Path(
            json.loads(docker("volume", "inspect", f"fortress-{self.deployment.stack}-{name}"))[0]["Mountpoint"]
        )

    @contextmanager
    def disk(self, part: str, path: str, kilobytes: int, left: int) -> Iterator[None]:
        """A nearly full disk in the place of a folder, for one container alone."""
        inside = ["nsenter", "-t", str(self.watched.process(part)), "-m", "-p"]
        disk = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k,mode=1777", "small", path]
        subprocess.run([*inside, *disk], check=True)
        try:
            fill = f"head -c {(kilobytes - left) * 1024} /dev/zero > {path}/full"
            subprocess.run([*inside, "sh", "-c", fill], check=True)
            yield
        finally:
            subprocess.run([*inside, "umount", "-l", path], check=True)


Bring = Callable[[World], AbstractContextManager[None]]


@contextmanager
def a_device_that_comes_from_everywhere(world: World) -> Iterator[None]:
    """Each time it goes to where it was not heard last."""
    walker = Client(world.deployment, "walker")
    events = world.volume("tunnel") / "events.json"

    def walk() -> None:
        lines = [json.loads(line) for line in events.read_text().splitlines()]
        last = next((line["endpoint"] for line in reversed(lines) if line["user"] == "walker"), "")
        walker.move(beside=last.rpartition(":")[0] != walker.address_beside())

    try:
        with meanwhile(walk, every_s=2):
            yield
    finally:
        walker.close()


@contextmanager
def ten_new_devices(world: World) -> Iterator[None]:
    world.deployment.config["users"]["crew"] = {"devices": CREW}
    world.deployment.pulumi_up()
    yield


@contextmanager
def guessed_keys(world: World) -> Iterator[None]:
    proof = ["-H", f"Authorization: Bearer {'0' * 64}"]
    world.bob.run("curl", "-s", "--cacert", "/tmp/bundle/ca.pem", *proof, f"https://{DOMAIN}/api/tags?[1-90]")
    yield


@contextmanager
def an_admins_route(world: World) -> Iterator[None]:
    assert world.bob.curl("/api/pull", "-d", '{"model":"x"}').status == 404
    yield


@contextmanager
def a_spent_budget(world: World) -> Iterator[None]:
    spender = Client(world.deployment, "spender")
    try:
        Client.wait_until(lambda: spender.ask(options={"num_predict": 1000}).status == 429, "end of the budget", 300)
        yield
    finally:
        spender.close()


@contextmanager
def a_line_of_too_much(world: World) -> Iterator[None]:
    """Loki takes 64 kB of fields; the gateway itself never writes such a line."""
    much = {f"field-{n}": "x" * 2000 for n in range(40)}
    line = json.dumps({"time": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z"), "event": "much", **much})
    (world.volume("audit") / "audit-much.json").write_text(line + "\n")
    yield


@contextmanager
def a_gpu_that_is_lost(world: World) -> Iterator[None]:
    """There is none here: what gpu-watch writes of one, in a file that the exporter reads anyway."""
    with TemporaryDirectory() as folder:
        watch = gpu.Watch(Path(folder))
        watch.answers("Failed to initialize NVML: Unknown Error", code=255)
        assert watch() == 1
        (world.volume("tunnel") / "gpu.prom").write_text((watch.folder / "gpu.prom").read_text())
    yield


@contextmanager
def a_full_disk(world: World) -> Iterator[None]:
    """One more of those that the exporter looks at; 6 % are left."""
    with world.disk("node-exporter", "/volumes/audit", 1024, left=64):
        yield


@contextmanager
def a_short_certificate(world: World) -> Iterator[None]:
    """It lies where the gateway's does, and none is served: only its end is read."""
    pem, _ = Authority("short").leaf("short.example.com")
    path = host_file(world.watched, "gateway", "tls/server.pem")
    path.write_text(pem)
    yield


@contextmanager
def nobody_answers_at_the_mail_server(world: World) -> Iterator[None]:
    yield  # the config names a port at which nobody listens


@contextmanager
def a_queue(world: World) -> Iterator[None]:
    """Twelve ask for long answers, again and again, and one at a time is answered."""
    body = json.dumps({"model": "tiny", "prompt": "hello", "options": {"num_predict": 1_000_000}})
    script = (
        'while :; do curl -sN -o /dev/null --cacert /tmp/bundle/ca.pem -H "Authorization: Bearer $1" -d "$2" '
        f"https://{DOMAIN}/api/generate; done"
    )
    crowd = [
        subprocess.Popen(["docker", "exec", client.id, "sh", "-c", script, "crowd", client.key, body])
        for client, places in ((world.bob, 4), (world.ada, 8))
        for _ in range(places)
    ]
    try:
        yield
    finally:
        for client in (world.bob, world.ada):
            client.end("crowd")
            client.end("api/generate")
        for each in crowd:
            each.kill()
            each.wait()


@contextmanager
def a_full_disk_under_the_trail(world: World) -> Iterator[None]:
    with world.disk("gateway", "/var/log/gateway", 4, left=0):
        for _ in range(3):
            assert world.bob.curl("/api/tags").status == 200
    yield


@contextmanager
def no_collector(world: World) -> Iterator[None]:
    docker("stop", world.deployment.container("collector"))
    with meanwhile(lambda: world.bob.curl("/api/tags"), every_s=2):
        yield


@contextmanager
def answers_that_nobody_waits_for(world: World) -> Iterator[None]:
    """Each in one piece, after minutes, and who asks gives up after six seconds: so looks a model that hangs.

    One whose process stands still keeps Ollama from saying that it is there, for ten seconds at a time: too short for
    OllamaDown, but not where it waits for four.
    """
    options = {"num_predict": 1_000_000, "seed": 1}  # as Client.stream has it: it does not end early
    body = json.dumps({"model": "tiny", "prompt": "hello 1234", "stream": False, "options": options})
    ask = ["curl", "-s", "-m", "6", "--cacert", "/tmp/bundle/ca.pem", "-H", f"Authorization: Bearer {world.bob.key}"]
    with meanwhile(lambda: world.bob.run(*ask, "-d", body, f"https://{DOMAIN}/api/generate", check=False), 0.5):
        yield


@contextmanager
def no_ollama(world: World) -> Iterator[None]:
    docker("stop", world.deployment.container("ollama"))
    yield


@contextmanager
def no_tunnel(world: World) -> Iterator[None]:
    docker("stop", world.deployment.container("vpn-node"))
    yield


@dataclass(frozen=True)
class Cause:
    bring: Bring
    about: dict[str, str]
    """What the alert says of whom or what it is about."""
    at_once: bool = True
    """Brought about with all the others; else one after the other, for it would disturb them."""


CAUSES = {
    "NewPeer": Cause(ten_new_devices, {"user": "crew"}),
    "AuthFailureBurst": Cause(guessed_keys, {}),
    "AdminRouteTried": Cause(an_admins_route, {"principal": "bob"}),
    "BudgetNearlySpent": Cause(a_spent_budget, {"principal": "spender", "period": "day"}),
    "LinesRefused": Cause(a_line_of_too_much, {}),
    "DiskFilling": Cause(a_full_disk, {"device": "small"}),
    "CertificateExpires": Cause(a_short_certificate, {"certificate": "server"}),
    "GpuGone": Cause(a_gpu_that_is_lost, {}),
    "NobodyIsTold": Cause(nobody_answers_at_the_mail_server, {"integration": "email"}),
    "QueueGrowing": Cause(a_queue, {}),
    "FirstTokenSlow": Cause(a_queue, {}),
    "PeerRoams": Cause(a_device_that_comes_from_everywhere, {"user": "walker", "device": "default"}),
    "AuditLinesLost": Cause(a_full_disk_under_the_trail, {}, at_once=False),
    "ScrapeDown": Cause(no_collector, {"job": "collector"}, at_once=False),
    "LogSilence": Cause(no_collector, {}, at_once=False),
    "AnswersFail": Cause(answers_that_nobody_waits_for, {}, at_once=False),
    "OllamaDown": Cause(no_ollama, {}, at_once=False),
    "TunnelDown": Cause(no_tunnel, {}, at_once=False),
}


@pytest.fixture(scope="module")
def watched(told: Told) -> Iterator[Watched]:
    with socket.socket() as taken:  # bound and never listening: nobody answers there
        taken.bind((stack_file.own_address(), 0))
        mail = {"to": "ada@example.com", "sender": "fortress@example.com", "user": "fortress"}
        mail["server"] = f"{stack_file.own_address()}:{taken.getsockname()[1]}"
        deployment = Deployment.fresh()
        deployment.config["observability"] = {"form": "full", "alerts": {"webhook": {}, "email": mail}}
        deployment.encrypt("observability.alerts.webhook.url", told.url)
        deployment.encrypt("observability.alerts.email.password", "s3cret")
        deployment.config["gateway"] = {"slots": 1, "queue_wait_s": 300}
        deployment.config["users"] |= {"spender": {"limits": {"tokens_per_day": 10_000}}, "walker": {}}
        with deployed(deployment) as made:
            there = Watched(made)
            live_faster(there)
            yield there


@pytest.fixture(scope="module")
def world(watched: Watched, told: Told) -> Iterator[World]:
    made = World(watched, told)
    try:
        for cause in CAUSES.values():
            if cause.at_once:
                made.begin(cause.bring)
        yield made
    finally:
        made.close()


def test_every_rule_has_a_cause():
    assert {rule["alert"] for rule in RULES} == set(CAUSES)


def test_nothing_is_told_without_a_cause(watched: Watched):
    time.sleep(20)
    query = 'count by (job) (label_replace(ALERTS{alertstate="firing"}, "job", "$1", "alertname", "(.*)"))'
    # The mail server is down from the beginning; how full this machine's own disk is, is not the tests' doing.
    assert set(watched.prometheus(query)) <= {"NobodyIsTold", "DiskFilling"}


def test_what_came_late_to_loki_is_told_all_the_same(world: World):
    """Half an hour late, in the time of these tests."""
    then = datetime.now(UTC) - timedelta(minutes=30) / FASTER
    line = {"time": then.strftime("%Y-%m-%dT%H:%M:%S.000Z"), "principal": "late", "reason": "never"}
    (world.volume("audit") / "audit-late.json").write_text(json.dumps(line) + "\n")
    Client.wait_until(lambda: world.told_of("AdminRouteTried", {"principal": "late"}), "word of a late line", 60)


@pytest.mark.parametrize("name", CAUSES)
def test_somebody_hears_of(name: str, world: World):
    cause = CAUSES[name]
    world.begin(cause.bring)
    Client.wait_until(lambda: world.told_of(name, cause.about), f"word of {name}", 300)
    [rule] = [rule for rule in RULES if rule["alert"] == name]
    world.heard(name)
    alert = world.told_of(name, cause.about)[0]
    assert alert["labels"]["severity"] == rule["labels"]["severity"]
    assert alert["annotations"]["do"]
    assert not re.search(r"no value|%!|\{\{|NaN|Inf", json.dumps(alert["annotations"])), alert["annotations"]


def test_ten_new_devices_are_one_message(world: World):
    told = [
        [each["labels"]["device"] for each in message if each["labels"].get("user") == "crew"]
        for message in world.told.messages
    ]
    assert [sorted(devices) for devices in told if devices] == [CREW]


def test_each_who_tried_an_admins_route_is_a_message_of_its_own(world: World):
    """Two did within an hour, in the time of these tests: the second brings up nothing of the first."""
    told = [
        {each["labels"].get("principal", "") for each in message if each["labels"]["alertname"] == "AdminRouteTried"}
        for message in world.told.messages
    ]
    assert {"bob", "late"} <= set().union(*told)
    assert max(map(len, told)) == 1, told
