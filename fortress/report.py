"""`fortress report`: one month of a stack as a page, read from the trail on its host, its config and its state."""

import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import chain
from pathlib import Path
from typing import Any

from cryptography import x509
from docker import DockerClient
from rich.console import Console

from fortress import review, trail, up
from fortress.errors import Stop
from fortress.in_gateway import all_run, gateways
from fortress.pulumi_cli import Pulumi
from fortress.renewal import LEAF
from images import catalogue
from render import report
from settings import StackSettings

AUTHORITY = "tls:index/selfSignedCert:SelfSignedCert"
SEED = "random:index/randomPassword:RandomPassword"


def write(console: Console, stack: str, month: str | None, out: Path) -> list[Path]:
    """Returns: the page and its Markdown."""
    made = review.now()
    with up.reached(Console(stderr=True), stack) as (config, there):
        chosen = month or review.running(config, made)
        found = gather(there, config, chosen, made)
    found.below_floors = tuple(catalogue.below_floors(config.engine.value))
    found.unknown = _from_the_state(console, found, config)
    out.mkdir(parents=True, exist_ok=True)
    name = report.file_name(stack, chosen)
    pages = [(out / f"{name}.html", report.html(found)), (out / f"{name}.md", report.markdown(found))]
    for path, text in pages:
        path.write_text(text)
    return [path for path, _ in pages]


def gather(there: DockerClient, config: StackSettings, month: str, made: datetime) -> review.Review:
    """What the trail says. Raises: Stop where no gateway runs, so that nobody reads a page of zeros."""
    found = review.empty(config, month, made)
    gateways(there, config.stack)
    sources = {
        "requests": trail.REQUESTS,
        "commands": trail.COMMANDS,
        "tunnel": trail.TUNNEL,
        "logins": trail.LOGINS,
    }
    readers = {name: trail.readers(there, config.stack, source, found.begin) for name, source in sources.items()}
    lines = {name: chain.from_iterable(each.lines() for each in those) for name, those in readers.items()}
    review.count(found, config, **lines)
    found.unreadable = sum(each.unreadable for those in readers.values() for each in those)
    parts = [part for part in review.TELLS if part != trail.LOGINS.component or config.login]
    found.unread = tuple(part for part in parts if not all_run(there, config.stack, part))
    return found


def _from_the_state(console: Console, found: review.Review, config: StackSettings) -> str:
    """Add keys and certificates. Returns: why they are not known, or nothing."""
    try:
        exported = json.loads(Pulumi(config.stack, up.exports(console, config.stack)).read("stack", "export"))
    except Stop as stop:
        found.keys = review.keys(config, {}, found.made)
        return str(stop)
    resources = exported.get("deployment", {}).get("resources") or []
    found.keys = review.keys(config, seeds(resources, config), found.made)
    found.certificates = certificates(resources)
    own = config.gateway.certificate_file
    if own is not None:
        found.certificates.append(_certificate("gateway.certificate_file", own.expanduser().read_text()))
    found.certificates.sort(key=lambda each: each.until)
    return ""


def seeds(resources: Sequence[Mapping[str, Any]], config: StackSettings) -> dict[str, datetime]:
    """User -> when the seed was made."""
    made: dict[str, datetime] = {}
    for each in resources:
        matched = re.search(r"::[^:]*-identity-(.+)$", each["urn"]) if each["type"] == SEED else None
        if matched and matched[1] in config.users and "created" in each:
            made[matched[1]] = trail.moment(each["created"])
    return made


def certificates(resources: Sequence[Mapping[str, Any]]) -> list[review.Certificate]:
    return [
        _certificate(each["urn"].rpartition("::")[2], each["outputs"]["certPem"])
        for each in resources
        if each["type"] in (LEAF, AUTHORITY) and each.get("outputs")
    ]


def _certificate(name: str, pem: str) -> review.Certificate:
    return review.Certificate(name, x509.load_pem_x509_certificate(pem.encode()).not_valid_after_utc)
