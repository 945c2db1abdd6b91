"""Names of resources that the program does not name itself."""

import hashlib
import secrets

from offline.plugins.provider import Values


def named(name: str, olds: Values, news: Values, seed: bytes) -> Values:
    """The given name, else the old one, else `<resource>-<7 hex>`."""
    if news.get("name"):
        return news
    if olds.get("name"):
        return news | {"name": olds["name"], "__defaults": ["name"]}
    suffix = hashlib.sha256(seed).hexdigest()[:7] if seed else secrets.token_hex(4)[:7]
    return news | {"name": f"{name}-{suffix}", "__defaults": ["name"]}
