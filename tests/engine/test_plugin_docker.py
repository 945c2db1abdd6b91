"""The docker plugin under a real `pulumi` and on a real engine: up, unchanged, drift mended, replaced, destroyed."""

import json
import secrets
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from docker import from_env
from rich.console import Console

from fortress.pulumi_cli import environment
from images import base, catalogue
from offline import kit
from tests.deployment import docker, free_subnets, free_udp_port
from tests.probe import Probe

PROGRAM = """
import pulumi, pulumi_docker as docker
config = pulumi.Config()
stack, image, v4, v6, out = (config.require(key) for key in ("stack", "image", "subnet", "subnet6", "outer"))
step = config.require_int("step")
mark = lambda cls, part: [cls(label="fortress.stack", value=stack), cls(label="fortress.component", value=part)]
first = v4.rpartition(".")[0]
provider = docker.Provider("p", host="unix:///var/run/docker.sock")
opts = pulumi.ResourceOptions(provider=provider)
here = docker.RemoteImage("image", name=image, keep_locally=True, opts=opts)
inner = docker.Network("inner", internal=True, ipv6=True, labels=mark(docker.NetworkLabelArgs, "inner"), opts=opts,
    ipam_configs=[docker.NetworkIpamConfigArgs(subnet=v4), docker.NetworkIpamConfigArgs(subnet=v6)])
outer = docker.Network("outer", labels=mark(docker.NetworkLabelArgs, "outer"), opts=opts,
    ipam_configs=[docker.NetworkIpamConfigArgs(subnet=out)])
volume = docker.Volume("volume", labels=mark(docker.VolumeLabelArgs, "volume"), opts=opts)
a = docker.Container("a", name=f"{stack}-a", image=image, command=["sleep", "1000"],
    envs=[f"STEP={step}"],
    network_mode="bridge", networks_advanced=[
        docker.ContainerNetworksAdvancedArgs(name=inner.name, ipv4_address=f"{first}.10", aliases=["gw"]),
        docker.ContainerNetworksAdvancedArgs(name=outer.name)],
    labels=mark(docker.ContainerLabelArgs, "a"), memory=16 * step, memory_swap=16 * step, cpus="0.5", read_only=True,
    restart="unless-stopped", destroy_grace_seconds=1, stop_timeout=1, init=True, shm_size=16,
    tmpfs={"/tmp": "noexec,nosuid,size=1m"}, user="65534:65534", sysctls={"net.ipv4.ip_forward": "0"},
    capabilities=docker.ContainerCapabilitiesArgs(drops=["ALL"], adds=["CAP_NET_BIND_SERVICE"]),
    security_opts=["no-new-privileges"], log_driver="json-file", log_opts={"max-size": "1m"},
    ports=[docker.ContainerPortArgs(internal=9, external=config.require_int("port"), protocol="udp", ip="127.0.0.1")],
    hosts=[docker.ContainerHostArgs(host="x.internal", ip="10.0.0.1")],
    volumes=[docker.ContainerVolumeArgs(volume_name=volume.name, container_path="/data")],
    mounts=[docker.ContainerMountArgs(type="bind", source="/etc/hostname", target="/cfg", read_only=True)],
    ulimits=[docker.ContainerUlimitArgs(name="nofile", soft=512, hard=1024)],
    healthcheck=docker.ContainerHealthcheckArgs(tests=["CMD", "true"], interval="1s", timeout="2s",
        retries=3, start_period="0s"), wait=True, wait_timeout=30,
    opts=pulumi.ResourceOptions(provider=provider, depends_on=[here]))
b = docker.Container("b", image=image, command=["sleep", "1000"], memory=16, memory_swap=16,
    network_mode=a.id.apply(lambda id_: f"container:{id_}"), labels=mark(docker.ContainerLabelArgs, "b"), opts=opts)
one = docker.Container("one", image=image, command=["echo", "said"], must_run=False, attach=True,
    logs=True, network_mode="none", labels=mark(docker.ContainerLabelArgs, "one"), opts=opts)
pulumi.export("said", one.container_logs)
pulumi.export("a", a.id)
pulumi.export("b", b.id)
"""


def bare_image(name: str) -> None:
    """A Debian without a user, an entry point or a health check of its own, under a name of its own."""
    debian = base.tag(catalogue.load())
    engine = from_env()
    base.ensure(engine, debian, print)
    engine.images.get(debian).tag(*name.split(":"))
    engine.close()


class Program(Probe):
    def __init__(self, folder: Path) -> None:
        name = f"plugin-{secrets.token_hex(3)}"
        bare_image(f"{name}:1")
        subnets = free_subnets()
        self.values = {
            "stack": name,
            "image": f"{name}:1",
            "subnet": str(next(subnets)),
            "outer": str(next(subnets)),
            "subnet6": f"fd{secrets.token_hex(1)}:{secrets.token_hex(2)}::/64",
            "port": str(free_udp_port()),
            "step": "1",
        }
        bin_dir, home = kit.prepare(Console(quiet=True), python=Path(sys.executable))
        super().__init__(folder, PROGRAM, name, environment(home, bin_dir))

    def with_values(self, *, check: bool = True, **values: str) -> str:
        self.values |= values
        return self.up(*(f"--config=probe:{key}={value}" for key, value in self.values.items()), check=check)

    def clean_up(self) -> None:
        self("destroy", "--yes", "--skip-preview", check=False)
        for kind, remove in (("ps", ["rm", "-f"]), ("network ls", ["network", "rm"]), ("volume ls", ["volume", "rm"])):
            listed = [*kind.split(), "-q", *(["-a"] if kind == "ps" else []), "--filter"]
            for found in docker(*listed, f"label=fortress.stack={self.stack}", check=False).split():
                docker(*remove, found, check=False)
        docker("rmi", f"{self.stack}:1", check=False)


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Program]:
    made = Program(tmp_path)
    try:
        yield made
    finally:
        made.clean_up()


def inspect(id_: str) -> Any:
    return json.loads(docker("inspect", id_))[0]


def test_a_stack_lives_its_whole_life(program: Program) -> None:
    program.with_values()
    outputs = program.outputs()
    assert outputs["said"] == "said\n"
    seen = inspect(outputs["a"])
    networks = seen["NetworkSettings"]["Networks"]
    assert len(networks) == 2
    assert "bridge" not in networks
    assert program.values["subnet"].rpartition(".")[0] + ".10" in {each["IPAddress"] for each in networks.values()}
    assert seen["State"]["Health"]["Status"] == "healthy"
    assert seen["HostConfig"]["PortBindings"] == {
        "9/udp": [{"HostIp": "127.0.0.1", "HostPort": program.values["port"]}]
    }
    assert program.planned() == {}
    assert program.planned("--refresh") == {}

    docker("stop", "-t", "0", outputs["b"])
    docker("update", "--restart", "no", outputs["a"])
    assert program.planned("--refresh") == {"a": "update", "b": "update"}
    program("up", "--yes", "--skip-preview", "--refresh")
    assert inspect(outputs["b"])["State"]["Running"]
    assert inspect(outputs["a"])["HostConfig"]["RestartPolicy"]["Name"] == "unless-stopped"
    assert program.outputs() == outputs

    docker("rm", "-f", outputs["b"])
    assert program.planned("--refresh") == {"b": "create"}
    program("up", "--yes", "--skip-preview", "--refresh")
    assert program.planned("--refresh") == {}

    program.with_values(step="2")  # an environment variable and the memory: the same name again, the old one first
    assert program.outputs()["a"] != outputs["a"]
    assert inspect(program.outputs()["a"])["HostConfig"]["Memory"] == 32 * 1024 * 1024
    assert program.planned("--refresh") == {}

    program("destroy", "--yes", "--skip-preview")
    assert docker("ps", "-aq", "--filter", f"label=fortress.stack={program.stack}") == ""
    assert docker("network", "ls", "-q", "--filter", f"label=fortress.stack={program.stack}") == ""
    assert docker("volume", "ls", "-q", "--filter", f"label=fortress.stack={program.stack}") == ""
    assert docker("images", "-q", f"{program.stack}:1") != ""


def test_a_failed_start_is_told_in_one_sentence_and_the_next_run_goes_on(program: Program) -> None:
    taken = docker(
        "run",
        "-d",
        "-p",
        f"127.0.0.1:{program.values['port']}:9/udp",
        program.values["image"],
        "sleep",
        "1000",
    ).strip()
    said = program.with_values(check=False)
    assert f"the port {program.values['port']} is in use" in said
    docker("rm", "-f", taken)
    program.with_values()
    assert program.planned("--refresh") == {}


def test_what_a_killed_run_left_is_replaced_and_a_foreign_container_is_not(program: Program) -> None:
    name = f"{program.stack}-a"
    docker("create", "--name", name, program.values["image"], "true")
    assert f"a container {name} is there already and not this stack's" in program.with_values(check=False)
    assert inspect(name)["State"]["Status"] == "created"
    docker("rm", name)
    labels = ["--label", f"fortress.stack={program.stack}", "--label", "fortress.component=a"]
    docker("create", "--name", name, *labels, program.values["image"], "true")
    program.with_values()
    assert inspect(name)["Id"] == program.outputs()["a"]
