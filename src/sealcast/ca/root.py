"""Roots: making one, importing one, and certifying a site CA with it.

A root's key is needed for the ceremony that certifies a site CA and for nothing else; it can be taken
offline after that. Spec: spec/trust.md section 2.
"""

from dataclasses import dataclass

from cryptography import x509

from sealcast.ca.observation import announce
from sealcast.ca.passphrase import NO_PASSPHRASE, PassphraseSource
from sealcast.ca.signer import KeySigner, Signer, fits
from sealcast.errors import CertificateError
from sealcast.pki.certificates import certificate_der, is_self_signed, parse_pem_certificates
from sealcast.pki.profiles import CertificateIssuer, cross_builder, root_builder, site_ca_builder
from sealcast.pki.signed import Algorithm, PublicKey
from sealcast.pki.times import microseconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Root:
    """A root certificate and the signer that holds its key."""

    certificate: x509.Certificate
    signer: Signer

    def issue_site_ca(
        self, *, site_name: str, site_id: bytes, public_key: PublicKey, now: int, number: int = 1
    ) -> x509.Certificate:
        """Certify the key of a site CA. `now`: microseconds. `number`: which key of the site it is."""
        check_alive(self.certificate, "root", now)
        builder = site_ca_builder(
            site_name=site_name,
            site_id=site_id,
            public_key=public_key,
            issuer=CertificateIssuer.of(self.certificate, self.signer.public_key),
            serial=x509.random_serial_number(),
            now=now,
            number=number,
        )
        certificate = self.signer.sign_certificate(builder)
        announce(certificate_der(certificate))
        return certificate


@dataclass(frozen=True, slots=True, kw_only=True)
class CrossCertificates:
    """What leads from one root to another while both are in use (RFC 4210 section 4.4)."""

    new_with_old: bytes
    """DER: the new root's name and key, signed by the old one: for those who trust only the old root."""
    old_with_new: bytes
    """DER: the old root's name and key, signed by the new one: for those who trust only the new root."""


def cross_certify(old: Root, new: Root, now: int) -> CrossCertificates:
    """Certify each of two roots by the other, for as long as both live. `now`: microseconds.

    Neither is trusted by being handed out: a path through them ends at a root that the device already has.
    Raises: CertificateError if one of them is not valid, or if they are the same.
    """
    if old.signer.public_key == new.signer.public_key:
        raise CertificateError(
            "old and new root have the same key", reason="key", cure="make a new root with a key of its own"
        )
    for root, what in ((old, "old root"), (new, "new root")):
        check_alive(root.certificate, what, now)
    return CrossCertificates(
        new_with_old=_certify_root(new, by=old, now=now), old_with_new=_certify_root(old, by=new, now=now)
    )


def _certify_root(root: Root, *, by: Root, now: int) -> bytes:
    builder = cross_builder(
        certificate=root.certificate,
        public_key=root.signer.public_key,
        issuer=CertificateIssuer.of(by.certificate, by.signer.public_key),
        serial=x509.random_serial_number(),
        now=now,
    )
    return announce(certificate_der(by.signer.sign_certificate(builder)))


def create_root(*, site_name: str, signer: Signer, now: int) -> Root:
    """Make a root certificate for a new key. `now`: microseconds."""
    builder = root_builder(
        site_name=site_name, public_key=signer.public_key, serial=x509.random_serial_number(), now=now
    )
    certificate = signer.sign_certificate(builder)
    announce(certificate_der(certificate))
    return Root(certificate=certificate, signer=signer)


def import_root(
    *,
    certificate_pem: bytes,
    key_pem: bytes,
    now: int,
    passphrases: PassphraseSource = NO_PASSPHRASE,
    key_source: str = "root key",
) -> Root:
    """Take an owner's own root and check that site CAs can be certified with it.

    `certificate_pem`: one certificate. `key_pem`: its key; where it is encrypted, `passphrases` is asked
    under the name `root`. `now`: microseconds. `key_source`: the key's file, for errors.
    Raises: CertificateError, naming what does not fit: the key, CA:TRUE, keyCertSign, the path length, the
    validity, or that it is no self-signed certificate.
    """
    signer = KeySigner.from_pem(key_pem, key_source, name="root", passphrases=passphrases)
    return root_with(signer, certificate_pem=certificate_pem, now=now)


def root_with(signer: Signer, *, certificate_pem: bytes, now: int) -> Root:
    """The same with a key that is open. Raises: CertificateError, as `import_root`."""
    certificate = _one_certificate(certificate_pem)
    if signer.algorithm not in (Algorithm.ECDSA_P256, Algorithm.ECDSA_P384):
        raise CertificateError(
            "the root's key is neither P-256 nor P-384", reason="key", cure="use another root"
        )
    if not fits(signer, certificate):
        raise CertificateError(
            "root certificate and root key do not match",
            reason="key",
            cure="give the key of that certificate",
        )
    _check_root(certificate, now)
    return Root(certificate=certificate, signer=signer)


def read_root(certificate_pem: bytes, now: int) -> x509.Certificate:
    """Read the certificate of a root whose key is elsewhere, and check that it can certify site CAs.

    `certificate_pem`: one certificate. `now`: microseconds. Raises: CertificateError, as `import_root`.
    """
    certificate = _one_certificate(certificate_pem)
    _check_root(certificate, now)
    return certificate


def check_alive(certificate: x509.Certificate, what: str, now: int) -> None:
    """Check that a certificate of our own is valid now. Raises: CertificateError."""
    if now >= microseconds(certificate.not_valid_after_utc):
        raise CertificateError(
            f"the {what} expired at {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC",
            reason="expired",
            cure=f"renew the {what}, and check the clock",
        )
    if now < microseconds(certificate.not_valid_before_utc):
        raise CertificateError(
            f"the {what} is valid only from {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC on",
            reason="not-yet-valid",
            cure="check the clock",
        )


def _one_certificate(pem: bytes) -> x509.Certificate:
    found = parse_pem_certificates(pem)
    if len(found) != 1:
        raise CertificateError(
            f"the root file holds {len(found)} certificates, not one",
            reason="malformed",
            cure="give the root alone",
        )
    return x509.load_der_x509_certificate(found[0])


def _check_root(certificate: x509.Certificate, now: int) -> None:
    if not is_self_signed(certificate):
        raise CertificateError(
            "the root certificate is not self-signed", reason="unknown-issuer", cure="give the root itself"
        )
    _check_may_certify(certificate)
    check_alive(certificate, "root", now)


def _check_may_certify(certificate: x509.Certificate) -> None:
    cure = "use a root with CA:TRUE, keyCertSign and room for a site CA below it"
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        key_usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        raise CertificateError(
            "the root has no readable basicConstraints and keyUsage", reason="not-a-ca", cure=cure
        ) from None
    if not constraints.ca:
        raise CertificateError("the root is no CA (CA:FALSE)", reason="not-a-ca", cure=cure)
    if not key_usage.key_cert_sign:
        raise CertificateError(
            "the root may not sign certificates (no keyCertSign)", reason="not-a-ca", cure=cure
        )
    if constraints.path_length == 0:
        raise CertificateError("the root allows no CA below it (pathlen 0)", reason="path-length", cure=cure)
