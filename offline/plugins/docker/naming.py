"""Names of resources that the program does not name itself."""

import hashlib
import secrets

from offline.plugins.provider import Values

SUFFIX = 7


def named(name: str, olds: Values, inputs: Values, seed: bytes) -> Values:
    """The given name, else the old one, else `<resource>-<7 hex>`; noted among the defaults."""
    if inputs.get("name"):
        return inputs
    digits = hashlib.sha256(seed).hexdigest() if seed else secrets.token_hex(SUFFIX)
    own = olds.get("name") or f"{name}-{digits[:SUFFIX]}"
    return inputs | {"name": own, "__defaults": sorted([*inputs.get("__defaults", []), "name"])}
