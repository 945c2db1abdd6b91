"""The normal way: `pulumi`, its plugins and the images are downloaded. Here from stand-ins on loopback."""

import dataclasses
import hashlib
import io
import os
import platform
import re
import secrets
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import docker as docker_py
import pytest
from rich.console import Console

import images
from fortress import engine
from images import build, catalogue
from images.catalogue import ImageError
from offline import kit
from offline.plugins.install import VERSIONS
from tests.deployment import Deployment, copy_of_the_checkout, docker
from tests.stand_ins import Downloads, Registry, downloads, registry

DEBIAN, OLLAMA = "library/debian", "ollama/ollama"
WRONG = "sha256:" + "0" * 64


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with registry(tmp_path_factory.mktemp("registry")) as running:
        yield running


@pytest.fixture
def tiny() -> Iterator[list[str]]:
    """Two images of one small file each: their names."""
    names = [f"stand-in-{secrets.token_hex(3)}:{each}" for each in ("one", "two")]
    for name in names:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            entry = tarfile.TarInfo("name")
            entry.size = len(name)
            tar.addfile(entry, io.BytesIO(name.encode()))
        subprocess.run(["docker", "import", "-", name], input=buffer.getvalue(), check=True, capture_output=True)
    yield names
    docker("rmi", *names, check=False)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    return copy_of_the_checkout(tmp_path / "checkout")


def said_by(checkout: Path, *arguments: str, **environment: str) -> tuple[int, str]:
    done = subprocess.run(
        [str(checkout / "bin" / "fortress"), *arguments],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=120,
    )
    return done.returncode, " ".join(done.stdout.split())


@dataclass
class Probe:
    """An image of nothing but what it is built from."""

    folder: Path

    def build(self, base: str) -> str:
        """Returns: the one file that the base has."""
        dockerfile = self.folder / "Dockerfile"
        dockerfile.write_text("ARG BASE\nFROM ${BASE}\nLABEL probe=1\n")
        name = f"stand-in-{secrets.token_hex(3)}"
        made = images.Recipe(name, "Dockerfile", {"Dockerfile": dockerfile}, {"BASE": base}, {}, "")
        client = docker_py.from_env()
        try:
            build._build(client, made, {}, lambda _: None)
            container = client.containers.create(made.tag, command="/name")
            try:
                packed = b"".join(container.get_archive("/name")[0])
            finally:
                container.remove()
                client.images.remove(made.tag)
        finally:
            client.close()
        with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
            content = tar.extractfile("name")
            assert content is not None
            return content.read().decode()


@pytest.fixture
def probe(tmp_path: Path, hub: Registry, monkeypatch: pytest.MonkeyPatch) -> Probe:
    monkeypatch.setenv(catalogue.MIRROR, hub.name)
    return Probe(tmp_path)


def test_an_image_is_pulled_by_its_digest_and_a_wrong_one_is_refused(hub: Registry, probe: Probe, tiny: list[str]):
    digest = hub.put(tiny[0], DEBIAN, "sid-slim")
    assert probe.build(f"{DEBIAN}@{digest}") == tiny[0]
    with pytest.raises(ImageError, match="manifest unknown"):
        probe.build(f"{DEBIAN}@{WRONG}")


def test_a_mirror_that_serves_other_bytes_under_a_digest_is_refused(hub: Registry, probe: Probe, tiny: list[str]):
    digest, other = (hub.put(name, DEBIAN, "sid-slim") for name in tiny)
    assert digest != other
    hub.swap(digest, other)
    with pytest.raises(ImageError, match="manifest verification failed"):
        probe.build(f"{DEBIAN}@{digest}")


def test_locking_takes_the_digest_of_the_index_and_leaves_comments_alone(
    hub: Registry, probe: Probe, tiny: list[str], checkout: Path
):
    file = checkout / "images" / "catalogue.yaml"
    before = file.read_text()
    expected = {}
    for name, entry in catalogue.load(file).pulled.items():
        manifest = hub.put(tiny[0], entry.repository, entry.tag)
        expected[name] = hub.put_index(entry.repository, entry.tag)
        assert expected[name] != manifest
    code, said = said_by(checkout, "images", "lock")
    assert code == 0, said
    locked = catalogue.load(file).pulled
    assert {name: entry.digest for name, entry in locked.items()} == expected
    assert re.sub(r"sha256:\w+", "unresolved", file.read_text()) == re.sub(r"sha256:\w+", "unresolved", before)
    assert hub.name not in file.read_text()
    assert probe.build(locked["debian"].pinned) == tiny[0], "an index is as good to build from as a manifest"

    hub.put(tiny[1], DEBIAN, "sid-slim")
    assert probe.build(locked["debian"].pinned) == tiny[0], "a moved tag moved what is built"
    code, said = said_by(checkout, "images", "lock")
    assert f"debian {hub.digest(DEBIAN, 'sid-slim')}" in said
    assert OLLAMA not in said
    code, said = said_by(checkout, "images", "lock")
    assert (code, "what the registry says" in said) == (0, True)


def test_an_unreachable_registry_is_told_in_a_sentence_with_the_ways_out(checkout: Path):
    code, said = said_by(checkout, "images", "lock", FORTRESS_REGISTRY="127.0.0.1:1")
    assert code == 1
    assert re.search(r"cannot ask a registry for 127\.0\.0\.1:1/library/debian:sid-slim.*FORTRESS_REGISTRY", said)
    assert "Traceback" not in said


def test_a_protected_stack_takes_no_digest_on_trust(hub: Registry, checkout: Path):
    known = catalogue.load(checkout / "images" / "catalogue.yaml").pulled
    catalogue.lock({"debian": "unresolved", "ollama": known["ollama"].digest}, checkout / "images" / "catalogue.yaml")
    deployment = Deployment(f"test-{secrets.token_hex(3)}", "online", checkout, {"FORTRESS_REGISTRY": hub.name})
    deployment.config["protect"] = True
    for command in ("up", "preview"):
        deployment.write()
        said = " ".join(deployment.fortress(command, check=False).split())
        assert deployment.last_code == 1
        assert re.search(r"is protected, and images/catalogue.yaml has no digest for library/debian:sid-slim", said)
        assert "`bin/fortress images lock`" in said
    assert "unresolved" in (checkout / "images" / "catalogue.yaml").read_text()


@pytest.mark.parametrize(
    ("image", "argument", "floor", "expected"),
    [
        ("gateway", "FLOOR", "99.0", r"nginx 1\.\d+\.\d+ is below its security floor 99\.0: raise packages_of in"),
        ("ollama", "FLOOR", "99.0.0", r"Ollama 0\.\d+\.\d+ is below its security floor 99\.0\.0: raise its version"),
        (
            "login",
            "FLOOR",
            "99.0.0",
            r"oauth2-proxy 7\.\d+\.\d+ is below its security floor 99\.0\.0: raise its version",
        ),
        ("ollama", "VERSION", "0.1.0", r"Ollama is 0\.\d+\.\d+, but images/catalogue.yaml says 0\.1\.0: write"),
    ],
)
def test_an_image_below_its_floor_is_not_built_and_one_sentence_says_why(
    image: str, argument: str, floor: str, expected: str
):
    made = images.recipe(image, "registry-only")
    wrong = dataclasses.replace(made, name=f"stand-in-{image}", arguments={**made.arguments, argument: floor})
    client = docker_py.from_env()
    try:
        assert client.images.get(made.tag), "what it really has is enough"
        binaries = {path: build.go.build(tool) for path, tool in made.binaries.items()}
        with pytest.raises(ImageError, match=rf"^the image stand-in-{image} is not built: {expected}[^\n]*$"):
            build._build(client, wrong, binaries, lambda _: None)
        assert not client.images.list(wrong.tag)
    finally:
        client.close()


def archive(path: Path, files: dict[str, Path | str]) -> None:
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, "w:gz", compresslevel=1) as tar:
        for name, content in files.items():
            if isinstance(content, Path):
                tar.add(content, name)
                continue
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o755
            tar.addfile(entry, io.BytesIO(content.encode()))


UV_FIRST = """#!/bin/sh
# As Pulumi's own language host with `toolchain: uv`: it looks for uv on PATH, and syncs before it runs the program.
command -v uv > /dev/null || { echo 'Could not find `uv` executable.' >&2; exit 1; }
UV_OFFLINE=1 uv sync --inexact --quiet || exit 1
"""


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Downloads]:
    """What Pulumi publishes, made from the registry-only kit, under the official names."""
    folder = tmp_path_factory.mktemp("releases")
    bin_dir, home = kit.prepare(Console(quiet=True), python=Path(sys.executable))
    machine = {"x86_64": ("x64", "amd64"), "aarch64": ("arm64", "arm64")}[platform.machine()]
    name = f"pulumi-v{engine.PULUMI_VERSION}-linux-{machine[0]}.tar.gz"
    host = (bin_dir / "pulumi-language-python").read_text().replace("#!/bin/sh\n", UV_FIRST)
    archive(folder / "sdk" / name, {"pulumi/pulumi": bin_dir / "pulumi", "pulumi/pulumi-language-python": host})
    digest = hashlib.sha256((folder / "sdk" / name).read_bytes()).hexdigest()
    (folder / "sdk" / f"pulumi-{engine.PULUMI_VERSION}-checksums.txt").write_text(f"{digest}  {name}\n")
    for plugin, version in VERSIONS.items():
        program = f"pulumi-resource-{plugin}"
        archive(
            folder / "plugins" / f"{program}-v{version}-linux-{machine[1]}.tar.gz",
            {program: home / "plugins" / f"resource-{plugin}-v{version}" / program, "LICENSE": "a text\n"},
        )
    with downloads(folder) as served:
        yield served


@pytest.fixture
def deployment(checkout: Path, tmp_path: Path, hub: Registry, releases: Downloads) -> Iterator[Deployment]:
    """A stack in a checkout of its own whose catalogue says what the stand-ins really have."""
    file = checkout / "images" / "catalogue.yaml"
    known = catalogue.load(file)
    text = file.read_text().replace(known.pulled["ollama"].tag, known.built["ollama"].registry_only)
    text = text.replace(f"floor: {known.built['gateway'].floor}", f"floor: {known.built['gateway'].registry_only}")
    file.write_text(re.sub(r"sha256:\w+", "unresolved", text))
    for dockerfile in checkout.glob("images/*/*Dockerfile"):
        # Tags of this run's own, which may go at its end; the engine's build cache does not look at comments.
        dockerfile.write_text(f"{dockerfile.read_text()}# {secrets.token_hex(8)}\n")
    made = Deployment(
        f"test-{secrets.token_hex(3)}",
        "online",
        checkout,
        {
            "XDG_CACHE_HOME": str(tmp_path / "cache"),
            "XDG_STATE_HOME": str(tmp_path / "state"),
            "FORTRESS_ENGINE": "online",
            "FORTRESS_REGISTRY": hub.name,
            "FORTRESS_PULUMI_RELEASES": f"{releases.url}/sdk",
            "PULUMI_PLUGIN_DOWNLOAD_URL_OVERRIDES": f".*={releases.url}/plugins",
            "NO_PROXY": "127.0.0.1",
        },
    )
    try:
        yield made
    finally:
        if made.left_over():
            made.clean_up()
        known = catalogue.load(file)
        if not known.unresolved(images.pulled_for(images.NAMES)):
            for name in images.NAMES:
                docker("rmi", images.recipe(name, "online", known, checkout / "images").tag, check=False)


def test_the_whole_fortress_comes_up_from_downloads_and_goes_again(
    deployment: Deployment, hub: Registry, releases: Downloads, tmp_path: Path
):
    kit_images = {name: images.recipe(name, "registry-only") for name in ("gateway", "ollama")}
    known = catalogue.load(deployment.checkout / "images" / "catalogue.yaml")
    hub.put(kit_images["gateway"].arguments["BASE"], DEBIAN, known.pulled["debian"].tag)
    hub.put(kit_images["ollama"].tag, OLLAMA, known.pulled["ollama"].tag)
    wanted = {name: known.pulled[name] for name in images.pulled_for(images.NAMES)}
    expected = {name: hub.put_index(entry.repository, entry.tag) for name, entry in wanted.items()}

    said = deployment.up()
    chunks = re.search(r"(\d+) chunks; first after", said)
    assert chunks, said
    assert int(chunks[1]) > 1
    assert "registry-only" not in said
    locked = catalogue.load(deployment.checkout / "images" / "catalogue.yaml")
    assert {name: locked.pulled[name].digest for name in expected} == expected, "the first run locks"
    for name in ("debian", "ollama"):
        assert f"locked {known.pulled[name].tagged} at {expected[name][:19]}" in said
    fetched = list(releases.asked)
    installed = {
        path.name for path in (tmp_path / "state/ollama-fortress/pulumi-home/plugins").iterdir() if path.is_dir()
    }
    assert installed == {f"resource-{plugin}-v{version}" for plugin, version in VERSIONS.items()}
    assert len(fetched) == len(set(fetched)) == 2 + len(VERSIONS)

    before = deployment.containers()
    assert len(before) == 4
    assert set(deployment.planned()) == {"same"}
    deployment.up()
    assert deployment.containers() == before
    assert releases.asked == fetched, "a second run downloads nothing"

    deployment.fortress("down")
    assert deployment.left_over() == []
