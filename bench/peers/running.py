"""Other gateways, run beside a deployed fortress: a process of this machine in the network of a container of its own.

So they reach the same stand-in, over the same kind of network, as the fortress does. They get an easier way: plain
HTTP on both sides, where the fortress has TLS 1.3 in, mTLS to the sidecar and one more hop.
"""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import scene
from bench.peers import installed
from fortress.errors import Stop
from render.nginx import OLLAMA_PORT
from tests.deployment import Deployment, docker

START_S = 300
"""LiteLLM takes a minute where nothing else runs."""
ADDRESS = 102
_KEY = "sk-bench"
_LITELLM = """\
model_list:
- model_name: tiny
  litellm_params: {{model: openai/tiny, api_base: "http://{upstream}/v1", api_key: none}}
general_settings: {{master_key: {key}}}
"""


@dataclass(frozen=True)
class Peer:
    name: str
    port: int
    command: tuple[str, ...]
    environment: dict[str, str]
    headers: dict[str, str]


def peers(upstream: str, folder: Path) -> list[Peer]:
    """upstream: address and port of the stand-in. folder: for their config."""
    node = shutil.which("node")
    assert node is not None, "npm was found, and no node beside it"
    (folder / "litellm.yaml").write_text(_LITELLM.format(upstream=upstream, key=_KEY))
    python = str(installed.litellm())
    config = str(folder / "litellm.yaml")
    return [
        Peer(
            "LiteLLM",
            4000,
            (
                python,
                str(Path(python).parent / "litellm"),
                "--config",
                config,
                "--port",
                "4000",
                "--telemetry",
                "False",
            ),
            {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_MODE": "PRODUCTION", "LITELLM_LOG": "ERROR"},
            {"Authorization": f"Bearer {_KEY}"},
        ),
        Peer(
            "Portkey",
            8787,
            (node, str(installed.portkey()), "--headless", "--port=8787"),
            # Without this it refuses every private address.
            {"NODE_ENV": "production", "TRUSTED_CUSTOM_HOSTS": upstream.partition(":")[0]},
            {"x-portkey-provider": "ollama", "x-portkey-custom-host": f"http://{upstream}"},
        ),
    ]


@dataclass(frozen=True)
class Running:
    way: dict[str, Any]
    pid: int


@contextmanager
def running(deployment: Deployment, asker: scene.Asker) -> Iterator[dict[str, Running]]:
    """All of them, when they answer; with the way to each and its process."""
    plan = scene.config(deployment).plan
    edge, heart = (str(subnet.cidr.network_address + ADDRESS) for subnet in (plan.edge, plan.heart))
    if os.geteuid() != 0:
        raise Stop("only root may start a process in a container's network: run this bench as root")
    with (
        tempfile.TemporaryDirectory() as name,
        scene.container(deployment, ("edge", edge), "sleep", str(scene.LIFETIME_S)) as container,
    ):
        docker("network", "connect", "--ip", heart, deployment.network("heart"), container)
        inside = docker("inspect", "--format", "{{.State.Pid}}", container).strip()
        started: list[subprocess.Popen[bytes]] = []
        found: dict[str, Running] = {}
        try:
            for peer in peers(f"{plan.heart.ollama}:{OLLAMA_PORT}", Path(name)):
                with (Path(name) / f"{peer.name}.log").open("wb") as log:
                    process = subprocess.Popen(
                        ["nsenter", f"--net=/proc/{inside}/ns/net", "--", *peer.command],
                        env={"PATH": os.environ["PATH"], "HOME": name, **peer.environment},
                        cwd=name,
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=log,
                        start_new_session=True,
                    )
                started.append(process)
                way = {"address": edge, "port": peer.port, "host": f"{edge}:{peer.port}", "headers": peer.headers}
                _until_it_answers(peer, process, way, asker, Path(log.name))
                found[peer.name] = Running(way, process.pid)
            yield found
        finally:
            for process in started:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()


def _until_it_answers(
    peer: Peer, process: "subprocess.Popen[bytes]", way: dict[str, Any], asker: scene.Asker, log: Path
) -> None:
    text = scene.request(way, "/v1/chat/completions", scene.conversation("1 0 hello", stream=False))
    deadline = time.monotonic() + START_S
    while True:
        try:
            result = asker.ask(scene.job(way, text, Connections=1, Requests=1, Seconds=30))
        except AssertionError as error:  # nobody listens there yet
            if process.poll() is not None or time.monotonic() > deadline:
                raise Stop(f"{peer.name} does not answer: {error}\n{log.read_text()[-2000:]}") from None
            time.sleep(1)
        else:
            scene.answers(result)
            return


def megabytes(processes: Sequence[int]) -> float:
    """Resident memory of processes and of all that they started (RSS)."""
    parents: dict[int, int] = {}
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            rows = dict(line.split(":", 1) for line in status.read_text().splitlines())
        except OSError:
            continue  # ended in the meantime
        parents[int(status.parent.name)] = int(rows["PPid"])
    counted = set(processes)
    while more := {pid for pid, parent in parents.items() if parent in counted} - counted:
        counted |= more
    return sum(_rss(pid) for pid in counted)


def _rss(pid: int) -> float:
    rows = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(rows.get("VmRSS", "0 kB").split()[0]) * 1024 / 1e6
