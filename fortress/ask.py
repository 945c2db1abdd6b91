"""One real question through the tunnel, from a throw-away client container that has nothing but a user's bundle."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from fortress.errors import Stop
from images import reference
from settings import StackSettings

QUESTION = "Why is the sky blue?"
MAX_TOKENS = 24
TIMEOUT_S = 120
AUTHORITIES = "/etc/ssl/certs/ca-certificates.crt"
"""The public ones, in the client's image."""

# Runs in the client container, with the bundle on stdin. No argument holds a secret: curl reads the key from a file.
SCRIPT = """\
set -eu; umask 077; mkdir -p /tmp/b; cd /tmp/b
python3 -c 'import json,sys,pathlib; [pathlib.Path(n).write_text(t) for n,t in json.load(sys.stdin).items()]'
printf 'header = "Authorization: Bearer %s"\\n' "$(cat api_key)" > curlrc
cat ca.pem $3 > believed
exec tunnel-client tunnel.conf /bin/sh -eu -c '
ask="curl -sS -N --fail-with-body --connect-timeout 5 --cacert believed -K curlrc"
$ask --retry 10 --retry-connrefused --retry-delay 1 --max-time 20 "$1/api/tags"; echo
exec $ask --max-time "$2" -d @body "$1/api/generate"' sh "$1" "$2"
"""


@dataclass(frozen=True)
class Answer:
    models: tuple[str, ...]
    """What Ollama has, as it lists it."""
    text: str
    chunks: int
    first_chunk_s: float
    """From the container's start: tunnel and model load are in it."""
    total_s: float


def command(config: StackSettings, tunnel_address: str, name: str) -> list[str]:
    """The client's container, which reads the bundle from stdin. name: its own."""
    # What the private authority signed is believed by it alone; a certificate of one's own may be anybody's.
    also = "" if config.gateway.certificate_file is None else AUTHORITIES
    return [
        *("docker", "run", "--pull", "never", "--rm", "-i", "--name", name, "--network", "bridge"),
        *("--label", f"fortress.stack={config.stack}", "--label", "fortress.component=client"),
        *("--cap-drop", "ALL", "--cap-add", "NET_ADMIN", "--device", "/dev/net/tun"),
        *("--security-opt", "no-new-privileges", "--read-only", "--tmpfs", "/tmp", "--tmpfs", "/run"),  # noqa: S108
        *("--sysctl", "net.ipv6.conf.all.disable_ipv6=0", "--add-host", f"{config.domain}:{tunnel_address}"),
        *("--entrypoint", "/bin/sh", reference("client", config.engine.value), "-c", SCRIPT),
        *("sh", config.url(), str(TIMEOUT_S), also),
    ]


def ask(console: Console, config: StackSettings, tunnel_address: str, files: Mapping[str, str]) -> Answer:
    """Stream one answer of the first model and print it as it comes.

    files: a user's bundle. It travels by stdin; the container is removed with its first exit.
    """
    device = next(name for name in sorted(files) if name.startswith("wireguard-"))
    body = {"model": config.models[0].name, "prompt": QUESTION, "options": {"num_predict": MAX_TOKENS}}
    stdin = json.dumps(
        {
            "tunnel.conf": files[device],
            "ca.pem": files["ca.pem"],
            "api_key": files["api_key"].strip(),
            "body": json.dumps(body),
        }
    )
    name = f"fortress-{config.stack}-client-{os.getpid()}"
    started = time.monotonic()
    models: tuple[str, ...] = ()
    text, chunks, first, ended = "", 0, 0.0, False
    try:
        with subprocess.Popen(
            command(config, tunnel_address, name),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as client:
            assert client.stdin and client.stdout and client.stderr
            client.stdin.write(stdin)
            client.stdin.close()
            for line in client.stdout:
                if not line.strip():
                    continue
                frame = _frame(line)
                if "models" in frame:
                    models = tuple(model["name"] for model in frame["models"])
                    continue
                chunks += 1
                first = first or time.monotonic() - started
                text += frame.get("response", "")
                console.print(frame.get("response", ""), end="", markup=False, highlight=False, soft_wrap=True)
                sys.stdout.flush()
                ended = ended or bool(frame.get("done"))
            errors = client.stderr.read()
        console.print()
    finally:
        subprocess.run(["docker", "rm", "-f", name], capture_output=True, check=False)
    if client.returncode != 0 or not ended:
        raise Stop(
            f"the fortress is up, but no whole answer came through the tunnel (code {client.returncode}, "
            f"{chunks} chunks): {errors.strip()[-400:] or text[-200:] or 'no word of why'}"
        )
    return Answer(models, text, chunks, first, time.monotonic() - started)


def _frame(line: str) -> dict[str, Any]:
    try:
        frame = json.loads(line)
    except json.JSONDecodeError:
        frame = {"response": line}
    if "error" in frame:
        raise Stop(f"the gateway answered with an error: {str(frame['error'])[:300]}")
    return frame
