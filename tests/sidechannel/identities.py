"""Devices with certificates of a test site, as the side channel wants to know them."""

import ssl
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509

from sealcast.ca import FileSigner
from sealcast.pki.certificates import certificate_der, certificates_pem, parse_certificate
from sealcast.pki.profiles import CertificateIssuer, device_builder
from sealcast.pki.tls import client_context, server_context
from sealcast.pki.validator import Validator
from tests.est.site import DAY, Site


@dataclass(frozen=True)
class FileIdentity:
    """Satisfies `sealcast.sidechannel.tls.TlsIdentity`."""

    name: str
    site_id: bytes
    certificate_file: Path
    key_file: Path
    roots: tuple[bytes, ...]
    issuers: tuple[bytes, ...]
    keys_url: str = "https://127.0.0.1:1"

    def validator(self) -> Validator:
        return Validator(self.roots, self.issuers)

    def ssl_context_client(self) -> ssl.SSLContext:
        return client_context(self.certificate_file, self.key_file, (*self.roots, *self.issuers))

    def ssl_context_server(self) -> ssl.SSLContext:
        return server_context(self.certificate_file, self.key_file, (*self.roots, *self.issuers))


def identity_of(
    site: Site,
    name: str,
    *,
    now: int | None = None,
    trusting: Site | None = None,
    keys_url: str | None = None,
) -> FileIdentity:
    """A device certified by `site`, which trusts the root of `trusting` (by default of its own site)."""
    chain_file, key_file = site.device_files(name)
    trusted = trusting or site
    return FileIdentity(
        name=name,
        site_id=trusted.site_id,
        certificate_file=chain_file,
        key_file=key_file,
        roots=(trusted.root_der,),
        issuers=(trusted.issuer.certificate,),
        keys_url=keys_url or "https://127.0.0.1:1",
    )


def expired_identity(site: Site, name: str) -> FileIdentity:
    """A device whose certificate ended ten days ago."""
    identity = identity_of(site, name)
    signer = FileSigner.open(identity.key_file)
    ca = parse_certificate(site.issuer.certificate)
    builder = device_builder(
        name=name,
        site_name=site.issuer.site_name,
        site_id=site.site_id,
        public_key=signer.public_key,
        issuer=CertificateIssuer.of(ca, site.issuer.signer.public_key),
        serial=x509.random_serial_number(),
        now=site.now - 100 * DAY,
    )
    certificate = certificate_der(site.issuer.signer.sign_certificate(builder))
    identity.certificate_file.write_bytes(certificates_pem([certificate, site.issuer.certificate]))
    return identity


def key_server_identity(site: Site) -> FileIdentity:
    """The key server of `site`."""
    return FileIdentity(
        name="authority",
        site_id=site.site_id,
        certificate_file=site.server_chain_file,
        key_file=site.server_key_file,
        roots=(site.root_der,),
        issuers=(site.issuer.certificate,),
    )
