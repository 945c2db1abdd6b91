"""Who the gateway knows: users, the hashes of their keys, and the addresses of their devices."""

import hashlib
import json
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from render.syntax import GENERATED
from settings import StackSettings
from settings.timezones import offsets

RELAY = "wireguard"


def principals(
    settings: StackSettings,
    addresses: Mapping[tuple[str, str], tuple[IPv4Address, IPv6Address]],
    key_hashes: Mapping[str, str],
) -> str:
    """A module of data for the policy.

    addresses: (user, device) -> tunnel addresses. A row names the device in the audit line; it proves the user
    only where the user is keyless.
    key_hashes: user -> SHA-256 of the API key, in hex. The key itself never gets here.
    """
    own = settings.wireguard
    assert own is not None, "settings without a wireguard section never get here"
    known: dict[str, Any] = {
        "v": 1,
        "domain": settings.domain,
        "tunnel_addresses": [str(own.server4), str(own.server6)],
        "model_upload": settings.gateway.model_upload and settings.engine.value == "online",
        "body_limit": settings.gateway.body_limit_mb * 1024 * 1024,
        "context_length": settings.ollama.context_length,
        "clock": {"timezone": settings.timezone, "offsets": offsets(settings.timezone)},
        "stream_timeout_s": settings.gateway.read_timeout_s + 60,
        "users": {
            name: {
                "role": user.role,
                "models": list(user.models),
                "keyless": user.keyless,
                "service": user.service,
                "limits": settings.limits_of(name).model_dump(),
            }
            for name, user in sorted(settings.users.items())
        },
        "keys": {key_hashes[name]: name for name in sorted(key_hashes)},
        "addresses": {
            f"{RELAY}|{address}": {"user": user, "device": device}
            for (user, device), pair in sorted(addresses.items())
            for address in pair
        },
    }
    # By its id an old worker sees that it is not the newest any more.
    known["id"] = hashlib.sha256(json.dumps(known).encode()).hexdigest()
    return data_module(json.dumps(known, indent=1))


def data_module(text: str) -> str:
    """JSON as a JavaScript module: njs's QuickJS engine has no js_preload_object."""
    json.loads(text)
    return f"// {GENERATED}\nexport default {text.strip()};\n"
