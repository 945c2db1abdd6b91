"""When certificates are renewed."""

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from fortress.renewal import is_due

MADE = datetime(2026, 1, 1, tzinfo=UTC)
LIFE = timedelta(days=300)


@pytest.fixture(scope="module")
def pem() -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), MADE, MADE + LIFE)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


@pytest.mark.parametrize(("days", "due"), [(0, False), (199, False), (200, True), (299, True), (400, True)])
def test_a_certificate_is_due_after_two_thirds_of_its_life(days: int, due: bool, pem: str):
    assert is_due([pem], MADE + timedelta(days=days)) is due


def test_without_a_certificate_nothing_is_due():
    assert not is_due([], MADE)
