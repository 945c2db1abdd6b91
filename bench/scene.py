"""Where measurements take place: containers of the bench's own beside a deployed fortress, and the ways between them.

client --TLS--> Gateway ----mTLS--> sidecar --> stand-in, at Ollama's own address
client --TLS--> bare proxy -mTLS--> sidecar        the same image, one worker too, and no policy
client ---------------------mTLS--> sidecar        past both, with the Gateway's own certificate
"""

import json
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import settings
from bench import tool
from fortress import stack_file
from images import reference
from render.nginx import HOP_PORT, OLLAMA_PORT, SIDECAR_NAME
from settings import StackSettings
from tests.deployment import Client, Deployment, docker, printed

GATEWAY_PORT = 8444
CLIENT_ADDRESS, BARE_ADDRESS, UNSEEN_ADDRESS = 100, 101, 102
"""Last byte of the bench's own addresses: the plan gives out low ones only."""
LOAD = f"/load/{tool.NAME}"
KILOBYTE = 1024
LIFETIME_S = 3600
"""A stand-in that nobody has ended ends by itself."""

_CONFINED = (
    "--user",
    "65534:65534",
    "--read-only",
    "--cap-drop",
    "ALL",
    "--security-opt",
    "no-new-privileges",
    "--pids-limit",
    "64",
)
_BOUNDED = ("--memory", "512m", "--tmpfs", "/tmp:size=16m,mode=1777")  # noqa: S108


def config(deployment: Deployment) -> StackSettings:
    return settings.load(deployment.stack, stack_file.read(deployment.file))


def past(deployment: Deployment) -> dict[str, Any]:
    """The way to the sidecar. The Gateway's key is in it: it goes by stdin, and nowhere else."""
    hop = {
        name: docker("exec", deployment.container("gateway"), "cat", f"/config/current/hop/{name}")
        for name in ("client.pem", "client.key", "ca.pem")
    }
    return {
        "address": str(config(deployment).plan.model.sidecar),
        "port": HOP_PORT,
        "name": SIDECAR_NAME,
        "host": f"localhost:{OLLAMA_PORT}",
        "ca": hop["ca.pem"],
        "certificate": hop["client.pem"],
        "key": hop["client.key"],
    }


def through(deployment: Deployment, user: str) -> dict[str, Any]:
    """The way to the Gateway, on its port without PROXY protocol, with the user's API key."""
    own, files = config(deployment), deployment.bundle(user)
    return {
        "address": str(own.plan.edge.gateway),
        "port": GATEWAY_PORT,
        "name": own.domain,
        "host": own.domain,
        "ca": files["ca.pem"],
        "api_key": files["api_key"].strip(),
    }


def request(way: Mapping[str, Any], path: str, body: Mapping[str, Any] | None, **headers: str) -> str:
    """One HTTP request for a way, head and body. body: None is a GET."""
    text = "" if body is None else json.dumps(body)
    rows = {"Host": way["host"], "Content-Type": "application/json", "Content-Length": str(len(text.encode()))}
    if "api_key" in way:
        rows["Authorization"] = f"Bearer {way['api_key']}"
    rows |= way.get("headers", {}) | headers
    head = "".join(f"{name}: {value}\r\n" for name, value in rows.items())
    return f"{'GET' if body is None else 'POST'} {path} HTTP/1.1\r\n{head}\r\n{text}"


def conversation(said: str, **more: Any) -> dict[str, Any]:
    """A body of /api/chat, and of OpenAI's chat completions. said: begins with the pace, see bench/load/standin.go."""
    return {"model": "tiny", "messages": [{"role": "user", "content": said}], **more}


def kilobyte() -> dict[str, Any]:
    """A conversation whose JSON is 1 KB long, answered in one piece."""
    room = KILOBYTE - len(json.dumps(conversation("", stream=False)))
    return conversation(("1 0 " + "word " * KILOBYTE)[:room], stream=False)


def job(way: Mapping[str, Any], text: str, **how: float) -> dict[str, Any]:
    """What bench/load/ask.go reads: Connections, Requests, Warm, SpreadMs, PerSecond, Seconds."""
    return {
        "Address": f"{way['address']}:{way['port']}",
        "Name": way.get("name", ""),
        "CA": way.get("ca", ""),
        "Certificate": way.get("certificate", ""),
        "Key": way.get("key", ""),
        "Request": text,
        "Seconds": 120,
        **how,
    }


class Asker:
    """The load program in a container that reaches both the Gateway and the sidecar."""

    def __init__(self, container: str) -> None:
        self.container = container

    def start(self, given: Mapping[str, Any]) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            ["docker", "exec", "-i", self.container, LOAD, "ask"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdin is not None
        process.stdin.write(json.dumps(given))
        process.stdin.close()
        process.stdin = None
        return process

    def finish(self, process: "subprocess.Popen[str]", seconds: float = 180) -> dict[str, Any]:
        said, wrong = process.communicate(timeout=seconds)
        if process.returncode != 0:
            raise AssertionError(f"the load program ended with {process.returncode}: {wrong.strip()[-2000:]}")
        return json.loads(said)

    def ask(self, given: Mapping[str, Any]) -> dict[str, Any]:
        return self.finish(self.start(given))


def answers(result: Mapping[str, Any], status: int = 200) -> list[dict[str, Any]]:
    """All answers of a result, in the order of the connections.

    Raises: AssertionError quoting the first one of another status: what was refused is no measurement.
    """
    every = [answer for connection in result["answers"] for answer in connection or []]
    other = next((answer for answer in every if answer["status"] != status), None)
    assert other is None, f"status {other['status']} instead of {status}: {other.get('body', '')}" if other else ""
    assert every, "nothing was answered"
    return every


@contextmanager
def stand_in(deployment: Deployment, *command: str) -> Iterator[None]:
    """A stand-in at Ollama's fixed address; Ollama itself is back at the end.

    command: entrypoint and arguments of another one than bench/load/standin.go.
    """
    ollama, address = deployment.container("ollama"), str(config(deployment).plan.heart.ollama)
    docker("stop", ollama)
    try:
        command = command or (LOAD, "serve", f"{address}:{OLLAMA_PORT}", str(LIFETIME_S))
        with container(deployment, ("heart", address), *command) as made:
            Client.wait_until(lambda: "ready" in printed(made), "stand-in")
            yield
    finally:
        docker("start", ollama, check=False)


@contextmanager
def client(deployment: Deployment, *command: str) -> Iterator[str]:
    """A container, not yet started, that reaches both the Gateway and the sidecar."""
    plan = config(deployment).plan
    edge, model = (str(subnet.cidr.network_address + CLIENT_ADDRESS) for subnet in (plan.edge, plan.model))
    with container(deployment, ("edge", edge), *command, started=False) as made:
        docker("network", "connect", "--ip", model, deployment.network("model"), made)
        yield made


@contextmanager
def asker(deployment: Deployment, also: str | None = None) -> Iterator[Asker]:
    """also: one more network that it is on."""
    with client(deployment, "sleep", str(LIFETIME_S)) as made:
        if also is not None:
            address = str(getattr(config(deployment).plan, also).cidr.network_address + CLIENT_ADDRESS)
            docker("network", "connect", "--ip", address, deployment.network(also), made)
        docker("start", made)
        yield Asker(made)


@contextmanager
def beside_the_gateway(
    deployment: Deployment, number: int, *command: str, more: Sequence[str] = ()
) -> Iterator[tuple[str, str]]:
    """Another nginx with the Gateway's image, files and networks. Yields: its container, and its address on `edge`.

    number: of its address on each of them.
    """
    plan = config(deployment).plan
    edge, model = (str(subnet.cidr.network_address + number) for subnet in (plan.edge, plan.model))
    where = '{{range .Mounts}}{{if eq .Destination "/config"}}{{.Source}}{{end}}{{end}}'
    source = docker("inspect", "--format", where, deployment.container("gateway")).strip()
    more = ("--volume", f"{source}:/config:ro", "--user", "101:101", *more)
    with container(deployment, ("edge", edge), *command, image="gateway", more=more, started=False) as made:
        docker("network", "connect", "--ip", model, deployment.network("model"), made)
        docker("start", made)
        Client.wait_until(lambda: "worker process" in docker("top", made, check=False), "another nginx")
        yield made, edge


@contextmanager
def container(
    deployment: Deployment,
    place: tuple[str, str],
    *command: str,
    image: str = "client",
    more: Sequence[str] = (),
    started: bool = True,
) -> Iterator[str]:
    """One of the bench's own containers, gone afterwards. place: (network, address)."""
    network, address = place
    made = docker(
        *("create", "-i", "--network", deployment.network(network), "--ip", address),
        *("--label", f"fortress.stack={deployment.stack}", "--label", "fortress.component=client"),
        *("--volume", f"{tool.folder()}:/load:ro"),
        *(*_CONFINED, *_BOUNDED, *more, "--entrypoint", command[0], reference(image, deployment.engine), *command[1:]),
    ).strip()
    try:
        if started:
            docker("start", made)
        yield made
    finally:
        docker("rm", "-f", made, check=False)
