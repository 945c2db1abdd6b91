"""A PEM file of somebody else's authority, as a setting names it."""

from pathlib import Path

import pulumi

from settings import PROJECT


def authorities(place: str, path: Path, whose: str) -> str:
    """The PEM file that a setting names. place: the setting; whose: for the advice, like `your store's`.

    Raises: pulumi.RunError where it cannot be read, or holds anything but certificates.
    """
    where = f"{PROJECT}:{place} {path}"
    try:
        text = path.expanduser().read_text()
    except OSError as error:
        raise pulumi.RunError(f"{where}: {error.strerror}; write the path of a PEM file that you can read") from None
    if "-----BEGIN CERTIFICATE-----" not in text or "PRIVATE KEY" in text:
        raise pulumi.RunError(f"{where} is not a PEM file of certificates alone; write {whose} authority")
    return text
