"""What a change does to a running fortress: the real CLI, a file backend, the real engine."""

import getpass
import json
import os
import shutil
import signal
import subprocess
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from fortress import paths
from fortress.stack_file import PROBE
from fortress.stack_lock import holders
from tests.deployment import Client, Deployment, copy_of_the_checkout, docker, printed
from tests.unit.gateway.harness import Authority

DEAD_WITHIN_S = 5
BACK_WITHIN_S = 30


def only_same(changes: dict[str, int]) -> bool:
    return set(changes) == {"same"}


def test_a_second_up_and_every_preview_change_nothing(fortress: Deployment):
    before = fortress.containers()
    assert only_same(fortress.planned())
    assert only_same(fortress.planned("--refresh"))
    fortress.up()
    assert fortress.containers() == before


def test_another_checkout_makes_the_same_plan(fortress: Deployment, tmp_path: Path):
    other = copy_of_the_checkout(tmp_path / "other")
    shutil.copy2(fortress.file, other / "stacks" / fortress.file.name)
    assert only_same(fortress.planned(cwd=other))


def test_a_new_user_replaces_no_container_and_cuts_no_stream(fortress: Deployment, bob: Client):
    before = fortress.containers()
    with bob.stream() as stream:
        assert stream.flows(), "no stream to begin with"
        fortress.config["users"]["carol"] = {}
        with stream.read():
            fortress.up()
        assert stream.flows(), "adding a user cut another one's stream"
    assert fortress.containers() == before
    carol = Client(fortress, "carol")
    try:
        assert carol.ask().status == 200
    finally:
        carol.close()


def test_a_removed_user_is_dead_within_five_seconds_streams_included(fortress: Deployment, bob: Client):
    fortress.config["users"]["carol"] = {}
    fortress.up()
    carol = Client(fortress, "carol")
    key = carol.key
    try:
        with carol.stream() as hers, bob.stream() as his:
            assert hers.flows()
            assert his.flows()
            del fortress.config["users"]["carol"]
            # `up` ends after the switch: its question and the bundles come later, so 5 s from its end is generous.
            with hers.read(), his.read():
                fortress.pulumi_up()
            hers.bytes_for(DEAD_WITHIN_S)
            assert hers.bytes_for(2) == 0, "a removed user's stream goes on"
            assert his.flows(), "another user's stream was cut"
        assert carol.curl("/api/tags").status == 0, "a removed device still has a tunnel"
        assert bob.curl("/api/tags", key=key).status == 401, "a removed user's key still works in another tunnel"
    finally:
        carol.close()
    fortress.up()
    assert not (paths.bundles(fortress.stack) / "carol").exists()


def test_a_stream_by_a_removed_users_key_in_another_tunnel_is_cut_too(fortress: Deployment, bob: Client):
    fortress.config["users"]["carol"] = {}
    fortress.up()
    bob.key = fortress.bundle("carol")["api_key"].strip()
    with bob.stream() as stream:
        assert stream.flows()
        del fortress.config["users"]["carol"]
        with stream.read():
            fortress.pulumi_up()
        stream.bytes_for(DEAD_WITHIN_S)
        assert stream.bytes_for(2) == 0


def test_adding_a_device_changes_no_other_devices_file(fortress: Deployment):
    before = {user: fortress.bundle(user) for user in ("ada", "bob")}
    fortress.config["users"]["ada"]["devices"] = ["tablet", "laptop", "phone"]
    fortress.up()
    after = {user: fortress.bundle(user) for user in ("ada", "bob")}
    assert "wireguard-tablet.conf" in after["ada"]
    for user, files in before.items():
        for name, text in files.items():
            if name.startswith("wireguard-") or name == "api_key":
                assert after[user][name] == text, f"{user}'s {name} moved"


def test_a_model_that_nobody_declared_is_named_and_left_and_one_whose_line_goes_is_removed(
    fortress: Deployment, bob: Client
):
    def models() -> set[str]:
        listed = docker("exec", fortress.container("ollama"), "ollama", "ls").splitlines()[1:]
        return {line.split()[0] for line in listed}

    docker("exec", fortress.container("ollama"), "ollama", "cp", "tiny", "by-hand")
    fortress.config["models"].append({"name": "second", "source": "builtin"})
    said = " ".join(fortress.up().split())
    assert "not declared: Ollama has the model by-hand:latest" in said
    assert models() == {"tiny:latest", "second:latest", "by-hand:latest"}
    fortress.config["models"].pop()
    fortress.up()
    assert models() == {"tiny:latest", "by-hand:latest"}
    docker("exec", fortress.container("ollama"), "ollama", "rm", "by-hand")
    assert "not declared" not in fortress.up()


@pytest.mark.parametrize("component", ["vpn-node", "gateway", "ollama-sidecar", "ollama"])
def test_a_container_that_dies_comes_back_by_itself(component: str, fortress: Deployment, bob: Client):
    for _ in range(3):
        process = int(docker("inspect", "-f", "{{.State.Pid}}", fortress.container(component)))
        os.kill(process, signal.SIGKILL)
        Client.wait_until(lambda: bob.ask().status == 200, f"answer after {component} died", BACK_WITHIN_S)


@pytest.mark.parametrize("component", ["gateway", "ollama-sidecar"])
def test_a_removed_container_is_mended_by_up_with_refresh(component: str, fortress: Deployment, bob: Client):
    docker("rm", "-f", fortress.container(component))
    fortress.pulumi("up", "--yes", "--skip-preview", "--refresh")
    assert bob.ask().status == 200
    assert only_same(fortress.planned("--refresh"))


def test_after_pulumi_was_killed_in_the_middle_up_recovers(fortress: Deployment, bob: Client):
    fortress.config["ollama"]["memory_mb"] = 1536
    fortress.config["ollama"]["context_length"] = 6144
    fortress.write()
    running = subprocess.Popen(
        ["pulumi", "up", "--yes", "--skip-preview", "--stack", fortress.stack],
        env=fortress.environment(),
        cwd=paths.CHECKOUT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    before = fortress.container("ollama")
    Client.wait_until(lambda: fortress.containers().get("ollama") != before, "replacement in flight", 60)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    fortress.up()
    assert bob.ask().status == 200
    assert only_same(fortress.planned())


def test_a_config_that_nginx_refuses_never_replaces_the_running_one(fortress: Deployment, bob: Client, tmp_path: Path):
    pem, _ = Authority("own").leaf("ollama.fortress.internal")
    _, of_another = Authority("own").leaf("ollama.fortress.internal")
    (tmp_path / "c.pem").write_text(pem)
    (tmp_path / "k.pem").write_text(of_another)
    before = fortress.containers()
    fortress.config["gateway"] = {"certificate_file": str(tmp_path / "c.pem"), "key_file": str(tmp_path / "k.pem")}
    said = fortress.up(check=False)
    assert fortress.last_code != 0
    assert "key values mismatch" in said
    assert bob.ask().status == 200
    docker("restart", fortress.container("gateway"))
    Client.wait_until(lambda: bob.ask().status == 200, "answer after a restart", BACK_WITHIN_S)
    del fortress.config["gateway"]
    fortress.up()
    assert fortress.containers() == before


def secrets_of(state: Any) -> set[str]:
    """Every text that an exported state with its secrets shown marks as secret."""
    if isinstance(state, list):
        return {text for item in state for text in secrets_of(item)}
    if not isinstance(state, dict):
        return set()
    if "plaintext" in state:
        return texts_of(json.loads(state["plaintext"]))
    return {text for item in state.values() for text in secrets_of(item)}


def texts_of(value: Any) -> set[str]:
    if isinstance(value, dict | list):
        return {text for item in (value.values() if isinstance(value, dict) else value) for text in texts_of(item)}
    return {value} if isinstance(value, str) else set()


def test_no_secret_is_in_plain_text_in_state_or_in_what_docker_shows(fortress: Deployment):
    shown = json.loads(fortress.pulumi("stack", "export", "--show-secrets"))
    # Bundles are secret as a whole; what in them is for everybody is a certificate.
    secrets = {text for text in secrets_of(shown) if len(text) >= 16 and not text.startswith("-----BEGIN CERT")}
    for files in fortress.outputs()["bundles"].values():
        assert files["api_key"] in secrets
    secrets |= fortress.keys()
    state = texts_of(json.loads(fortress.pulumi("stack", "export")))
    described = [docker("inspect", id_) for id_ in fortress.containers().values()]
    logged = [printed(id_) for id_ in fortress.containers().values()]
    for secret in secrets:
        for text in (*state, *described, *logged):
            assert secret not in text
    assert not [text for text in (*state, *described, *logged) if "PRIVATE KEY" in text]


def test_no_secret_is_in_an_argument_or_the_environment_of_a_process_while_up_runs(fortress: Deployment):
    secrets = fortress.keys()
    passphrase = Path(fortress.environment()["PULUMI_CONFIG_PASSPHRASE_FILE"]).read_text()
    fortress.config["users"]["dora"] = {}
    fortress.write()
    running = subprocess.Popen(
        [str(paths.CHECKOUT / "bin" / "fortress"), "up", "--stack", fortress.stack],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    seen: set[bytes] = set()
    while running.poll() is None:
        for process in Path("/proc").glob("[0-9]*"):
            for place in ("cmdline", "environ"):
                try:
                    seen.add((process / place).read_bytes())
                except (FileNotFoundError, ProcessLookupError, PermissionError):
                    continue
    assert running.returncode == 0
    secrets |= fortress.keys() | {passphrase}
    everything = b"\n".join(seen)
    assert b"tunnel-client" in everything, "too few processes were seen to show anything"
    for secret in secrets:
        assert secret.encode() not in everything


def test_a_second_run_at_the_same_time_is_refused_by_name(fortress: Deployment):
    first = fortress.begun("up")
    try:
        time.sleep(1.5)
        said = fortress.fortress("up", check=False)
        assert fortress.last_code == 1
        assert "another run works on stack" in said
    finally:
        words, _ = first.communicate(timeout=300)
        assert first.returncode == 0, words[-3000:]


def test_a_plain_pulumi_run_in_another_terminal_is_waited_for_and_never_unlocked(fortress: Deployment):
    fortress.config["ollama"]["context_length"] = 8192  # replaces a container, so that the run lasts
    fortress.write()
    plain = subprocess.Popen(
        ["pulumi", "up", "--yes", "--skip-preview", "--stack", fortress.stack],
        env=fortress.environment(),
        cwd=paths.CHECKOUT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    backend = fortress.environment()["PULUMI_BACKEND_URL"]
    try:
        Client.wait_until(lambda: holders(backend, fortress.stack) != [], "lock of the plain run", 60)
        said = " ".join(fortress.fortress("up", check=False).split())
        assert fortress.last_code == 1
        assert f"locked by {getpass.getuser()}@" in said
        assert f"(process {plain.pid}," in said
    finally:
        assert plain.wait(timeout=300) == 0, "the refused run disturbed the one that was there first"


def test_a_wrong_passphrase_is_said_in_one_sentence(
    fortress: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    wrong = tmp_path / "passphrase"
    wrong.write_text("wrong")
    monkeypatch.setenv("PULUMI_CONFIG_PASSPHRASE_FILE", str(wrong))
    said = fortress.fortress("bundle", PROBE, check=False)
    assert fortress.last_code == 1
    assert "passphrase does not open this stack" in " ".join(said.split())


def test_a_protected_stack_refuses_to_be_destroyed_and_names_the_word(fortress: Deployment):
    fortress.config["protect"] = True
    fortress.write()
    said = fortress.fortress("down", check=False)
    assert fortress.last_code == 1
    assert "protect: false" in said
    assert [(line["command"], line["result"]) for line in fortress.commands()][-2:] == [
        ("down", "begun"),
        ("down", "failed"),
    ]
    fortress.config["protect"] = False
    fortress.write()


def test_down_leaves_nothing(fortress: Deployment):
    assert json.loads(docker("inspect", fortress.container("gateway")))
    fortress.fortress("down")
    assert fortress.left_over() == []
    fortress.up()


def test_certificates_past_two_thirds_are_renewed_and_the_preview_says_so(fortress: Deployment, bob: Client):
    before = fortress.containers()
    fortress.config["pki"] = {"leaf_epoch": "renewed-2099-01-01"}
    fortress.write()
    changes = fortress.planned()
    assert changes["replace"] == 9, "the three leaf certificates, their requests and their keys"
    with bob.stream() as stream:
        assert stream.flows()
        with stream.read():
            fortress.up()
        assert stream.flows(), "a new certificate cut a stream"
    assert fortress.containers() == before
    assert bob.ask().status == 200


def test_the_authority_changes_with_an_overlap_in_which_old_and_new_bundles_are_served(
    fortress: Deployment, bob: Client
):
    before = fortress.containers()
    leaf = fortress.config.get("pki", {})
    fortress.config["pki"] = leaf | {"ca_epoch": "2", "previous_ca_epoch": "1"}
    fortress.write()
    assert fortress.planned().get("replace", 0) == 0, "who is served by the former one goes on"
    with bob.stream() as stream:
        with stream.read():
            fortress.up()
        assert stream.flows(), "a second authority cut a stream"
    with closing(Client(fortress, "ada")) as newer:  # not bob again: one device is in one place at a time
        assert (bob.ask().status, newer.ask().status) == (200, 200)
        fortress.config["pki"] = leaf | {"ca_epoch": "2"}
        fortress.write()
        fortress.up()
        assert newer.ask().status == 200, "a bundle of the overlap holds both"
        assert bob.ask().status == 0, "who knows the former authority alone believes this server no more"
    assert fortress.containers() == before
