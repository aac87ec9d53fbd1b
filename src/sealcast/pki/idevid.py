"""Makers' certificates (IEEE 802.1AR IDevID): what they prove at a first enrolment, and nothing besides.

A maker's root is an implicit trust anchor (RFC 7030 section 3.6.2 and 3.3.2): it says who built a device, not
that the device belongs to this site. So its chains are judged here, by a verifier of their own, and never
enter the engine's validator, which asks for a `sealcast:` identity that no maker gives.
"""

import hashlib
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from typing import Self

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.x509 import verification
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from sealcast.errors import CertificateError, UsageError
from sealcast.pki.certificates import (
    is_self_signed,
    parse_certificate,
    parse_pem_certificates,
    spki,
)
from sealcast.pki.hardware import HardwareIdentity
from sealcast.pki.names import check_device_name
from sealcast.pki.times import to_datetime

MAX_CERTIFICATES = 64
"""In a maker's file. A maker has a root and some issuers; path building over more is work for nothing."""

_MAX_DEPTH = 4
"""Issuers between an IDevID and its root."""


class NameRule(StrEnum):
    """Which device name an IDevID may enrol as."""

    SERIAL_NUMBER = "serial-number"
    """The serialNumber of its subject (802.1AR section 8.6)."""
    HARDWARE_SERIAL = "hardware-serial"
    """The hwSerialNum of the hardwareModuleName in its subjectAltName (RFC 4108)."""
    APPROVAL = "approval"
    """Any name, once an operator has approved the request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedIdevid:
    """A maker's certificate whose chain holds; only `Maker.verify` makes one."""

    maker: bytes
    """Fingerprint of the root: SHA-256 of its DER, 32 bytes."""
    key_hash: bytes
    """SHA-256 of the SubjectPublicKeyInfo, 32 bytes: which device it is, whatever certificate it shows."""
    subject: str
    """For people."""
    rule: NameRule
    name: str | None
    """The one device name that it may enrol as; None: the operator decides (rule `approval`)."""
    hardware: HardwareIdentity | None
    """What it says of the hardware."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Maker:
    """A maker whose devices may enrol."""

    root: bytes
    """DER, self-signed."""
    issuers: tuple[bytes, ...]
    """DER: CA certificates between the root and the IDevIDs, as TLS hands out a peer's own only."""
    crls: tuple[bytes, ...]
    """DER. An issuer without one here is not asked about revocation."""
    rule: NameRule

    @classmethod
    def parse(cls, pem: bytes, rule: NameRule, crls: Sequence[bytes] = ()) -> Self:
        """Read a maker's PEM file: one root, and the CA certificates below it.

        Raises: CertificateError.
        """
        ders = parse_pem_certificates(pem)
        roots = [der for der in ders if is_self_signed(parse_certificate(der))]
        if len(roots) != 1 or len(ders) > MAX_CERTIFICATES:
            raise CertificateError(
                f"{len(roots)} self-signed certificates among {len(ders)}, not one root among at most "
                f"{MAX_CERTIFICATES}",
                reason="unknown-issuer",
                cure="give the maker's root and the CA certificates below it, one root in each file",
            )
        for der in ders:
            _check_may_issue(parse_certificate(der))
        for crl in crls:
            _parse_crl(crl)
        return cls(
            root=roots[0],
            issuers=tuple(der for der in ders if der != roots[0]),
            crls=tuple(crls),
            rule=rule,
        )

    @property
    def fingerprint(self) -> bytes:
        """SHA-256 of the root, 32 bytes."""
        return hashlib.sha256(self.root).digest()

    @property
    def certificates(self) -> tuple[bytes, ...]:
        """DER: the root, then the issuers."""
        return (self.root, *self.issuers)

    def verify(self, certificate: bytes, now: int) -> VerifiedIdevid:
        """Judge a DER certificate that TLS has shown (RFC 5280 section 6): path, lives, purposes, name
        constraints, revocation as far as a CRL is given. `now`: microseconds.

        The library's verifier does it, as the engine's is for chains with Sealcast identities.
        Raises: CertificateError.
        """
        leaf = parse_certificate(certificate)
        try:
            verifier = (
                verification.PolicyBuilder()
                .store(verification.Store([parse_certificate(self.root)]))
                .time(to_datetime(now).replace(tzinfo=None))
                .max_chain_depth(_MAX_DEPTH)
                .extension_policies(ca_policy=_CA_POLICY, ee_policy=_IDEVID_POLICY)
                .build_client_verifier()
            )
            chain = verifier.verify(leaf, [parse_certificate(der) for der in self.issuers]).chain
        except (verification.VerificationError, ValueError, UnsupportedAlgorithm) as error:
            raise CertificateError(
                f"the maker's certificate is refused: {error}"[:300],
                reason="unknown-issuer",
                cure="check its chain, its life and its extKeyUsage; sealcast authority maker list DIR",
            ) from None
        for subject, issuer in pairwise(chain):
            self._check_revocation(subject, issuer, now)
        return VerifiedIdevid(
            maker=self.fingerprint,
            key_hash=hashlib.sha256(spki(leaf.public_key())).digest(),
            subject=leaf.subject.rfc4514_string()[:200],
            rule=self.rule,
            name=_name(leaf, self.rule),
            hardware=_hardware(leaf),
        )

    def _check_revocation(self, subject: x509.Certificate, issuer: x509.Certificate, now: int) -> None:
        known = [crl for crl in map(_parse_crl, self.crls) if _signed_by(crl, issuer)]
        if not known:
            return
        moment = to_datetime(now)
        if not any(crl.next_update_utc is not None and moment < crl.next_update_utc for crl in known):
            raise CertificateError(
                f"the revocation list of {issuer.subject.rfc4514_string()[:100]!r} is too old",
                reason="revocation-unknown",
                cure="add the maker again with a fresh one: sealcast authority maker add DIR FILE --crl FILE",
            )
        if any(crl.get_revoked_certificate_by_serial_number(subject.serial_number) for crl in known):
            raise CertificateError("the maker has revoked the certificate", reason="revoked")


def parse_crls(pem: bytes) -> list[bytes]:
    """Return the DER CRLs of a PEM file, or of a DER one. Raises: CertificateError."""
    marker = b"-----BEGIN X509 CRL-----"
    try:
        if marker not in pem:
            return [_crl_der(x509.load_der_x509_crl(pem))]
        return [_crl_der(x509.load_pem_x509_crl(marker + part)) for part in pem.split(marker)[1:]]
    except ValueError as error:
        raise CertificateError(f"holds no usable CRL: {error}", reason="malformed") from None


def find_maker(makers: Iterable[Maker], certificate: bytes, now: int) -> VerifiedIdevid:
    """Judge a certificate by every maker, and return the first yes. Raises: CertificateError of the last no,
    or with the reason `unknown-issuer` if no maker is known.
    """
    refusal = CertificateError(
        "the certificate is of no maker that this site knows",
        reason="unknown-issuer",
        cure="have the operator add the maker's root: sealcast authority maker add DIR FILE",
    )
    for maker in makers:
        try:
            return maker.verify(certificate, now)
        except CertificateError as error:
            refusal = error
    raise refusal


def _check_usage(
    _policy: verification.Policy, _certificate: x509.Certificate, usage: x509.ExtendedKeyUsage | None
) -> None:
    # Most IDevIDs name no purpose; one that does must name this.
    if usage is not None and not (
        {ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE} & set(usage)
    ):
        raise ValueError("its extKeyUsage does not name clientAuth")


def _check_key_usage(
    _policy: verification.Policy, _certificate: x509.Certificate, usage: x509.KeyUsage | None
) -> None:
    if usage is not None and not usage.digital_signature:
        raise ValueError("its keyUsage does not name digitalSignature")


def _check_no_ca(
    _policy: verification.Policy, _certificate: x509.Certificate, constraints: x509.BasicConstraints | None
) -> None:
    if constraints is not None and constraints.ca:
        raise ValueError("it is a CA certificate")


def _check_ca(
    _policy: verification.Policy, _certificate: x509.Certificate, constraints: x509.BasicConstraints
) -> None:
    if not constraints.ca:
        raise ValueError("its issuer is no CA")


def _check_signs(
    _policy: verification.Policy, _certificate: x509.Certificate, usage: x509.KeyUsage | None
) -> None:
    if usage is not None and not usage.key_cert_sign:
        raise ValueError("its issuer may not sign certificates")


_AGNOSTIC = verification.Criticality.AGNOSTIC
# The library's own policies are those of the web: they want a subjectAltName, which many IDevIDs lack, and
# key identifiers, which old maker CAs lack. What RFC 5280 asks of a path is asked here.
_IDEVID_POLICY = (
    verification.ExtensionPolicy.permit_all()
    .may_be_present(x509.BasicConstraints, _AGNOSTIC, _check_no_ca)
    .may_be_present(x509.KeyUsage, _AGNOSTIC, _check_key_usage)
    .may_be_present(x509.ExtendedKeyUsage, _AGNOSTIC, _check_usage)
)
_CA_POLICY = (
    verification.ExtensionPolicy.permit_all()
    .require_present(x509.BasicConstraints, _AGNOSTIC, _check_ca)
    .may_be_present(x509.KeyUsage, _AGNOSTIC, _check_signs)
    .may_be_present(x509.ExtendedKeyUsage, _AGNOSTIC, _check_usage)
)


def _name(certificate: x509.Certificate, rule: NameRule) -> str | None:
    found: list[str] = []
    match rule:
        case NameRule.APPROVAL:
            return None
        case NameRule.SERIAL_NUMBER:
            found = [
                str(attribute.value)
                for attribute in certificate.subject.get_attributes_for_oid(NameOID.SERIAL_NUMBER)
            ]
        case NameRule.HARDWARE_SERIAL:
            hardware = _hardware(certificate)
            if hardware is not None and hardware.module is not None:
                found = [_text(hardware.module[1])]
    if len(found) != 1:
        raise CertificateError(
            f"the maker's certificate holds {len(found)} names by the rule {str(rule)!r}, not one",
            reason="name",
            cure="have the operator set another rule: sealcast authority maker add DIR FILE --name RULE",
        )
    try:
        return check_device_name(found[0])
    except UsageError as error:
        raise CertificateError(
            f"what the maker's certificate says is {error}",
            reason="name",
            cure="have the operator set the rule `approval` for this maker",
        ) from None


def _hardware(certificate: x509.Certificate) -> HardwareIdentity | None:
    """What the certificate says of the hardware, where that can stand in one of the site's."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, x509.DuplicateExtension, x509.UnsupportedGeneralNameType, ValueError):
        names = None
    with suppress(CertificateError):
        return HardwareIdentity.of(certificate.subject, names)
    return None


def _text(serial_number: bytes) -> str:
    # An OCTET STRING: most makers write text, the others are told by their hexadecimal digits.
    text = serial_number.decode("ascii", "replace")
    return text if serial_number.isascii() and text.isprintable() else serial_number.hex()


def _check_may_issue(certificate: x509.Certificate) -> None:
    subject = certificate.subject.rfc4514_string()[:100]
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        constraints = None
    if constraints is None or not constraints.ca:
        raise CertificateError(
            f"{subject!r} is no CA certificate", reason="not-a-ca", cure="give CA certificates only"
        )
    if not isinstance(
        certificate.public_key(),
        ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey | ed448.Ed448PublicKey,
    ):
        raise CertificateError(f"{subject!r} has a key of an unknown kind", reason="key")


def _signed_by(crl: x509.CertificateRevocationList, issuer: x509.Certificate) -> bool:
    if crl.issuer != issuer.subject:
        return False
    try:
        return crl.is_signature_valid(issuer.public_key())  # type: ignore[arg-type]
    except (InvalidSignature, TypeError, ValueError, UnsupportedAlgorithm):
        return False


def _parse_crl(der: bytes) -> x509.CertificateRevocationList:
    try:
        return x509.load_der_x509_crl(der)
    except ValueError as error:
        raise CertificateError(f"not a usable CRL: {error}", reason="malformed") from None


def _crl_der(crl: x509.CertificateRevocationList) -> bytes:
    return crl.public_bytes(serialization.Encoding.DER)


__all__ = [
    "Maker",
    "NameRule",
    "VerifiedIdevid",
    "find_maker",
    "parse_crls",
]
