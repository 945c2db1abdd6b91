"""Changes of a stack file that no `up` can make of what is deployed."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fortress import deployed
from fortress.errors import Stop
from fortress.pulumi_cli import Pulumi
from settings import PROJECT, StackSettings, load

HERE, THERE, KEY = "unix:///var/run/docker.sock", "ssh://deploy@box.example.com:22", "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5"
WATCHED: dict[str, Any] = {"observability": "full"}
LOGIN: dict[str, Any] = {
    "users": {"bob": {"email": "bob@example.com"}},
    "browser": {"provider": "github", "client_id": "Iv1.abc", "client_secret": "0ur-s3cret-at-github"},
}


def settings(**more: Any) -> StackSettings:
    config: dict[str, Any] = {"engine": "registry-only", "users": {"bob": {}}}
    config["wireguard"] = {"endpoint": "vpn.example.com:51820"}
    return load("home", {f"{PROJECT}:{key}": value for key, value in (config | more).items()})


def by_ssh(address: str, port: int = 22) -> dict[str, Any]:
    return {"ssh": {"address": address, "port": port, "user": "deploy", "host_key": KEY}}


def state(host: str) -> list[dict[str, Any]]:
    return [
        {"type": "pulumi:pulumi:Stack"},
        {"type": deployed.PROVIDER, "inputs": {"host": host}},
        {"type": deployed.NETWORK, "id": "n1", "inputs": {"name": "fortress-home-wan"}},
    ]


def engine(*networks: str) -> Any:
    return SimpleNamespace(networks=SimpleNamespace(list=lambda: [SimpleNamespace(id=each) for each in networks]))


@pytest.mark.parametrize(
    ("was", "now", "networks"),
    [
        (HERE, {"docker_socket": "/run/user/1000/docker.sock"}, ["foreign"]),
        (HERE, by_ssh("box.example.com"), ["foreign"]),
        (HERE, by_ssh("127.0.0.1"), ["n1"]),
        (THERE, by_ssh("other.example.com"), []),
        (THERE, {}, ["n1"]),
    ],
    ids=["another socket", "now by ssh", "now by ssh to itself", "another machine", "no longer by ssh"],
)
def test_another_engine_is_refused_with_the_steps(was: str, now: dict[str, Any], networks: list[str]):
    with pytest.raises(Stop, match=r"run on .*Write .*:host as it was and run `make down STACK=home`") as stop:
        deployed.refuse_another_engine(settings(host=now), state(was), engine(*networks))
    assert was in str(stop.value)


@pytest.mark.parametrize(
    ("was", "now"),
    [
        (HERE, {}),
        (HERE, {"docker_socket": "/run/docker.sock"}),
        (THERE, by_ssh("box.example.com")),
        (THERE, by_ssh("192.0.2.7", 2222)),
    ],
    ids=["same", "same by another socket", "same by ssh", "same at another address"],
)
def test_the_same_engine_may_have_another_address(was: str, now: dict[str, Any]):
    deployed.refuse_another_engine(settings(host=now), state(was), engine("foreign", "n1"))


def test_what_was_never_deployed_or_is_gone_may_go_anywhere():
    for resources in ([], state(HERE)[:2]):
        deployed.refuse_another_engine(settings(host=by_ssh("box.example.com")), resources, engine())


def volumes(*parts: str, protect: bool = True) -> list[dict[str, Any]]:
    labels = {part: [{"label": "fortress.stack", "value": "home"}] for part in parts}
    for part in parts:
        labels[part].append({"label": "fortress.component", "value": part})
    return [
        {
            "type": deployed.VOLUME,
            "inputs": {"name": f"fortress-home-{part}", "labels": labels[part]},
            **({"protect": True} if protect else {}),
        }
        for part in parts
    ]


@pytest.mark.parametrize(
    ("before", "part", "line"),
    [
        (WATCHED, "loki", "observability: full"),
        (WATCHED, "prometheus", "observability: full"),
        (LOGIN, "login", "browser.provider"),
    ],
)
@pytest.mark.parametrize("protect", [True, False])
def test_a_change_that_drops_a_protected_volume_is_refused_with_the_steps(
    before: dict[str, Any], part: str, line: str, protect: bool
):
    held = volumes("audit", "state", "tunnel", "models", part)
    deployed.refuse_to_drop(settings(**before), held)
    # `protect: false` alone is too late: Pulumi asks what the state says of a resource that is no longer declared.
    with pytest.raises(Stop, match=f"without `{line}` .*: fortress-home-{part}\\..*protect: false"):
        deployed.refuse_to_drop(settings(protect=protect), held)
    deployed.refuse_to_drop(settings(), volumes("audit", part, protect=False))


class Killed(Pulumi):
    """A stack whose last run was killed while it made a container; it writes down what is done."""

    def __init__(self, folder: Path, *, pending: bool) -> None:
        super().__init__("home", {"PULUMI_BACKEND_URL": f"file://{folder}"})
        labels = [{"label": "fortress.stack", "value": "home"}, {"label": "fortress.component", "value": "gateway"}]
        made = {"type": deployed.CONTAINER, "inputs": {"name": "fortress-home-gateway", "labels": labels}}
        operations = [{"type": "creating", "resource": made}] if pending else None
        self.state = {"resources": state(HERE), "pending_operations": operations}
        self.done: list[str] = []

    def read(self, *arguments: str, check: bool = True) -> str:
        if arguments[0] != "stack":
            self.done.append(" ".join(arguments))
        return json.dumps({"version": 3, "deployment": self.state})


@pytest.mark.parametrize("pending", [True, False])
def test_what_a_killed_run_made_goes_before_its_operations_are_forgotten(pending: bool, tmp_path: Path):
    killed = Killed(tmp_path, pending=pending)
    gateway = SimpleNamespace(name="fortress-home-gateway", id="c1", remove=lambda force: killed.done.append("removed"))
    there: Any = SimpleNamespace(containers=SimpleNamespace(list=lambda all, filters: [gateway]))
    killed.recover(there)
    forgotten = ["removed", "refresh --yes --skip-preview --clear-pending-creates"]
    assert killed.done == (forgotten if pending else [])
