"""What watches a fortress, asked from inside its own networks; and a webhook that hears its alerts."""

import json
import os
import re
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlencode

from fortress import stack_file
from settings.network import Plan
from tests.deployment import Deployment, docker, printed

FASTER = 15
_UNITS_MS = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


def faster(text: str) -> str:
    """A config with all its times divided by FASTER: the same rules, for tests that cannot wait for hours."""
    return re.sub(r"\b(\d+)([smhd])\b", lambda found: f"{int(found[1]) * _UNITS_MS[found[2]] // FASTER}ms", text)


class Told:
    """A webhook that Alertmanager posts to; it listens on this machine for one run of tests."""

    def __init__(self) -> None:
        self.messages: list[list[dict[str, Any]]] = []
        self.secret = f"s3cret-{secrets.token_hex(8)}"
        told = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = min(int(self.headers.get("Content-Length", 0)), 1 << 20)
                body = self.rfile.read(length)
                if self.path == f"/{told.secret}":
                    told.messages.append(json.loads(body)["alerts"])
                self.send_response(200)
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                return

        self.server = ThreadingHTTPServer((stack_file.own_address(), 0), Handler)
        self.url = f"http://{stack_file.own_address()}:{self.server.server_port}/{self.secret}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.server.shutdown()

    def of(self, name: str) -> list[dict[str, Any]]:
        alerts = [alert for message in self.messages for alert in message]
        return [alert for alert in alerts if alert["labels"]["alertname"] == name and alert["status"] == "firing"]


class Watched:
    """What the parts say, asked from inside their own network."""

    def __init__(self, deployment: Deployment) -> None:
        self.deployment = deployment
        self.plan = Plan(IPv4Network(deployment.config["network"]["base"]))

    def process(self, part: str) -> int:
        return int(docker("inspect", "-f", "{{.State.Pid}}", self.deployment.container(part)))

    def health(self, part: str) -> str:
        return docker("inspect", "-f", "{{.State.Health.Status}}", self.deployment.container(part)).strip()

    def answers(self, part: str) -> bool:
        """Is it ready, or back?"""
        port = {"loki": 3100, "prometheus": 9090, "alertmanager": 9093}[part]
        there = getattr(self.plan.telemetry, part)
        path = "/ready" if part == "loki" else "/-/ready"
        try:
            self.text(part, f"http://{there}:{port}{path}")
        except AssertionError:
            return False
        return True

    def ask(self, part: str, url: str, body: str | None = None) -> Any:
        """An answer of one part, asked as itself: nobody else reaches it."""
        text = self.text(part, url, body)
        return json.loads(text) if text.strip() else None

    def text(self, part: str, url: str, body: str | None = None, timeout: float = 30) -> str:
        script = (
            "import sys,urllib.request as u; d=sys.stdin.buffer.read() or None;"
            "ask=u.Request(sys.argv[1],d,{'Content-Type':'application/json'});"
            "print(u.urlopen(ask,timeout=20).read().decode())"
        )
        done = subprocess.run(
            ["nsenter", "-t", str(self.process(part)), "-n", sys.executable, "-c", script, url],
            input=body or "",
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
        )
        assert done.returncode == 0, done.stderr[-500:]
        return done.stdout

    def loki(self, path: str, **query: str | int) -> Any:
        there = self.plan.telemetry.loki
        return self.ask("loki", f"http://{there}:3100/loki/api/v1/{path}?{urlencode(query)}")["data"]

    def prometheus(self, query: str) -> dict[str, float]:
        """The label `job` of each sample -> its value."""
        there = self.plan.telemetry.prometheus
        found = self.ask("prometheus", f"http://{there}:9090/api/v1/query?{urlencode({'query': query})}")
        return {row["metric"].get("job", ""): float(row["value"][1]) for row in found["data"]["result"]}

    def lines(self, since: float, query: str = '{kind="audit"}') -> list[str]:
        """Every line from a moment on, in pages."""
        found: list[str] = []
        start, end = int((since - 5) * 1e9), int((time.time() + 60) * 1e9)
        step = int(20e9)
        while start < end:
            there = min(start + step, end)
            rows = self.loki("query_range", query=query, start=start, end=there, limit=20000, direction="forward")
            page = [value[1] for stream in rows["result"] for value in stream["values"]]
            assert len(page) < 20000
            found += page
            start = there
        return found

    def is_there(self, word: str, since: float) -> bool:
        start, end = int((since - 5) * 1e9), int((time.time() + 60) * 1e9)
        return bool(self.loki("query_range", query=f'{{kind="audit"}} |= "{word}"', start=start, end=end)["result"])

    def ids(self, since: float) -> Counter[str]:
        return Counter(json.loads(line).get("request_id", "") for line in self.lines(since))

    def trail(self) -> list[dict[str, Any]]:
        """Every audit line of the gateway's files, the rotated ones too."""
        script = "cd /var/log/gateway && cat $(ls audit-*.json 2>/dev/null) audit.json"
        text = docker("exec", self.deployment.container("gateway"), "sh", "-c", script)
        return [json.loads(line) for line in text.splitlines() if '"event":"audit-lost"' not in line]

    def shown(self, since: float) -> str:
        """All that is to be seen of what was asked from a moment on: lines, labels, figures, logs, files."""
        there = f"http://{self.plan.telemetry.prometheus}:9090/api/v1"
        seen = self.lines(since, '{service_name=~".+"}')
        seen.append(json.dumps(self.loki("series", start=int((since - 5) * 1e9))))
        figures = self.text("prometheus", f"http://{self.plan.watch.gateway}:9145/metrics")
        assert "fortress_requests_total" in figures, "nothing was looked at"
        seen.append(figures)
        for label in self.ask("prometheus", f"{there}/labels")["data"]:
            seen += self.ask("prometheus", f"{there}/label/{label}/values")["data"]
        made = self.deployment
        for id_ in made.containers().values():
            seen += [printed(id_), docker("inspect", "-f", "{{json .Config.Labels}}", id_)]
        for part, folder in (("gateway", "/var/log/gateway"), ("vpn-node", "/var/log/vpn-node")):
            seen.append(docker("exec", made.container(part), "sh", "-c", f"cat {folder}/*"))
        return "\n".join(seen)

    def kill(self, part: str) -> None:
        """As the kernel does it when memory is short; `docker kill` would count as a stop by hand."""
        os.kill(self.process(part), signal.SIGKILL)

    def resident_mb(self, part: str) -> float:
        status = Path(f"/proc/{self.process(part)}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+) kB", status)
        assert found
        return int(found[1]) / 1024
