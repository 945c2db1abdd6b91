"""Every key of a user, derived from the user's one random seed.

Changing a derivation voids every bundle ever handed out: the test vectors are frozen.
"""

import base64
import hashlib
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

SEED_BYTES = 32


@dataclass(frozen=True)
class Seed:
    """32 random bytes. Its text form never shows them."""

    raw: bytes

    def __post_init__(self) -> None:
        if len(self.raw) != SEED_BYTES:
            raise ValueError(f"a seed has {SEED_BYTES} bytes, this one {len(self.raw)}")

    @classmethod
    def from_hex(cls, text: str) -> "Seed":
        return cls(bytes.fromhex(text))

    def __repr__(self) -> str:
        return "Seed(...)"


@dataclass(frozen=True)
class Holder:
    user: str
    device: str


SERVER = Holder("", "vpn-node")
"""The VpnNode's own key; no user can be called ''."""


def derive(seed: Seed, family: str, user: str, device: str, epoch: str) -> bytes:
    """HKDF-SHA256 (RFC 5869), no salt. Returns: 32 bytes.

    No part may hold a '/', so two different parts never make the same info.
    """
    parts = (family, user, device, epoch)
    if any("/" in part for part in parts):
        raise ValueError("a '/' in a name would let two derivations meet")
    info = "/".join(("ollama-fortress", "1", *parts)).encode()
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=info).derive(seed.raw)


def api_key(seed: Seed, user: str, epoch: str) -> str:
    """256 bits as 64 lower-case hex digits."""
    return derive(seed, "api-key", user, "", epoch).hex()


def key_hash(key: str) -> str:
    """SHA-256 of an API key's text, in hex: all that the gateway knows of it."""
    return hashlib.sha256(key.encode()).hexdigest()


def wireguard_private(seed: Seed, user: str, device: str, epoch: str) -> str:
    """A private key in base64, clamped (RFC 7748, 5), so that `wg showconf` shows the same text."""
    raw = bytearray(derive(seed, "wireguard-key", user, device, epoch))
    raw[0] &= 248
    raw[31] = (raw[31] & 127) | 64
    return base64.b64encode(bytes(raw)).decode()


def wireguard_psk(seed: Seed, user: str, device: str, epoch: str) -> str:
    return base64.b64encode(derive(seed, "wireguard-psk", user, device, epoch)).decode()


def cookie_secret(seed: Seed, epoch: str) -> str:
    """The key of all browser sessions: 32 bytes as oauth2-proxy reads them from a text file, in URL-safe base64."""
    return base64.urlsafe_b64encode(derive(seed, "cookie-secret", "", "login", epoch)).decode()


def grafana_password(seed: Seed) -> str:
    """Of Grafana's own admin, whom nobody needs: 256 bits as 64 lower-case hex digits."""
    return derive(seed, "grafana-password", "", "grafana", "1").hex()


def wireguard_public(private_key: str) -> str:
    """The public key of a private one, both in base64; equal to `wg pubkey`."""
    private = X25519PrivateKey.from_private_bytes(base64.b64decode(private_key, validate=True))
    return base64.b64encode(private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)).decode()
