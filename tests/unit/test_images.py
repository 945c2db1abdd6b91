"""Images: the catalogue is strict, a tag follows everything that decides an image, and the recipes are sound."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

import images
from images import catalogue
from images.catalogue import ImageError
from offline import build as go

DIGEST = "sha256:" + "a" * 64
FOLDER = Path(images.__file__).parent
SCRIPTS = ["common/apt-install", "gateway/nginx-health", "vpn-node/vpn-node", "client/tunnel-client"]


@pytest.fixture
def locked(tmp_path: Path) -> catalogue.Catalogue:
    copy = tmp_path / "catalogue.yaml"
    shutil.copy(catalogue.FILE, copy)
    catalogue.lock({name: DIGEST for name in catalogue.load().pulled}, copy)
    return catalogue.load(copy)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    return Path(shutil.copytree(FOLDER, tmp_path / "images"))


def tags(mode: str, known: catalogue.Catalogue, folder: Path = FOLDER) -> dict[str, str]:
    return {name: images.recipe(name, mode, known, folder).tag for name in images.NAMES}


def test_every_pulled_image_is_pinned_or_says_that_it_is_not() -> None:
    for name, entry in catalogue.load().pulled.items():
        assert entry.resolved or entry.digest == "unresolved", name
        assert entry.tag != "latest", name


@pytest.mark.parametrize("digest", ["", "latest", "sha256:abc", DIGEST.upper(), f"{DIGEST}\n"])
def test_a_digest_is_a_digest_or_the_word_unresolved(tmp_path: Path, digest: str) -> None:
    fields = {"repository": "debian", "tag": "sid-slim", "digest": digest}
    with pytest.raises(ValidationError):
        catalogue.Pulled.model_validate(fields)


def test_a_misspelt_catalogue_key_is_refused(tmp_path: Path) -> None:
    wrong = tmp_path / "catalogue.yaml"
    wrong.write_text(catalogue.FILE.read_text().replace("floor:", "flor:", 1))
    with pytest.raises(ValidationError, match="flor"):
        catalogue.load(wrong)


def test_locking_writes_digests_and_keeps_everything_else(tmp_path: Path) -> None:
    copy = tmp_path / "catalogue.yaml"
    shutil.copy(catalogue.FILE, copy)
    catalogue.lock({"ollama": DIGEST}, copy)
    assert catalogue.load(copy).pulled["ollama"].digest == DIGEST
    before = catalogue.FILE.read_text().splitlines()
    changed = [line for line in copy.read_text().splitlines() if line not in before]
    assert changed in ([f"    digest: {DIGEST}"], [])


def test_an_image_without_a_digest_is_refused_by_name(locked: catalogue.Catalogue) -> None:
    debian = locked.pulled["debian"].model_copy(update={"digest": "unresolved"})
    unlocked = locked.model_copy(update={"pulled": {**locked.pulled, "debian": debian}})
    with pytest.raises(ImageError, match=r"debian:sid-slim.*fortress images lock"):
        images.recipe("gateway", "online", unlocked)
    assert images.recipe("gateway", "registry-only", unlocked).tag.startswith("fortress/gateway:")


def test_tags_are_content_addresses_and_the_same_every_time(locked: catalogue.Catalogue, checkout: Path) -> None:
    for mode in images.MODES:
        first = tags(mode, locked)
        assert first == tags(mode, locked, checkout), "another checkout, the same plan"
        for name, tag in first.items():
            assert re.fullmatch(rf"fortress/{name}:[0-9a-f]{{12}}", tag)
    online, registry_only = (tags(mode, locked) for mode in images.MODES)
    assert not set(online.values()) & set(registry_only.values())


@pytest.mark.parametrize("mode", images.MODES)
@pytest.mark.parametrize(
    ("file", "moved"),
    [
        ("gateway/nginx-health", {"gateway"}),
        ("vpn-node/vpn-node", {"vpn-node"}),
        ("vpn-node/Dockerfile", {"vpn-node"}),
        ("client/tunnel-client", {"client"}),
        ("ollama/Dockerfile", {"ollama", "client"}),
        ("common/apt-install", {"gateway", "vpn-node", "ollama", "client"}),
    ],
)
def test_a_changed_file_moves_the_tags_of_its_images_and_no_other(
    locked: catalogue.Catalogue, checkout: Path, mode: str, file: str, moved: set[str]
) -> None:
    before = tags(mode, locked, checkout)
    with (checkout / file).open("a") as text:
        text.write("# changed\n")
    after = tags(mode, locked, checkout)
    assert {name for name in before if before[name] != after[name]} == moved


def test_newer_packages_move_every_tag(locked: catalogue.Catalogue) -> None:
    newer = locked.model_copy(update={"packages_of": locked.packages_of.replace(year=locked.packages_of.year + 1)})
    for mode in images.MODES:
        before, after = tags(mode, locked), tags(mode, newer)
        assert not set(before.values()) & set(after.values())


def test_an_unknown_name_or_engine_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ImageError, match="known: gateway, vpn-node"):
        images.reference("gatway", check=False)
    with pytest.raises(ImageError, match="online or registry-only"):
        images.reference("gateway", "offline", check=False)


def test_a_missing_image_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "_on_the_engine", lambda *_: False)
    with pytest.raises(ImageError, match="fortress images build --engine registry-only"):
        images.reference("gateway", "registry-only")
    monkeypatch.setattr(images, "_on_the_engine", lambda *_: True)
    assert images.reference("gateway", "registry-only") == images.reference("gateway", "registry-only", check=False)


def test_what_is_below_a_floor_is_said_on_the_registry_only_engine() -> None:
    said = catalogue.below_floors("registry-only")
    assert any("Ollama 0.32.15 is below the security floor 0.35.0" in line for line in said)
    assert catalogue.below_floors("online") == []


def test_the_go_module_and_the_version_that_the_binary_reports_agree() -> None:
    tool = go.TOOLS["ollama"]
    pinned = re.search(r"github\.com/ollama/ollama v(\S+)", (tool.module / "go.mod").read_text())
    assert pinned is not None
    assert f"version.Version={pinned[1]}" in tool.ldflags
    assert catalogue.load().built["ollama"].registry_only == pinned[1]


def test_a_go_build_is_kept_under_all_that_decides_it() -> None:
    tool = go.TOOLS["ollama"]
    versions = {
        go.key(tool, version) for version in ("go version go1.26.8 linux/amd64", "go version go1.27.3 linux/arm64")
    }
    flags = go.key(go.Tool(name="ollama", package=tool.package, cgo=False, ldflags=tool.ldflags), "go version go1.26.8")
    assert len(versions | {flags}) == 3


def test_an_interrupted_build_leaves_nothing_that_looks_like_a_result(tmp_path: Path) -> None:
    target = tmp_path / "result"
    with pytest.raises(KeyboardInterrupt), go.alone(target), go.workshop(target) as work:
        (work / "half").write_text("half")
        raise KeyboardInterrupt
    killed = tmp_path / ".result.work-killed"
    killed.mkdir()
    with go.alone(target), go.workshop(target) as work:
        assert not killed.exists()
        (work / "whole").write_text("whole")
        (work / "whole").rename(target)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".result.lock", "result"]


@pytest.mark.parametrize("name", images.NAMES)
def test_a_recipe_copies_only_what_its_context_holds(locked: catalogue.Catalogue, name: str) -> None:
    for mode in images.MODES:
        made = images.recipe(name, mode, locked)
        held = {*made.files, *made.binaries}
        assert made.dockerfile in held
        text = made.files[made.dockerfile].read_text()
        assert "latest" not in text
        assert "ADD " not in text
        for source in re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.MULTILINE):
            assert set(source.split()) <= held
        assert set(re.findall(r"^ARG (\w+)$", text, re.MULTILINE)) == set(made.arguments)
        assert re.search(r"^USER \d+:\d+$", text, re.MULTILINE)
        assert re.search(r"^HEALTHCHECK ", text, re.MULTILINE)


def test_scripts_pass_shellcheck() -> None:
    program = _tool("shellcheck")
    subprocess.run([program, "--severity=style", *(str(FOLDER / script) for script in SCRIPTS)], check=True)


def test_dockerfiles_pass_hadolint() -> None:
    program = _tool("hadolint")
    # DL3006: the base is a build argument, pinned by digest or by content outside.
    files = [str(file) for file in sorted(FOLDER.glob("*/*Dockerfile"))]
    subprocess.run([program, "--ignore", "DL3006", *files], check=True)


def _tool(name: str) -> str:
    found = shutil.which(name, path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    assert found, f"{name} is missing: it comes with the dev dependencies (`uv sync`)"
    return found
