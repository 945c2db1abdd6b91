"""`make up`, step by step. Every step may be repeated and interrupted at any time."""

import fcntl
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from docker import DockerClient
from rich.console import Console

import settings
from fortress import ask, bundle, debian, deployed, docker_engine, engine, paths, preflight, renewal, stack_file
from fortress.errors import Stop
from fortress.pulumi_cli import Pulumi, deployed_before, environment
from images import GRAFANA, NAMES, needed, optional
from images.build import build_all

FOR_THE_QUESTION = ("ollama", "client")
"""The client's image takes the `ollama` command from the other."""
DEFAULT_ENGINE = settings.Engine.ONLINE.value
"""Of a stack file that names none."""
KIT_COMMANDS = {"debootstrap": "debootstrap", "gcc": "gcc", "g++": "g++"}


def up(console: Console, stack: str) -> None:
    started = time.monotonic()
    with _one_at_a_time(stack):
        pulumi = ready(console, stack, build=True)
        with reached(console, stack) as (_, there):
            pulumi.recover(there)
        pulumi.run("up", "--yes", "--skip-preview")
        outputs = pulumi.outputs()
        write_bundles(stack, outputs)
        config = _settings(stack)
        _ask(console, config, outputs)
    in_the_tunnel = config.url(outputs["tunnel_address"])
    console.print(f"\n[bold]endpoint[/]  {outputs['endpoint']}  (in the tunnel: {in_the_tunnel})")
    console.print(f"[bold]bundles[/]   {paths.bundles(stack).relative_to(paths.CHECKOUT)}/<user>/")
    for user in outputs["users"]:
        if user != stack_file.PROBE:
            console.print(f"          bin/fortress bundle {user}   shows the QR codes of {user}'s devices")
    console.print(f"[dim]{time.monotonic() - started:.0f} s[/]")


def ready(console: Console, stack: str, *, build: bool) -> Pulumi:
    """Everything that must be there before `pulumi` can work on this stack."""
    chosen = _engine(stack)
    config = _settings_or_first_ones(console, stack, chosen)
    preflight.digests(config)
    there = docker_engine.reach(console, config.host)
    try:
        preflight.check(config, there)
        if below := engine.shortcomings(chosen):
            console.print(f"[yellow]{below}[/]")
        if config.observability.form is settings.Form.FULL and GRAFANA not in needed(config):
            console.print("[yellow]Grafana is left out: only a registry has its image. All else of `full` is there.[/]")
        pulumi = Pulumi(stack, exports(console, stack))
        known = pulumi.exists()
        standing: Sequence[deployed.Resource] = (pulumi.deployment().get("resources") or []) if known else []
        if not standing:
            preflight.refuse_unknown(config, there)
        else:
            deployed.refuse_another_engine(config, standing, there)
            if build:
                deployed.refuse_to_drop(config, standing)
        if build:
            _bring_images(console, config, there)
    finally:
        there.close()
    if not known:
        pulumi.read("stack", "init", "--non-interactive")
    else:
        renewal.renew_when_due(console, pulumi, standing)
    return pulumi


def _settings_or_first_ones(console: Console, stack: str, chosen: str) -> settings.StackSettings:
    file = paths.stack_file(stack)
    _refuse_to_forget(stack)
    if not file.exists() and stack == "dev":
        docker_engine.ensure(console)  # whose networks a first stack file leaves alone
        stack_file.make(file, engine=chosen, docker_socket=docker_engine.socket())
    elif not file.exists():
        raise Stop(f"there is no stacks/{file.name}; copy examples/Pulumi.home.yaml there and edit it")
    elif chosen != DEFAULT_ENGINE and f"{settings.PROJECT}:engine" not in stack_file.read(file):
        stack_file.name_engine(file, chosen)
        console.print(f"stacks/{file.name} names no engine, so the one of this machine is written there: {chosen}")
    return _settings(stack)


def _refuse_to_forget(stack: str) -> None:
    """Stop where a stack is deployed and its file is not here: a fresh one means other users, keys and networks."""
    file = paths.stack_file(stack)
    if file.exists() or not deployed_before(stack):
        return
    raise Stop(
        f"stack {stack!r} is deployed, but this checkout has no stacks/{file.name}, and a fresh one would replace its "
        "users, keys, networks and port. Copy that file from the checkout that deployed it; where it is lost, write "
        f"one with the same users and networks and read `make preview STACK={stack}` before `make up`. To destroy the "
        f'stack without it: `eval "$(make env STACK={stack})"`, `pulumi destroy --stack {stack}` and '
        f"`pulumi stack rm --stack {stack}`"
    )


def exports(console: Console, stack: str) -> dict[str, str]:
    bin_dir, home = engine.prepare(_engine(stack), console)
    return {**environment(home, bin_dir), "FORTRESS_STACK": stack}


def _engine(stack: str) -> str:
    """The engine that the stack file names, else the one that brought the stack up, or that this machine can have."""
    file = paths.stack_file(stack)
    if file.exists():
        # Another engine than the default one is written down; a moment without the internet must not change it.
        unnamed = DEFAULT_ENGINE if deployed_before(stack) else None
        named = stack_file.read(file).get(f"{settings.PROJECT}:engine", unnamed)
        if named in engine.ENGINES:
            if os.environ.get("FORTRESS_ENGINE", named) != named:
                raise Stop(
                    f"FORTRESS_ENGINE is {os.environ['FORTRESS_ENGINE']!r}, but stack {stack!r} is one of the {named} "
                    f"engine; change `{settings.PROJECT}:engine` in stacks/{file.name}, or unset FORTRESS_ENGINE"
                )
            return str(named)
    return engine.choose()


def _settings(stack: str) -> settings.StackSettings:
    return settings.load(stack, stack_file.read(paths.stack_file(stack)))


def is_reachable(stack: str) -> bool:
    """Whether the stack's engine may be asked as it is: `reached` installs or starts one of this machine."""
    return _settings(stack).host.ssh is not None or docker_engine.answers()


@contextmanager
def reached(console: Console, stack: str) -> Iterator[tuple[settings.StackSettings, DockerClient]]:
    """A stack's settings and the engine that runs it, for what asks neither Pulumi nor its state."""
    _refuse_to_forget(stack)
    if not paths.stack_file(stack).exists():
        raise Stop(
            f"there is no stacks/{paths.stack_file(stack).name}; nothing of stack {stack!r} was deployed from here"
        )
    config = _settings(stack)
    there = docker_engine.reach(console, config.host)
    try:
        yield config, there
    finally:
        there.close()


def build_images(console: Console, chosen: str, stack: str | None, *, everything: bool = False) -> None:
    """`fortress images build`: for one stack's host, or for this machine's engine as DOCKER_HOST names it."""
    if stack is None:
        docker_engine.ensure(console)
        _build(console, chosen, (*NAMES, *optional(chosen)) if everything else NAMES)
        return
    with reached(console, stack) as (config, there):
        _bring_images(console, config, there)


def _bring_images(console: Console, config: settings.StackSettings, there: DockerClient) -> None:
    """Each image is built on the engine that runs it: what asks the first question runs on this machine's."""
    chosen = config.engine.value
    names = needed(config)
    if config.host.ssh is None:
        _build(console, chosen, names)
        return
    if chosen == "registry-only":
        docker_engine.refuse_another_processor(there)
    _build(console, chosen, [name for name in names if name != "client"], there)
    if stack_file.PROBE in config.users and docker_engine.answers():
        _build(console, chosen, FOR_THE_QUESTION)


def _build(console: Console, chosen: str, names: Sequence[str] = NAMES, on: DockerClient | None = None) -> None:
    if chosen == "registry-only":
        debian.ensure(console, KIT_COMMANDS, "the registry-only engine")
    build_all(chosen, console, names=names, engine=on)


def write_bundles(stack: str, outputs: dict[str, Any]) -> None:
    """Write every user's bundle, and remove those of users who are gone."""
    for user, files in outputs["bundles"].items():
        bundle.write_bundle(stack, user, files, paths.bundles(stack) / user)
    for folder in paths.bundles(stack).iterdir():
        if folder.name not in outputs["bundles"]:
            bundle.remove_bundle(folder)


def show_bundle(console: Console, stack: str, user: str, outputs: dict[str, Any], out: Path | None) -> None:
    if user not in outputs["bundles"]:
        raise Stop(f"there is no user {user!r} in this deployment; known: {', '.join(outputs['users'])}")
    target = out or paths.bundles(stack) / user
    bundle.write_bundle(stack, user, outputs["bundles"][user], target)
    bundle.show(console, outputs["bundles"][user], target)


def _ask(console: Console, config: settings.StackSettings, outputs: dict[str, Any]) -> None:
    if stack_file.PROBE not in outputs["bundles"]:
        console.print(f"no question asked: the stack has no user `{stack_file.PROBE}: {{service: true}}`")
        return
    if not config.models:
        console.print("no question asked: the stack declares no model (`models: []`) that could answer it")
        return
    if config.host.ssh is not None and not docker_engine.answers():
        console.print("no question asked: the client that asks it needs a Docker engine on this machine")
        return
    console.print(f"\n[bold]{ask.QUESTION}[/]  (through the tunnel, model {config.models[0].name})")
    answer = ask.ask(console, config, outputs["tunnel_address"], outputs["bundles"][stack_file.PROBE])
    console.print(
        f"[dim]{answer.chunks} chunks; first after {answer.first_chunk_s:.1f} s with the tunnel's start in it[/]"
    )
    for name in undeclared(config, answer.models):
        console.print(
            f"[yellow]not declared:[/] Ollama has the model {name}, which no line of `models:` names. It stays until "
            "an admin deletes it; add a line to keep it for good"
        )


def undeclared(config: settings.StackSettings, there: Iterable[str]) -> list[str]:
    """Models that somebody made or copied by hand: they are named, and never deleted on their own."""
    declared = {model.tagged.lower() for model in config.models}
    return sorted(name for name in there if name.lower() not in declared)


def down(console: Console, stack: str) -> None:
    _refuse_to_forget(stack)
    if not paths.stack_file(stack).exists():
        console.print(f"nothing to destroy: there is no stacks/{paths.stack_file(stack).name}")
        return
    config = _settings(stack)
    if config.protect:
        raise Stop(
            f"stack {stack!r} is protected, so its models and audit trail are not destroyed. Set "
            f"`{settings.PROJECT}:protect: false`, run `make up STACK={stack}`, then `make down STACK={stack}`"
        )
    with _one_at_a_time(stack):
        pulumi = ready(console, stack, build=False)
        with reached(console, stack) as (_, there):
            pulumi.recover(there)
        pulumi.run("destroy", "--yes", "--skip-preview")
        pulumi.read("stack", "rm", "--yes", "--preserve-config")
    for folder in paths.bundles(stack).iterdir() if paths.bundles(stack).exists() else ():
        bundle.remove_bundle(folder)
    shutil.rmtree(paths.bundles(stack), ignore_errors=True)
    console.print(f"nothing of stack {stack} is left; its config stays in stacks/{paths.stack_file(stack).name}")


@contextmanager
def _one_at_a_time(stack: str) -> Iterator[None]:
    """Refuse a second `make up` of the same stack; the lock goes with its process, however that ends."""
    path = paths.state() / f"{stack}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Stop(f"another run works on stack {stack!r}; wait for it to end, then run this again") from None
        yield
