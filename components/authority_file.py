"""PEM files as a setting names them: of somebody else's authority, or of a certificate of one's own."""

from pathlib import Path

import pulumi
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from settings import PROJECT


def certificates(place: str, path: Path, which: str) -> str:
    """The PEM file that a setting names. place: the setting; which: for the advice, like `your store's authority`.

    Raises: pulumi.RunError where it cannot be read, or holds anything but certificates.
    """
    text = read(place, path)
    if "-----BEGIN CERTIFICATE-----" not in text or "PRIVATE KEY" in text:
        raise pulumi.RunError(f"{PROJECT}:{place} {path} is not a PEM file of certificates alone; write {which}")
    return text


def read(place: str, path: Path) -> str:
    """Raises: pulumi.RunError where it cannot be read."""
    try:
        return path.expanduser().read_text()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise pulumi.RunError(
            f"{PROJECT}:{place} {path}: {why}; write the path of a PEM file that you can read"
        ) from None


def issuers(chain: str) -> str:
    """What vouches for the first certificate of a chain, as far as the chain holds it; a self-made one does itself.

    Returns: PEM, or nothing: a public authority is found in nobody's chain. Raises: ValueError for what is no chain.
    """
    first, *others = x509.load_pem_x509_certificates(chain.encode())
    found = others or ([first] if first.issuer == first.subject else [])
    return "".join(each.public_bytes(Encoding.PEM).decode() for each in found)
