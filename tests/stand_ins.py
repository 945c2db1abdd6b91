"""Loopback stand-ins for the internet that the normal engine uses: a download server and a container registry."""

import hashlib
import json
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx

from fortress import paths
from offline.build import alone, workshop

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"


class Downloads:
    """Files of a folder over HTTP."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.asked: list[str] = []
        self.broken_off: set[str] = set()
        """Names of which only a half arrives."""


@contextmanager
def downloads(folder: Path) -> Iterator[Downloads]:
    class Handler(SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            served.asked.append(Path(self.path).name)
            super().do_GET()

        def copyfile(self, source: Any, outputfile: Any) -> None:
            content = source.read()
            half = Path(self.path).name in served.broken_off
            outputfile.write(content[: len(content) // 2] if half else content)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
    served = Downloads(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Registry:
    """A container registry, and what a test does to it behind the engine's back."""

    def __init__(self, name: str, storage: Path) -> None:
        self.name = name
        self.storage = storage

    def put(self, image: str, repository: str, tag: str) -> str:
        """Push a local image under a tag. Returns: the digest of its manifest."""
        there = f"{self.name}/{repository}:{tag}"
        _docker("tag", image, there)
        try:
            _docker("push", "-q", there)
        finally:
            _docker("rmi", there)
        return self.digest(repository, tag)

    def put_index(self, repository: str, tag: str) -> str:
        """Turn a tag into that of a multi-platform index with the one image. Returns: the digest of the index."""
        answer = httpx.get(self._manifest(repository, tag), headers={"Accept": MANIFEST})
        os_, architecture = _docker("version", "--format", "{{.Server.Os}} {{.Server.Arch}}").split()
        entry = {
            "mediaType": MANIFEST,
            "size": len(answer.content),
            "digest": self.digest(repository, tag),
            "platform": {"os": os_, "architecture": architecture},
        }
        index = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]}).encode()
        put = httpx.put(self._manifest(repository, tag), content=index, headers={"Content-Type": INDEX})
        assert put.status_code == 201, put.text
        return f"sha256:{hashlib.sha256(index).hexdigest()}"

    def digest(self, repository: str, tag: str) -> str:
        accept = {"Accept": f"{MANIFEST}, {INDEX}"}
        answer = httpx.head(self._manifest(repository, tag), headers=accept).raise_for_status()
        return answer.headers["Docker-Content-Digest"]

    def swap(self, digest: str, other: str) -> None:
        """Serve the bytes of one digest under the name of another, as a mirror that lies would."""
        shutil.copy(self._blob(other), self._blob(digest))

    def forget_local(self) -> None:
        """Take from the engine all that was pulled from here."""
        listed = _docker("images", "--digests", "--format", "{{.Repository}}\t{{.Tag}}\t{{.Digest}}").splitlines()
        for repository, tag, digest in (line.split("\t") for line in listed):
            if repository.startswith(f"{self.name}/"):
                _docker("rmi", f"{repository}:{tag}" if digest == "<none>" else f"{repository}@{digest}")

    def _manifest(self, repository: str, reference: str) -> str:
        return f"http://{self.name}/v2/{repository}/manifests/{reference}"

    def _blob(self, digest: str) -> Path:
        value = digest.removeprefix("sha256:")
        return self.storage / "docker/registry/v2/blobs/sha256" / value[:2] / value / "data"


@contextmanager
def registry(folder: Path) -> Iterator[Registry]:
    program = _registry_program()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        name = f"127.0.0.1:{probe.getsockname()[1]}"
    made = Registry(name, folder / "storage")
    config = {
        "version": "0.1",
        "log": {"level": "error"},
        "storage": {"filesystem": {"rootdirectory": str(made.storage)}},
        "http": {"addr": name},
    }
    (folder / "config.yml").write_text(json.dumps(config))  # JSON is YAML
    with (folder / "log").open("w") as log:
        process = subprocess.Popen([program, "serve", str(folder / "config.yml")], stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 15
        while not _answers(name):
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < deadline, f"no registry on {name}: {(folder / 'log').read_text()}"
            time.sleep(0.1)
        yield made
    finally:
        process.terminate()
        process.wait()
        made.forget_local()


def _answers(name: str) -> bool:
    try:
        return httpx.get(f"http://{name}/v2/").is_success
    except httpx.HTTPError:
        return False


def _registry_program() -> str:
    """The one on PATH, else Debian's, unpacked and not installed: its package would start a service for everybody."""
    found = shutil.which("docker-registry")
    if found:
        return found
    home = paths.cache() / "docker-registry"
    with alone(home):
        if not home.exists():
            assert shutil.which("apt-get"), "docker-registry is missing: put the CNCF registry on PATH under this name"
            with workshop(home) as work:
                if os.geteuid() == 0:
                    subprocess.run(["apt-get", "update", "-qq"], capture_output=True, check=False)
                download = ["apt-get", "download", "-qq", "docker-registry"]
                done = subprocess.run(download, cwd=work, capture_output=True, text=True, check=False)
                packages = list(work.glob("*.deb"))
                assert packages, f"docker-registry is missing, and `{' '.join(download)}` failed: {done.stderr}"
                subprocess.run(["dpkg-deb", "-x", packages[0], work / "it"], check=True)
                (work / "it").rename(home)
    return str(home / "usr" / "bin" / "docker-registry")


def _docker(*arguments: str) -> str:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"docker {' '.join(arguments)}: {done.stderr}"
    return done.stdout
