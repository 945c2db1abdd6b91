"""The docker plugin answers what the official plugin answered: its recorded calls, replayed."""

import base64
import json
import re
import socketserver
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
from docker.errors import APIError, NotFound
from requests import Response

from offline import docker_over_ssh
from offline.plugins.docker import container, engine, image, network, volume
from offline.plugins.docker.container import Container
from offline.plugins.docker.image import RemoteImage
from offline.plugins.docker.network import Network
from offline.plugins.docker.volume import Volume
from offline.plugins.provider import Diff, Failed, PartlyDone, Refused, _diff_response
from tests.unit.replay import shape

RECORDED = Path(__file__).with_name("recorded") / "docker.jsonl"
CALLS = [json.loads(line) for line in RECORDED.read_text().splitlines()]
TYPES = {each.token: each() for each in (Container, Network, Volume, RemoteImage)}
KINDS = {0: "ADD", 1: "ADD_REPLACE", 2: "DELETE", 3: "DELETE_REPLACE", 4: "UPDATE", 5: "UPDATE_REPLACE"}
BUILT = "RemoteImage::built"


def calls(*methods: str, preview: bool | None = None) -> list[Any]:
    """Recorded calls of resources that this plugin implements: all but the image that the plugin itself built."""
    found = []
    for index, call in enumerate(CALLS):
        request = call["request"]
        urn = request["urn"]
        if call["method"] not in methods or request["type"] not in TYPES or urn.endswith(BUILT):
            continue
        if preview is None or bool(request.get("preview")) == preview:
            found.append(pytest.param(call, id=f"{index}-{call['step']}-{urn.split('::')[-1]}"))
    return found


def plain(value: Any) -> Any:
    """Values, with the order of sets and the words of a note between plugin and engine left out."""
    found = {key: item for key, item in value.items() if key != "__meta"}
    for key in ("labels", "volumes", "envs", "networksAdvanced"):
        if isinstance(found.get(key), list):
            found[key] = sorted(found[key], key=lambda item: json.dumps(item, sort_keys=True))
    return found


class FakeEngine(docker.APIClient):
    """Docker's memory without Docker: what was created is what is inspected, as an engine would show it."""

    def __init__(self) -> None:
        super().__init__(base_url="unix:///not-there", version=engine.MINIMUM_API)
        self.containers: dict[str, dict[str, Any]] = {}
        self.nets: dict[str, dict[str, Any]] = {}
        self.vols: dict[str, dict[str, Any]] = {}
        self.images: dict[str, dict[str, Any]] = {}
        self.done: list[Any] = []
        self.next_id = "f" * 64
        self.health = "healthy"

    def missing(self, what: str) -> NotFound:
        response = Response()
        response.status_code = 404
        return NotFound(f"No such {what}", response, f"No such {what}")

    def find(self, key: str) -> dict[str, Any]:
        for found in self.containers.values():
            if key in (found["Id"], found["Name"]):
                return found
        raise self.missing(f"container: {key}")

    def create_container_from_config(self, config: Any, name: Any = None, platform: Any = None) -> Any:
        self.done.append(("create", name))
        host = dict(config["HostConfig"])
        given = host.get("LogConfig")
        host["LogConfig"] = {"Type": given["Type"], "Config": given["Config"]} if given else {"Type": "json-file"}
        host = {"IpcMode": "private", "Runtime": "runc", "ShmSize": 64 * container.MIB} | host
        mode = host["NetworkMode"]
        names = {} if mode.startswith("container:") else {mode: {}}
        shared = mode.startswith("container:") and self.containers.get(mode.partition(":")[2])
        self.containers[self.next_id] = {
            "Id": self.next_id,
            "Name": name,
            "Platform": "linux",
            "Config": {
                "Hostname": shared["Config"]["Hostname"] if shared else self.next_id[:12],
                "Cmd": config.get("Cmd"),
                "Labels": config.get("Labels"),
                "StopTimeout": config.get("StopTimeout"),
            },
            "HostConfig": host,
            "NetworkSettings": {"Networks": names},
            "State": {"Running": False, "Status": "created", "ExitCode": 0, "Health": {"Status": self.health}},
            "asked": config,
        }
        return {"Id": self.next_id}

    def inspect_container(self, container: Any) -> Any:
        return self.find(container)

    def start(self, container: Any, *args: Any, **kwargs: Any) -> None:
        self.done.append(("start", sorted(self.find(container)["NetworkSettings"]["Networks"])))
        self.find(container)["State"] |= {"Running": True, "Status": "running"}

    def stop(self, container: Any, timeout: Any = None) -> None:
        self.done.append(("stop", timeout))
        self.find(container)["State"] |= {"Running": False, "Status": "exited", "ExitCode": 137}

    def wait(self, container: Any, timeout: Any = None, condition: Any = None) -> Any:
        self.find(container)["State"] |= {"Running": False, "Status": "exited"}
        return {"StatusCode": 0}

    def logs(self, container: Any, *args: Any, **kwargs: Any) -> Any:
        return b"done\n"

    def update_container(self, container: Any, **kwargs: Any) -> Any:
        self.done.append(("update", kwargs))
        host = self.find(container)["HostConfig"]
        host |= {"Memory": kwargs["mem_limit"], "MemorySwap": kwargs["memswap_limit"]}
        host |= {"RestartPolicy": kwargs["restart_policy"], "CpuShares": kwargs["cpu_shares"]}

    def remove_container(self, container: Any, v: Any = False, link: Any = False, force: Any = False) -> None:
        self.done.append(("remove", container))
        self.containers.pop(self.find(container)["Id"])

    def connect_container_to_network(self, container: Any, net_id: Any, **address: Any) -> None:
        v4, v6 = address.get("ipv4_address"), address.get("ipv6_address")
        data = {"IPAddress": v4 or "172.23.0.2", "IPPrefixLen": 24, "GlobalIPv6Address": v6 or ""}
        self.find(container)["NetworkSettings"]["Networks"][net_id] = data

    def disconnect_container_from_network(self, container: Any, net_id: Any, force: Any = False) -> None:
        self.find(container)["NetworkSettings"]["Networks"].pop(net_id)

    def networks(self, names: Any = None, ids: Any = None, filters: Any = None) -> Any:
        return [each for each in self.nets.values() if each["Name"] in names]

    def create_network(self, name: Any, **given: Any) -> Any:  # type: ignore[override]
        chosen = [{"Subnet": "172.23.0.0/16", "Gateway": "172.23.0.1"}]
        config = [{"Subnet": pool["Subnet"]} for pool in given["ipam"]["Config"]] if given["ipam"] else chosen
        self.nets[self.next_id] = {
            "Id": self.next_id,
            "Name": name,
            "Attachable": bool(given["attachable"]),
            "Driver": given["driver"],
            "Ingress": False,
            "Internal": given["internal"],
            "IPAM": {"Driver": "default", "Config": config},
            "EnableIPv6": given["enable_ipv6"],
            "Labels": given["labels"],
            "Options": given["options"],
            "Scope": "local",
        }
        return {"Id": self.next_id}

    def inspect_network(self, net_id: Any, verbose: Any = None, scope: Any = None) -> Any:
        if net_id not in self.nets:
            raise self.missing("network")
        return self.nets[net_id]

    def remove_network(self, net_id: Any) -> None:
        self.done.append(("remove network", net_id))
        del self.nets[net_id]

    def create_volume(self, name: Any = None, driver: Any = None, driver_opts: Any = None, labels: Any = None) -> Any:
        where = f"/var/lib/docker/volumes/{name}/_data"
        self.vols[name] = {"Name": name, "Driver": driver, "Options": None, "Labels": labels, "Mountpoint": where}
        return self.vols[name]

    def inspect_volume(self, name: Any) -> Any:
        if name not in self.vols:
            raise self.missing("volume")
        return self.vols[name]

    def remove_volume(self, name: Any, force: Any = False) -> None:
        self.inspect_volume(name)
        del self.vols[name]

    def inspect_image(self, image: Any) -> Any:
        if image not in self.images:
            raise self.missing("image")
        return self.images[image]

    def pull(self, repository: Any, *args: Any, **kwargs: Any) -> Any:
        response = Response()
        response.status_code = 500
        raise APIError("no route", response, "no route to the registry")

    def remove_image(self, image: Any, force: Any = False, noprune: Any = False) -> None:
        self.done.append(("remove image", image))
        del self.images[image]


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    found = FakeEngine()
    for module in (container, network, volume, image):
        monkeypatch.setattr(module, "client", lambda: found)
    monkeypatch.setattr(container, "SETTLE_S", 0)
    found.images["debian:trixie-slim"] = {"Id": "sha256:" + "a" * 64}
    return found


def made(fake: FakeEngine, call: Any) -> tuple[Any, str, Any]:
    """Bring the thing that a recorded call is about into being, under its recorded id."""
    request = call["request"]
    resource = TYPES[request["type"]]
    inputs = (
        request.get("properties") if call["method"] == "Create" else (request.get("oldInputs") or request["inputs"])
    )
    mode = inputs.get("networkMode", "")
    if mode.startswith("container:"):
        fake.containers[mode.partition(":")[2]] = {
            "Id": mode.partition(":")[2],
            "Name": "",
            "Config": {"Hostname": "407fecf08afa"},
        }
    fake.next_id = request.get("id") or call["response"].get("id") or "f" * 64
    id_, outputs = resource.create(request["name"], inputs, False)
    return resource, id_, outputs


# Check


@pytest.mark.parametrize("call", calls("Check"))
def test_check_fills_in_the_recorded_defaults(call: Any) -> None:
    request, wanted = call["request"], call["response"]["inputs"]
    seed = base64.b64decode(request["randomSeed"])
    found = TYPES[request["type"]].check(request["name"], request["olds"], request["news"], seed)
    if "name" in wanted["__defaults"] and not request["olds"]:
        assert re.fullmatch(re.escape(request["name"]) + "-[0-9a-f]{7}", found["name"])
        found = found | {"name": wanted["name"]}
    assert found == wanted


def test_a_generated_name_stays_and_another_seed_gives_another_name() -> None:
    one = Volume().check("v", {}, {}, b"seed")["name"]
    assert Volume().check("v", {}, {}, b"other")["name"] != one
    assert Volume().check("v", {"name": one}, {}, b"other")["name"] == one


# Diff


def verdict(resource: Any, request: Any) -> Any:
    diff: Diff = resource.diff(request["id"], request["oldInputs"], request["olds"], request["news"])
    answer = _diff_response(diff)
    return {
        "changes": "DIFF_SOME" if answer.changes == 2 else "DIFF_NONE",
        "replaces": list(answer.replaces),
        "diffs": list(answer.diffs),
        "deleteBeforeReplace": answer.deleteBeforeReplace,
        "detailedDiff": {path: KINDS[part.kind] for path, part in answer.detailedDiff.items()},
    }


@pytest.mark.parametrize("call", calls("Diff"))
def test_diff_gives_the_recorded_verdict(call: Any) -> None:
    wanted = call["response"]
    assert verdict(TYPES[call["request"]["type"]], call["request"]) == {
        "changes": wanted["changes"],
        "replaces": wanted.get("replaces", []),
        "diffs": wanted.get("diffs", []),
        "deleteBeforeReplace": wanted.get("deleteBeforeReplace", False),
        "detailedDiff": {path: part.get("kind", "ADD") for path, part in wanted.get("detailedDiff", {}).items()},
    }


def container_diff(old: Any, new: Any) -> Any:
    check = Container().check
    base = {"image": "i", "name": "n"}
    request = {
        "id": "x",
        "olds": {},
        "oldInputs": check("n", {}, base | old, b""),
        "news": check("n", {}, base | new, b""),
    }
    return verdict(Container(), request)


STABLES = next(
    each["response"]["stables"]
    for each in CALLS
    if each["method"] == "Diff" and each["request"]["type"] == Container.token and each["response"].get("stables")
)


def test_exactly_the_recorded_properties_replace_a_container() -> None:
    taken = {key for key, known in container.FIELDS.items() if known.taken}
    assert set(container.REPLACING) & taken == set(STABLES) & taken
    assert set(STABLES) <= set(container.FIELDS)


@pytest.mark.parametrize(
    ("old", "new", "paths"),
    [
        ({"envs": ["A=1", "B=1"]}, {"envs": ["B=1", "A=1"]}, {}),
        ({"user": ""}, {}, {}),
        ({"readOnly": False}, {}, {}),
        ({"networkMode": "bridge"}, {}, {}),
        (
            {"command": ["a", "b"]},
            {"command": ["b", "a"]},
            {"command[0]": "UPDATE_REPLACE", "command[1]": "UPDATE_REPLACE"},
        ),
        ({}, {"readOnly": True}, {"readOnly": "ADD_REPLACE"}),
        ({"memory": 64}, {"memory": 65}, {"memory": "UPDATE"}),
        ({"tmpfs": {"/tmp": "a"}}, {"tmpfs": {"/tmp": "b"}}, {'tmpfs["/tmp"]': "UPDATE"}),
        ({"stopTimeout": 1}, {"stopTimeout": 2}, {"stopTimeout": "UPDATE_REPLACE"}),
    ],
)
def test_container_changes_count_by_their_meaning(old: Any, new: Any, paths: Any) -> None:
    assert container_diff(old, new)["detailedDiff"] == paths


# Create, Read, Update


@pytest.mark.parametrize("call", calls("Create", preview=True))
def test_a_previewed_creation_equals_the_recorded_one(call: Any) -> None:
    request = call["request"]
    id_, found = TYPES[request["type"]].create(request["name"], request["properties"], True)
    wanted = call["response"]["properties"]
    assert id_ == ""
    assert plain(found) == plain(wanted)


@pytest.mark.parametrize("call", calls("Create", preview=False))
def test_created_outputs_have_the_recorded_names_and_types(fake: FakeEngine, call: Any) -> None:
    _, id_, found = made(fake, call)
    wanted = call["response"]
    assert shape(plain(found)) == shape(plain(wanted["properties"]))
    assert json.loads(found.get("__meta", "{}")) == json.loads(wanted["properties"].get("__meta", "{}"))
    assert found["id"] == id_
    asked = {key: value for key, value in call["request"]["properties"].items() if not isinstance(value, list | dict)}
    assert {key: found[key] for key in asked} == asked


@pytest.mark.parametrize("call", [each for each in calls("Read") if each.values[0]["response"]])
def test_read_outputs_have_the_recorded_names_and_types(fake: FakeEngine, call: Any) -> None:
    request, wanted = call["request"], call["response"]
    resource, id_, _ = made(fake, call)
    if wanted["properties"].get("exitCode") == 137:
        fake.stop(id_)
    _, inputs, outputs = resource.read(id_, request["inputs"], request["properties"])
    assert inputs == wanted["inputs"]
    assert shape(plain(outputs)) == shape(plain(wanted["properties"]))
    for key in ("mustRun", "exitCode", "memory", "memorySwap", "restart", "maxRetryCount", "cpuShares"):
        assert outputs.get(key) == wanted["properties"].get(key), key


def test_drift_is_what_somebody_changed_and_nothing_else(fake: FakeEngine) -> None:
    inputs = Container().check("x", {}, {"image": "i", "name": "x", "memory": 64, "memorySwap": 64}, b"")
    id_, outputs = Container().create("x", inputs, False)
    fake.find(id_)["State"] |= {"Running": False, "Restarting": True}  # between two starts: the engine sees to it
    fake.find(id_)["HostConfig"]["MemorySwap"] = -1  # a kernel without swap accounting
    read = Container().read(id_, inputs, outputs)
    assert read and read[1] == inputs
    fake.find(id_)["HostConfig"] |= {"Memory": 32 * container.MIB, "MemorySwap": 32 * container.MIB}
    read = Container().read(id_, inputs, outputs)
    assert read and verdict(Container(), {"id": id_, "oldInputs": read[1], "olds": read[2], "news": inputs})[
        "diffs"
    ] == [
        "memory",
        "memorySwap",
    ]


def test_what_is_gone_reads_as_gone(fake: FakeEngine) -> None:
    for resource in (Container(), Network(), Volume(), RemoteImage()):
        assert resource.read("gone", {"name": "gone"}, {"name": "gone"}) is None


@pytest.mark.parametrize("call", calls("Update"))
def test_updated_outputs_equal_the_recorded_ones(fake: FakeEngine, call: Any) -> None:
    request, wanted = call["request"], call["response"]["properties"]
    preview = bool(request.get("preview"))
    resource, id_, _ = made(fake, call)
    if not request["oldInputs"].get("mustRun"):
        fake.stop(id_)
    fake.done.clear()
    found = resource.update(id_, request["oldInputs"], request["olds"], request["news"], preview)
    skip = ("__pulumi_raw_state_delta", "networkDatas") if preview else ("networkDatas",)
    found, wanted = ({k: v for k, v in plain(each).items() if k not in skip} for each in (found, wanted))
    assert found == wanted
    assert bool(fake.done) != preview


def test_delete_gives_the_container_its_grace_and_is_done_when_it_is_gone(fake: FakeEngine) -> None:
    call = calls("Create", preview=False)[-1].values[0]
    resource, id_, outputs = made(fake, call)
    fake.done.clear()
    resource.delete(id_, {}, outputs)
    assert fake.done == [("stop", 1), ("remove", id_)]
    resource.delete(id_, {}, outputs)


# What the engine is asked


def create(fake: FakeEngine, **given: Any) -> Any:
    inputs = Container().check("x", {}, {"image": "i", "name": "x"} | given, b"")
    id_, _ = Container().create("x", inputs, False)
    return fake.containers[id_]["asked"]


def test_a_container_is_connected_to_its_networks_alone_before_it_starts(fake: FakeEngine) -> None:
    create(fake, networksAdvanced=[{"name": "edge", "ipv4Address": "10.0.0.2"}, {"name": "model"}])
    assert ("start", ["edge", "model"]) in fake.done
    assert fake.find("x")["NetworkSettings"]["Networks"]["edge"]["IPAddress"] == "10.0.0.2"


def test_the_hardening_reaches_the_engine(fake: FakeEngine) -> None:
    asked = create(
        fake,
        readOnly=True,
        user="1000:1000",
        capabilities={"drops": ["ALL"], "adds": ["CAP_NET_ADMIN"]},
        securityOpts=["no-new-privileges"],
        tmpfs={"/tmp": "noexec"},
        memory=64,
        memorySwap=64,
        cpus="0.5",
        sysctls={"net.ipv4.ip_forward": "0"},
        volumes=[{"hostPath": "/etc", "containerPath": "/config", "readOnly": True}],
        mounts=[{"type": "tmpfs", "target": "/m", "tmpfsOptions": {"sizeBytes": 4096, "mode": 448}}],
        ports=[{"internal": 51820, "external": 51999, "protocol": "udp", "ip": "127.0.0.1"}],
        stopTimeout=3,
        gpus="device=0,1",
    )
    host = asked["HostConfig"]
    assert asked["User"] == "1000:1000"
    assert asked["StopTimeout"] == 3
    wanted = {
        "ReadonlyRootfs": True,
        "CapDrop": ["ALL"],
        "CapAdd": ["CAP_NET_ADMIN"],
        "SecurityOpt": ["no-new-privileges"],
        "Tmpfs": {"/tmp": "noexec"},
        "Memory": 64 * container.MIB,
        "MemorySwap": 64 * container.MIB,
        "NanoCpus": 500_000_000,
        "Sysctls": {"net.ipv4.ip_forward": "0"},
        "Binds": ["/etc:/config:ro"],
        "PortBindings": {"51820/udp": [{"HostIp": "127.0.0.1", "HostPort": "51999"}]},
        "NetworkMode": "bridge",
    }
    assert {key: host[key] for key in wanted} == wanted
    assert host["Mounts"][0]["TmpfsOptions"] == {"SizeBytes": 4096, "Mode": 448}
    assert host["DeviceRequests"][0]["DeviceIDs"] == ["0", "1"]
    assert not host.get("Privileged")


# Refusals


@pytest.mark.parametrize(
    ("given", "prop"),
    [
        ({"privileged": True}, "privileged"),
        ({"uploads": [{"file": "/a"}]}, "uploads"),
        ({"nonsense": 1}, "nonsense"),
        ({"volumes": [{"containerPath": "/a", "fromContainer": "b"}]}, "volumes[0].fromContainer"),
        ({"mounts": [{"type": "bind", "target": "/a", "volumeOptions": {"noCopy": True}}]}, "mounts[0].volumeOptions"),
        ({"mounts": [{"type": "npipe", "target": "/a"}]}, "mounts[0].type"),
        ({"healthcheck": {"tests": ["NONE"], "interval": "5 s"}}, "healthcheck"),
        ({"wait": True}, "wait"),
        ({"restart": "sometimes"}, "restart"),
        ({"networkMode": "host", "networksAdvanced": [{"name": "n"}]}, "networksAdvanced"),
        ({"image": ""}, "image"),
    ],
)
def test_a_container_input_that_cannot_be_is_refused_by_name(given: Any, prop: str) -> None:
    with pytest.raises(Refused) as refused:
        Container().check("x", {}, {"image": "i"} | given, b"")
    assert refused.value.prop == prop


def test_asking_for_nothing_is_not_refused() -> None:
    Container().check("x", {}, {"image": "i", "privileged": False, "tty": False, "uploads": []}, b"")


def test_an_image_is_never_built_and_one_that_cannot_be_had_is_named(fake: FakeEngine) -> None:
    with pytest.raises(Refused, match="bin/fortress images build"):
        RemoteImage().check("i", {}, {"name": "a:1", "build": {"context": "."}}, b"")
    with pytest.raises(Failed, match=r"image a:1 is not on this engine.*no route.*bin/fortress images build"):
        RemoteImage().create("i", {"name": "a:1"}, False)


def test_images_stay_where_keep_locally_says_so(fake: FakeEngine) -> None:
    inputs = {"name": "debian:trixie-slim", "keepLocally": True}
    id_, outputs = RemoteImage().create("i", inputs, False)
    RemoteImage().delete(id_, inputs, outputs)
    assert not fake.done
    RemoteImage().delete(id_, inputs, outputs | {"keepLocally": False})
    assert fake.done == [("remove image", "debian:trixie-slim")]


# Half-made and foreign things

LABELS = [{"label": "fortress.stack", "value": "dev"}, {"label": "fortress.component", "value": "gateway"}]


def test_a_container_left_by_an_interrupted_run_is_replaced(fake: FakeEngine) -> None:
    fake.next_id = "1" * 64
    create(fake, labels=LABELS, envs=["OLD=1"])
    fake.next_id = "2" * 64
    assert create(fake, labels=LABELS)["HostConfig"]
    assert list(fake.containers) == ["2" * 64]


@pytest.mark.parametrize("labels", [[], [{"label": "fortress.stack", "value": "other"}]])
def test_a_foreign_container_of_the_same_name_is_refused_and_stays(fake: FakeEngine, labels: Any) -> None:
    create(fake, labels=labels)
    with pytest.raises(Failed, match="a container x is there already and not this stack's"):
        create(fake, labels=LABELS)
    assert len(fake.containers) == 1


def network_inputs(**given: Any) -> Any:
    return Network().check("n", {}, {"name": "n", "labels": LABELS} | given, b"")


def test_a_network_left_by_an_interrupted_run_is_taken_over_or_made_anew(fake: FakeEngine) -> None:
    fake.next_id = "1" * 64
    Network().create("n", network_inputs(internal=True), False)
    fake.next_id = "2" * 64
    assert Network().create("n", network_inputs(internal=True), False)[0] == "1" * 64
    assert Network().create("n", network_inputs(internal=False), False)[0] == "2" * 64
    assert list(fake.nets) == ["2" * 64]


def test_a_network_in_use_or_foreign_is_refused_and_stays(fake: FakeEngine) -> None:
    Network().create("n", network_inputs(), False)
    with pytest.raises(Failed, match="not this stack's"):
        Network().create("n", network_inputs(labels=[]), False)
    next(iter(fake.nets.values()))["Containers"] = {"1": {"Name": "somebody"}}
    with pytest.raises(Failed, match="in use by somebody"):
        Network().create("n", network_inputs(internal=True), False)
    assert len(fake.nets) == 1


def test_a_volume_of_this_stack_keeps_its_data_and_a_foreign_one_is_refused(fake: FakeEngine) -> None:
    inputs = Volume().check("v", {}, {"name": "v", "labels": LABELS}, b"")
    Volume().create("v", inputs, False)
    fake.vols["v"]["data"] = "kept"
    Volume().create("v", inputs, False)
    assert fake.vols["v"]["data"] == "kept"
    with pytest.raises(Failed, match="not this stack's"):
        Volume().create("v", inputs | {"labels": []}, False)


# Failures


def test_a_container_that_does_not_become_healthy_is_kept_in_the_state_with_its_last_words(fake: FakeEngine) -> None:
    fake.health = "starting"
    with pytest.raises(PartlyDone, match=r"container x is starting after 0 s; its last words: done") as partly:
        create(fake, wait=True, waitTimeout=0, healthcheck={"tests": ["CMD", "false"]})
    assert partly.value.outputs["id"] in fake.containers
    with pytest.raises(PartlyDone):  # the next `up` does not turn green by itself
        inputs = Container().check(
            "x", {}, {"image": "i", "name": "x", "wait": True, "waitTimeout": 0, "healthcheck": {"tests": ["a"]}}, b""
        )
        Container().update(partly.value.id, inputs, partly.value.outputs, inputs, False)


def test_a_container_that_cannot_be_connected_leaves_nothing(fake: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise fake.missing("network: edge")

    monkeypatch.setattr(fake, "connect_container_to_network", fail)
    with pytest.raises(Failed, match="network: edge"):
        create(fake, networksAdvanced=[{"name": "edge"}])
    assert not fake.containers


@pytest.mark.parametrize(
    ("engine_says", "sentence"),
    [
        ("Bind for 0.0.0.0:51820 failed: port is already allocated", "the port 51820 is in use"),
        ("listen tcp [fd00::1]:443: bind: address already in use", "the port 443 is in use"),
        ("Pool overlaps with other one on this address space", "the subnet overlaps a network of this machine"),
        ("No such image: a:1", "run `bin/fortress images build`"),
    ],
)
def test_the_engines_errors_become_one_sentence(engine_says: str, sentence: str) -> None:
    response = Response()
    response.status_code = 500
    with pytest.raises(Failed, match=sentence), engine.said("container x"):
        raise APIError("", response, engine_says)


def test_no_engine_is_said_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(engine, "_client", None)
    with pytest.raises(Failed, match=f"no Docker engine answers at unix://{tmp_path}"):
        engine.configure({"host": f"unix://{tmp_path}/docker.sock"})
    with pytest.raises(Failed, match="'registryAuth'"):
        engine.configure({"registryAuth": '[{"address":"a"}]'})


# SSH


class _Engine(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        while self.rfile.readline().strip():
            pass
        self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nOK")


@pytest.fixture
def listening(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "engine.sock"
    with socketserver.ThreadingUnixStreamServer(str(path), _Engine) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield path
        server.shutdown()


@pytest.mark.parametrize(
    ("stderr", "said"),
    [
        (
            "@@@ WARNING @@@\nHost key verification failed.",
            "box shows another host key than the pinned one; nothing was sent",
        ),
        ("root@box: Permission denied (publickey).", "box does not accept the private key"),
        ("sh: 1: docker: not found", "box has no `docker` command"),
        ("Cannot connect to the Docker daemon at unix:///x. Is it running?", "no Docker engine answers its user there"),
        ("ssh: connect to host box port 22: Connection refused", "cannot reach box by SSH: .*Connection refused"),
        ("", "no word of why"),
    ],
)
def test_why_an_engine_behind_ssh_does_not_answer_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, stderr: str, said: str
) -> None:
    (tmp_path / "stderr").write_text(stderr)
    (tmp_path / "ssh").write_text(f"#!/bin/sh\ncat {tmp_path}/stderr >&2\nexit 255\n")
    (tmp_path / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(docker_over_ssh.Unreachable, match=said) as caught:
        docker_over_ssh.reach("ssh://box", [])
    assert "\n" not in str(caught.value)


def test_an_engine_behind_ssh_is_reached_with_the_given_options(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, listening: Path
) -> None:
    said = tmp_path / "said"
    bridge = (
        "import socket,sys,threading,os\n"
        f"s=socket.socket(socket.AF_UNIX); s.connect({str(listening)!r})\n"
        "def up():\n"
        "  while (d:=os.read(0,4096)): s.sendall(d)\n"
        "threading.Thread(target=up,daemon=True).start()\n"
        "while (d:=s.recv(4096)): os.write(1,d)\n"
    )
    (tmp_path / "bridge.py").write_text(bridge)
    fake_ssh = tmp_path / "ssh"
    fake_ssh.write_text(
        f'#!/bin/sh\necho "$@" >> {said}\ncase "$*" in *version*) echo 1.41; exit;; esac\n'
        f"exec python3 {tmp_path}/bridge.py\n"
    )
    fake_ssh.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(engine, "_client", None)
    engine.configure({"host": "ssh://root@box:2222", "sshOpts": json.dumps(["-o", "StrictHostKeyChecking=yes"])})
    assert engine.client().ping()
    words = "-o StrictHostKeyChecking=yes -T -l root -p 2222 -- box docker"
    asked = [f"{words} version --format {{{{.Server.APIVersion}}}}", f"{words} system dial-stdio"]
    assert set(said.read_text().splitlines()) == set(asked)
    elsewhere = docker_over_ssh.command("ssh://box/run/user/1000/docker.sock", [], "ps")
    assert elsewhere == ["ssh", "-T", "--", "box", "docker", "--host=unix:///run/user/1000/docker.sock", "ps"]
    monkeypatch.setattr(engine, "_client", None)
