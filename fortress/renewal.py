"""Certificates past two thirds of their life: renewed by a word in the stack file, so the preview shows it."""

from collections.abc import Iterable
from datetime import UTC, datetime

from cryptography import x509
from rich.console import Console

from fortress.deployed import Resource
from fortress.pulumi_cli import Pulumi
from settings import PROJECT

LEAF = "tls:index/locallySignedCert:LocallySignedCert"


def renew_when_due(
    console: Console, pulumi: Pulumi, resources: Iterable[Resource], now: datetime | None = None
) -> None:
    """Raise `pki.leaf_epoch` in the stack file where a leaf certificate is due; the next preview says what follows.

    resources: of the state.
    """
    now = now or datetime.now(UTC)
    pems = [each["outputs"]["certPem"] for each in resources if each["type"] == LEAF and each.get("outputs")]
    if not is_due(pems, now):
        return
    epoch = f"renewed-{now:%Y-%m-%d}"
    pulumi.read("config", "set", "--path", f"{PROJECT}:pki.leaf_epoch", epoch)
    console.print(f"certificates are past two thirds of their life: pki.leaf_epoch is now {epoch}, so they are renewed")


def is_due(pems: Iterable[str], now: datetime) -> bool:
    """Whether any certificate has at most a third of its life left."""
    for pem in pems:
        certificate = x509.load_pem_x509_certificate(pem.encode())
        life = certificate.not_valid_after_utc - certificate.not_valid_before_utc
        if now >= certificate.not_valid_before_utc + life * 2 / 3:
            return True
    return False
