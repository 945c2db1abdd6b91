"""A fortress of its own for one run of tests, or of the bench: own stack name, subnets and port.

Gone afterwards, also after a failure.
"""

import ipaddress
import json
import os
import random
import re
import secrets
import shutil
import socket
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import yaml

from fortress import engine, paths, stack_file
from images import reference
from settings import PROJECT
from settings.network import BASE_PREFIX

UP_TIMEOUT_S = 900
DOMAIN = "ollama.fortress.internal"
PAGE = f"chat.{DOMAIN}"
PROMPT = f"hello {secrets.token_hex(8)}"
"""What clients of these tests say, and nobody may write down."""
USERS: dict[str, Any] = {
    "ada": {
        "role": "admin",
        "keyless": True,
        "devices": ["laptop", "phone"],
        "limits": {"requests_per_minute": 600, "burst": 600, "concurrent": 8, "reads_per_minute": 6000},
    },
    "bob": {
        "models": ["tiny"],
        "limits": {"requests_per_minute": 600, "burst": 600, "concurrent": 4, "reads_per_minute": 6000},
    },
    "slow": {"limits": {"requests_per_minute": 2, "burst": 2, "concurrent": 1}},
    "narrow": {"models": ["other:*"]},
    "terse": {"keyless": True, "limits": {"answer_tokens": 32}},
    "probe": {"service": True},
}


def free_udp_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("0.0.0.0", 0))
        return int(probe.getsockname()[1])


_promised: deque[ipaddress.IPv4Network] = deque(maxlen=8)
"""The bases that this process chose last: their networks may not be there yet."""


def free_base() -> ipaddress.IPv4Network:
    """A free /20 that no other worker of this run takes, by lot: it may be some time until its networks are there.

    Above it are what `make up` writes for a new machine and the gateway's harness, below it what Docker itself chooses.
    """
    used = [network for network in stack_file.networks_in_use() if network.prefixlen > 0]
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    every = list(ipaddress.IPv4Network("172.20.0.0/14").subnets(new_prefix=BASE_PREFIX))
    every += ipaddress.IPv4Network("172.24.0.0/14").subnets(new_prefix=BASE_PREFIX)
    candidates = every[worker :: int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))]
    free = [each for each in candidates if not any(each.overlaps(network) for network in [*used, *_promised])]
    _promised.append(random.choice(free))
    return _promised[-1]


def free_subnets() -> Iterator[ipaddress.IPv4Network]:
    """Free /24s, for networks that are not a deployment's: Docker's own choice may be what a deployment waits for."""
    return free_base().subnets(new_prefix=24)


def docker(*arguments: str, stdin: str | None = None, check: bool = True, timeout: float = 120) -> str:
    done = subprocess.run(
        ["docker", *arguments], input=stdin, capture_output=True, text=True, check=False, timeout=timeout
    )
    if check and done.returncode != 0:
        raise AssertionError(f"docker {' '.join(arguments)[:300]}: {done.stderr.strip()[-2000:]}")
    return done.stdout


@contextmanager
def meanwhile(action: Callable[[], object], every_s: float) -> Iterator[None]:
    """Does it again and again beside the block."""
    over = threading.Event()

    def go_on() -> None:
        while not over.wait(every_s):
            action()

    with ThreadPoolExecutor(1) as beside:
        going = beside.submit(go_on)
        try:
            yield
        finally:
            over.set()
        going.result()  # what failed beside the block fails it


def printed(container: str) -> str:
    """All that a container wrote, to whichever of its two outputs, in its order."""
    command = ["docker", "logs", container]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    assert done.returncode == 0, f"no word of {container}: {done.stdout[-2000:]}"
    return done.stdout


def copy_of_the_checkout(target: Path) -> Path:
    """What git knows of this checkout or would, with its virtualenv and without its stacks and bundles."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=paths.CHECKOUT, capture_output=True, text=True, check=True
    )
    for name in listed.stdout.splitlines():
        if (paths.CHECKOUT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(paths.CHECKOUT / name, target / name)
    (target / ".venv").symlink_to(paths.CHECKOUT / ".venv")
    return target


class Deployment:
    """A stack of this checkout under the engine it can have here, or of another one in its own environment."""

    def __init__(
        self,
        stack: str,
        chosen: str | None = None,
        checkout: Path = paths.CHECKOUT,
        own_environment: dict[str, str] | None = None,
    ) -> None:
        self.stack = stack
        self.checkout = checkout
        self.own_environment = own_environment or {}
        self.file = checkout / "stacks" / f"Pulumi.{stack}.yaml"
        self.bundles = checkout / "bundles" / stack
        self.engine = chosen or engine.choose()
        port = free_udp_port()
        self.config: dict[str, Any] = {
            "engine": self.engine,
            "protect": False,
            "users": json.loads(json.dumps(USERS)),
            "models": [{"name": "tiny", "source": "builtin"}],
            "wireguard": {"endpoint": f"{stack_file.own_address()}:{port}", "port": port},
            "network": {"base": str(free_base())},
            "ollama": {"num_parallel": 4, "memory_mb": 2048},
            "limits": {"answer_tokens": 1_000_000},  # a stream of these tests ends when they end it
        }

    @classmethod
    def fresh(cls, what: str = "test") -> Self:
        """Of a name that nobody else has; `what` is its first word."""
        return cls(f"{what}-{secrets.token_hex(3)}")

    def write(self) -> None:
        config = {f"{PROJECT}:{key}": value for key, value in self.config.items()}
        kept = yaml.safe_load(self.file.read_text()) if self.file.exists() else {}
        self.file.write_text(yaml.safe_dump({**kept, "config": config}, sort_keys=False))

    def fortress(self, *arguments: str, check: bool = True, timeout: float = UP_TIMEOUT_S) -> str:
        done = subprocess.run(
            self._command(*arguments),
            env={**os.environ, **self.own_environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=timeout,
        )
        if check and done.returncode != 0:
            raise AssertionError(f"fortress {' '.join(arguments)} ended with {done.returncode}:\n{done.stdout[-6000:]}")
        self.last_code = done.returncode
        return done.stdout

    def begun(self, *arguments: str) -> "subprocess.Popen[str]":
        """As `fortress`, but not waited for; what it says is read from its end."""
        return subprocess.Popen(
            self._command(*arguments),
            env={**os.environ, **self.own_environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def _command(self, *arguments: str) -> list[str]:
        return [str(self.checkout / "bin" / "fortress"), *arguments, "--stack", self.stack]

    def up(self, check: bool = True) -> str:
        self.write()
        return self.fortress("up", check=check)

    def environment(self) -> dict[str, str]:
        exports = self.fortress("env")
        return {
            **os.environ,
            **self.own_environment,
            **dict(re.findall(r"^export (\w+)='(.*)'$", exports, re.MULTILINE)),
        }

    def pulumi(self, *arguments: str, cwd: Path | None = None, check: bool = True, stdin: str = "") -> str:
        done = subprocess.run(
            ["pulumi", *arguments, "--stack", self.stack],
            input=stdin,
            env=self.environment(),
            cwd=cwd or self.checkout,
            capture_output=True,
            text=True,
            check=False,
            timeout=UP_TIMEOUT_S,
        )
        if check and done.returncode != 0:
            raise AssertionError(f"pulumi {arguments[0]}:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
        return done.stdout

    def encrypt(self, path: str, value: str) -> None:
        """A secret into the config of a stack that is not there yet, as its operator would do it."""
        self.write()
        if "encryptionsalt" not in self.file.read_text():
            self.pulumi("stack", "init")
        self.pulumi("config", "set", "--secret", "--path", f"{PROJECT}:{path}", stdin=value)
        key = path.partition(".")[0]
        self.config[key] = yaml.safe_load(self.file.read_text())["config"][f"{PROJECT}:{key}"]

    def pulumi_up(self) -> None:
        self.write()
        self.pulumi("up", "--yes", "--skip-preview")

    def planned(self, *arguments: str, cwd: Path | None = None) -> dict[str, int]:
        """What a preview would do: operation -> number of resources."""
        return dict(json.loads(self.pulumi("preview", "--json", *arguments, cwd=cwd))["changeSummary"])

    def outputs(self) -> dict[str, Any]:
        return dict(json.loads(self.pulumi("stack", "output", "--json", "--show-secrets")))

    def bundle(self, user: str) -> dict[str, str]:
        folder = self.bundles / user
        return {path.name: path.read_text() for path in folder.iterdir() if path.suffix != ".png"}

    def keys(self) -> set[str]:
        """What opens anything, of all users: API keys, WireGuard's private keys and PSKs."""
        found: set[str] = set()
        for files in self.outputs()["bundles"].values():
            found.add(files["api_key"].strip())
            confs = "\n".join(text for name, text in files.items() if name.startswith("wireguard-"))
            found |= {line.partition(" = ")[2] for line in confs.splitlines() if line.startswith(("Priv", "Preshared"))}
        assert all(len(key) >= 44 for key in found)
        return found

    def container(self, component: str) -> str:
        found = docker("ps", "-aq", "--no-trunc", *self._labels(component)).split()
        assert len(found) == 1, f"{len(found)} containers are labelled {component}"
        return found[0]

    def network(self, part: str) -> str:
        found = docker("network", "ls", "-q", "--no-trunc", *self._labels(part)).split()
        assert len(found) == 1, f"{len(found)} networks are labelled {part}"
        return found[0]

    def _labels(self, component: str | None = None) -> list[str]:
        labels = ["--filter", f"label=fortress.stack={self.stack}"]
        return [*labels, "--filter", f"label=fortress.component={component}"] if component else labels

    def containers(self) -> dict[str, str]:
        """Component -> id of what `up` made; clients of tests are not in it."""
        shown = docker("ps", "-a", "--no-trunc", *self._labels(), "--format", '{{.Label "fortress.component"}} {{.ID}}')
        pairs = (line.split() for line in shown.splitlines())
        return {name: id_ for name, id_ in pairs if name != "client"}

    def left_over(self) -> list[str]:
        found = [f"container {id_}" for id_ in docker("ps", "-aq", *self._labels()).split()]
        found += [f"network {id_}" for id_ in docker("network", "ls", "-q", *self._labels()).split()]
        found += [f"volume {name}" for name in docker("volume", "ls", "-q", *self._labels()).split()]
        found += [str(path) for path in (Path("/var/lib/ollama-fortress") / self.stack,) if path.exists()]
        found += [str(path) for path in (self.bundles,) if path.exists()]
        return found

    def audit(self) -> list[dict[str, Any]]:
        """Of every day: at midnight the gateway sets its file aside."""
        each = 'for each in audit-*Z.json audit.json; do [ ! -e "$each" ] || cat "$each"; done'
        text = docker("exec", self.container("gateway"), "sh", "-ec", f"cd /var/log/gateway; {each}")
        return [json.loads(line) for line in text.splitlines()]

    def commands(self) -> list[dict[str, Any]]:
        text = docker("exec", self.container("gateway"), "cat", "/var/log/gateway/commands.json")
        return [json.loads(line) for line in text.splitlines()]

    def clean_up(self) -> None:
        for id_ in docker("ps", "-aq", *self._labels("client"), check=False).split():
            docker("rm", "-f", id_, check=False)
        self.config["protect"] = False
        self.write()
        self.fortress("down", check=False)
        # A failed `down` must not leave its things to the next run.
        for id_ in docker("ps", "-aq", *self._labels(), check=False).split():
            docker("rm", "-f", id_, check=False)
        for name in docker("volume", "ls", "-q", *self._labels(), check=False).split():
            docker("volume", "rm", name, check=False)
        for id_ in docker("network", "ls", "-q", *self._labels(), check=False).split():
            docker("network", "rm", id_, check=False)
        self.file.unlink(missing_ok=True)


class Client:
    """Somebody with a bundle, in a container that has nothing else."""

    def __init__(self, deployment: Deployment, user: str, device: str | None = None, tunnel: bool = True) -> None:
        self.deployment, self.user = deployment, user
        files = deployment.bundle(user)
        confs = sorted(name for name in files if name.startswith("wireguard-"))
        conf = f"wireguard-{device}.conf" if device else confs[0]
        self.key = files["api_key"].strip()
        # tunnel-client ends as the command that it is given, when addresses and routes are there.
        joined = f"exec tunnel-client /tmp/bundle/{conf} sh -c 'touch /tmp/joined; exec sleep infinity'"
        hello = joined if tunnel else "exec sleep infinity"
        script = "umask 077; mkdir /tmp/bundle; cd /tmp/bundle; until [ -f ready ]; do sleep 0.05; done; " + hello
        self.id = docker(
            *("run", "-d", "--network", "bridge", "--label", f"fortress.stack={deployment.stack}"),
            *("--label", "fortress.component=client", "--cap-drop", "ALL", "--cap-add", "NET_ADMIN"),
            *("--device", "/dev/net/tun", "--tmpfs", "/tmp:exec", "--tmpfs", "/run", "--tmpfs", "/root"),
            *("--sysctl", "net.ipv6.conf.all.disable_ipv6=0", "--init"),
            *("--add-host", f"{DOMAIN}:10.66.0.1", "--add-host", f"{PAGE}:10.66.0.1"),
            *("--entrypoint", "/bin/sh", reference("client", deployment.engine), "-c", script),
        ).strip()
        writer = (
            "import json,sys,pathlib; d=pathlib.Path('/tmp/bundle'); f=json.load(sys.stdin);"
            "[(d/n).write_text(t) for n,t in f.items()]; (d/'fortress-run').chmod(0o700); (d/'ready').touch()"
        )
        time.sleep(0.3)
        docker("exec", "-i", self.id, "python3", "-c", writer, stdin=json.dumps(files))
        if tunnel:
            self.wait_until(lambda: "joined" in self.run("ls", "/tmp"), "tunnel")

    @staticmethod
    def wait_until(condition: Any, what: str, seconds: float = 15) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"no {what} within {seconds} s"
            time.sleep(0.1)

    def run(self, *command: str, stdin: str | None = None, check: bool = True, timeout: float = 120) -> str:
        return docker("exec", "-i", self.id, *command, stdin=stdin, check=check, timeout=timeout)

    def end(self, word: str) -> None:
        """Kill what runs here with this word in its command line, if its engine is there; the image has no pkill."""
        script = (
            "for each in /proc/[0-9]*; do id=${each#/proc/}; "
            '[ "$id" = "$$" ] || ! grep -qs -e "$1" "$each/cmdline" || kill -9 "$id"; done; :'
        )
        self.run("sh", "-c", script, "end", word, check=False)

    def python(self, script: str, *arguments: str, timeout: float = 120) -> str:
        return self.run("python3", "-", *arguments, stdin=script, timeout=timeout)

    def curl(
        self, path: str, *options: str, host: str = "ollama.fortress.internal", key: str | None = "own"
    ) -> "Reply":
        key = self.key if key == "own" else key
        authorization = ["-H", f"Authorization: Bearer {key}"] if key is not None else []
        text = self.run(
            *("curl", "-sS", "-i", "--path-as-is", "--max-time", "30", "--cacert", "/tmp/bundle/ca.pem"),
            *(*authorization, *options, f"https://{host}{path}"),
            check=False,
        )
        return Reply(text)

    def ask(self, model: str = "tiny", key: str | None = "own", path: str = "/api/generate", **body: Any) -> "Reply":
        given = {"model": model, "prompt": PROMPT, "stream": False, "options": {"num_predict": 4}} | body
        return self.curl(path, "-d", json.dumps(given), key=key)

    @contextmanager
    def stream(self, tokens: int = 100_000) -> Iterator["Stream"]:
        """An open stream; it is cut when the block ends."""
        # By chance the tiny model ends early, now and then; of this it makes two megabytes.
        options = {"num_predict": tokens, "seed": 1}
        body = json.dumps({"model": "tiny", "prompt": "hello 1234", "options": options})
        process = subprocess.Popen(
            [
                *("docker", "exec", "-i", self.id, "curl", "-sS", "-N", "--cacert", "/tmp/bundle/ca.pem"),
                *("-H", f"Authorization: Bearer {self.key}", "-d", body),
                "https://ollama.fortress.internal/api/generate",
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        try:
            yield Stream(process)
        finally:
            self.end("api/generate")
            process.kill()
            process.wait()

    def address_beside(self) -> str:
        """Its own on the VpnNode's network; "" where it was never there."""
        networks = json.loads(docker("inspect", self.id))[0]["NetworkSettings"]["Networks"]
        return next((each["IPAddress"] for name, each in networks.items() if name.endswith("-wan")), "")

    def move(self, beside: bool) -> None:
        """Come from another address: beside the VpnNode on its own network, or again through this machine's port."""
        node = json.loads(docker("inspect", self.deployment.container("vpn-node")))[0]
        endpoint = self.deployment.config["wireguard"]["endpoint"]
        if beside:
            wan = next(name for name in node["NetworkSettings"]["Networks"] if name.endswith("-wan"))
            if not self.address_beside():
                docker("network", "connect", wan, self.id)
            [port] = [port.partition("/")[0] for port in node["NetworkSettings"]["Ports"] if port.endswith("/udp")]
            endpoint = f"{node['NetworkSettings']['Networks'][wan]['IPAddress']}:{port}"
        knock = "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('10.66.0.1', 9))"
        self.run(
            "wg", "set", "wgclient", "peer", self.run("wg", "show", "wgclient", "peers").strip(), "endpoint", endpoint
        )
        self.run("python3", "-c", knock)

    def can_connect(self, address: str, port: int) -> bool:
        probe = "import socket,sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 2).close(); print('open')"
        return "open" in self.run("python3", "-c", probe, address, str(port), check=False)

    def close(self) -> None:
        docker("rm", "-f", self.id, check=False)


class Stream:
    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self.process = process
        self.last = 0.0
        assert process.stdout is not None
        os.set_blocking(process.stdout.fileno(), False)

    def bytes_for(self, seconds: float) -> int:
        """Bytes that arrive within a time."""
        assert self.process.stdout is not None
        deadline, count = time.monotonic() + seconds, 0
        while time.monotonic() < deadline:
            part = self.process.stdout.read()
            if part:
                count += len(part)
            time.sleep(0.02)
        return count

    @contextmanager
    def read(self, bytes_a_second: int = 1 << 13) -> Iterator[None]:
        """Reads on meanwhile: the gateway cuts whoever takes nothing for half a minute, and an answer has an end."""
        stdout = self.process.stdout
        assert stdout is not None
        with meanwhile(lambda: stdout.read(bytes_a_second // 2), every_s=0.5):
            yield

    def flows(self, seconds: float = 10) -> bool:
        """Bytes arrive; a busy machine may take its time."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self.bytes_for(0.2) > 0:
                return True
        return False


class Reply:
    """What curl -i printed."""

    def __init__(self, text: str) -> None:
        head, _, self.body = text.replace("\r\n", "\n").partition("\n\n")
        lines = head.splitlines()
        self.status = int(lines[0].split()[1]) if lines and lines[0].startswith("HTTP/") else 0
        self.headers = {
            name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])
        }

    def __repr__(self) -> str:
        return f"Reply({self.status}, {self.body[:200]!r})"


@contextmanager
def deployed(deployment: Deployment | None = None) -> Iterator[Deployment]:
    deployment = deployment or Deployment.fresh()
    try:
        deployment.up()
        yield deployment
    finally:
        deployment.clean_up()
