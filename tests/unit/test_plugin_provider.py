"""The frame of the registry-only plugins, as Pulumi sees it: a process that speaks gRPC; and how it is installed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import empty_pb2, struct_pb2
from pulumi.runtime.proto import provider_pb2, provider_pb2_grpc

from offline.plugins import install, provider
from offline.plugins.provider import Diff, Failed, PartlyDone, Refused, compare

PLUGIN = """
from offline.plugins import provider
from offline.plugins.provider import Diff, Failed, PartlyDone, Refused, UNKNOWN, serve
provider.ORPHAN_CHECK_S = 0.05

class Thing:
    token = "test:index:Thing"
    def check(self, name, olds, news, seed):
        if news.get("bad"):
            raise Refused("bad", "is not to be")
        return {"kind": type(news.get("number")).__name__} | news
    def diff(self, id_, old_inputs, olds, news):
        return Diff(provider.compare(old_inputs, news), replace=("name",), delete_before_replace=True)
    def create(self, name, inputs, preview):
        if inputs.get("how") == "fails":
            raise Failed("it failed in one sentence")
        if inputs.get("how") == "half":
            raise PartlyDone("only half of it", "half-id", {"made": True})
        return name, {"seen": inputs.get("secret"), "unknown": UNKNOWN}
    def read(self, id_, inputs, props):
        return None
    def update(self, id_, old_inputs, olds, news, preview):
        raise KeyError("a defect")
    def delete(self, id_, inputs, props): ...

serve("1.2.3", [Thing()])
"""
URN = "urn:pulumi:s::p::test:index:Thing::x"


def struct(**values: Any) -> struct_pb2.Struct:
    made = struct_pb2.Struct()
    made.update(values)
    return made


@pytest.fixture
def process(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    (tmp_path / "plugin.py").write_text(PLUGIN)
    root = str(Path(install.__file__).parents[2])
    with subprocess.Popen(
        [sys.executable, "plugin.py"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": root},
        stdout=subprocess.PIPE,
        text=True,
    ) as started:
        yield started
        started.kill()


@pytest.fixture
def plugin(process: subprocess.Popen[str]) -> Iterator[Any]:
    assert process.stdout
    with grpc.insecure_channel(f"127.0.0.1:{process.stdout.readline().strip()}") as channel:
        yield provider_pb2_grpc.ResourceProviderStub(channel)


def test_the_engine_gets_a_version_and_values_of_the_right_type(plugin: Any) -> None:
    assert plugin.GetPluginInfo(empty_pb2.Empty()).version == "1.2.3"
    answer = plugin.Check(provider_pb2.CheckRequest(urn=URN, news=struct(number=3)))
    assert answer.inputs["kind"] == "int"
    assert not answer.failures


def test_a_refused_input_names_its_property(plugin: Any) -> None:
    answer = plugin.Check(provider_pb2.CheckRequest(urn=URN, news=struct(bad=True)))
    assert [(each.property, each.reason) for each in answer.failures] == [("bad", "is not to be")]


def test_secrets_arrive_bare_and_the_engine_is_told_that_it_marks_them_again(plugin: Any) -> None:
    wrapped = {provider._SIGNATURE: provider._SECRET, "value": {"a": ["b"]}}
    answer = plugin.Create(provider_pb2.CreateRequest(urn=URN, properties=struct(secret=wrapped)))
    assert answer.id == "x"
    assert answer.properties["seen"]["a"][0] == "b"
    assert answer.properties["unknown"] == provider.UNKNOWN
    assert not plugin.Configure(provider_pb2.ConfigureRequest()).acceptSecrets


def test_a_diff_names_elements_and_what_replaces(plugin: Any) -> None:
    request = provider_pb2.DiffRequest(
        urn=URN, old_inputs=struct(name="a", list=["x"]), news=struct(name="b", list=["y"])
    )
    answer = plugin.Diff(request)
    assert (list(answer.replaces), list(answer.diffs)) == (["name"], ["list", "name"])
    assert sorted(answer.detailedDiff) == ["list[0]", "name"]
    assert answer.deleteBeforeReplace
    request.ignoreChanges.append("name")
    ignoring = plugin.Diff(request)
    assert (list(ignoring.replaces), ignoring.deleteBeforeReplace) == ([], False)


def test_a_failure_is_its_one_sentence_and_a_defect_says_what_it_is(plugin: Any, capfd: Any) -> None:
    with pytest.raises(grpc.RpcError) as failed:
        plugin.Create(provider_pb2.CreateRequest(urn=URN, properties=struct(how="fails")))
    assert failed.value.details() == "it failed in one sentence"
    with pytest.raises(grpc.RpcError, match="KeyError: 'a defect'"):
        plugin.Update(provider_pb2.UpdateRequest(urn=URN))


def test_what_half_exists_is_handed_over_with_its_error(plugin: Any) -> None:
    with pytest.raises(grpc.RpcError) as failed:
        plugin.Create(provider_pb2.CreateRequest(urn=URN, properties=struct(how="half")))
    trailers = {key: value for key, value in failed.value.trailing_metadata()}
    detail = trailers["grpc-status-details-bin"]
    found = provider_pb2.ErrorResourceInitFailed()
    assert b"half-id" in detail and b"type.googleapis.com/pulumirpc.ErrorResourceInitFailed" in detail
    found.ParseFromString(detail[detail.index(b"\n\x07half-id") :])
    assert (found.id, found.properties["made"], list(found.reasons)) == ("half-id", True, ["only half of it"])


def test_another_type_is_refused_by_name(plugin: Any) -> None:
    with pytest.raises(grpc.RpcError, match="does not implement test:index:Other; use the online engine"):
        plugin.Check(provider_pb2.CheckRequest(urn="urn:pulumi:s::p::test:index:Other::x"))


def test_what_is_gone_reads_as_an_empty_answer(plugin: Any) -> None:
    assert plugin.Read(provider_pb2.ReadRequest(urn=URN, id="x")).id == ""


def test_a_plugin_leaves_when_its_engine_was_killed(tmp_path: Path) -> None:
    (tmp_path / "plugin.py").write_text(PLUGIN)
    starter = (
        "import subprocess,sys; p=subprocess.Popen([sys.executable,'plugin.py']); print(p.pid,flush=True); p.wait()"
    )
    root = str(Path(install.__file__).parents[2])
    with subprocess.Popen(
        [sys.executable, "-c", starter],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": root},
        stdout=subprocess.PIPE,
        text=True,
    ) as engine:
        assert engine.stdout
        pid, port = int(engine.stdout.readline()), engine.stdout.readline()
        assert port.strip().isdigit()
        os.kill(engine.pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}/stat").exists() and Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z":
        assert time.monotonic() < deadline, "the plugin is still there"
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        ({"a": 1}, {"a": 1}, {}),
        ({"a": [1, 2]}, {"a": [1]}, {"a[1]": "delete"}),
        ({"a": {"b": 1}}, {"a": {"b": 2}}, {"a.b": "update"}),
        ({"a": {"/b": 1}}, {"a": {"/b": 2}}, {'a["/b"]': "update"}),
        ({"__defaults": ["a"]}, {"__defaults": []}, {}),
        ({"a": []}, {}, {}),
        ({}, {"a": False}, {"a": "add"}),
        ({"a": "x"}, {"a": provider.UNKNOWN}, {"a": "update"}),
    ],
)
def test_compare_names_each_difference(old: Any, new: Any, found: Any) -> None:
    assert compare(old, new) == found


def test_the_parts_of_the_frame_are_what_plugins_use() -> None:
    assert str(Refused("a.b", "why")) == "a.b: why"
    assert issubclass(PartlyDone, Failed)
    assert Diff().detailed == {}


def test_plugins_are_installed_under_the_versions_of_the_sdk_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    home = tmp_path / "home"
    for _ in range(2):
        install.install(home, Path(sys.executable), "0123")
    for name, wanted in install.VERSIONS.items():
        assert version(f"pulumi-{name}") == wanted
        found = list((home / "plugins" / f"resource-{name}-v{wanted}").iterdir())
        assert [each.name for each in found] == [f"pulumi-resource-{name}"]
        # Started elsewhere and from the copy, as the engine does; the port on the first line is the engine's way in.
        with subprocess.Popen([found[0]], cwd=tmp_path, stdout=subprocess.PIPE, text=True) as started:
            assert started.stdout
            assert started.stdout.readline().strip().isdigit()
            started.kill()
