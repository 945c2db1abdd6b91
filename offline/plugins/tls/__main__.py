"""pulumi-resource-tls: ECDSA keys, an authority's certificate, requests, and certificates signed by the authority."""

import base64
import hashlib
import ipaddress
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from offline.plugins.made_once import MadeOnce
from offline.plugins.provider import UNKNOWN, Failed, Refused, Values, serve
from offline.plugins.schema import ONLINE, Field

CURVES: dict[str, tuple[ec.EllipticCurve, hashes.HashAlgorithm]] = {
    "P256": (ec.SECP256R1(), hashes.SHA256()),
    "P384": (ec.SECP384R1(), hashes.SHA384()),
}
"""Each with the hash that its keys sign."""
EXTENDED = {"server_auth": ExtendedKeyUsageOID.SERVER_AUTH, "client_auth": ExtendedKeyUsageOID.CLIENT_AUTH}
PLAIN = ("digital_signature", "cert_signing", "crl_signing", "key_encipherment", "key_agreement")

COMPUTED = Field(preview=UNKNOWN, taken=False)
SECRET = Field(preview=UNKNOWN, taken=False, secret=True)
KEY = Field(secret=True)
OFF = Field(made=False, preview=False)
FOREIGN = Field(taken=False)
FOREIGN_LIST = Field("list", taken=False)
SUBJECT = Field(
    "one",
    {
        "commonName": Field(),
        "country": FOREIGN,
        "emailAddress": FOREIGN,
        "locality": FOREIGN,
        "organization": Field(),
        "organizationalUnit": FOREIGN,
        "postalCode": FOREIGN,
        "province": FOREIGN,
        "serialNumber": FOREIGN,
        "streetAddresses": Field("list", taken=False, raw="street_address"),
    },
)
IN_THIS_ORDER = {"organization": NameOID.ORGANIZATION_NAME, "commonName": NameOID.COMMON_NAME}


class PrivateKey(MadeOnce):
    token = "tls:index/privateKey:PrivateKey"  # noqa: S105
    schema_version = 1
    fields = {  # noqa: RUF012
        "algorithm": Field(),
        "ecdsaCurve": Field(),
        "privateKeyOpenssh": SECRET,
        "privateKeyPem": SECRET,
        "privateKeyPemPkcs8": SECRET,
        "publicKeyFingerprintMd5": COMPUTED,
        "publicKeyFingerprintSha256": COMPUTED,
        "publicKeyOpenssh": COMPUTED,
        "publicKeyPem": COMPUTED,
        "rsaBits": Field(made=2048, preview=2048, taken=False),
    }

    def refuse(self, inputs: Values) -> None:
        if inputs.get("algorithm") not in ("ECDSA", UNKNOWN):
            raise Refused("algorithm", "the registry-only plugin makes ECDSA keys only")
        if inputs.get("ecdsaCurve") not in (*CURVES, UNKNOWN):
            raise Refused("ecdsaCurve", f"the registry-only plugin makes keys of {' and '.join(CURVES)} only")

    def make(self, inputs: Values) -> tuple[str, Values]:
        curve, _ = CURVES[inputs["ecdsaCurve"]]
        key = ec.generate_private_key(curve)
        public = key.public_key()
        encoding, formats = serialization.Encoding, serialization.PrivateFormat

        def private(form: serialization.PrivateFormat) -> str:
            return key.private_bytes(encoding.PEM, form, serialization.NoEncryption()).decode()

        openssh = public.public_bytes(encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode()
        blob = base64.b64decode(openssh.split()[1])
        spki = serialization.PublicFormat.SubjectPublicKeyInfo
        return _id(public.public_bytes(encoding.DER, spki)), {
            "privateKeyPem": private(formats.TraditionalOpenSSL),
            "privateKeyPemPkcs8": private(formats.PKCS8),
            "privateKeyOpenssh": private(formats.OpenSSH),
            "publicKeyOpenssh": openssh + "\n",
            "publicKeyPem": public.public_bytes(encoding.PEM, spki).decode(),
            "publicKeyFingerprintMd5": hashlib.md5(blob).digest().hex(":"),  # noqa: S324 - shown, trusted by nobody
            "publicKeyFingerprintSha256": "SHA256:"
            + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("="),
        }


class CertRequest(MadeOnce):
    token = "tls:index/certRequest:CertRequest"  # noqa: S105
    fields = {  # noqa: RUF012
        "certRequestPem": COMPUTED,
        "dnsNames": Field("list"),
        "ipAddresses": Field("list"),
        "keyAlgorithm": COMPUTED,
        "privateKeyPem": KEY,
        "subject": SUBJECT,
        "uris": FOREIGN_LIST,
    }

    def refuse(self, inputs: Values) -> None:
        _refuse_missing(inputs, "privateKeyPem", "subject")

    def make(self, inputs: Values) -> tuple[str, Values]:
        key = _key(inputs, "privateKeyPem")
        names: list[x509.GeneralName] = [x509.DNSName(name) for name in inputs.get("dnsNames") or []]
        names += [x509.IPAddress(_address(text)) for text in inputs.get("ipAddresses") or []]
        builder = x509.CertificateSigningRequestBuilder().subject_name(_subject(inputs))
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        made = builder.sign(key, _hash(key))
        pem = made.public_bytes(serialization.Encoding.PEM).decode()
        return _id(made.public_bytes(serialization.Encoding.DER)), {"certRequestPem": pem, "keyAlgorithm": "ECDSA"}


class _Certificate(MadeOnce):
    in_place = ("earlyRenewalHours",)

    def refuse(self, inputs: Values) -> None:
        uses = inputs.get("allowedUses", [])
        for use in uses if isinstance(uses, list) else []:
            if use not in (*EXTENDED, *PLAIN, UNKNOWN):
                raise Refused("allowedUses", f"{use!r} is not implemented by the registry-only plugin")
        _refuse_missing(inputs, "allowedUses", "validityPeriodHours")

    def certificate(
        self,
        inputs: Values,
        *,
        subject: x509.Name,
        public: Any,
        issuer: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        authority: x509.AuthorityKeyIdentifier | None,
        names: x509.SubjectAlternativeName | None = None,
    ) -> tuple[str, Values]:
        uses = inputs["allowedUses"]
        is_ca = bool(inputs.get("isCaCertificate"))
        start = datetime.now(UTC).replace(microsecond=0)
        end = start + timedelta(hours=inputs["validityPeriodHours"])
        extended = [EXTENDED[use] for use in uses if use in EXTENDED]
        # In the order of the official plugin, each where it is wanted.
        extensions: list[tuple[x509.ExtensionType | None, bool]] = [
            (_key_usage(uses) if set(uses) & set(PLAIN) else None, True),
            (x509.ExtendedKeyUsage(extended) if extended else None, False),
            (x509.BasicConstraints(ca=is_ca, path_length=None), True),
            (_key_id(public) if is_ca or inputs.get("setSubjectKeyId") else None, False),
            (authority, False),
            (names, False),
        ]
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(end)
        )
        for extension, critical in extensions:
            if extension is not None:
                builder = builder.add_extension(extension, critical=critical)
        made = builder.sign(key, _hash(key))
        return str(made.serial_number), {
            "certPem": made.public_bytes(serialization.Encoding.PEM).decode(),
            "validityStartTime": start.isoformat().replace("+00:00", "Z"),
            "validityEndTime": end.isoformat().replace("+00:00", "Z"),
        }


class SelfSignedCert(_Certificate):
    token = "tls:index/selfSignedCert:SelfSignedCert"  # noqa: S105
    fields = {  # noqa: RUF012
        "allowedUses": Field("list"),
        "certPem": COMPUTED,
        "dnsNames": FOREIGN_LIST,
        "earlyRenewalHours": Field(made=0, preview=0),
        "ipAddresses": FOREIGN_LIST,
        "isCaCertificate": OFF,
        "keyAlgorithm": COMPUTED,
        "maxPathLength": COMPUTED,
        "privateKeyPem": KEY,
        "readyForRenewal": Field(made=False, preview=False, taken=False),
        "setAuthorityKeyId": OFF,
        "setSubjectKeyId": OFF,
        "subject": SUBJECT,
        "uris": FOREIGN_LIST,
        "validityEndTime": COMPUTED,
        "validityPeriodHours": Field(),
        "validityStartTime": COMPUTED,
    }

    def refuse(self, inputs: Values) -> None:
        super().refuse(inputs)
        _refuse_missing(inputs, "privateKeyPem", "subject")
        if inputs.get("setAuthorityKeyId") and not (inputs.get("isCaCertificate") or inputs.get("setSubjectKeyId")):
            raise Refused("setAuthorityKeyId", "a certificate that signs itself then needs setSubjectKeyId too")

    def make(self, inputs: Values) -> tuple[str, Values]:
        key, subject = _key(inputs, "privateKeyPem"), _subject(inputs)
        public = key.public_key()
        own = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(_key_id(public))
        authority = own if inputs.get("setAuthorityKeyId") else None
        id_, made = self.certificate(
            inputs, subject=subject, public=public, issuer=subject, key=key, authority=authority
        )
        return id_, made | {"keyAlgorithm": "ECDSA"}


class LocallySignedCert(_Certificate):
    token = "tls:index/locallySignedCert:LocallySignedCert"  # noqa: S105
    fields = {  # noqa: RUF012
        "allowedUses": Field("list"),
        "caCertPem": Field(),
        "caKeyAlgorithm": COMPUTED,
        "caPrivateKeyPem": KEY,
        "certPem": COMPUTED,
        "certRequestPem": Field(),
        "earlyRenewalHours": Field(made=0, preview=0),
        "isCaCertificate": Field(made=False, preview=False, taken=False),
        "maxPathLength": COMPUTED,
        "readyForRenewal": Field(made=False, preview=False, taken=False),
        "setSubjectKeyId": OFF,
        "validityEndTime": COMPUTED,
        "validityPeriodHours": Field(),
        "validityStartTime": COMPUTED,
    }

    def refuse(self, inputs: Values) -> None:
        super().refuse(inputs)
        _refuse_missing(inputs, "certRequestPem", "caPrivateKeyPem", "caCertPem")

    def make(self, inputs: Values) -> tuple[str, Values]:
        try:
            request = x509.load_pem_x509_csr(inputs["certRequestPem"].encode())
            ca = x509.load_pem_x509_certificate(inputs["caCertPem"].encode())
        except ValueError as error:
            raise Failed("certRequestPem or caCertPem is no request or no certificate in PEM") from error
        key = _key(inputs, "caPrivateKeyPem")
        if ca.public_key() != key.public_key():
            raise Failed("caPrivateKeyPem is not the key of caCertPem: nobody would believe what it signs")
        ca_key_id = _extension(ca, x509.SubjectKeyIdentifier)
        id_, made = self.certificate(
            inputs,
            subject=request.subject,
            public=request.public_key(),
            issuer=ca.subject,
            key=key,
            authority=x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(ca_key_id) if ca_key_id else None,
            names=_extension(request, x509.SubjectAlternativeName),
        )
        return id_, made | {"caKeyAlgorithm": "ECDSA"}


def _id(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()  # noqa: S324 - a name, as the official plugin makes it


def _refuse_missing(inputs: Values, *properties: str) -> None:
    for prop in properties:
        if inputs.get(prop) in (None, "", {}, []):
            raise Refused(prop, f"is missing; {ONLINE}" if prop == "subject" else "is missing")


def _key(inputs: Values, prop: str) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(inputs[prop].encode(), password=None)
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or all(
        key.curve.name != curve.name for curve, _ in CURVES.values()
    ):
        # The cause may quote the key.
        raise Failed(f"{prop} is no ECDSA key of {' or '.join(CURVES)} in PEM without a passphrase") from None
    return key


def _hash(key: ec.EllipticCurvePrivateKey) -> Any:
    return next(algorithm for curve, algorithm in CURVES.values() if curve.name == key.curve.name)


def _key_id(public: Any) -> x509.SubjectKeyIdentifier:
    return x509.SubjectKeyIdentifier.from_public_key(public)


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    try:
        return ipaddress.ip_address(text)
    except ValueError as error:
        raise Failed(f"ipAddresses: {text!r} is no address") from error


def _extension(of: x509.Certificate | x509.CertificateSigningRequest, kind: Any) -> Any:
    try:
        return of.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _subject(inputs: Values) -> x509.Name:
    given = inputs["subject"]
    return x509.Name([x509.NameAttribute(oid, given[name]) for name, oid in IN_THIS_ORDER.items() if given.get(name)])


def _key_usage(uses: list[str]) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature="digital_signature" in uses,
        content_commitment=False,
        key_encipherment="key_encipherment" in uses,
        data_encipherment=False,
        key_agreement="key_agreement" in uses,
        key_cert_sign="cert_signing" in uses,
        crl_sign="crl_signing" in uses,
        encipher_only=False,
        decipher_only=False,
    )


if __name__ == "__main__":
    serve("5.5.1", [PrivateKey(), CertRequest(), SelfSignedCert(), LocallySignedCert()])
