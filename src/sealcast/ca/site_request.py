"""The request of a site CA to whoever holds a root: PKCS#10 out, certificate in.

Another root may certify the same key anew by the certificate that the site CA has.

The site's id is in the request, so that the certificate that comes back is for this site and no other. Spec:
spec/trust.md section 2 (site CA), RFC 2986.
"""

from dataclasses import dataclass
from typing import Self

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from sealcast.ca.root import Root
from sealcast.ca.signer import Signer, public_key_of
from sealcast.errors import CertificateError, CsrError
from sealcast.pki.certificates import (
    certificate_der,
    certificate_identity,
    is_issued_by,
    organization,
    parse_certificate,
)
from sealcast.pki.names import Identity, Role, check_site_name
from sealcast.pki.profiles import MAX_SITE_CAS, site_ca_name
from sealcast.pki.signed import PublicKey


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteRequest:
    """A request whose signature holds: whoever sent it has the private key."""

    site_id: bytes
    """16 bytes."""
    site_name: str
    public_key: PublicKey
    number: int = 1
    """Which key of the site it is (TR-23)."""

    @classmethod
    def parse(cls, der: bytes) -> Self:
        """Read a request. Raises: CsrError with the fault `encoding`, `signature`, `key` or `name`."""
        try:
            request = x509.load_der_x509_csr(der)
            key, holds = request.public_key(), request.is_signature_valid
            names = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            uris = names.get_values_for_type(x509.UniformResourceIdentifier)
        except x509.ExtensionNotFound:
            raise CsrError("the request names no site", fault="name") from None
        except (ValueError, x509.InvalidVersion, UnsupportedAlgorithm, x509.DuplicateExtension) as error:
            raise CsrError(f"not a certificate request: {error}", fault="encoding") from None
        if not holds:
            raise CsrError("the request's signature does not hold", fault="signature")
        if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
            raise CsrError("a site CA's key is a P-256 key", fault="key", cure="make a P-256 key")
        organizations = request.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
        identity = _site_identity(uris)
        if len(organizations) != 1 or identity is None:
            raise CsrError("the request is not that of a site CA", fault="name")
        return cls(
            site_id=identity.site_id,
            site_name=check_site_name(str(organizations[0].value)),
            public_key=key,
            number=_number(request.subject, str(organizations[0].value)),
        )

    @classmethod
    def of_certificate(cls, der: bytes) -> Self:
        """Take it from a site CA's DER certificate, which another root is to certify under the same name.

        Raises: CertificateError if it is none.
        """
        certificate = parse_certificate(der)
        identity, name = certificate_identity(certificate), organization(certificate)
        key = public_key_of(der)
        if identity.role is not Role.SITE or not isinstance(key, ec.EllipticCurvePublicKey):
            raise CertificateError(f"not a site CA: {identity.uri}", reason="wrong-role")
        return cls(
            site_id=identity.site_id,
            site_name=check_site_name(name),
            public_key=key,
            number=_number(certificate.subject, name),
        )

    def certify(self, root: Root, now: int) -> bytes:
        """Return the DER certificate that a root gives it. `now`: microseconds. Raises: CertificateError."""
        certificate = root.issue_site_ca(
            site_name=self.site_name,
            site_id=self.site_id,
            public_key=self.public_key,
            now=now,
            number=self.number,
        )
        return certificate_der(certificate)


def make_site_request(signer: Signer, site_name: str, site_id: bytes, number: int = 1) -> bytes:
    """Return a DER request for the site CA's key. `number`: which key of the site it is."""
    identity = Identity(role=Role.SITE, site_id=site_id, name="")
    builder = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(
            x509.Name(
                [
                    x509.NameAttribute(NameOID.ORGANIZATION_NAME, check_site_name(site_name)),
                    x509.NameAttribute(NameOID.COMMON_NAME, site_ca_name(site_name, number)),
                ]
            )
        )
        .add_extension(
            x509.SubjectAlternativeName([x509.UniformResourceIdentifier(identity.uri)]), critical=False
        )
    )
    return signer.sign_request(builder)


def check_site_certificate(
    certificate: bytes, *, public_key: PublicKey, site_id: bytes, site_name: str, root: bytes
) -> None:
    """Check that a certificate is the answer to a site's own request: its key, its names, under that root.

    `certificate`, `root`: DER. Raises: CertificateError, naming what does not fit.
    """
    parsed = parse_certificate(certificate)
    if public_key_of(certificate) != public_key:
        raise CertificateError(
            "the certificate is not for this site CA's key",
            reason="key",
            cure="give the certificate that was made from this folder's request",
        )
    identity = certificate_identity(parsed)
    if (identity.role, identity.site_id) != (Role.SITE, site_id):
        raise CertificateError(
            f"the certificate is that of {identity.uri}, not of site {site_id.hex()}",
            reason="wrong-site",
            cure="give the certificate that was made from this folder's request",
        )
    if organization(parsed) != site_name:
        raise CertificateError(
            f"the certificate is for a site named {organization(parsed)!r}, not {site_name!r}",
            reason="name",
            cure="have it signed anew, with the name of the request",
        )
    if not is_issued_by(parsed, parse_certificate(root)):
        raise CertificateError(
            "the certificate was not signed by that root",
            reason="unknown-issuer",
            cure="give the root that signed it with --root-cert",
        )
    _check_may_sign(parsed)


def _check_may_sign(certificate: x509.Certificate) -> None:
    """Devices, CRLs and policies are signed with this key."""
    try:
        is_ca = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
        is_good = is_ca and usage.key_cert_sign and usage.crl_sign and usage.digital_signature
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        is_good = False
    if not is_good:
        raise CertificateError(
            "the certificate is not one of a site CA: it lacks CA:TRUE, keyCertSign, cRLSign or "
            "digitalSignature",
            reason="not-a-ca",
            cure="have it signed with sealcast root sign-site, or with these (spec/trust.md section 2)",
        )


def _number(subject: x509.Name, site_name: str) -> int:
    """Which key of the site a subject names; the first if it says something else."""
    names = {str(found.value) for found in subject.get_attributes_for_oid(NameOID.COMMON_NAME)}
    numbers = range(1, MAX_SITE_CAS + 1)
    return next((number for number in numbers if site_ca_name(site_name, number) in names), 1)


def _site_identity(uris: list[str]) -> Identity | None:
    if len(uris) != 1:
        return None
    try:
        identity = Identity.from_uri(uris[0])
    except CertificateError:
        return None
    return identity if identity.role is Role.SITE else None
