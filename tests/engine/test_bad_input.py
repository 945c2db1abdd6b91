"""What cannot work is refused before anything is half-made, with the line to change."""

import json
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingUnixStreamServer

import pytest

from components.host import ROOT
from tests.deployment import Deployment, docker


@pytest.fixture
def planned() -> Iterator[Deployment]:
    """A stack that is written down but never deployed."""
    deployment = Deployment.fresh()
    yield deployment
    deployment.clean_up()


@contextmanager
def engine_of(api: str, path: Path) -> Iterator[None]:
    """What an engine of that API version answers before any work."""

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            said = json.dumps({"Version": "19.03.15", "ApiVersion": api, "MinAPIVersion": "1.12"}).encode()
            self.send_response(200)
            self.send_header("Api-Version", api)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        do_HEAD = do_GET

        def log_message(self, format: str, *args: object) -> None:
            """A test says nothing while it works."""

        def address_string(self) -> str:
            return "a unix socket"

    with ThreadingUnixStreamServer(str(path), Answers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield
        server.shutdown()


def refused(deployment: Deployment) -> str:
    said = " ".join(deployment.up(check=False).split())
    assert deployment.last_code == 1
    assert deployment.left_over() == [], "something half-made is left"
    return said


def test_a_port_in_use(planned: Deployment):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("0.0.0.0", 0))
        port = taken.getsockname()[1]
        planned.config["wireguard"] = {"endpoint": f"127.0.0.1:{port}", "port": port}
        assert f"UDP port {port} is in use" in refused(planned)


def test_an_address_that_is_not_here(planned: Deployment):
    planned.config["wireguard"]["published_address"] = "192.0.2.77"
    assert "is no address of this machine" in refused(planned)


def test_a_subnet_that_a_network_of_this_machine_uses(planned: Deployment):
    subnet = planned.config["network"]["base"].replace("/20", "/24")
    taken = f"fortress-{planned.stack}-foreign"
    docker("network", "create", "--subnet", subnet, taken)
    try:
        said = refused(planned)
    finally:
        docker("network", "rm", taken)
    assert "overlaps" in said
    assert "write another private range, for example" in said


def test_a_misspelt_key(planned: Deployment):
    planned.config["gatway"] = {}
    assert "did you mean 'gateway'?" in refused(planned)


def test_two_devices_at_one_address(planned: Deployment):
    same = {"address": "10.66.9.9"}
    planned.config["users"]["ada"]["devices"] = [{"name": "a", **same}, {"name": "b", **same}]
    said = refused(planned)
    assert "have the same tunnel address 10.66.9.9" in said
    assert "Traceback" not in said


def test_a_stack_file_that_is_not_yaml(planned: Deployment):
    planned.file.write_text("config: [\n")
    said = planned.fortress("up", check=False)
    planned.file.unlink()
    assert planned.last_code == 1
    assert "is not YAML" in said
    assert "Traceback" not in said


def test_a_full_disk_while_the_config_is_written(planned: Deployment):
    files = Path(ROOT) / planned.stack / "gateway"
    files.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", files], check=True)
    try:
        said = " ".join(planned.up(check=False).split())
        assert planned.last_code == 1
        assert f"the config was not written to {files} on this host" in said
        assert "make room on its disk" in said
        assert list(files.iterdir()) == [], "what was half written fills the disk for good"
    finally:
        subprocess.run(["umount", files], check=True)
    planned.up()


def test_an_engine_that_is_too_old(planned: Deployment, tmp_path: Path):
    planned.config["host"] = {"docker_socket": f"{tmp_path}/docker.sock"}
    with engine_of("1.40", tmp_path / "docker.sock"):
        said = " ".join(planned.up(check=False).split())
    assert planned.last_code == 1
    assert "speaks API 1.40; at least 1.41 (engine 20.10) is needed" in said
    planned.config["host"] = {}


def test_no_engine(planned: Deployment, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", "/usr/local/bin:/usr/bin:/bin")
    planned.config["host"] = {"docker_socket": "/nonexistent/docker.sock"}
    said = " ".join(planned.up(check=False).split())
    assert planned.last_code == 1
    assert "no Docker engine answers" in said
    planned.config["host"] = {}


def test_another_docker_host_than_the_stacks_is_named_and_not_used(
    planned: Deployment, monkeypatch: pytest.MonkeyPatch
):
    planned.config["wireguard"]["published_address"] = "192.0.2.77"
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("DOCKER_HOST", "unix:///nonexistent/docker.sock")
        said = " ".join(planned.up(check=False).split())
    assert "DOCKER_HOST is unix:///nonexistent/docker.sock, but this stack's containers run on" in said
    assert "is no address of this machine" in said, "the stack's own engine was not asked"
