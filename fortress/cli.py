"""`fortress`: the commands. What they do is in the module of the same name."""

import json
import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from fortress import blocklist, commands, docker_engine, logs, report, up, usage
from fortress import engine as engines
from fortress import status as stack_status
from fortress.errors import Stop
from fortress.pulumi_cli import Pulumi
from images import build
from render import dashboards
from settings import ConfigRefused

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
images_app = typer.Typer(no_args_is_help=True, help="Container images: build, pull, lock.")
app.add_typer(images_app, name="images")
console = Console()

INTERRUPTED = 130
"""The code of a command that Ctrl-C ended, as shells have it."""

Stack = Annotated[str, typer.Option("--stack", "-s", envvar="FORTRESS_STACK", help="Name of the environment.")]


@app.command("up")
def up_command(stack: Stack = "dev") -> None:
    """Deploy this stack, ask one question through its tunnel, and write the bundles."""
    with commands.recorded(console, stack, "up", stack):
        up.up(console, stack)


@app.command()
def preview(stack: Stack = "dev") -> None:
    """Show what `up` would change."""
    up.ready(console, stack, build=True).run("preview", "--diff")


@app.command()
def down(stack: Stack = "dev") -> None:
    """Destroy everything of this stack: containers, networks, volumes, files and bundles."""
    with commands.recorded(console, stack, "down", stack, last=True):
        up.down(console, stack)


@app.command()
def env(stack: Stack = "dev") -> None:
    """Print the exports with which plain `pulumi` works in this checkout."""
    for key, value in up.exports(Console(stderr=True), stack).items():
        print(f"export {key}='{value}'")


@app.command()
def bundle(
    user: str,
    stack: Stack = "dev",
    out: Annotated[Path | None, typer.Option(help="Folder to write to, instead of bundles/<stack>/<user>.")] = None,
) -> None:
    """Write all that one user needs to connect, and show the QR code of each device."""
    pulumi = Pulumi(stack, up.exports(console, stack))
    with commands.recorded(console, stack, "bundle", user):
        up.show_bundle(console, stack, user, pulumi.outputs(), out)


@app.command()
def status(
    stack: Stack = "dev", as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False
) -> None:
    """Show what runs of this stack, how it is, and who is blocked until when."""
    with up.reached(Console(stderr=True), stack) as (config, there):
        found = stack_status.read(there, config)
    if as_json:
        print(json.dumps(found, indent=1))
    else:
        stack_status.show(console, found)


@app.command()
def block(
    who: Annotated[str, typer.Argument(metavar="USER|ADDRESS")],
    duration: Annotated[str | None, typer.Option("--for", help="30s, 10m, 1h or 7d; without it for good.")] = None,
    stack: Stack = "dev",
) -> None:
    """Shut somebody out within two seconds, open streams included; no `up` lets them in again."""
    with up.reached(console, stack) as (_, there):
        _say(blocklist.block(there, stack, who, duration))


@app.command()
def unblock(
    who: Annotated[str | None, typer.Argument(metavar="USER|ADDRESS")] = None,
    everybody: Annotated[bool, typer.Option("--all", help="Everybody who is blocked.")] = False,
    stack: Stack = "dev",
) -> None:
    """Let somebody in again."""
    if (who is None) != everybody:
        raise Stop("name one user or address to unblock, or write --all")
    with up.reached(console, stack) as (_, there):
        _say(blocklist.unblock_all(there, stack) if who is None else blocklist.unblock(there, stack, who))


@app.command("logs")
def logs_command(
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what comes, until Ctrl-C.")] = False,
    user: Annotated[str | None, typer.Option(help="Only this user's requests.")] = None,
    verdict: Annotated[str | None, typer.Option(help="allowed, refused (or denied), failed or cut.")] = None,
    since: Annotated[str, typer.Option(help="How far back: 30s, 10m, 1h or 7d.")] = "1h",
    as_json: Annotated[bool, typer.Option("--json", help="The lines as they were written.")] = False,
    stack: Stack = "dev",
) -> None:
    """Show who asked for what, and how it ended; never what was said."""
    ends = (KeyboardInterrupt,) if follow else ()
    with suppress(*ends), up.reached(Console(stderr=True), stack) as (_, there):
        for line in logs.read(there, stack, user=user, verdict=verdict, since=since, follow=follow):
            if as_json:
                print(logs.as_json(line), flush=True)
            else:
                logs.show(console, line)


@app.command("usage")
def usage_command(
    user: Annotated[str | None, typer.Option(help="Only this user.")] = None,
    since: Annotated[str, typer.Option(help="How far back: 10m, 1h or 30d.")] = "30d",
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    stack: Stack = "dev",
) -> None:
    """Show what each user has asked for and got: requests, refusals, tokens, models."""
    with up.reached(Console(stderr=True), stack) as (_, there):
        found = usage.read(there, stack, user, since)
    if as_json:
        print(json.dumps(found, indent=1))
    else:
        usage.show(console, found)


@app.command("dashboards")
def dashboards_command(
    out: Annotated[Path, typer.Option(help="Folder to write to.")] = Path("dashboards"),
) -> None:
    """Write Grafana's dashboards as JSON, for a Grafana of your own: its data sources' uids are prometheus and loki."""
    _say([str(path) for path in dashboards.write(out)])


@app.command("report")
def report_command(
    month: Annotated[str | None, typer.Option(help="Like 2026-11; without it the one that runs.")] = None,
    out: Annotated[Path, typer.Option(help="Folder to write to.")] = Path("reports"),
    stack: Stack = "dev",
) -> None:
    """Write one month as a page: users, tokens, refusals, what is worth a look, keys, certificates, what to do."""
    _say([str(path) for path in report.write(console, stack, month, out)])


def _say(sentences: list[str]) -> None:
    for sentence in sentences:
        console.print(sentence, highlight=False, markup=False, soft_wrap=True)


@images_app.command("build")
def images_build(
    engine: Annotated[str | None, typer.Option(help="online or registry-only; a stack's file says it itself.")] = None,
    stack: Annotated[str | None, typer.Option("--stack", "-s", help="Build on this stack's host.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Those that only some stacks need, too.")] = False,
) -> None:
    """Build the images that this program refers to, where they are missing: on this machine, or on a stack's host."""
    up.build_images(console, engine or engines.choose(), stack, everything=everything)


@images_app.command("lock")
def images_lock() -> None:
    """Ask the registries for the digest of every pulled image, and write them into the catalogue."""
    docker_engine.ensure(console)
    changed = build.lock_all()
    for name, digest in changed.items():
        console.print(f"{name}  {digest}")
    if not changed:
        console.print("every digest in images/catalogue.yaml is what the registry says")


def refuse(title: str, text: str) -> None:
    """To stderr, as it stands: rich would take brackets for its own, and break a command that is to be copied."""
    Console(stderr=True).print(Text.assemble((title, "bold red"), text), highlight=False, soft_wrap=True)


def main() -> None:
    try:
        code = app(standalone_mode=False)
        if code == INTERRUPTED:
            raise KeyboardInterrupt  # Typer makes a code of it, and of every Exit
        sys.exit(code)
    except Stop as stop:
        refuse("stopped: ", str(stop))
        sys.exit(1)
    except ConfigRefused as refused:
        refuse("the stack config is refused:\n", str(refused))
        sys.exit(1)
    except (KeyboardInterrupt, typer.Abort):
        Console(stderr=True).print("interrupted; run the same command again to go on")
        sys.exit(INTERRUPTED)
    except typer.TyperException as error:
        refuse("", f"{error}; `bin/fortress --help` lists the commands")
        sys.exit(2)
