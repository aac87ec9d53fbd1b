"""Reading certificates and keys from PEM and DER, and what their fields say.

Nothing here judges: the validator does (`validator.py`).
"""

from collections.abc import Iterable

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import NameOID

from sealcast.errors import CertificateError
from sealcast.pki.names import Identity


def parse_certificate(der: bytes) -> x509.Certificate:
    """Read one DER certificate. Raises: CertificateError."""
    try:
        return x509.load_der_x509_certificate(der)
    except (ValueError, x509.InvalidVersion) as error:
        raise CertificateError(f"not a certificate: {error}", reason="malformed") from None


def parse_pem_certificates(pem: bytes) -> list[bytes]:
    """Return the DER certificates of a PEM file, in its order, at least one. Raises: CertificateError."""
    try:
        return [certificate_der(certificate) for certificate in x509.load_pem_x509_certificates(pem)]
    except (ValueError, x509.InvalidVersion):
        raise CertificateError(
            "holds no PEM certificate",
            reason="malformed",
            cure="give a file that starts with BEGIN CERTIFICATE",
        ) from None


def certificates_pem(ders: Iterable[bytes]) -> bytes:
    """Return DER certificates as one PEM text."""
    return b"".join(parse_certificate(der).public_bytes(serialization.Encoding.PEM) for der in ders)


def certificate_der(certificate: x509.Certificate) -> bytes:
    """Return a certificate's DER bytes."""
    return certificate.public_bytes(serialization.Encoding.DER)


def certificate_identity(certificate: x509.Certificate) -> Identity:
    """Return the identity that the certificate claims. Spec: TR-3, TR-7.

    Raises: CertificateError unless exactly one `sealcast:` URI is in subjectAltName.
    """
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = [
            uri
            for uri in names.get_values_for_type(x509.UniformResourceIdentifier)
            if uri.startswith("sealcast:")
        ]
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        uris = []
    if len(uris) != 1:
        raise CertificateError(
            f"the certificate holds {len(uris)} sealcast identities, not one", reason="name"
        )
    return Identity.from_uri(uris[0])


def organization(certificate: x509.Certificate) -> str:
    """Return the organization in the subject: of a site CA, the site's name; empty if there is none."""
    names = certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    return str(names[0].value) if names else ""


def key_identifier(der: bytes) -> bytes:
    """Return the subjectKeyIdentifier of a CA's DER certificate, by which what it issues names its key.

    Raises: CertificateError if it has none.
    """
    try:
        found = parse_certificate(der).extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        raise CertificateError("the certificate has no subjectKeyIdentifier", reason="malformed") from None
    return found.value.digest


def issuer_key(certificate: x509.Certificate) -> bytes | None:
    """Return the key identifier of a certificate's issuer; None if it names none."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier)
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        return None
    return found.value.key_identifier


def has_usage(certificate: x509.Certificate, usage: x509.ObjectIdentifier) -> bool:
    """Tell whether a purpose is named in extKeyUsage; a certificate without any names none."""
    try:
        return usage in certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        return False


def is_self_signed(certificate: x509.Certificate) -> bool:
    """Tell whether subject and issuer are the same and the signature is by its own key."""
    return is_issued_by(certificate, certificate)


def is_issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Tell whether the names fit and the issuer's key made the signature; not whether it was allowed to."""
    try:
        certificate.verify_directly_issued_by(issuer)
    except Exception:  # noqa: BLE001 - InvalidSignature, ValueError, TypeError by the kind of key: all mean no
        return False
    return True


def spki(public_key: object) -> bytes:
    """Return a public key's SubjectPublicKeyInfo in DER."""
    encoded: bytes = public_key.public_bytes(  # type: ignore[attr-defined]
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return encoded
