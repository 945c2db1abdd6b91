"""The tls plugin answers what the official plugin answered, and its certificates say what the official ones say."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.verification import PolicyBuilder, Store

from offline.plugins.provider import Failed, Refused
from offline.plugins.tls.__main__ import CertRequest, LocallySignedCert, PrivateKey, SelfSignedCert
from tests.unit.replay import UNCHANGED, Replay, bare, secrets_in, shape, swapped, verdict

RESOURCES = (PrivateKey(), CertRequest(), SelfSignedCert(), LocallySignedCert())
OFFICIAL = Replay("tls", *RESOURCES)
PLACEHOLDER = "<EC PRIVATE KEY PEM>"
"""What the recordings hold in the place of private keys."""
FRESH = ("id", "certPem", "certRequestPem", "validityStartTime", "validityEndTime")


def placed(value: Any) -> Any:
    """The same with placeholders instead of private keys, as recorded."""
    pem = re.compile(r"-----BEGIN (?P<label>(\w+ )*PRIVATE KEY)-----\n.*\n-----END (?P=label)-----\n", re.DOTALL)
    return swapped(value, lambda text: pem.sub(r"<\g<label> PEM>", text))


class Authority:
    """A key, and the certificate that the recorded inputs make of it."""

    def __init__(self) -> None:
        made = OFFICIAL.answer("Create", OFFICIAL.made("PrivateKey")["request"])
        self.key = bare(made["properties"])["privateKeyPem"]
        self.pem = self.create(OFFICIAL.made("SelfSignedCert")["request"])["properties"]["certPem"]

    def create(self, request: Any) -> Any:
        """Our answer to a recorded creation, with this key in the place of every placeholder, and its certificate."""
        properties = swapped(request["properties"], lambda text: self.key if text == PLACEHOLDER else text)
        if "caCertPem" in properties:
            properties |= {"caCertPem": self.pem}
        return OFFICIAL.answer("Create", request | {"properties": properties})


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


def certificate(pem: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pem.encode())


def extensions(of: x509.Certificate | x509.CertificateSigningRequest) -> list[Any]:
    return [(each.oid, each.critical, each.value) for each in of.extensions]


# Replayed


@pytest.mark.parametrize("call", OFFICIAL.params("Check"))
def test_check_gives_the_recorded_inputs(call: Any) -> None:
    assert OFFICIAL.answer("Check", call["request"]) == call["response"]


@pytest.mark.parametrize("call", OFFICIAL.params("Diff"))
def test_diff_gives_the_recorded_verdict(call: Any) -> None:
    assert OFFICIAL.verdict(call["request"]) == verdict(call["response"])


@pytest.mark.parametrize("call", OFFICIAL.params("Create", preview=True))
def test_a_previewed_creation_equals_the_recorded_one(call: Any) -> None:
    found, wanted = OFFICIAL.answer("Create", call["request"]), call["response"]
    assert bare(found["properties"]) == bare(wanted["properties"])
    assert "id" not in found


@pytest.mark.parametrize("call", OFFICIAL.params("Create", preview=False))
def test_created_outputs_have_the_recorded_names_types_and_marks(authority: Authority, call: Any) -> None:
    found, wanted = placed(authority.create(call["request"])), call["response"]
    assert shape(found) == shape(wanted)
    assert found["id"] == found["properties"]["id"]
    fresh = {*FRESH, "caCertPem", *(key for key in found["properties"] if key.startswith("publicKey"))}
    for key in set(wanted["properties"]) - fresh:
        assert found["properties"][key] == wanted["properties"][key], key


@pytest.mark.parametrize("call", OFFICIAL.params("Read"))
def test_read_gives_the_recorded_state(call: Any) -> None:
    assert OFFICIAL.answer("Read", call["request"]) == call["response"]


@pytest.mark.parametrize("call", OFFICIAL.params("Create", preview=False))
def test_what_this_plugin_made_stays_as_it_is(authority: Authority, call: Any) -> None:
    request, made = call["request"], authority.create(call["request"])
    known = {"type": request["type"], "name": request["name"], "id": made["id"]}
    inputs, state = request["properties"], bare(made["properties"])
    assert OFFICIAL.verdict(known | {"oldInputs": inputs, "olds": state, "news": inputs}) == UNCHANGED
    read = OFFICIAL.answer("Read", known | {"inputs": inputs, "properties": state})
    assert (read["id"], read["properties"]) == (made["id"], made["properties"])


def test_a_stack_of_an_earlier_plugin_that_wrote_defaults_into_the_inputs_stays_as_it_is() -> None:
    call = OFFICIAL.made("LocallySignedCert")["request"]
    inputs = {key: value for key, value in call["properties"].items() if key != "earlyRenewalHours"}
    request = call | {"id": "1", "olds": inputs, "oldInputs": inputs | {"earlyRenewalHours": 0}, "news": inputs}
    del request["properties"]
    assert OFFICIAL.verdict(request) == UNCHANGED


# Ids, keys and certificates


def test_ids_are_made_as_recorded(authority: Authority) -> None:
    for call in OFFICIAL.params("Create", preview=False):
        for answer in (call.values[0]["response"], authority.create(call.values[0]["request"])):
            found, encoding = answer["properties"], serialization.Encoding
            if "certPem" in found:
                assert answer["id"] == str(certificate(found["certPem"]).serial_number)
                continue
            if "certRequestPem" in found:
                der = x509.load_pem_x509_csr(found["certRequestPem"].encode()).public_bytes(encoding.DER)
            else:
                public = serialization.load_pem_public_key(found["publicKeyPem"].encode())
                der = public.public_bytes(encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
            assert answer["id"] == subprocess.run(
                ["openssl", "dgst", "-sha1", "-r"], input=der, capture_output=True, check=True
            ).stdout.decode().removesuffix(" *stdin\n")


def test_no_secret_is_in_an_id(authority: Authority) -> None:
    for call in OFFICIAL.params("Create", preview=False):
        answer = authority.create(call.values[0]["request"])
        keys = secrets_in(answer["properties"])
        assert keys
        for key in keys:
            private = serialization.load_ssh_private_key if "OPENSSH" in key else serialization.load_pem_private_key
            loaded = private(key.encode(), password=None)
            assert isinstance(loaded, ec.EllipticCurvePrivateKey)
            number = loaded.private_numbers().private_value
            assert answer["id"] not in (str(number), f"{number:x}") and key not in answer["id"]


def test_the_forms_of_a_key_are_of_one_key_and_its_fingerprints_are_those_of_ssh(tmp_path: Path) -> None:
    made = bare(OFFICIAL.answer("Create", OFFICIAL.made("PrivateKey")["request"])["properties"])
    public = serialization.load_pem_public_key(made["publicKeyPem"].encode())
    for form in ("privateKeyPem", "privateKeyPemPkcs8"):
        assert serialization.load_pem_private_key(made[form].encode(), None).public_key() == public
    assert serialization.load_ssh_private_key(made["privateKeyOpenssh"].encode(), None).public_key() == public
    assert serialization.load_ssh_public_key(made["publicKeyOpenssh"].encode()) == public
    (tmp_path / "key.pub").write_text(made["publicKeyOpenssh"])
    for kind, wanted in (("sha256", made["publicKeyFingerprintSha256"]), ("md5", made["publicKeyFingerprintMd5"])):
        said = subprocess.run(
            ["ssh-keygen", "-l", "-E", kind, "-f", tmp_path / "key.pub"], capture_output=True, text=True, check=True
        )
        assert said.stdout.split()[1].removeprefix("MD5:") == wanted


def test_an_authority_says_what_the_official_one_says(authority: Authority) -> None:
    official = certificate(OFFICIAL.made("SelfSignedCert")["response"]["properties"]["certPem"])
    ours = certificate(authority.pem)
    own = x509.SubjectKeyIdentifier.from_public_key(ours.public_key())
    assert extensions(ours)[:2] == extensions(official)[:2]
    assert [each[:2] for each in extensions(ours)] == [each[:2] for each in extensions(official)]
    assert extensions(ours)[2][2] == own
    assert extensions(ours)[3][2] == x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own)
    assert (ours.subject, ours.issuer) == (official.subject, official.issuer)
    assert ours.not_valid_after_utc - ours.not_valid_before_utc == (
        official.not_valid_after_utc - official.not_valid_before_utc
    )


@pytest.mark.parametrize(
    "call", [each for each in OFFICIAL.params("Create", preview=False) if "leaf" in each.values[0]["request"]["name"]]
)
def test_leaves_and_requests_say_what_the_official_ones_say(authority: Authority, call: Any) -> None:
    wanted, found = call["response"]["properties"], authority.create(call["request"])["properties"]
    if "certPem" in wanted:
        official, ours = certificate(wanted["certPem"]), certificate(found["certPem"])
        ca_key_id = certificate(authority.pem).extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        authority_key_id = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(ca_key_id)
        # All of it but the authority, which is this test's own: the subject key id too, for the request is the same.
        kept = [
            each if each[0] != authority_key_id.oid else (each[0], each[1], authority_key_id)
            for each in extensions(official)
        ]
        assert extensions(ours) == kept
        assert ours.issuer.public_bytes() == certificate(authority.pem).subject.public_bytes()
        assert ours.subject.public_bytes() == official.subject.public_bytes()
        assert ours.not_valid_after_utc - ours.not_valid_before_utc == (
            official.not_valid_after_utc - official.not_valid_before_utc
        )
    elif "certRequestPem" in wanted:
        official, ours = (x509.load_pem_x509_csr(each["certRequestPem"].encode()) for each in (wanted, found))
        assert extensions(ours) == extensions(official)
        assert ours.subject == official.subject
        assert ours.is_signature_valid


def leaf(authority: Authority, use: str = "server_auth") -> str:
    request = authority.create(OFFICIAL.made("CertRequest")["request"])["properties"]["certRequestPem"]
    call = OFFICIAL.made("LocallySignedCert")["request"]
    asked = {"certRequestPem": request, "allowedUses": ["digital_signature", use]}
    return authority.create(call | {"properties": call["properties"] | asked})["properties"]["certPem"]


def test_cryptography_and_openssl_believe_a_leaf_for_its_own_use_and_name_only(
    authority: Authority, tmp_path: Path
) -> None:
    (tmp_path / "ca.pem").write_text(authority.pem)

    def openssl(pem: str, *wanted: str) -> bool:
        (tmp_path / "leaf.pem").write_text(pem)
        words = ["openssl", "verify", "-x509_strict", "-CAfile", tmp_path / "ca.pem", *wanted, tmp_path / "leaf.pem"]
        return subprocess.run(words, capture_output=True).returncode == 0

    server, client = leaf(authority), leaf(authority, "client_auth")
    name = "ollama.fortress.internal"
    assert openssl(server, "-purpose", "sslserver", "-verify_hostname", name)
    assert openssl(server, "-purpose", "sslserver", "-verify_ip", "fd00::1")
    assert openssl(client, "-purpose", "sslclient")
    assert not openssl(server, "-purpose", "sslclient")
    assert not openssl(client, "-purpose", "sslserver")
    assert not openssl(server, "-verify_hostname", "other.fortress.internal")
    assert not openssl(Authority().pem, "-purpose", "sslserver")
    policy = PolicyBuilder().store(Store([certificate(authority.pem)]))
    assert policy.build_server_verifier(x509.DNSName(name)).verify(certificate(server), [])
    assert policy.build_client_verifier().verify(certificate(client), [])
    with pytest.raises(x509.verification.VerificationError):
        PolicyBuilder().store(Store([certificate(Authority().pem)])).build_client_verifier().verify(
            certificate(client), []
        )


def test_a_longer_curve_signs_with_its_own_hash() -> None:
    key = bare(PrivateKey().create("k", {"algorithm": "ECDSA", "ecdsaCurve": "P384"}, False)[1])["privateKeyPem"]
    inputs = {"privateKeyPem": key, "subject": {"commonName": "a"}, "allowedUses": ["cert_signing"]}
    made = SelfSignedCert().create("c", inputs | {"validityPeriodHours": 1, "isCaCertificate": True}, False)[1]
    algorithm = certificate(made["certPem"]).signature_hash_algorithm
    assert algorithm and algorithm.name == "sha384"


# Changes and refusals


@pytest.mark.parametrize(
    ("kind", "change", "replaces"),
    [
        ("SelfSignedCert", {"validityPeriodHours": 1}, ["validityPeriodHours"]),
        ("SelfSignedCert", {"subject": {"commonName": "other"}}, ["subject"]),
        ("SelfSignedCert", {"privateKeyPem": "another"}, ["privateKeyPem"]),
        ("SelfSignedCert", {"setAuthorityKeyId": False}, ["setAuthorityKeyId"]),
        ("LocallySignedCert", {"caCertPem": "another"}, ["caCertPem"]),
        ("LocallySignedCert", {"isCaCertificate": False}, []),
        ("PrivateKey", {"ecdsaCurve": "P384"}, ["ecdsaCurve"]),
        ("CertRequest", {"ipAddresses": ["10.66.0.1"]}, ["ipAddresses"]),
    ],
)
def test_a_change_makes_a_new_one(kind: str, change: Any, replaces: Any) -> None:
    call = OFFICIAL.made(kind)
    inputs = call["request"]["properties"]
    request = call["request"] | {"id": "1", "oldInputs": inputs, "olds": inputs, "news": inputs | change}
    del request["properties"]
    found = OFFICIAL.verdict(request)
    assert (found["replaces"], found["diffs"]) == (replaces, replaces)


def test_only_the_hours_of_an_early_renewal_change_in_place() -> None:
    call = OFFICIAL.made("LocallySignedCert")
    state, inputs = bare(call["response"]["properties"]), call["request"]["properties"]
    news = {key: value for key, value in inputs.items() if key != "earlyRenewalHours"}
    request = {"type": call["request"]["type"], "name": "leaf", "id": call["response"]["id"]}
    request |= {"oldInputs": inputs, "olds": state, "news": news}
    found = OFFICIAL.verdict(request)
    assert (found["diffs"], found["replaces"]) == (["earlyRenewalHours"], [])
    updated = OFFICIAL.answer("Update", request)["properties"]
    assert updated == call["response"]["properties"] | {"earlyRenewalHours": 0}


PLAIN = {"commonName": "a"}


@pytest.mark.parametrize(
    ("resource", "given", "prop"),
    [
        (PrivateKey(), {"algorithm": "RSA"}, "algorithm"),
        (PrivateKey(), {"algorithm": "ECDSA"}, "ecdsaCurve"),
        (PrivateKey(), {"algorithm": "ECDSA", "ecdsaCurve": "P256", "rsaBits": 4096}, "rsaBits"),
        (CertRequest(), {"privateKeyPem": "k"}, "subject"),
        (CertRequest(), {"privateKeyPem": "k", "subject": PLAIN, "uris": ["a:b"]}, "uris"),
        (CertRequest(), {"privateKeyPem": "k", "subject": {"country": "DE"}}, "subject.country"),
        (CertRequest(), {"privateKeyPem": "k", "subject": {"nonsense": "x"}}, "subject.nonsense"),
        (SelfSignedCert(), {"allowedUses": ["code_signing"]}, "allowedUses"),
        (SelfSignedCert(), {"dnsNames": ["a"]}, "dnsNames"),
        (SelfSignedCert(), {"maxPathLength": 1}, "maxPathLength"),
        (
            SelfSignedCert(),
            {"allowedUses": ["cert_signing"], "validityPeriodHours": 1, "privateKeyPem": "k", "subject": PLAIN}
            | {"setAuthorityKeyId": True},
            "setAuthorityKeyId",
        ),
        (LocallySignedCert(), {"allowedUses": ["server_auth"]}, "validityPeriodHours"),
        (LocallySignedCert(), {"isCaCertificate": True}, "isCaCertificate"),
    ],
)
def test_an_input_that_cannot_be_is_refused_by_name(resource: Any, given: Any, prop: str) -> None:
    with pytest.raises(Refused) as refused:
        resource.check("x", {}, given, b"")
    assert refused.value.prop == prop


def test_what_cannot_be_signed_is_said_without_quoting_the_key(authority: Authority) -> None:
    call = OFFICIAL.made("LocallySignedCert")["request"]["properties"]
    inputs = call | {"caPrivateKeyPem": authority.key, "caCertPem": authority.pem}
    LocallySignedCert().create("leaf", inputs, False)
    for change, sentence in (
        ({"caCertPem": Authority().pem}, "caPrivateKeyPem is not the key of caCertPem"),
        ({"caPrivateKeyPem": "not a key"}, "caPrivateKeyPem is no ECDSA key of P256 or P384"),
        ({"certRequestPem": "nothing"}, "certRequestPem or caCertPem is no request"),
    ):
        with pytest.raises(Failed, match=sentence) as failed:
            LocallySignedCert().create("leaf", inputs | change, False)
        assert "not a key" not in str(failed.value)
    with pytest.raises(Failed, match="ipAddresses: 'ten' is no address"):
        CertRequest().create("r", {"privateKeyPem": authority.key, "subject": PLAIN, "ipAddresses": ["ten"]}, False)
