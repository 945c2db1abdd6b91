"""Who the gateway knows: users, the hashes of their keys, and the addresses of their devices."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any

from render import page
from render.syntax import GENERATED
from settings import StackSettings
from settings.timezones import offsets

RELAY = "wireguard"
MB = 1024 * 1024
POLICY = Path(__file__).parent.parent / "gateway"


def principals(
    settings: StackSettings,
    addresses: Mapping[tuple[str, str], Sequence[IPv4Address | IPv6Address]],
    key_hashes: Mapping[str, str],
    previous_hashes: Mapping[str, str] | None = None,
) -> str:
    """A module of data for the policy.

    addresses: (user, device) -> tunnel addresses. A row names the device in the audit line; it proves the user
    only where the user is keyless.
    key_hashes: user -> SHA-256 of the API key, in hex. The key itself never gets here.
    previous_hashes: the same of a key that is valid beside it, while its `previous_epoch` stands.
    """
    own = settings.wireguard
    assert own is not None, "settings without a wireguard section never get here"
    known: dict[str, Any] = {
        "v": 1,
        "domain": settings.domain,
        "tunnel_addresses": [str(own.server4), str(own.server6)],
        "model_upload": settings.gateway.model_upload and settings.engine.value == "online",
        "body_limit": settings.gateway.body_limit_mb * MB,
        "context_length": settings.ollama.context_length,
        "clock": {"timezone": settings.timezone, "offsets": offsets(settings.timezone)},
        "browser": None
        if settings.browser is None
        else {
            "provider": settings.login is not None,
            "files": list(page.paths()),
            "dashboards": settings.dashboards,
            # A session's ticket names it: with a new one, open streams of the old sessions end.
            "epoch": settings.browser.epoch,
        },
        # Whom a sign-in proves; a service has none.
        "emails": {
            user.email: name
            for name, user in sorted(settings.users.items())
            if settings.login and user.email and not user.service
        },
        "cors_origins": list(settings.gateway.cors_origins),
        "failed_auth_per_minute": settings.gateway.failed_auth_per_minute,
        "stream_timeout_s": settings.gateway.longest_silence_s,
        "longest_answer_ms": settings.gateway.longest_answer_s * 1000,
        "queue": {
            "slots": settings.gateway.slots or settings.ollama.num_parallel,
            "wait_s": settings.gateway.queue_wait_s,
            "per_user": settings.gateway.queue_per_user,
            "total": settings.gateway.queue_total,
        },
        # Names that the operator wrote; whatever else is asked for is `unknown` in the audit line.
        "models": sorted(
            {model.name for model in settings.models}
            | {name for user in settings.users.values() for name in user.models if "*" not in name}
        ),
        "audit": {
            "strict": settings.observability.audit == "strict",
            "file": settings.observability.audit_file_mb * MB,
            "files": settings.observability.audit_files_mb * MB,
            "days": settings.observability.audit_files_days,
        },
        "users": {
            name: {
                "role": user.role,
                "models": list(user.models),
                "keyless": user.keyless,
                "service": user.service,
                "devices": [device.name for device in user.devices],
                # What a num_ctx above the stack's becomes; nothing: it does not go on, and Ollama takes the stack's.
                "num_ctx": _wider_context(settings, name),
                "stack_ctx": settings.ollama.context_length,
                "limits": _limits(settings, name),
            }
            for name, user in sorted(settings.users.items())
        },
        "keys": {
            hashes[name]: name
            for name in sorted(key_hashes)
            for hashes in (key_hashes, previous_hashes or {})
            if name in hashes
        },
        "addresses": {
            f"{RELAY}|{address}": {"user": user, "device": device}
            for (user, device), own_ones in sorted(addresses.items())
            for address in own_ones
        },
    }
    # By its id an old worker sees that it is not the newest any more.
    known["id"] = hashlib.sha256(json.dumps(known).encode()).hexdigest()
    return data_module(json.dumps(known, indent=1))


def _limits(settings: StackSettings, user: str) -> dict[str, int | None]:
    limits = settings.limits_of(user).model_dump()
    whole = {name: settings.ollama.context_length for name in ("context_tokens", "answer_tokens")}
    return limits | {name: limits[name] or context for name, context in whole.items()}


def _wider_context(settings: StackSettings, user: str) -> int | None:
    granted = settings.limits_of(user).context_tokens or 0
    return granted if granted > settings.ollama.context_length else None


def policy_files() -> dict[str, str]:
    """The policy itself: its code as it lies there, its tables as modules."""
    code = {path.name: path.read_text() for path in sorted(POLICY.glob("*.js"))}
    return code | {f"{path.stem}.js": data_module(path.read_text()) for path in sorted(POLICY.glob("*.json"))}


def data_module(text: str) -> str:
    """JSON as a JavaScript module: njs's QuickJS engine has no js_preload_object."""
    json.loads(text)
    return f"// {GENERATED}\nexport default {text.strip()};\n"
