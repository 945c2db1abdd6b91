"""Loki with an object store: lines outlive its volume, and the keys are nowhere but in a file of its own.

The store is the tests' own, behind TLS with an authority of its own; it knows the five requests that Loki sends.
"""

import json
import os
import ssl
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import httpx
import pytest

from components.observability import UIDS
from fortress import engine, stack_file
from images import reference
from render import loki
from settings import PROJECT, load
from tests.deployment import Client, docker
from tests.unit.gateway.harness import Authority

KEY, SECRET = "AKIAFORTRESS", "s3cret/key+of-the-store"


class Store:
    """Objects in memory."""

    def __init__(self, folder: Path, authority: Authority) -> None:
        self.objects: dict[str, bytes] = {}
        self.signed_by: set[str] = set()
        store = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _name(self) -> str:
                signed = self.headers.get("Authorization", "")
                store.signed_by.add(signed.partition("Credential=")[2].partition("/")[0])
                return unquote(urlsplit(self.path).path).removeprefix("/lines").removeprefix("/")

            def _answer(self, status: int, body: bytes = b"") -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.send_header("ETag", '"0"')
                self.send_header("Last-Modified", "Thu, 26 Nov 2026 09:00:00 GMT")
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            def do_PUT(self) -> None:
                name = self._name()
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if "aws-chunked" in self.headers.get("Content-Encoding", ""):
                    body = _unchunked(body)
                store.objects[name] = body
                self._answer(200)

            def do_GET(self) -> None:
                name, query = self._name(), parse_qs(urlsplit(self.path).query)
                if name:
                    found = store.objects.get(name)
                    missing = b"<Error><Code>NoSuchKey</Code><Message>-</Message></Error>"
                    self._answer(404 if found is None else 200, missing if found is None else found)
                    return
                self._answer(200, _listing(store.objects, query))

            do_HEAD = do_GET

            def do_DELETE(self) -> None:
                store.objects.pop(self._name(), None)
                self._answer(204)

            def log_message(self, format: str, *args: object) -> None:
                return

        address = stack_file.own_address()
        (folder / "chain.pem").write_text("".join(authority.leaf(str(address))))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "chain.pem")
        self.server = ThreadingHTTPServer((str(address), 0), Handler)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.endpoint = f"{address}:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


def _unchunked(body: bytes) -> bytes:
    parts: list[bytes] = []
    while body:
        size, _, rest = body.partition(b"\r\n")
        length = int(size.partition(b";")[0], 16)
        if not length:
            break
        parts.append(rest[:length])
        body = rest[length + 2 :]
    return b"".join(parts)


def _listing(objects: dict[str, bytes], query: dict[str, list[str]]) -> bytes:
    prefix, delimiter = query.get("prefix", [""])[0], query.get("delimiter", [""])[0]
    inside = [name for name in sorted(objects) if name.startswith(prefix)]
    folders: set[str] = set()
    rows = ""
    for name in inside:
        rest = name[len(prefix) :]
        if delimiter and delimiter in rest:
            folders.add(prefix + rest.partition(delimiter)[0] + delimiter)
            continue
        about = f"<Size>{len(objects[name])}</Size><LastModified>2026-11-26T09:00:00.000Z</LastModified>"
        rows += f"<Contents><Key>{name}</Key>{about}</Contents>"
    rows += "".join(f"<CommonPrefixes><Prefix>{name}</Prefix></CommonPrefixes>" for name in sorted(folders))
    return f"<ListBucketResult><IsTruncated>false</IsTruncated>{rows}</ListBucketResult>".encode()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[tuple[Store, Authority]]:
    authority = Authority("store")
    made = Store(tmp_path, authority)
    yield made, authority
    made.server.shutdown()


def test_lines_in_an_object_store_outlive_lokis_volume(store: tuple[Store, Authority], tmp_path: Path):
    there, authority = store
    config = {
        "users": {"ada": {}},
        "wireguard": {"endpoint": "vpn.example.com:51820"},
        "observability": {
            "form": "full",
            "object_storage": {
                **{"endpoint": there.endpoint, "bucket": "lines", "access_key": KEY},
                **{"secret_key": SECRET, "ca_file": "ca.pem"},
            },
        },
    }
    settings = load("test", {f"{PROJECT}:{key}": value for key, value in config.items()})
    current = tmp_path / "config" / "current"
    (current / "rules").mkdir(parents=True)
    text = loki.config(settings, settings.plan).replace(str(settings.plan.telemetry.loki), "0.0.0.0")
    (current / "loki.yaml").write_text(text)
    (current / "store-credentials").write_text(loki.credentials(settings))
    (current / "store-ca.pem").write_text(authority.pem)
    for path in (tmp_path, current.parent):
        path.chmod(0o755)
    image = reference("loki", os.environ.get("FORTRESS_ENGINE") or engine.choose())
    started: list[str] = []

    def start() -> str:
        """A Loki that has nothing but the store."""
        uid = UIDS["loki"]
        id_ = docker(
            *("run", "-d", "--label", "fortress.component=loki-test", "--read-only", "--cap-drop", "ALL"),
            *("--user", f"{uid}:{uid}", "--tmpfs", f"/var/lib/loki:uid={uid},gid={uid}", "--tmpfs", "/tmp"),
            *("-v", f"{current.parent}:/config:ro"),
            *("-e", "AWS_SHARED_CREDENTIALS_FILE=/config/current/store-credentials"),
            *(image, "-config.file=/config/current/loki.yaml"),
        ).strip()
        started.append(id_)
        address = docker("inspect", "-f", "{{.NetworkSettings.IPAddress}}", id_).strip()
        url = f"http://{address}:{loki.PORT}"

        def ready() -> bool:
            try:
                return httpx.get(f"{url}/ready", timeout=2).status_code == 200
            except httpx.HTTPError:
                return False

        Client.wait_until(ready, "Loki", 60)
        return url

    try:
        first = start()
        now = time.time_ns()
        line = {"stream": {"kind": "audit"}, "values": [[str(now), "kept for long"]]}
        httpx.post(f"{first}/loki/api/v1/push", json={"streams": [line]}).raise_for_status()
        # Asked to end, it gives away what it holds.
        httpx.post(f"{first}/ingester/shutdown?flush=true&terminate=false", timeout=30).raise_for_status()
        docker("stop", started[0])
        assert any(name.startswith("fake/") for name in there.objects), sorted(there.objects)
        assert any(name.startswith("index/") for name in there.objects), sorted(there.objects)
        assert there.signed_by == {KEY}

        query = {"query": '{kind="audit"}', "start": str(now - 10**10), "end": str(now + 10**10)}
        found = httpx.get(f"{start()}/loki/api/v1/query_range", params=query, timeout=30).json()["data"]["result"]
        assert [value[1] for stream in found for value in stream["values"]] == ["kept for long"]
        shown = "".join(docker("inspect", id_) for id_ in started) + text
        assert SECRET not in shown
        assert json.loads(docker("inspect", started[0]))[0]["Config"]["User"] == f"{UIDS['loki']}:{UIDS['loki']}"
    finally:
        for id_ in started:
            docker("rm", "-f", id_, check=False)
