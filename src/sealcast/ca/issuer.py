"""The site CA: issues and renews certificates, signs CRLs.

It decides what a certificate says; whether the asker may have one is decided above (token, revocation,
approval), and what was issued is recorded there. Time is an argument, nothing is stored.
Spec: spec/trust.md sections 2 and 4, spec/side-channel.md SC-11.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.x509.oid import NameOID

from sealcast.ca.root import check_alive
from sealcast.ca.signer import Signer, fits
from sealcast.errors import CertificateError
from sealcast.pki.certificates import certificate_der, certificate_identity, parse_certificate
from sealcast.pki.crl import Revocation, crl_builder
from sealcast.pki.csr import CertificateRequest
from sealcast.pki.names import Identity, Role, check_device_name
from sealcast.pki.profiles import CertificateIssuer, device_builder, key_server_builder
from sealcast.pki.signed import PublicKey
from sealcast.pki.times import microseconds


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuedCertificate:
    """A fresh certificate and what a register of them needs."""

    der: bytes
    identity: Identity
    serial: int
    not_before: int
    not_after: int
    """Microseconds."""


class Issuer:
    """Issues under one site CA certificate."""

    def __init__(self, certificate: bytes, signer: Signer) -> None:
        """Take the site CA's DER certificate and the signer of its key.

        Raises: CertificateError if they do not fit, or if it is not the certificate of a site CA.
        """
        self._certificate = parse_certificate(certificate)
        self._signer = signer
        if not fits(signer, self._certificate):
            raise CertificateError(
                "site CA certificate and key do not match", reason="key", cure="restore the backup"
            )
        identity = certificate_identity(self._certificate)
        if identity.role is not Role.SITE:
            raise CertificateError(f"not a site CA: {identity.uri}", reason="wrong-role")
        self._site_id = identity.site_id
        names = self._certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
        self._site_name = str(names[0].value) if names else ""
        self._as_issuer = CertificateIssuer.of(self._certificate, signer.public_key)

    @property
    def certificate(self) -> bytes:
        """The site CA's DER certificate."""
        return certificate_der(self._certificate)

    @property
    def site_id(self) -> bytes:
        """16 bytes."""
        return self._site_id

    @property
    def site_name(self) -> str:
        """The organization in the site CA's subject."""
        return self._site_name

    @property
    def signer(self) -> Signer:
        """The site CA's signer: signs policies too (TR-13)."""
        return self._signer

    def issue_device(self, csr: bytes, name: str, now: int) -> IssuedCertificate:
        """Certify a device's key for the authenticated name.

        `csr`: DER. `now`: microseconds. Raises: CsrError if the request is bad or asks for another identity
        (SC-11), CertificateError if the site CA itself is not valid.
        """
        identity = Identity(role=Role.DEVICE, site_id=self._site_id, name=check_device_name(name))
        request = CertificateRequest.parse(csr)
        request.judge(identity)
        check_alive(self._certificate, "site CA certificate", now)
        builder = device_builder(
            name=name,
            site_name=self._site_name,
            site_id=self._site_id,
            public_key=request.public_key,
            issuer=self._as_issuer,
            serial=x509.random_serial_number(),
            now=now,
        )
        return _issued(self._signer.sign_certificate(builder), identity)

    def renew_device(self, current: bytes, csr: bytes, now: int) -> IssuedCertificate:
        """Certify anew the device that holds a certificate of this site; the key may be the same or new.

        `current`: its DER certificate, whose chain, role and revocation the caller has judged. `csr`: DER.
        Raises: CsrError if the request asks for another identity, CertificateError if `current` is not a
        device certificate of this site.
        """
        identity = certificate_identity(parse_certificate(current))
        if identity.role is not Role.DEVICE or identity.site_id != self._site_id:
            raise CertificateError(f"not a device of this site: {identity.uri}", reason="wrong-role")
        return self.issue_device(csr, identity.name, now)

    def issue_key_server(
        self, *, public_key: PublicKey, name: str, hosts: Sequence[str], now: int
    ) -> IssuedCertificate:
        """Certify the key of a key server, which serves EST under the same certificate.

        `hosts`: DNS names and IP addresses under which devices reach it. `now`: microseconds.
        """
        check_alive(self._certificate, "site CA certificate", now)
        builder = key_server_builder(
            name=name,
            hosts=hosts,
            site_name=self._site_name,
            site_id=self._site_id,
            public_key=public_key,
            issuer=self._as_issuer,
            serial=x509.random_serial_number(),
            now=now,
        )
        identity = Identity(role=Role.KEY_SERVER, site_id=self._site_id, name=name)
        return _issued(self._signer.sign_certificate(builder), identity)

    def issue_crl(self, *, number: int, revocations: Iterable[Revocation], now: int) -> bytes:
        """Return a DER CRL. `number`: above that of every CRL of this site before. `now`: microseconds."""
        check_alive(self._certificate, "site CA certificate", now)
        builder = crl_builder(issuer=self._as_issuer, number=number, revocations=revocations, now=now)
        return self._signer.sign_crl(builder)


def _issued(certificate: x509.Certificate, identity: Identity) -> IssuedCertificate:
    return IssuedCertificate(
        der=certificate_der(certificate),
        identity=identity,
        serial=certificate.serial_number,
        not_before=microseconds(certificate.not_valid_before_utc),
        not_after=microseconds(certificate.not_valid_after_utc),
    )
