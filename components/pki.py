"""Two private authorities: one that clients trust, and one for the hop between Gateway and OllamaHost.

A certificate and its key are renewed only when their epoch in the config changes; `make up` raises it when two thirds
of the life are over, so the preview always shows a renewal before it happens. An authority is a resource of its epoch's
name, so two of them can stand side by side.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import pulumi
import pulumi_tls as tls
from pulumi import Output, ResourceOptions

CA_HOURS = 10 * 365 * 24
LEAF_HOURS = 397 * 24
LONGEST_COMMON_NAME = 64
FIRST = "1"
"""The epoch of an authority without one in its name: what is deployed and believed keeps its authority."""
HOP_SERVER = "ollama-sidecar"
HOP_CLIENT = "gateway"


@dataclass(frozen=True)
class Certificate:
    """PEM texts: certificate, its key, and whom the other side has to believe."""

    pem: Output[str]
    key: Output[str]
    authority: Output[str]
    """One certificate; two while the authority changes, the new one first."""


@dataclass(frozen=True)
class _Authority:
    key: tls.PrivateKey
    certificate: tls.SelfSignedCert
    believed: Output[str]


@dataclass(frozen=True, kw_only=True)
class PkiArgs:
    domain: str
    other_domains: Sequence[str]
    """Further names of the same server, like the browser page's."""
    addresses: Sequence[str]
    """Tunnel addresses under which the Gateway answers too."""
    ca_epoch: str
    previous_ca_epoch: str | None
    leaf_epoch: str


class Pki(pulumi.ComponentResource):
    """The authorities and the three certificates of a fortress."""

    server: Certificate
    hop_server: Certificate
    hop_client: Certificate

    def __init__(self, name: str, args: PkiArgs, opts: ResourceOptions | None = None) -> None:
        super().__init__("fortress:index:Pki", name, {}, opts)
        self.args = args
        front = self._authority(f"{name}-ca", "ollama-fortress")
        hop = self._authority(f"{name}-hop-ca", "ollama-fortress hop")
        self.server = self._leaf(
            f"{name}-server", front, args.domain, "server_auth", args.addresses, args.other_domains
        )
        self.hop_server = self._leaf(f"{name}-hop-server", hop, HOP_SERVER, "server_auth", [])
        self.hop_client = self._leaf(f"{name}-hop-client", hop, HOP_CLIENT, "client_auth", [])
        self.register_outputs({"certificate": self.server.pem})

    def _key(self, name: str, epoch: str | None = None) -> tls.PrivateKey:
        # P-256 signs fourteen times faster than RSA-2048 and every client reads it.
        opts = ResourceOptions(parent=self, replacement_trigger=epoch)
        return tls.PrivateKey(name, algorithm="ECDSA", ecdsa_curve="P256", opts=opts)

    def _authority(self, name: str, common_name: str) -> _Authority:
        """While an authority changes, the former one goes on signing: bundles that know only that one go on, too."""
        new = self._signer(name, common_name, self.args.ca_epoch)
        if self.args.previous_ca_epoch is None:
            return _Authority(*new, believed=new[1].cert_pem)
        former = self._signer(name, common_name, self.args.previous_ca_epoch)
        return _Authority(*former, believed=Output.concat(new[1].cert_pem, former[1].cert_pem))

    def _signer(self, name: str, common_name: str, epoch: str) -> tuple[tls.PrivateKey, tls.SelfSignedCert]:
        if epoch != FIRST:
            name, common_name = f"{name}-{epoch}", f"{common_name} {epoch}"
        key = self._key(f"{name}-key")
        certificate = tls.SelfSignedCert(
            name,
            private_key_pem=key.private_key_pem,
            is_ca_certificate=True,
            validity_period_hours=CA_HOURS,
            allowed_uses=["cert_signing", "crl_signing"],
            set_subject_key_id=True,
            set_authority_key_id=True,
            subject=tls.SelfSignedCertSubjectArgs(common_name=common_name),
            opts=ResourceOptions(parent=self),
        )
        return key, certificate

    def _leaf(
        self,
        name: str,
        authority: _Authority,
        common_name: str,
        use: str,
        addresses: Sequence[str],
        other_names: Sequence[str] = (),
    ) -> Certificate:
        key = self._key(f"{name}-key", self.args.leaf_epoch)
        # X.509 has no room for a longer one; whoever checks a name reads the others.
        short = common_name if len(common_name) <= LONGEST_COMMON_NAME else "ollama-fortress"
        request = tls.CertRequest(
            f"{name}-request",
            private_key_pem=key.private_key_pem,
            dns_names=[common_name, *other_names],
            ip_addresses=list(addresses) or None,
            subject=tls.CertRequestSubjectArgs(common_name=short),
            opts=ResourceOptions(parent=self),
        )
        certificate = tls.LocallySignedCert(
            name,
            cert_request_pem=request.cert_request_pem,
            ca_private_key_pem=authority.key.private_key_pem,
            ca_cert_pem=authority.certificate.cert_pem,
            validity_period_hours=LEAF_HOURS,
            allowed_uses=["digital_signature", use],
            set_subject_key_id=True,
            opts=ResourceOptions(parent=self, replacement_trigger=self.args.leaf_epoch),
        )
        return Certificate(certificate.cert_pem, key.private_key_pem, authority.believed)
