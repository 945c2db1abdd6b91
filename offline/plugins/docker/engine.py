"""The Docker engine behind the plugin, and its errors as sentences."""

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import docker
from docker.errors import APIError, DockerException
from requests.exceptions import RequestException

from offline import docker_over_ssh
from offline.plugins.provider import Failed, Values, is_unknown
from offline.plugins.schema import Field

MINIMUM_API = "1.41"
TIMEOUT_S = 120
CONFIG = ("host", "version", "sshOpts", "disableDockerDaemonCheck")
LABELS = Field("row set", {"label": Field(), "value": Field()})
_client: docker.APIClient | None = None
_host: str | None = None
_ssh_options: list[str] = []
_lock = threading.Lock()


def configure(args: Values) -> None:
    """Remember the engine's address and ask once whether it is there, as the official plugin does."""
    global _host, _ssh_options
    for key, value in args.items():
        if key not in CONFIG and not key.startswith("__") and value not in (None, "", [], "[]"):
            raise Failed(f"docker provider: the registry-only plugin does not implement {key!r}; use the online engine")
    if is_unknown(args.get("host")):
        return
    options = args.get("sshOpts") or []
    # The SDK sends a list in the provider's config as JSON text.
    _ssh_options = json.loads(options) if isinstance(options, str) else options
    _host = args.get("host") or None
    checked_elsewhere = str(args.get("disableDockerDaemonCheck", False)).lower() == "true"
    if not str(_host).startswith("ssh://") and not checked_elsewhere:
        client()


def client() -> docker.APIClient:
    global _client
    with _lock:
        if _client is None:
            with said("reaching the Docker engine"):
                if str(_host).startswith("ssh://"):
                    docker_over_ssh.reach(str(_host), _ssh_options)
                    fresh = docker_over_ssh.client(str(_host), _ssh_options, version=MINIMUM_API, timeout=TIMEOUT_S)
                else:
                    fresh = docker.APIClient(base_url=_host, version=MINIMUM_API, timeout=TIMEOUT_S)
                fresh.ping()
                _client = fresh
        return _client


@contextmanager
def said(what: str) -> Iterator[None]:
    """Turn the engine's error into one sentence that says what to do where that is known."""
    try:
        yield
    except docker_over_ssh.Unreachable as error:
        raise Failed(f"{what}: {error}") from error
    except APIError as error:
        text = str(error.explanation or error)
        raise Failed(f"{what}: {_advice(text)}") from error
    except (DockerException, RequestException, OSError) as error:
        raise Failed(f"{what}: no Docker engine answers at {_host or 'the default socket'} ({error})") from error


def _advice(text: str) -> str:
    if "port is already allocated" in text or "address already in use" in text:
        ports = re.findall(r":(\d{1,5})(?!\d)", text)
        return f"the port{' ' + ports[-1] if ports else ''} is in use; write another one into the stack config ({text})"
    if "Pool overlaps" in text or "overlaps with other one" in text:
        return (
            f"the subnet overlaps a network of this machine; write a free network.base into the stack config ({text})"
        )
    if "No such image" in text:
        return f"{text}; run `bin/fortress images build`, with `--stack` for a host reached by SSH"
    return text


def labels_of(inputs: Values) -> dict[str, str]:
    return {row["label"]: row["value"] for row in inputs.get("labels") or []}


def is_ours(found: dict[str, str] | None, inputs: Values) -> bool:
    """A half-made thing of an interrupted run carries the stack and the component that this run would give it."""
    wanted = labels_of(inputs)
    marks = [key for key in ("fortress.stack", "fortress.component") if key in wanted]
    return "fortress.stack" in marks and all((found or {}).get(key) == wanted[key] for key in marks)


def rows(labels: dict[str, str] | None) -> list[dict[str, Any]]:
    return [{"label": key, "value": value} for key, value in sorted((labels or {}).items())]
