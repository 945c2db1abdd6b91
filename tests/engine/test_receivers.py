"""Each receiver is told in its own way: the image and the config that `up` delivers, and stand-ins of those it tells.

Alertmanager runs in a network of its own that has nothing but loopback, where the services' own names lead to the
stand-ins: the config is the one that everybody gets, and nothing can leave this machine.
"""

import json
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from fortress import engine, paths
from images import reference
from render import alertmanager
from settings import PROJECT, StackSettings, load
from tests import receivers
from tests.deployment import Client, docker, printed
from tests.unit.gateway.harness import Authority
from tests.watched import faster

OLLAMA = {"alertname": "OllamaDown", "severity": "critical"}
SUMMARY = "Ollama does not answer the gateway."
DO = '`bin/fortress status` shows its health; "docker logs" <says> why & 50% more.'


def settings(port: int) -> StackSettings:
    told = {
        "email": {
            "to": "ada@example.com",
            "sender": "fortress@example.com",
            "server": f"{receivers.MAIL}:{port}",
            "user": receivers.USER,
            "password": receivers.PASSWORD,
        },
        "webhook": {"url": f"https://{receivers.WEBHOOK}{receivers.HOOK}"},
        "telegram": {"bot_token": receivers.BOT, "chat_id": -42},
        "ntfy": {"url": f"https://{receivers.NTFY}/{receivers.TOPIC}", "token": receivers.TOKEN},
    }
    config = {
        "users": {"ada": {"role": "admin"}},
        "wireguard": {"endpoint": "vpn.example.com:51820"},
        "observability": {"form": "full", "alerts": told},
    }
    return load("office", {f"{PROJECT}:{key}": value for key, value in config.items()})


class Telling:
    """A running Alertmanager, and what arrived at those it tells."""

    def __init__(self, container: str, folder: Path) -> None:
        self.container, self.folder = container, folder

    def fire(self, labels: dict[str, str], summary: str = SUMMARY, do: str = DO, ends_in_s: int | None = None) -> None:
        """As Prometheus does it; an alert that ends now is over."""
        alert: dict[str, Any] = {"labels": labels, "annotations": {"summary": summary, "do": do}}
        if ends_in_s is not None:
            alert["endsAt"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + ends_in_s))
        post = (
            "import sys,urllib.request as u;"
            "u.urlopen(u.Request('http://127.0.0.1:9093/api/v2/alerts',sys.stdin.buffer.read(),"
            "{'Content-Type':'application/json'}))"
        )
        command = [*inside(self.container), sys.executable, "-c", post]
        subprocess.run(command, input=json.dumps([alert]).encode(), check=True, timeout=20)

    def arrived(self, by: str) -> list[dict[str, Any]]:
        file = self.folder / "arrived"
        lines = file.read_text().splitlines() if file.exists() else []
        return [line for line in map(json.loads, lines) if line["by"] == by]


@contextmanager
def telling(folder: Path, port: int = 587, names: tuple[str, ...] = receivers.NAMES, *how: str) -> Iterator[Telling]:
    of = settings(port)
    authority = Authority("everybody's")
    current = folder / "config" / "current"
    current.mkdir(parents=True)
    for name, text in {"alertmanager.yml": faster(alertmanager.config(of)), **alertmanager.secrets(of)}.items():
        (current / name).write_text(text)
    (folder / "ca.pem").write_text(authority.pem)
    for name, text in zip(("server.pem", "server.key"), authority.leaf(*names), strict=True):
        (folder / name).write_text(text)
    for each in (folder, current.parent, current):
        each.chmod(0o755)
    container = docker(
        *("run", "-d", "--name", f"fortress-test-told-{secrets.token_hex(3)}", "--network", "none", "--read-only"),
        *(
            "--cap-drop",
            "ALL",
            "--tmpfs",
            "/tmp",
        ),
        *(word for name in receivers.NAMES for word in ("--add-host", f"{name}:127.0.0.1")),
        *("-v", f"{current.parent}:/config:ro", "-v", f"{folder / 'ca.pem'}:/etc/ssl/certs/ca-certificates.crt:ro"),
        *(reference("alertmanager", engine.choose()), "--config.file=/config/current/alertmanager.yml"),
        *("--storage.path=/tmp", "--web.listen-address=127.0.0.1:9093", "--cluster.listen-address="),
    ).strip()
    try:
        standing = subprocess.Popen(
            [*inside(container), sys.executable, "-m", "tests.receivers", str(folder), *how], cwd=paths.CHECKOUT
        )
        try:
            Client.wait_until(lambda: (folder / "ready").exists(), "stand-ins", 30)
            Client.wait_until(lambda: ready(container), "Alertmanager", 30)
            yield Telling(container, folder)
        finally:
            standing.kill()
            standing.wait()
    finally:
        docker("rm", "-f", container, check=False)


def inside(container: str) -> list[str]:
    """What a command has to begin with to run on the container's network."""
    return ["nsenter", "-t", docker("inspect", "-f", "{{.State.Pid}}", container).strip(), "-n"]


def ready(container: str) -> bool:
    command = ["docker", "exec", container, "http-health", "127.0.0.1", "9093", "/-/ready"]
    return subprocess.run(command, capture_output=True).returncode == 0


@pytest.mark.parametrize("port", [587, 465])
def test_each_hears_what_is_wrong_and_what_to_do_and_that_it_is_over(port: int, tmp_path: Path):
    """By mail with STARTTLS, and with TLS from the first byte."""
    with telling(tmp_path, port) as made:
        made.fire(OLLAMA)
        everybody = ("email", receivers.TELEGRAM, receivers.NTFY, receivers.WEBHOOK)
        for by in everybody:
            Client.wait_until(lambda by=by: made.arrived(by), f"word by {by}; {printed(made.container)}", 30)
        made.fire(OLLAMA, ends_in_s=0)
        for by in everybody:
            Client.wait_until(lambda by=by: len(made.arrived(by)) == 2, f"end of it by {by}", 30)
        mails, chats, pushed, hooks = (made.arrived(by) for by in everybody)
        assert not made.arrived("refused")

    title, text = "fortress office: OllamaDown", f"- {SUMMARY}\n  {DO}"
    assert (mails[0]["sender"], mails[0]["to"]) == ("fortress@example.com", ["ada@example.com"])
    assert mails[0]["headers"] == {"From": "fortress@example.com", "To": "ada@example.com", "Subject": title}
    assert mails[0]["kinds"] == ["multipart/alternative", "text/plain"]
    assert mails[0]["text"].strip() == text
    assert all(mail["tls"] or port == 465 for mail in mails)
    assert (chats[0]["chat"], chats[0]["mode"]) == (-42, "")
    assert chats[0]["text"].strip() == f"{title}\n{text}"
    assert (pushed[0]["title"], pushed[0]["text"].strip()) == (title, text)
    [alert] = hooks[0]["body"]["alerts"]
    assert (hooks[0]["body"]["version"], hooks[0]["body"]["status"]) == ("4", "firing")
    assert (alert["labels"], alert["annotations"]) == (OLLAMA, {"summary": SUMMARY, "do": DO})

    over = f"- {SUMMARY}\n  That is over."
    assert (mails[1]["headers"]["Subject"], mails[1]["text"].strip()) == (f"{title} is over", over)
    assert chats[1]["text"].strip() == f"{title} is over\n{over}"
    assert (pushed[1]["title"], pushed[1]["text"].strip()) == (f"{title} is over", over)
    assert hooks[1]["body"]["status"] == "resolved"
    assert "s3cret" not in json.dumps([mails, chats, pushed, hooks])


def test_ten_new_devices_are_one_message_and_nobody_hears_that_they_are_over(tmp_path: Path):
    with telling(tmp_path) as made:
        for n in range(10):
            device = {"alertname": "NewPeer", "severity": "info", "user": "ada", "device": f"device-{n}"}
            made.fire(device, f"ada's device device-{n} is new.", "Nothing.", ends_in_s=20)
        Client.wait_until(lambda: made.arrived("email"), "a mail", 30)
        made.fire(OLLAMA)
        Client.wait_until(lambda: len(made.arrived("email")) == 2, "the other mail", 30)
        time.sleep(24)
        mails, chats, pushed = (made.arrived(by) for by in ("email", receivers.TELEGRAM, receivers.NTFY))
        assert [mail["headers"]["Subject"].rpartition(" ")[2] for mail in mails] == ["NewPeer", "OllamaDown"]
    for told in (mails, chats, pushed):
        assert len(told) == 2
        assert [n for n in range(10) if f"device-{n} is new." in told[0]["text"]] == list(range(10))


def test_a_mail_server_without_tls_gets_no_password(tmp_path: Path):
    with telling(tmp_path, 587, receivers.NAMES, "plain") as made:
        made.fire(OLLAMA)
        Client.wait_until(
            lambda: "does not advertise the STARTTLS extension" in printed(made.container), "word of it", 30
        )
        assert made.arrived("hello"), "the mail server was never asked"
        assert not made.arrived("email")
        assert not made.arrived("refused")


def test_whoever_cannot_prove_its_name_is_told_nothing(tmp_path: Path):
    with telling(tmp_path, 587, ("elsewhere.example.com",)) as made:
        made.fire(OLLAMA)
        for name in receivers.NAMES:
            doubt = f"certificate is valid for elsewhere.example.com, not {name}"
            Client.wait_until(lambda doubt=doubt: doubt in printed(made.container), f"doubt of {name}", 45)
        assert {line["by"] for line in map(json.loads, (tmp_path / "arrived").read_text().splitlines())} == {"hello"}
