"""Images: the catalogue is strict, a tag follows everything that decides an image, and the recipes are sound."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from pydantic import ValidationError

import images
from images import base, catalogue
from images.catalogue import ImageError
from offline import build as go

DIGEST = "sha256:" + "a" * 64
FOLDER = Path(images.__file__).parent
ALL = (*images.NAMES, *images.optional("registry-only"))
"""Those of both engines."""
EVERY = [(name, mode) for mode in images.MODES for name in (*images.NAMES, *images.optional(mode))]
SCRIPTS = [
    "common/apt-install",
    "common/check-version",
    "gateway/nginx-health",
    "login/login",
    "login/login-health",
    "node-exporter/gpu-watch",
    "trails/write-down",
    "watchers/http-health",
    "vpn-node/vpn-node",
    "vpn-node/tunnel-watch",
    "client/tunnel-client",
]


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
    return {name: images.recipe(name, mode, known, folder).tag for name in (*images.NAMES, *images.optional(mode))}


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
    assert images.recipe("gateway", "registry-only", unlocked).tag.startswith(f"{base.OURS}/gateway:")


def test_tags_are_content_addresses_and_the_same_every_time(locked: catalogue.Catalogue, checkout: Path) -> None:
    for mode in images.MODES:
        first = tags(mode, locked)
        assert first == tags(mode, locked, checkout), "another checkout, the same plan"
        for name, tag in first.items():
            assert re.fullmatch(rf"fortress\.invalid/{name}:[0-9a-f]{{12}}", tag)
    online, registry_only = (tags(mode, locked) for mode in images.MODES)
    assert not set(online.values()) & set(registry_only.values())


def test_what_we_build_is_named_so_that_no_registry_can_have_it(locked: catalogue.Catalogue) -> None:
    """A folder in the public registry may be anybody's, and a missing image would be pulled from there."""
    named = {base.tag(locked), *(tag for mode in images.MODES for tag in tags(mode, locked).values())}
    named.add(images.recipe("client", "registry-only", locked).arguments["OLLAMA"])
    for registry in (name.partition("/")[0] for name in named):
        assert registry.rpartition(".")[2] == "invalid", "the only ending that no name server may ever know (RFC 2606)"


@pytest.mark.parametrize("mode", images.MODES)
@pytest.mark.parametrize(
    ("file", "moved"),
    [
        ("gateway/nginx-health", {"gateway"}),
        ("vpn-node/vpn-node", {"vpn-node"}),
        ("vpn-node/Dockerfile", {"vpn-node"}),
        ("client/tunnel-client", {"client"}),
        ("ollama/Dockerfile", {"ollama", "client"}),
        ("login/login-health", {"login"}),
        ("watchers/http-health", set(images.WATCHERS)),
        ("prometheus/Dockerfile", {"prometheus"}),
        ("common/apt-install", set(ALL)),
    ],
)
def test_a_changed_file_moves_the_tags_of_its_images_and_no_other(
    locked: catalogue.Catalogue, checkout: Path, mode: str, file: str, moved: set[str]
) -> None:
    before = tags(mode, locked, checkout)
    with (checkout / file).open("a") as text:
        text.write("# changed\n")
    after = tags(mode, locked, checkout)
    shared = file.startswith(("common/", "watchers/"))
    moved = moved | ({images.GRAFANA} if shared and mode == "online" else set())
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


def test_the_readme_names_what_the_registry_only_engine_falls_short_of() -> None:
    readme = " ".join((FOLDER.parent / "README.md").read_text().split())
    for entry in catalogue.load().built.values():
        if catalogue.numbers(entry.registry_only) < catalogue.numbers(entry.floor):
            assert f"{entry.program} ({entry.registry_only})" in readme


def test_a_tag_below_its_floor_is_refused_with_what_to_write(tmp_path: Path) -> None:
    old = tmp_path / "catalogue.yaml"
    old.write_text(catalogue.FILE.read_text().replace("tag: 0.35.0", "tag: 0.34.9"))
    with pytest.raises(
        ValidationError, match=r"ollama/ollama:0\.34\.9 is below the security floor 0\.35\.0; write 0\.35\.0"
    ):
        catalogue.load(old)
    old.write_text(catalogue.FILE.read_text().replace("tag: 0.35.0", "tag: 0.100.0"))
    assert catalogue.load(old).ollama_version("online") == "0.100.0", "versions are compared as numbers"


@pytest.mark.parametrize(
    ("tag", "version"), [("0.35.0", "0.35.0"), ("0.35.0-rocm", "0.35.0"), ("v1.30", "1.30"), ("sid-slim", None)]
)
def test_a_tag_says_its_version_or_none(tag: str, version: str | None) -> None:
    fields = {"repository": "some/image", "tag": tag, "digest": "unresolved"}
    assert catalogue.Pulled.model_validate(fields).version == version


def test_every_image_that_has_a_floor_is_built_with_it(locked: catalogue.Catalogue) -> None:
    for name, entry in locked.built.items():
        assert images.recipe(name, "online", locked).arguments["FLOOR"] == entry.floor
        assert images.recipe(name, "registry-only", locked).arguments["FLOOR"] == entry.registry_only
        for mode in images.MODES:
            made = images.recipe(name, mode, locked)
            assert re.search(r'check-version .* at-least "\$FLOOR"', made.files[made.dockerfile].read_text())


def test_a_higher_floor_is_a_new_image(locked: catalogue.Catalogue) -> None:
    higher = {**locked.built, "gateway": locked.built["gateway"].model_copy(update={"floor": "1.30.8"})}
    before, after = tags("online", locked), tags("online", locked.model_copy(update={"built": higher}))
    assert {name for name in before if before[name] != after[name]} == {"gateway"}


@pytest.mark.parametrize(
    ("says", "how", "wanted", "refusal"),
    [
        ("nginx version: nginx/1.30.7", "at-least", "1.30.7", None),
        ("nginx version: nginx/1.30.10", "at-least", "1.30.7", None),
        ("nginx version: nginx/1.30.6 (Debian)", "at-least", "1.30.7", "p 1.30.6 is below its security floor 1.30.7"),
        ("nginx version: nginx/1.4.99", "at-least", "1.30.7", "p 1.4.99 is below its security floor 1.30.7"),
        ("1:1.0.2-2+b1", "at-least", "1.0", None),
        ("0.9.4-1", "at-least", "1.0", "p 0.9.4 is below its security floor 1.0"),
        ("Warning: no server\nWarning: client version is 0.35.0", "exactly", "0.35.0", None),
        ("ollama version is 0.35.1", "exactly", "0.35.0", "p is 0.35.1, but images/catalogue.yaml says 0.35.0"),
        ("sh: nginx: not found", "at-least", "1.30.7", "p does not say its version"),
        ("", "exactly", "0.35.0", "p does not say its version"),
    ],
)
def test_a_version_is_checked_as_numbers_and_doubt_refuses(
    says: str, how: str, wanted: str, refusal: str | None
) -> None:
    command = [str(FOLDER / "common" / "check-version"), "p", says, how, wanted, "do this"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == (0 if refusal is None else 1), done.stderr
    if refusal is not None:
        assert done.stdout.startswith(f"check-version: {refusal}")
        assert done.stdout.endswith(": do this\n")
        assert done.stdout.count("\n") == 1


def test_packages_are_installed_anew_when_the_catalogue_says_so(locked: catalogue.Catalogue) -> None:
    for name, mode in EVERY:
        made = images.recipe(name, mode, locked)
        before, *installs = re.split(r"(?:RUN|&&) apt-install ", made.files[made.dockerfile].read_text())
        assert not installs or "ARG PACKAGES_OF\n" in before, "the engine's build cache would keep the old ones"


def test_a_mirror_goes_before_what_is_pulled_and_moves_no_tag(
    locked: catalogue.Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = tags("online", locked)
    assert catalogue.at("library/debian:sid-slim") == "library/debian:sid-slim"
    for mirror in ("mirror.example:5000/folder", "mirror.example:5000/folder/"):
        monkeypatch.setenv(catalogue.MIRROR, mirror)
        assert catalogue.at("library/debian:sid-slim") == "mirror.example:5000/folder/library/debian:sid-slim"
        assert tags("online", locked) == before
    for entry in locked.pulled.values():
        assert "/" in entry.repository, "a mirror knows no short names"


@pytest.mark.parametrize(
    ("mirror", "expected"),
    [
        ("https://mirror.example", "without https://"),
        ("mirror.example/a b", "write it like registry.example.com:5000"),
        ("mirror", "is no host name with a dot or a port"),
        ("somebody/folder", "'somebody' is no host name with a dot or a port"),
    ],
)
def test_a_mirror_that_the_engine_would_take_for_something_else_is_refused(
    monkeypatch: pytest.MonkeyPatch, mirror: str, expected: str
) -> None:
    monkeypatch.setenv(catalogue.MIRROR, mirror)
    with pytest.raises(ImageError, match=expected):
        catalogue.at("library/debian:sid-slim")


@pytest.mark.parametrize(
    ("image", "program", "flag"),
    [
        ("ollama", "ollama", "version.Version="),
        ("login", "oauth2-proxy", "version.VERSION=v"),
        ("loki", "loki", "build.Version="),
    ],
)
def test_the_go_module_and_the_version_that_the_binary_reports_agree(image: str, program: str, flag: str) -> None:
    tool = go.TOOLS[program]
    required = re.findall(r"(?m)^(?:require)?\s+(\S+) v(\S+)", (tool.module / "go.mod").read_text())
    [pinned] = [version for module, version in required if f"{tool.package}/".startswith(f"{module}/")]
    assert f"{flag}{pinned}" in tool.ldflags
    assert catalogue.load().built[image].registry_only == pinned


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


@pytest.mark.parametrize(("name", "mode"), EVERY)
def test_a_recipe_copies_only_what_its_context_holds(locked: catalogue.Catalogue, name: str, mode: str) -> None:
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


def test_the_base_has_folders_that_everybody_may_enter_whatever_the_umask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else uid 101 cannot reach its log folder, and the tarball is kept for good."""
    tree = " ".join(f"/{folder}/old" for folder in base.UNNEEDED)
    # As the real ones: `unshare` runs what follows its options, debootstrap sets a umask of its own.
    for name, script in (
        ("unshare", 'shift 3; exec "$@"'),
        ("debootstrap", f'umask 022; for root; do :; done; for each in {tree}; do mkdir -p "$root$each"; done'),
    ):
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.delenv("FORTRESS_DEBIAN_MIRROR", raising=False)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    before = os.umask(0o077)
    try:
        base._make(tmp_path / "base.tar", lambda _: None)
    finally:
        os.umask(before)
    with tarfile.open(tmp_path / "base.tar") as packed:
        modes = {entry.name.removeprefix("./"): entry.mode for entry in packed}
    assert set(base.UNNEEDED) <= set(modes) and "var/log/old" not in modes
    assert {name: oct(mode) for name, mode in modes.items() if mode != 0o755} == {}


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
