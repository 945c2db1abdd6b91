"""Bundles: what is in them, how they lie on disk, and what the wrapper does to one command."""

import contextlib
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
from io import StringIO
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from rich.console import Console

from fortress import bundle as disk
from fortress.bundle import MANIFEST, remove_bundle, write_bundle
from fortress.errors import Stop
from render import bundle
from render.bundle import BundleDevice
from settings import StackSettings, load
from tests.unit.conftest import Golden
from tests.unit.test_render_vpn_node import HOSTILE, KEY, OTHER, PSK

API_KEY = "0e3a20669692f6c0d22fd5545f0538cacc9e82cf0e9acdf6dfd00d2aed326674"
CA = "-----BEGIN CERTIFICATE-----\nb3VyIG93bg==\n-----END CERTIFICATE-----\n"
CONFIG: dict[str, Any] = {
    "ollama-fortress:users": {"alice": {"keyless": True, "devices": ["laptop", "phone"]}, "bob": {}},
    "ollama-fortress:wireguard": {"endpoint": "vpn.example.com:51820"},
}


def settings(**more: Any) -> StackSettings:
    return load("test", CONFIG | {f"ollama-fortress:{key}": value for key, value in more.items()})


def device(name: str = "laptop", private_key: str | None = KEY) -> BundleDevice:
    return BundleDevice(name, private_key, PSK, IPv4Address("10.66.1.2"), IPv6Address("fd66:66:66:66::2"))


def files(
    of: StackSettings | None = None,
    user: str = "alice",
    api_key: str = API_KEY,
    ca_pem: str = CA,
    devices: tuple[BundleDevice, ...] = (device("laptop"), device("phone")),
) -> dict[str, str]:
    return bundle.files(
        of or settings(), user, api_key=api_key, ca_pem=ca_pem, server_public_key=OTHER, devices=devices
    )


def test_a_bundle_is_what_one_user_needs():
    assert sorted(files()) == [
        "README.md",
        "api_key",
        "ca.pem",
        "fortress-run",
        "wireguard-laptop.conf",
        "wireguard-phone.conf",
    ]
    assert files()["api_key"] == f"{API_KEY}\n"


@pytest.mark.parametrize("name", ["fortress-run", "README.md"])
def test_golden_wrapper_and_page_are_the_reviewed_ones(name: str, golden: Golden):
    golden.check(f"bundle/{name}", files()[name])


def test_golden_page_for_a_certificate_of_ones_own_asks_for_no_private_authority(golden: Golden):
    made = files(settings(gateway={"certificate_file": "chain.pem", "key_file": "key.pem"}))
    golden.check("bundle/README-own-certificate.md", made["README.md"])
    assert "--cacert" not in made["README.md"]


def test_the_page_gives_no_ollama_command_to_who_needs_a_key():
    assert "ollama run" in files()["README.md"]
    assert "ollama run" not in files(user="bob", devices=(device("default"),))["README.md"]


PROVIDER = {"provider": "github", "client_id": "x", "client_secret": "x"}
MAIL = {"alice": {"keyless": True, "devices": ["laptop", "phone"]}, "bob": {"email": "bob@example.com"}, "dave": {}}


def test_the_page_in_the_browser_is_named_to_who_may_open_it_and_how():
    of = settings(users=MAIL, browser={**PROVIDER, "domain": "talk.example.com"})
    alice, bob, dave = (files(of, user)["README.md"] for user in ("alice", "bob", "dave"))
    for text in (alice, bob):
        assert "https://talk.example.com, or https://10.66.0.1:8443 where" in text
        assert "echo '10.66.0.1 ollama.fortress.internal talk.example.com'" in text
    assert "there is nothing to type" in alice
    assert "Sign in at GitHub as bob@example.com." in bob
    assert "talk.example.com" not in dave
    keyless_only = settings(users=MAIL, browser={})
    assert "chat.ollama.fortress.internal" in files(keyless_only)["README.md"]
    assert "chat.ollama.fortress.internal" not in files(keyless_only, "bob")["README.md"]


@pytest.mark.parametrize("value", ["x@y\n# evil", "x@y `evil`", "", "<x@y>"])
def test_no_address_leaves_its_place_in_a_bundle(value: str):
    of = settings(users=MAIL, browser=PROVIDER)
    strange = of.users["bob"].model_copy(update={"email": value})
    with pytest.raises(ValueError, match="is not an e-mail address"):
        files(of.model_copy(update={"users": {**of.users, "bob": strange}}), "bob")


def test_another_port_is_in_every_address():
    of = settings(wireguard={"endpoint": "vpn.example.com:51820", "relay_port": 8443})
    made = files(of)
    assert "url='https://ollama.fortress.internal:8443'" in made["fortress-run"]
    assert "https://10.66.0.1:8443" in made["README.md"]


def test_the_names_of_the_page_suit_wg_quick():
    """It takes a name of at most 15 characters: `wireguard-laptop` has one too many."""
    page = files()["README.md"]
    assert "/etc/wireguard/fortress.conf" in page and "wg-quick up fortress" in page
    assert "wg-quick up ./" not in page


@given(HOSTILE)
def test_no_value_leaves_its_place_in_a_bundle(value: str):
    harmless = {name: text.count("\n") for name, text in files().items()}
    of = settings()
    attempts: list[dict[str, Any]] = [
        {"of": of.model_copy(update={"domain": value})},
        {"of": of.model_copy(update={"users": {value: of.users["alice"]}}), "user": value},
        {"of": of.model_copy(update={"models": (of.models[0].model_copy(update={"name": value}),)})},
        {"api_key": value},
        {"ca_pem": value},
        {"devices": (device(value), device("phone"))},
    ]
    for attempt in attempts:
        try:
            made = files(**attempt)
        except ValueError as refused:
            assert KEY not in str(refused) and API_KEY not in str(refused)
            continue
        assert sorted(text.count("\n") for text in made.values()) == sorted(harmless.values())
        for name in made:
            assert Path(name).name == name
        for mark in "'\"`$;&|<>() {}#\\":
            assert made["fortress-run"].count(mark) == files()["fortress-run"].count(mark)


# On disk


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def texts(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_only_the_user_can_read_a_bundle(tmp_path: Path):
    folder = tmp_path / "bundles" / "test" / "alice"
    write_bundle("test", "alice", files(), folder)
    assert mode(folder) == 0o700
    assert {name: mode(folder / name) for name in ("api_key", "wireguard-laptop.conf", "wireguard-laptop.png")} == {
        "api_key": 0o600,
        "wireguard-laptop.conf": 0o600,
        "wireguard-laptop.png": 0o600,
    }
    assert mode(folder / "fortress-run") == 0o700
    assert (folder / "wireguard-phone.png").read_bytes().startswith(b"\x89PNG")


def test_a_file_that_waits_for_a_private_key_has_no_qr_code(tmp_path: Path):
    made = files(devices=(device("laptop", None),))
    write_bundle("test", "alice", made, tmp_path / "b")
    assert not (tmp_path / "b" / "wireguard-laptop.png").exists()
    assert "has no QR code" in made["README.md"]


def test_writing_again_replaces_what_is_the_bundles_own(tmp_path: Path):
    folder = tmp_path / "b"
    write_bundle("test", "alice", files(), folder)
    write_bundle("test", "alice", files(api_key="f" * 64, devices=(device("laptop"),)), folder)
    assert (folder / "api_key").read_text() == "f" * 64 + "\n"
    assert not list(folder.glob("wireguard-phone.*")), "the file of a device that is gone stayed"


@pytest.mark.parametrize("name", ["README.md", "api_key", "wireguard-laptop.png"])
def test_a_strangers_file_is_named_and_nothing_is_written(name: str, tmp_path: Path):
    (tmp_path / name).write_text("mine")
    with pytest.raises(Stop, match=f"{name} was not written by this bundle.*move it away"):
        write_bundle("test", "alice", files(), tmp_path)
    assert texts(tmp_path) == {name: b"mine"}


def test_a_changed_file_is_kept(tmp_path: Path):
    folder = tmp_path / "b"
    write_bundle("test", "alice", files(), folder)
    (folder / "README.md").write_text("my notes")
    with pytest.raises(Stop, match=r"README\.md"):
        write_bundle("test", "alice", files(api_key="f" * 64), folder)
    remove_bundle(folder)
    assert texts(folder) == {"README.md": b"my notes"}


def test_two_users_never_share_a_folder(tmp_path: Path):
    write_bundle("test", "alice", files(), tmp_path / "b")
    with pytest.raises(Stop, match="holds the bundle of 'alice'"):
        write_bundle("test", "bob", files(user="bob"), tmp_path / "b")


def test_a_folder_that_was_there_keeps_its_mode(tmp_path: Path):
    """`--out ~` must not lock others out of a home directory."""
    tmp_path.chmod(0o755)
    write_bundle("test", "alice", files(), tmp_path)
    assert mode(tmp_path) == 0o755
    assert mode(tmp_path / "api_key") == 0o600


def test_a_link_leads_no_key_elsewhere(tmp_path: Path):
    folder, elsewhere = tmp_path / "b", tmp_path / "elsewhere"
    write_bundle("test", "alice", files(), folder)
    elsewhere.write_text("untouched")
    (folder / ".api_key.half").symlink_to(elsewhere)
    write_bundle("test", "alice", files(api_key="f" * 64), folder)
    assert elsewhere.read_text() == "untouched"
    (folder / "ca.pem").unlink()
    (folder / "ca.pem").symlink_to(elsewhere)
    with pytest.raises(Stop, match=r"ca\.pem"):
        write_bundle("test", "alice", files(), folder)


@pytest.mark.parametrize("name", ["../api_key", "a/b", MANIFEST])
def test_a_file_outside_the_folder_is_refused(name: str, tmp_path: Path):
    with pytest.raises(ValueError, match="is no name of a file in a bundle"):
        write_bundle("test", "alice", {name: "x"}, tmp_path / "b")


@pytest.mark.parametrize("last", range(10))
def test_an_interrupted_run_is_no_stranger_to_the_next(last: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder, fresh = tmp_path / "b", files(api_key="f" * 64, devices=(device("laptop", OTHER),))
    write_bundle("test", "alice", files(), folder)
    whole = disk._write
    count = iter(range(100))

    def until(path: Path, content: bytes, bits: int) -> None:
        if next(count) == last:
            (path.with_name(f".{path.name}.half")).write_bytes(content[: len(content) // 2])
            raise KeyboardInterrupt
        whole(path, content, bits)

    monkeypatch.setattr(disk, "_write", until)
    with contextlib.suppress(KeyboardInterrupt):
        write_bundle("test", "alice", fresh, folder)
    monkeypatch.undo()
    write_bundle("test", "alice", files(), folder)
    write_bundle("test", "alice", fresh, folder)
    write_bundle("test", "alice", fresh, tmp_path / "never-interrupted")
    assert texts(folder) == texts(tmp_path / "never-interrupted")
    remove_bundle(folder)
    assert not folder.exists()


def test_a_bundle_of_an_interrupted_run_is_removed_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_bundle("test", "alice", files(), tmp_path / "b")
    (tmp_path / "b" / ".api_key.half").write_text("half")
    remove_bundle(tmp_path / "b")
    assert not (tmp_path / "b").exists()
    remove_bundle(tmp_path / "b")


def test_the_terminal_shows_a_code_for_each_device_and_no_key(tmp_path: Path):
    out = StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", out)
        disk.show(Console(file=out), files(), tmp_path)
    assert out.getvalue().count("scan with the WireGuard app") == 2
    assert KEY not in out.getvalue() and "\u2580" in out.getvalue()


# The wrapper


@pytest.fixture
def alice(tmp_path: Path) -> Path:
    folder = tmp_path / "my bundle's folder"
    write_bundle("test", "alice", files(), folder)
    return folder


def run(folder: Path, *command: str, home: Path | None, **environment: str) -> subprocess.CompletedProcess[str]:
    base = {"PATH": os.environ["PATH"], "TMPDIR": str(folder.parent)} | ({"HOME": str(home)} if home else {})
    return subprocess.run(
        [folder / "fortress-run", *command], capture_output=True, text=True, env=base | environment, timeout=20
    )


PRINT = (sys.executable, "-c", "import json, os; print(json.dumps(dict(os.environ)))")


@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_shellcheck_finds_nothing_in_the_wrapper(shell: str, tmp_path: Path):
    program = shutil.which("shellcheck") or str(Path(sys.executable).with_name("shellcheck"))
    (tmp_path / "fortress-run").write_text(files()["fortress-run"])
    subprocess.run([program, "--shell", shell, "--norc", tmp_path / "fortress-run"], check=True)


def test_one_command_gets_endpoint_key_and_authority(alice: Path, tmp_path: Path):
    found = json.loads(run(alice, *PRINT, home=tmp_path).stdout)
    url = "https://ollama.fortress.internal"
    expected = {
        "OLLAMA_HOST": url,
        "OLLAMA_API_KEY": API_KEY,
        "OPENAI_BASE_URL": f"{url}/v1",
        "OPENAI_API_KEY": API_KEY,
        "ANTHROPIC_BASE_URL": url,
        "ANTHROPIC_API_KEY": API_KEY,
    }
    assert {name: found.get(name) for name in expected} == expected
    for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS"):
        assert Path(found[name]).read_text().endswith(CA)
        assert mode(Path(found[name])) == 0o600


def test_the_authorities_of_this_machine_are_believed_as_before(alice: Path, tmp_path: Path):
    company = tmp_path / "company.pem"
    company.write_text("the company's own")  # no newline at its end: ours must not run into it
    printed = run(alice, "sh", "-c", 'cat "$SSL_CERT_FILE"', home=tmp_path, SSL_CERT_FILE=str(company)).stdout
    assert printed == f"the company's own\n{CA}"


def test_a_wrapper_in_a_wrapper_still_believes_all(alice: Path, tmp_path: Path):
    once = run(alice, "sh", "-c", 'cat "$SSL_CERT_FILE"', home=tmp_path).stdout
    twice = run(alice, str(alice / "fortress-run"), "sh", "-c", 'cat "$SSL_CERT_FILE"', home=tmp_path).stdout
    assert twice == once


def test_a_proxy_of_the_outside_world_is_not_asked(alice: Path, tmp_path: Path):
    found = json.loads(run(alice, *PRINT, home=tmp_path, NO_PROXY="example.com").stdout)
    assert found["NO_PROXY"] == "example.com,ollama.fortress.internal,10.66.0.1,fd66:66:66:66::1"


def test_without_a_command_it_says_how_it_is_used(alice: Path, tmp_path: Path):
    done = run(alice, home=tmp_path)
    assert done.returncode == 2 and "usage:" in done.stderr and done.stdout == ""


def test_a_bundle_with_a_missing_file_is_named(alice: Path, tmp_path: Path):
    (alice / "api_key").unlink()
    done = run(alice, "true", home=tmp_path)
    assert done.returncode == 1 and "cannot read" in done.stderr and "api_key" in done.stderr


def test_arguments_input_exit_code_and_umask_are_the_commands_own(alice: Path, tmp_path: Path):
    done = run(alice, "sh", "-c", 'printf "%s|" "$@"; exit 7', "x", "a b", "", "$(id)", home=tmp_path)
    assert (done.returncode, done.stdout) == (7, "a b||$(id)|")
    assert run(alice, "no-such-command", home=tmp_path).returncode == 127
    assert run(alice, "sh", "-c", "umask", home=tmp_path).stdout == subprocess.getoutput("sh -c umask") + "\n"


def test_a_signal_reaches_the_command(alice: Path, tmp_path: Path):
    with subprocess.Popen(
        [alice / "fortress-run", "sh", "-c", "echo up; exec sleep 60"],
        stdout=subprocess.PIPE,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
    ) as child:
        assert child.stdout and child.stdout.readline() == b"up\n"
        child.terminate()
        assert child.wait(5) == -signal.SIGTERM


def test_it_works_without_a_home(alice: Path):
    done = run(alice, "sh", "-c", 'cat "$SSL_CERT_FILE"', home=None)
    assert done.returncode == 0 and done.stdout.endswith(CA)


def test_the_cache_is_its_users_alone_and_does_not_grow(alice: Path, tmp_path: Path):
    for _ in range(3):
        assert run(alice, "true", home=tmp_path).returncode == 0
    cache = tmp_path / ".cache" / "ollama-fortress"
    assert mode(cache) == 0o700 and len(list(cache.iterdir())) == 1
