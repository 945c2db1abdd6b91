"""The gateway's real image with its real configuration, the real sidecar behind it, and a recording Ollama.

Owns one internal Docker network and three containers, all gone afterwards. This machine is the network's first
address: the relay that the gateway believes, so a test says itself from which tunnel address it comes.
"""

import contextlib
import hashlib
import http.client
import json
import os
import random
import re
import secrets
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv4Network, IPv6Address, ip_address
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import docker
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from images import reference
from render import browser, nginx, page
from render.principals import policy_files, principals
from settings import StackSettings
from tests.unit.gateway import under_node

HERE = Path(__file__).parent
DOMAIN = "ollama.fortress.internal"
PAGE = f"chat.{DOMAIN}"
TUNNEL4, TUNNEL6 = "10.66.0.1", "fd66:66:66:66::1"
BODY_LIMIT_MB = 8
WIDE = {"requests_per_minute": 6000, "burst": 6000, "concurrent": 50, "reads_per_minute": 60000}
ADDRESSES = {
    ("alice", "laptop"): (IPv4Address("10.66.3.4"), IPv6Address("fd66:66:66:66::34")),
    ("bob", "default"): (IPv4Address("10.66.5.6"), IPv6Address("fd66:66:66:66::56")),
    ("carol", "default"): (IPv4Address("10.66.7.8"), IPv6Address("fd66:66:66:66::78")),
}
STRANGER = "10.66.99.99"
USERS: dict[str, Any] = {
    "alice": {"role": "admin", "keyless": True, "devices": ["laptop"], "limits": WIDE},
    "bob": {"models": ["tiny", "llama3.2:*"], "limits": WIDE},
    "carol": {"keyless": True, "limits": WIDE},
    "slow": {"limits": {"requests_per_minute": 2, "burst": 2, "concurrent": 9, "reads_per_minute": 4}},
    "narrow": {"limits": {**WIDE, "concurrent": 2}},
}
PREVIOUS = {user: hashlib.sha256(f"previous key of {user}".encode()).hexdigest() for user in USERS}
KEYS = {
    user: hashlib.sha256(f"test key of {user}".encode()).hexdigest()
    for user in (*USERS, "dave", "robot")  # the last two are users of some tests only
}


class Authority:
    """A CA of the test's own."""

    def __init__(self, name: str) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.certificate = self._build(self.name, self.key, x509.BasicConstraints(ca=True, path_length=0))

    def _build(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        constraints: x509.BasicConstraints,
        *more: x509.ExtensionType,
        ends: timedelta = timedelta(days=1),
    ) -> x509.Certificate:
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=2))
            .not_valid_after(now + ends)
            .add_extension(constraints, critical=True)
        )
        for extension in more:
            builder = builder.add_extension(extension, critical=False)
        return builder.sign(self.key, hashes.SHA256())

    @property
    def pem(self) -> str:
        return self.certificate.public_bytes(Encoding.PEM).decode()

    def leaf(self, *names: str, client: bool = False, ends: timedelta = timedelta(days=1)) -> tuple[str, str]:
        """Certificate and key as PEM. ends: from now, so a negative one has expired."""
        key = ec.generate_private_key(ec.SECP256R1())
        usage = ExtendedKeyUsageOID.CLIENT_AUTH if client else ExtendedKeyUsageOID.SERVER_AUTH
        alternatives: list[x509.GeneralName] = []
        for name in names:
            try:
                alternatives.append(x509.IPAddress(ip_address(name)))
            except ValueError:
                alternatives.append(x509.DNSName(name))
        certificate = self._build(
            x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])]),
            key,
            x509.BasicConstraints(ca=False, path_length=None),
            x509.SubjectAlternativeName(alternatives),
            x509.ExtendedKeyUsage([usage]),
            ends=ends,
        )
        text = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
        return certificate.public_bytes(Encoding.PEM).decode(), text


@dataclass
class Reply:
    """One HTTP answer, or none at all: then the status is 0."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    head: bytes = b""

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def settings(users: dict[str, Any] | None = None, stack: dict[str, Any] | None = None, **gateway: Any) -> StackSettings:
    return StackSettings.model_validate(
        {
            "stack": "unit",
            "engine": "online",
            "users": users or USERS,
            "wireguard": {"endpoint": "vpn.example.com:51820"},
            # Most tests come from one address; the limit, like the queue, has tests of its own.
            "gateway": {"body_limit_mb": BODY_LIMIT_MB, "failed_auth_per_minute": 100_000, "slots": 100, **gateway},
            **(stack or {}),
        }
    )


def known(config: StackSettings) -> str:
    addresses = {device: pair for device, pair in ADDRESSES.items() if device[0] in config.users}
    hashed = {user: hashlib.sha256(KEYS[user].encode()).hexdigest() for user in config.users}
    before = {
        user: hashlib.sha256(PREVIOUS[user].encode()).hexdigest()
        for user, of in config.users.items()
        if of.previous_epoch
    }
    return principals(config, addresses, hashed, before)


class Bench:
    def __init__(self, folder: Path) -> None:
        self.engine = docker.from_env()
        self.image = reference("gateway", os.environ.get("FORTRESS_ENGINE", "registry-only"))
        self.folder = folder
        self.state = folder / "state"
        self.state.mkdir()
        self.state.chmod(0o777)  # the gateway's uid is nobody's on this machine
        self.name = f"fortress-unit-{secrets.token_hex(4)}"
        self.ca, self.hop = Authority("test ca"), Authority("test hop ca")
        self.revision = 0
        self.containers: dict[str, Any] = {}
        self.network: Any = None
        self.cidr: IPv4Network
        self.login_host = 1
        """Number of the login service's address: a test's own on this machine, or 6, a container's."""

    def host(self, number: int) -> str:
        return str(self.cidr.network_address + number)

    @property
    def plan(self) -> Any:
        part = SimpleNamespace(
            vpn_node=self.host(1),
            gateway=self.host(3),
            sidecar=self.host(4),
            ollama=self.host(5),
            login=self.host(self.login_host),
            grafana=self.host(1),
        )
        return SimpleNamespace(edge=part, model=part, heart=part, watch=part)

    def start(self) -> None:
        self._network()
        self.client_pair = self.hop.leaf("gateway", client=True)
        self.server_pair = self.ca.leaf(DOMAIN, PAGE, TUNNEL4, TUNNEL6)
        self._run("ollama", 5, self._fake())
        self._run("sidecar", 4, self.sidecar_files(self.hop.leaf("ollama-sidecar")))
        self._run("gateway", 3, self.gateway_files(settings(model_upload=True)))
        self.until_ready()

    def _network(self) -> None:
        for _ in range(20):
            third = random.randrange(128, 250)
            self.cidr = IPv4Network(f"172.29.{third}.0/24")
            pool = docker.types.IPAMConfig(
                pool_configs=[docker.types.IPAMPool(subnet=str(self.cidr), gateway=self.host(1))]
            )
            try:
                self.network = self.engine.networks.create(
                    self.name, driver="bridge", internal=True, ipam=pool, labels={"fortress.stack": self.name}
                )
                return
            except docker.errors.APIError as error:
                if "overlaps" not in str(error):
                    raise
        raise AssertionError("no free subnet in 172.29.128.0/17")

    def gateway_files(self, config: StackSettings) -> dict[str, str]:
        shown = {"browser.conf": browser.server(config)} if config.browser else {}
        shown |= {f"page/{name}": text for name, text in page.files().items() if config.browser}
        return {
            **policy_files(),
            **shown,
            "nginx.conf": nginx.gateway(config, self.plan),
            "principals.js": known(config),
            "tls/server.pem": self.server_pair[0],
            "tls/server.key": self.server_pair[1],
            "hop/client.pem": self.client_pair[0],
            "hop/client.key": self.client_pair[1],
            "hop/ca.pem": self.hop.pem,
        }

    def sidecar_files(self, pair: tuple[str, str]) -> dict[str, str]:
        return {
            "nginx.conf": nginx.sidecar(settings(), self.plan),
            "tls/server.pem": pair[0],
            "tls/server.key": pair[1],
            "client-ca.pem": self.hop.pem,
        }

    def _fake(self) -> dict[str, str]:
        conf = f"""
load_module modules/ngx_http_js_module.so;
worker_processes 1; pid /tmp/nginx.pid; error_log stderr error;
events {{}}
http {{
    client_body_temp_path /tmp/b; proxy_temp_path /tmp/p; fastcgi_temp_path /tmp/f; uwsgi_temp_path /tmp/u;
    scgi_temp_path /tmp/s; access_log off; client_max_body_size 0; client_body_buffer_size 32m; server_tokens off;
    postpone_output 0;
    js_engine qjs; js_path /config/current/; js_import fake from fake_ollama.js;
    js_shared_dict_zone zone=heard:32m; js_shared_dict_zone zone=count:32k type=number;
    server {{ listen {self.host(5)}:11434; location / {{ js_content fake.answer; }} }}
    server {{ listen {self.host(5)}:9000; location = /heard {{ js_content fake.heard; }}
        location = /call {{ js_content fake.call; }} location = /told {{ js_content fake.told; }} }}
    server {{ listen 127.0.0.1:8081; location / {{ return 204; }} }}
}}
"""
        return {
            "nginx.conf": conf,
            **{name: (HERE / name).read_text() for name in ("fake_ollama.js", "calls.js")},
            **{name: text for name, text in policy_files().items() if name != "gateway.js"},
        }

    def write(self, part: str, files: dict[str, str]) -> None:
        """A new revision, and the rename that makes it `current`."""
        self.revision += 1
        root = self.folder / part
        revision = root / f"rev-{self.revision}"
        for path, text in files.items():
            target = revision / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text)
        link = root / ".current"
        link.symlink_to(revision.name)
        link.replace(root / "current")

    def _run(self, part: str, number: int, files: dict[str, str]) -> None:
        self.write(part, files)
        address = docker.types.EndpointConfig(self.engine.api._version, ipv4_address=self.host(number))
        api = self.engine.api
        made = api.create_container(
            self.image,
            entrypoint=["nginx"],
            command=["-c", "/config/current/nginx.conf", "-g", "daemon off;"],
            name=f"{self.name}-{part}",
            labels={"fortress.stack": self.name, "fortress.component": part},
            user="101:101",
            host_config=api.create_host_config(
                binds={
                    str(self.folder / part): {"bind": "/config", "mode": "ro"},
                    str(self.state): {"bind": "/var/lib/gateway", "mode": "rw"},
                },
                read_only=True,
                cap_drop=["ALL"],
                security_opt=["no-new-privileges"],
                tmpfs={"/tmp": "size=256m,mode=1777", "/var/log/gateway": "size=64m,uid=101,gid=101"},
                mem_limit="512m",
                pids_limit=64,
            ),
            networking_config=api.create_networking_config({self.name: address}),
        )
        api.start(made)
        self.containers[part] = self.engine.containers.get(made["Id"])

    def kill(self) -> None:
        """As a crash would: nothing is told beforehand."""
        self.containers["gateway"].kill("KILL")
        self.containers["gateway"].wait()

    def start_again(self) -> None:
        self.containers["gateway"].start()
        self.until_ready()

    def until_ready(self) -> None:
        for _ in range(100):
            for part, container in self.containers.items():
                container.reload()
                assert container.status == "running", f"{part} died:\n{self.logs(part)}"
            with contextlib.suppress(OSError):
                if self.ask("GET", "/api/version", key=KEYS["alice"]).status == 200:
                    return
            time.sleep(0.1)
        raise AssertionError("the gateway does not answer:\n" + self.logs("gateway") + self.logs("sidecar"))

    def logs(self, part: str) -> str:
        return self.containers[part].logs(tail=50).decode()

    def reload(self, config: StackSettings) -> None:
        self.write("gateway", self.gateway_files(config))
        before = self.workers()
        self.containers["gateway"].kill("HUP")
        for _ in range(100):
            if (now := self.workers()) and not now & before:
                return
            time.sleep(0.05)
        raise AssertionError("no new worker after the reload:\n" + self.logs("gateway"))

    def workers(self) -> set[str]:
        rows = self.containers["gateway"].top()["Processes"]
        return {row[1] for row in rows if "worker process" in row[-1] and "shutting" not in row[-1]}

    def audit(self) -> list[dict[str, Any]]:
        """Every line, of the files that were set aside too."""
        time.sleep(0.05)
        text = self.shell("cat /var/log/gateway/audit-*.json /var/log/gateway/audit.json 2>/dev/null || true")
        # A line that a full disk let in only by half is left as spaces.
        return [_line(line) for line in text.splitlines() if line.strip()]

    def shell(self, command: str) -> bytes:
        """What a command in the gateway's container says."""
        words = ["docker", "exec", self.containers["gateway"].id, "sh", "-c", command]
        return subprocess.run(words, capture_output=True, check=True).stdout

    def scrape(self) -> str:
        """The gateway's figures, as a Prometheus on `watch` gets them."""
        connection = http.client.HTTPConnection(self.host(3), nginx.METRICS_PORT, timeout=10)
        connection.request("GET", "/metrics")
        reply = connection.getresponse()
        assert reply.status == 200, reply.status
        return reply.read().decode()

    def _control(self, method: str, path: str, body: bytes | None = None) -> Any:
        connection = http.client.HTTPConnection(self.host(5), 9000, timeout=20)
        connection.request(method, path, body)
        return json.loads(connection.getresponse().read())

    def heard(self) -> list[dict[str, Any]]:
        return self._control("GET", "/heard")

    def forget(self) -> None:
        self._control("DELETE", "/heard")

    def tell(self, told: dict[str, Any] | None) -> None:
        """What Ollama answers to every POST, until it is told something else: see `replay` in fake_ollama.js."""
        self._control("POST", "/told", json.dumps(told).encode())

    def call(self, name: str, *args: Any) -> Any:
        """One of the policy's plain functions, run by the real njs engine."""
        result = self._control("POST", "/call", json.dumps({"name": name, "args": args}).encode())
        assert "error" not in result, result["error"]
        return result.get("value")

    def judge_all(self, cases: list[tuple[bytes, dict[str, Any], dict[str, Any]]]) -> list[Any]:
        """`judge` for each (body, route, user), in one request: thousands take seconds.

        The bytes go into that request as they are, broken UTF-8 included, so njs makes text of them as of a body.
        """
        calls = [_call("judge", body, json.dumps([route, user])) for body, route, user in cases]
        results = self._control("POST", "/call", b"[" + b",".join(calls) + b"]")
        broken = [(case, result["error"]) for case, result in zip(cases, results, strict=True) if "error" in result]
        assert not broken, broken[0]
        return [result["value"] for result in results]

    def plain(self, address: str | None = "10.66.99.98", port: int = 8443) -> socket.socket:
        """A TCP connection as the relay would open it for a peer; `address` None: without PROXY protocol."""
        connection = socket.create_connection((self.host(3), port), timeout=5)
        connection.settimeout(20)  # longer than the gateway's own patience with what is behind it
        if address is not None:
            family, server = ("TCP6", TUNNEL6) if ":" in address else ("TCP4", TUNNEL4)
            connection.sendall(f"PROXY {family} {address} {server} 50000 443\r\n".encode())
        return connection

    def connect(
        self,
        address: str | None = STRANGER,
        *,
        sni: str | None = DOMAIN,
        port: int = 8443,
        context: ssl.SSLContext | None = None,
    ) -> ssl.SSLSocket:
        context = context or self.context()
        context.check_hostname = sni in (DOMAIN, PAGE)
        return context.wrap_socket(self.plain(address, port), server_hostname=sni)

    def context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.load_verify_locations(cadata=self.ca.pem)
        return context

    def raw(self, data: bytes, address: str | None = STRANGER, **how: Any) -> bytes:
        """Send bytes, return all that comes until the gateway closes; b'' where it answers nothing."""
        with self.connect(address, **how) as connection:
            with contextlib.suppress(OSError):
                connection.sendall(data)
            return _all(connection)

    def ask(
        self,
        method: str,
        path: str,
        *,
        key: str | None = None,
        headers: dict[str, str] | list[tuple[str, str]] | None = None,
        body: Any = None,
        host: str = DOMAIN,
        address: str | None = STRANGER,
        **how: Any,
    ) -> Reply:
        rows = [("Host", host), ("Connection", "close")]
        if key is not None:
            rows.append(("Authorization", f"Bearer {key}"))
        rows += headers.items() if isinstance(headers, dict) else (headers or [])
        data = b""
        if body is not None:
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            if not any(name.lower() in ("content-length", "transfer-encoding") for name, _ in rows):
                rows.append(("Content-Length", str(len(data))))
        head = f"{method} {path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in rows) + "\r\n"
        return parse(self.raw(head.encode("latin-1") + data, address, **how))

    def stop(self) -> None:
        for container in self.containers.values():
            with contextlib.suppress(docker.errors.APIError):
                container.remove(force=True)
        if self.network is not None:
            with contextlib.suppress(docker.errors.APIError):
                self.network.remove()
        self.engine.close()


def _call(name: str, body: bytes, more: str) -> bytes:
    """A call whose first argument is text made of these bytes; only what JSON itself needs is escaped."""
    escaped = re.sub(rb'["\\\x00-\x1f]', lambda found: b"\\u%04x" % found[0][0], body)
    return b'{"name":"%s","args":["%s",%s]}' % (name.encode(), escaped, more[1:-1].encode())


def _line(line: bytes) -> dict[str, Any]:
    try:
        return json.loads(line.decode())
    except ValueError as error:
        raise AssertionError(f"a line of the audit trail is no JSON in UTF-8 ({error}): {line!r}") from None


def _all(connection: ssl.SSLSocket) -> bytes:
    data = b""
    while True:
        try:
            part = connection.recv(65536)
        except OSError:
            return data
        if not part:
            return data
        data += part


def parse(data: bytes) -> Reply:
    """The first answer in `data`, its chunks put together."""
    if not data:
        return Reply(0)
    head, _, body = data.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    if headers.get("transfer-encoding") == "chunked":
        rest, body = body, b""
        while rest:
            size, _, rest = rest.partition(b"\r\n")
            length = int(size or b"0", 16)
            if not length:
                break
            body, rest = body + rest[:length], rest[length + 2 :]
    return Reply(int(lines[0].split(" ")[1]), headers, body, head)


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Bench]:
    if under_node.asked_for():
        with under_node.running(folder) as plain:
            yield cast(Bench, plain)
        return
    bench = Bench(folder)
    try:
        bench.start()
        yield bench
    finally:
        bench.stop()
