"""pulumi-resource-tls: ECDSA keys, an authority's certificate, requests, and certificates signed by the authority."""

import hashlib
import ipaddress
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from offline.plugins.provider import UNKNOWN, Diff, Refused, Values, compare, known_only, serve

CURVES: dict[str, ec.EllipticCurve] = {"P256": ec.SECP256R1(), "P384": ec.SECP384R1()}
EXTENDED = {"server_auth": ExtendedKeyUsageOID.SERVER_AUTH, "client_auth": ExtendedKeyUsageOID.CLIENT_AUTH}
PLAIN = ("digital_signature", "cert_signing", "crl_signing", "key_encipherment", "key_agreement")
CHECKED_USES = [*EXTENDED, *PLAIN]


class _Fixed:
    """A value made once: any change of an input makes a new one."""

    token = ""
    properties: tuple[str, ...] = ()
    computed: tuple[str, ...] = ()
    in_place: tuple[str, ...] = ()
    defaults: dict[str, Any] = {}  # noqa: RUF012

    def check(self, name: str, olds: Values, news: Values, seed: bytes) -> Values:
        known_only(news, self.properties)
        for use in news.get("allowedUses", []):
            if use not in CHECKED_USES and use != UNKNOWN:
                raise Refused("allowedUses", f"{use!r} is not implemented by the registry-only plugin")
        return self.defaults | news

    def diff(self, id_: str, old_inputs: Values, olds: Values, news: Values) -> Diff:
        replace = tuple(name for name in self.properties if name not in self.in_place)
        return Diff(compare(old_inputs, news), replace=replace)

    def create(self, name: str, inputs: Values, preview: bool) -> tuple[str, Values]:
        if preview:
            return "", inputs | dict.fromkeys(self.computed, UNKNOWN)
        id_, made = self.make(inputs)
        return id_, inputs | made | {"id": id_}

    def make(self, inputs: Values) -> tuple[str, Values]:
        raise AssertionError("each type makes its own")

    def read(self, id_: str, inputs: Values, props: Values) -> tuple[str, Values, Values]:
        return id_, inputs, props

    def update(self, id_: str, old_inputs: Values, olds: Values, news: Values, preview: bool) -> Values:
        return olds | news

    def delete(self, id_: str, inputs: Values, props: Values) -> None:
        """Nothing lives outside the state."""


class PrivateKey(_Fixed):
    token = "tls:index/privateKey:PrivateKey"  # noqa: S105
    properties = ("algorithm", "ecdsaCurve")
    computed = ("privateKeyPem", "privateKeyOpenssh", "privateKeyPemPkcs8", "publicKeyPem", "publicKeyOpenssh")

    def check(self, name: str, olds: Values, news: Values, seed: bytes) -> Values:
        inputs = super().check(name, olds, news, seed)
        if inputs.get("algorithm") != "ECDSA":
            raise Refused("algorithm", "the registry-only plugin makes ECDSA keys only")
        if inputs.get("ecdsaCurve") not in CURVES:
            raise Refused("ecdsaCurve", f"write one of {', '.join(CURVES)}")
        return inputs

    def make(self, inputs: Values) -> tuple[str, Values]:
        key = ec.generate_private_key(CURVES[inputs["ecdsaCurve"]])
        public = key.public_key()
        spki = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        formats = serialization.PrivateFormat

        def private(form: serialization.PrivateFormat) -> str:
            return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()).decode()

        openssh = public.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode()
        return hashlib.sha1(spki).hexdigest(), {  # noqa: S324 - an id, as the official plugin makes it
            "privateKeyPem": private(formats.TraditionalOpenSSL),
            "privateKeyPemPkcs8": private(formats.PKCS8),
            "privateKeyOpenssh": private(formats.OpenSSH),
            "publicKeyOpenssh": openssh + "\n",
            "publicKeyPem": public.public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            ).decode(),
            "rsaBits": 2048,
        }


class CertRequest(_Fixed):
    token = "tls:index/certRequest:CertRequest"  # noqa: S105
    properties = ("privateKeyPem", "dnsNames", "ipAddresses", "subject")
    computed = ("certRequestPem", "keyAlgorithm")

    def make(self, inputs: Values) -> tuple[str, Values]:
        key = _key(inputs["privateKeyPem"])
        names: list[x509.GeneralName] = [x509.DNSName(name) for name in inputs.get("dnsNames") or []]
        names += [x509.IPAddress(ipaddress.ip_address(text)) for text in inputs.get("ipAddresses") or []]
        builder = x509.CertificateSigningRequestBuilder().subject_name(_subject(inputs))
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        pem = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()
        id_ = hashlib.sha1(pem.encode()).hexdigest()  # noqa: S324
        return id_, {"certRequestPem": pem, "keyAlgorithm": "ECDSA"}


class _Certificate(_Fixed):
    defaults = {"earlyRenewalHours": 0}  # noqa: RUF012
    in_place = ("earlyRenewalHours",)
    computed = ("certPem", "keyAlgorithm", "readyForRenewal", "validityStartTime", "validityEndTime")

    def certificate(
        self,
        inputs: Values,
        *,
        subject: x509.Name,
        public: Any,
        issuer: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        issuer_public: Any,
        names: x509.SubjectAlternativeName | None = None,
    ) -> tuple[str, Values]:
        uses = inputs["allowedUses"]
        is_ca = bool(inputs.get("isCaCertificate"))
        start = datetime.now(UTC).replace(microsecond=0)
        end = start + timedelta(hours=inputs["validityPeriodHours"])
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(end)
            .add_extension(_key_usage(uses), critical=True)
            .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        )
        extended = [EXTENDED[use] for use in uses if use in EXTENDED]
        if extended:
            builder = builder.add_extension(x509.ExtendedKeyUsage(extended), critical=False)
        if inputs.get("setSubjectKeyId"):
            builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        if inputs.get("setAuthorityKeyId") or not is_ca:
            authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_public)
            builder = builder.add_extension(authority, critical=False)
        if names is not None:
            builder = builder.add_extension(names, critical=False)
        made = builder.sign(key, hashes.SHA256())
        return str(made.serial_number), {
            "certPem": made.public_bytes(serialization.Encoding.PEM).decode(),
            "keyAlgorithm": "ECDSA",
            "readyForRenewal": False,
            "validityStartTime": start.isoformat().replace("+00:00", "Z"),
            "validityEndTime": end.isoformat().replace("+00:00", "Z"),
        }


class SelfSignedCert(_Certificate):
    token = "tls:index/selfSignedCert:SelfSignedCert"  # noqa: S105
    properties = (
        *("privateKeyPem", "isCaCertificate", "validityPeriodHours", "earlyRenewalHours", "allowedUses", "subject"),
        *("setSubjectKeyId", "setAuthorityKeyId"),
    )

    def make(self, inputs: Values) -> tuple[str, Values]:
        key, subject = _key(inputs["privateKeyPem"]), _subject(inputs)
        public = key.public_key()
        return self.certificate(inputs, subject=subject, public=public, issuer=subject, key=key, issuer_public=public)


class LocallySignedCert(_Certificate):
    token = "tls:index/locallySignedCert:LocallySignedCert"  # noqa: S105
    properties = (
        *("certRequestPem", "caPrivateKeyPem", "caCertPem", "validityPeriodHours", "earlyRenewalHours"),
        *("allowedUses", "setSubjectKeyId"),
    )

    def make(self, inputs: Values) -> tuple[str, Values]:
        request = x509.load_pem_x509_csr(inputs["certRequestPem"].encode())
        ca = x509.load_pem_x509_certificate(inputs["caCertPem"].encode())
        try:
            names = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except x509.ExtensionNotFound:
            names = None
        return self.certificate(
            inputs,
            subject=request.subject,
            public=request.public_key(),
            issuer=ca.subject,
            key=_key(inputs["caPrivateKeyPem"]),
            issuer_public=ca.public_key(),
            names=names,
        )


def _key(pem: str) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(pem.encode(), password=None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key


def _subject(inputs: Values) -> x509.Name:
    given = inputs.get("subject") or {}
    oids = {"organization": NameOID.ORGANIZATION_NAME, "commonName": NameOID.COMMON_NAME}
    for name in given:
        if name not in oids and not name.startswith("__"):
            raise Refused(f"subject.{name}", "the registry-only plugin does not implement this part of a name")
    return x509.Name([x509.NameAttribute(oid, given[name]) for name, oid in oids.items() if given.get(name)])


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
