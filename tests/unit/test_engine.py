"""Which engine is taken, and that a download is whole and the published one before anything looks installed."""

import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from fortress import docker_engine, engine, paths, preflight, up
from fortress.errors import Stop
from fortress.pulumi_cli import deployed_before, environment
from images import catalogue
from settings import PROJECT, StackSettings
from tests.stand_ins import Downloads, downloads

MACHINE = {"x86_64": "x64", "aarch64": "arm64"}[platform.machine()]
ARCHIVE = f"pulumi-v{engine.PULUMI_VERSION}-linux-{MACHINE}.tar.gz"
SUMS = f"pulumi-{engine.PULUMI_VERSION}-checksums.txt"
QUIET = Console(quiet=True)


class Release:
    """A release whose `pulumi` only says hello."""

    def __init__(self, folder: Path, server: Downloads) -> None:
        self.folder, self.server = folder, server
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
            for name in ("pulumi/pulumi", "pulumi/pulumi-language-python"):
                entry = tarfile.TarInfo(name)
                entry.size, entry.mode = 5, 0o755
                tar.addfile(entry, io.BytesIO(b"hello"))
        self.archive = buffer.getvalue()
        self.publish()

    def publish(self) -> None:
        (self.folder / ARCHIVE).write_bytes(self.archive)
        other = f"{'0' * 64}  {ARCHIVE.replace('linux', 'darwin')}\n"
        (self.folder / SUMS).write_text(f"{other}{hashlib.sha256(self.archive).hexdigest()}  {ARCHIVE}\n")

    def refused(self) -> str:
        """What a run says that must install nothing; the next one then works."""
        with pytest.raises(Stop) as stopped:
            engine.prepare("online", QUIET)
        assert [path.name for path in installed().parent.iterdir() if path.is_dir()] == []
        self.server.broken_off.clear()
        self.publish()
        assert_works()
        return str(stopped.value)


def installed() -> Path:
    return paths.cache() / "pulumi" / engine.PULUMI_VERSION


def assert_works() -> None:
    bin_dir, home = engine.prepare("online", QUIET)
    assert bin_dir == installed()
    assert (bin_dir / "pulumi").read_text() == "hello"
    assert (bin_dir / "pulumi").stat().st_mode & 0o111
    assert (bin_dir / "pulumi-language-python").exists()
    assert home == paths.state() / "pulumi-home"


@pytest.fixture
def release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Release]:
    folder = tmp_path / "served"
    folder.mkdir()
    for variable in ("XDG_CACHE_HOME", "XDG_STATE_HOME"):
        monkeypatch.setenv(variable, str(tmp_path / variable))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("FORTRESS_ENGINE", raising=False)
    with downloads(folder) as server:
        monkeypatch.setenv("FORTRESS_PULUMI_RELEASES", f"{server.url}/")
        yield Release(folder, server)


def test_a_release_is_downloaded_once(release: Release):
    assert_works()
    assert release.server.asked == [SUMS, ARCHIVE]
    assert_works()
    assert release.server.asked == [SUMS, ARCHIVE]


def test_a_changed_archive_is_not_installed(release: Release):
    (release.folder / ARCHIVE).write_bytes(release.archive[:-1] + b"x")
    said = release.refused()
    assert hashlib.sha256(release.archive).hexdigest() in said
    assert "nothing was installed" in said
    assert "\n" not in said


@pytest.mark.parametrize("sums", ["", f"{'0' * 64}  other.tar.gz\n", f"{'0' * 64}\n", f"  {ARCHIVE}\n"])
def test_a_release_without_a_checksum_is_not_installed(release: Release, sums: str):
    (release.folder / SUMS).write_text(sums)
    assert "nothing was installed" in release.refused()


def test_two_checksums_for_one_archive_are_one_too_many(release: Release):
    with (release.folder / SUMS).open("a") as file:
        file.write(f"{'0' * 64}  {ARCHIVE}\n")
    assert "nothing was installed" in release.refused()


@pytest.mark.parametrize("name", [SUMS, ARCHIVE])
def test_a_download_that_breaks_off_leaves_nothing(release: Release, name: str):
    release.server.broken_off.add(name)
    said = release.refused()
    assert said.startswith(f"cannot download pulumi {engine.PULUMI_VERSION}")
    assert said.endswith("try again, or set FORTRESS_ENGINE")


@pytest.mark.parametrize("name", [SUMS, ARCHIVE])
def test_a_missing_file_of_the_release_is_said(release: Release, name: str):
    (release.folder / name).unlink()
    assert "404" in release.refused()


def test_a_run_that_was_killed_while_unpacking_leaves_nothing_that_looks_installed(
    release: Release, monkeypatch: pytest.MonkeyPatch
):
    def killed(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(tarfile.TarFile, "extractall", killed)
        with pytest.raises(KeyboardInterrupt):
            engine.prepare("online", QUIET)
    assert not installed().exists()
    half = installed().parent / f".{engine.PULUMI_VERSION}.work-killed"  # no clean-up after SIGKILL
    half.mkdir()
    assert_works()
    assert not half.exists()


def test_an_archive_that_would_write_elsewhere_is_not_unpacked(release: Release, tmp_path: Path):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        entry = tarfile.TarInfo("../../../escaped")
        tar.addfile(entry, io.BytesIO())
    release.archive = buffer.getvalue()
    release.publish()
    with pytest.raises(tarfile.FilterError):
        engine.prepare("online", QUIET)
    assert not list(tmp_path.rglob("escaped"))


def test_the_engine_is_online_where_the_releases_answer_even_after_a_redirect(
    release: Release, monkeypatch: pytest.MonkeyPatch
):
    assert engine.choose() == "online"
    folder = release.folder / SUMS
    folder.unlink()
    assert engine.choose() == "registry-only"
    folder.mkdir()
    (folder / "index.html").touch()  # asked without the last slash, the server redirects
    assert engine.choose() == "online"
    monkeypatch.setenv("FORTRESS_PULUMI_RELEASES", "http://127.0.0.1:1")
    assert engine.choose() == "registry-only"
    monkeypatch.setenv("FORTRESS_ENGINE", "online")
    assert engine.choose() == "online"
    monkeypatch.setenv("FORTRESS_ENGINE", "offline")
    with pytest.raises(Stop, match="write online or registry-only"):
        engine.choose()


def test_a_stack_keeps_its_engine_and_says_so_where_another_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setattr(paths, "CHECKOUT", tmp_path)
    (tmp_path / "stacks").mkdir()
    paths.stack_file("dev").write_text(f"config: {{{PROJECT}:engine: online}}\n")
    monkeypatch.setenv("FORTRESS_ENGINE", "registry-only")
    with pytest.raises(
        Stop, match=r"'dev' is one of the online engine; change `.*:engine` in stacks/Pulumi\.dev\.yaml"
    ):
        up._engine("dev")
    assert up._engine("new") == "registry-only"
    monkeypatch.setenv("FORTRESS_ENGINE", "online")
    assert up._engine("dev") == "online"
    monkeypatch.delenv("FORTRESS_ENGINE")
    assert up._engine("dev") == "online"


COMMENTED = """\
# A server at home.
config: # of this stack
  # the models first
  ollama-fortress:models: []
  ollama-fortress:users: {alice: {}} # one
  ollama-fortress:wireguard: {endpoint: "vpn.example.com:51820"}
encryptionsalt: v1:abc
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stack file that names no engine, on a machine that has none of its state."""
    monkeypatch.setattr(paths, "CHECKOUT", tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("PULUMI_BACKEND_URL", raising=False)
    monkeypatch.delenv("FORTRESS_ENGINE", raising=False)
    monkeypatch.setattr(engine, "choose", lambda: "registry-only")
    (tmp_path / "stacks").mkdir()
    file = paths.stack_file("home")
    file.write_text(COMMENTED)
    return file


def test_the_engine_of_a_machine_without_downloads_is_written_where_none_is_named(home: Path):
    said = io.StringIO()
    for _ in range(2):
        chosen = up._engine("home")
        first = up._settings_or_first_ones(Console(file=said, width=200), "home", chosen)
        assert (chosen, first.engine.value) == ("registry-only", "registry-only")
    line = f"  {PROJECT}:engine: registry-only\n"
    assert home.read_text() == COMMENTED.replace("of this stack\n", f"of this stack\n{line}")
    assert said.getvalue().count("Pulumi.home.yaml names no engine") == 1


def test_the_default_engine_needs_no_line(home: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(engine, "choose", lambda: "online")
    up._settings_or_first_ones(QUIET, "home", up._engine("home"))
    assert home.read_text() == COMMENTED


def test_a_stack_file_without_a_place_for_a_line_is_left_alone_and_the_line_is_said(home: Path):
    home.write_text('config: {"ollama-fortress:users": {alice: {}}}\n')
    with pytest.raises(Stop, match=f"write `{PROJECT}:engine: registry-only` into the `config:` of Pulumi.home.yaml"):
        up._settings_or_first_ones(QUIET, "home", up._engine("home"))


def test_a_state_in_the_home_folder_is_made_and_read_there(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "her"))
    monkeypatch.setenv("PULUMI_BACKEND_URL", "file://~/states")
    assert environment(tmp_path, tmp_path)["PULUMI_BACKEND_URL"] == "file://~/states", "Pulumi reads it itself"
    assert (tmp_path / "her" / "states").is_dir() and not (tmp_path / "~").exists()
    state = tmp_path / "her" / "states" / ".pulumi" / "stacks" / PROJECT / "home.json"
    state.parent.mkdir(parents=True)
    state.write_text(json.dumps({"checkpoint": {"latest": {"resources": [{"urn": "x"}]}}}))
    assert deployed_before("home")


@pytest.mark.parametrize(
    ("latest", "expected"),
    [(None, "registry-only"), ({"resources": []}, "registry-only"), ({"resources": [{"urn": "x"}]}, "online")],
)
def test_a_moment_without_downloads_moves_no_stack_that_is_there(home: Path, latest: Any, expected: str):
    state_of("home", latest)
    assert up._engine("home") == expected


def state_of(stack: str, latest: Any) -> None:
    state = paths.state() / "pulumi" / ".pulumi" / "stacks" / PROJECT / f"{stack}.json"
    state.parent.mkdir(parents=True)
    state.write_text(json.dumps({"version": 3, "checkpoint": {"latest": latest}}))


@pytest.mark.parametrize("stack", ["dev", "home"])
def test_a_stack_that_is_deployed_gets_no_fresh_file_and_is_not_called_gone(
    stack: str, home: Path, monkeypatch: pytest.MonkeyPatch
):
    """A second clone, or `git clean`: the state is of the account."""
    home.unlink()
    monkeypatch.setattr(docker_engine, "ensure", lambda _: None)
    monkeypatch.setattr(docker_engine, "socket", lambda: "/var/run/docker.sock")
    state_of(stack, {"resources": [{"urn": "x"}]})

    def reach() -> None:
        with up.reached(QUIET, stack):
            pass

    said = rf"'{stack}' is deployed, but .* no stacks/Pulumi\.{stack}\.yaml.*Copy.*`pulumi destroy --stack {stack}`"
    for act in (lambda: up.up(QUIET, stack), lambda: up.down(QUIET, stack), reach):
        with pytest.raises(Stop, match=said):
            act()
    assert not paths.stack_file(stack).exists()


def test_what_an_engine_falls_short_of_is_said_at_its_start_and_is_the_catalogues():
    said = engine.shortcomings("registry-only")
    assert said is not None
    for line in catalogue.below_floors("registry-only"):
        assert line in said
    assert engine.shortcomings("online") is None


@pytest.mark.parametrize(
    ("chosen", "protect", "digest", "refused"),
    [
        ("online", True, "unresolved", True),
        ("online", False, "unresolved", False),
        ("registry-only", True, "unresolved", False),
        ("online", True, f"sha256:{'a' * 64}", False),
    ],
)
def test_only_a_protected_online_stack_refuses_an_image_without_a_digest(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, chosen: str, protect: bool, digest: str, refused: bool
):
    file = tmp_path / "catalogue.yaml"
    file.write_text(catalogue.FILE.read_text())
    catalogue.lock({name: digest for name in catalogue.load().pulled}, file)
    known = catalogue.load(file)
    monkeypatch.setattr(catalogue, "load", lambda: known)
    stack = StackSettings.model_validate(
        {
            "stack": "home",
            "engine": chosen,
            "protect": protect,
            "users": {"alice": {}},
            "wireguard": {"endpoint": "vpn.example.com:51820"},
        }
    )
    if not refused:
        preflight.digests(stack)
        return
    expected = r"stack 'home' is protected.*sid-slim and ollama/ollama:0\.35\.0 yet; run `bin/fortress images lock`"
    with pytest.raises(Stop, match=expected):
        preflight.digests(stack)
