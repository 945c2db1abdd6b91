"""Makes every image that is missing, side by side.

May be interrupted at any moment and called again: an image gets its tag, a download its name, only when it is whole.
"""

import io
import tarfile
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import docker
from docker.errors import APIError, DockerException, ImageNotFound
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from images import NAMES, ImageError, Recipe, base, catalogue, pulled_for, recipe
from offline import build as go

Say = Callable[[str], None]
REFUSAL = "check-version: "
"""How images/common/check-version begins its one line."""


class _Interrupted(Exception):
    """The person at the terminal stopped the whole; a worker ends at its next message."""


def build_all(
    mode: str,
    progress: Console | None = None,
    *,
    names: Sequence[str] = NAMES,
    engine: docker.DockerClient | None = None,
) -> dict[str, str]:
    """Leave with every image on the engine. Returns: name -> reference.

    engine: where they are built, and for whose kind of processor; without, the one that DOCKER_HOST names.
    """
    client = engine or _client()
    try:
        if mode == "online":
            _lock_unresolved(client, progress or Console(stderr=True), pulled_for(names))
        wanted = {name: recipe(name, mode) for name in names}
        missing = [one for one in wanted.values() if not _exists(client, one.tag)]
        if missing:
            _build_side_by_side(client, missing, progress or Console(stderr=True))
        return {name: one.tag for name, one in wanted.items()}
    except APIError as error:
        raise ImageError(f"the Docker engine refused: {error.explanation or error}") from None
    finally:
        if engine is None:
            client.close()


def lock_all() -> dict[str, str]:
    """Ask the registry for every digest anew and write the catalogue. Returns: what changed, name -> digest."""
    client = _client()
    try:
        entries = catalogue.load().pulled
        found = {name: _digest(client, entry) for name, entry in entries.items()}
    finally:
        client.close()
    changed = {name: digest for name, digest in found.items() if digest != entries[name].digest}
    catalogue.lock(changed)
    return changed


def _lock_unresolved(client: docker.DockerClient, console: Console, wanted: Sequence[str]) -> None:
    """On a stack that is not protected, the first run takes the registry's word; preflight.py refuses the others."""
    known = catalogue.load()
    found = {name: _digest(client, known.pulled[name]) for name in known.unresolved(wanted)}
    catalogue.lock(found)
    for name, digest in found.items():
        console.print(f"locked {known.pulled[name].tagged} at {digest[:19]}: commit images/{catalogue.FILE.name}")


def _digest(client: docker.DockerClient, entry: catalogue.Pulled) -> str:
    """The digest of the multi-platform index, as the registry tells it to the engine."""
    try:
        return str(client.images.get_registry_data(catalogue.at(entry.tagged)).id)
    except APIError as error:
        raise ImageError(
            f"cannot ask a registry for {catalogue.at(entry.tagged)}: {error.explanation or error}. Behind a mirror, "
            f"name it in {catalogue.MIRROR}; where no registry is reachable, `ollama-fortress:engine: registry-only` "
            "in the stack file builds everything from packages"
        ) from None


def _build_side_by_side(client: docker.DockerClient, missing: list[Recipe], console: Console) -> None:
    stopped = threading.Event()
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description:<10}"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[step]}"),
    )
    with Progress(*columns, console=console) as progress:

        def start(title: str, work: Callable[[Say], Any]) -> Callable[[], Any]:
            task = progress.add_task(title, total=1, step="waiting")

            def say(step: str) -> None:
                if stopped.is_set():
                    raise _Interrupted
                progress.update(task, step=step[: max(20, console.width - 30)])

            def run() -> Any:
                result = work(say)
                progress.update(task, completed=1, step="ready")
                return result

            return run

        pool = ThreadPoolExecutor(max_workers=8)
        try:
            bases = {
                tag: pool.submit(start("base", lambda say, tag=tag: base.ensure(client, tag, say)))
                for tag in sorted({one.arguments["BASE"] for one in missing})
                if tag.startswith(f"{base.OURS}/")
            }
            tools = {
                tool: pool.submit(start(f"{tool} (go)", lambda say, tool=tool: go.build(tool, say)))
                for tool in sorted({tool for one in missing for tool in one.binaries.values()})
            }
            images: dict[str, Future[None]] = {}
            for one in missing:  # in the order of NAMES: what another is built from comes first

                def make(say: Say, one: Recipe = one, before: dict[str, Future[None]] = dict(images)) -> None:  # noqa: B006
                    if one.arguments["BASE"] in bases:
                        bases[one.arguments["BASE"]].result()
                    if one.arguments.get("OLLAMA") in before:
                        before[one.arguments["OLLAMA"]].result()
                    binaries = {path: tools[tool].result() for path, tool in one.binaries.items()}
                    _build(client, one, binaries, say)

                images[one.tag] = pool.submit(start(one.name, make))
            for future in [*bases.values(), *tools.values(), *images.values()]:
                future.result()
        finally:
            stopped.set()
            pool.shutdown(wait=False, cancel_futures=True)


def _build(client: docker.DockerClient, one: Recipe, binaries: dict[str, Path], say: Say) -> None:
    say("sending")
    context = _context({**one.files, **binaries})
    said: list[str] = []
    answer = client.api.build(
        fileobj=context,
        custom_context=True,
        dockerfile=one.dockerfile,
        # Only what is pulled carries a digest.
        buildargs={name: catalogue.at(value) if "@" in value else value for name, value in one.arguments.items()},
        tag=one.tag,
        rm=True,
        forcerm=True,
        decode=True,
    )
    for message in answer:
        text = str(message.get("stream") or message.get("status") or "").strip()
        if text:
            said = [*said[-19:], text.splitlines()[-1]]
            say(said[-1])
        if "error" in message:
            refused = [line.removeprefix(REFUSAL) for line in said if line.startswith(REFUSAL)]
            if refused:
                raise ImageError(f"the image {one.name} is not built: {refused[-1]}")
            raise ImageError(f"building the image {one.name} failed: {message['error']}\n" + "\n".join(said))


def _context(files: dict[str, Path]) -> io.BytesIO:
    """The build context. Modes and times are ours, not the checkout's, so that the engine's build cache hits."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for path, file in sorted(files.items()):
            info = tarfile.TarInfo(path)
            info.size = file.stat().st_size
            info.mode = 0o755 if file.stat().st_mode & 0o100 else 0o644
            with file.open("rb") as content:
                tar.addfile(info, content)
    stream.seek(0)
    return stream


def _exists(client: docker.DockerClient, tag: str) -> bool:
    try:
        client.images.get(tag)
    except ImageNotFound:
        return False
    return True


def _client() -> docker.DockerClient:
    try:
        return docker.from_env(timeout=900)
    except DockerException as error:
        raise ImageError(f"no Docker engine answers ({error}); start it, or run `make up`, which does") from None


def main() -> None:
    import sys

    mode = sys.argv[1] if len(sys.argv) > 1 else "online"
    try:
        for name, tag in build_all(mode).items():
            print(name, tag)
    except (ImageError, go.BuildError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
