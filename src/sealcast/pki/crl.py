"""Certificate revocation lists.

A CRL is made anew at each revocation and every 24 h; nextUpdate is 72 h later still, so that devices whose
authority is away for days go on (spec/trust.md TR-9 refuses a CRL past nextUpdate). RFC 5280 section 5.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from operator import attrgetter
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from sealcast import _core
from sealcast.errors import CertificateError
from sealcast.pki.certificates import parse_certificate
from sealcast.pki.profiles import CLOCK_ALLOWANCE, CertificateIssuer
from sealcast.pki.times import microseconds, to_certificate_time

LIFE = timedelta(hours=24)
"""After this a new CRL is due even if nothing changed."""

GRACE = timedelta(hours=72)
"""How much longer the old one holds: at least the prefetch depth of slots plus 48 h."""


def is_due(issued: int, now: int) -> bool:
    """Whether what was signed at `issued`, a CRL or a policy, is to be signed anew although nothing changed.

    One of the future was signed while the clock was ahead: it would count as fresh for as long.
    """
    return now >= issued + microseconds(LIFE) or issued > now + microseconds(CLOCK_ALLOWANCE)


_MAX_NUMBER = (1 << 63) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Revocation:
    """One revoked certificate."""

    serial: int
    time: int
    """When it was revoked, in microseconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CrlFacts:
    """What a CRL says; its signature is judged by the engine's validator, not here."""

    number: int
    this_update: int
    next_update: int
    """In microseconds, grace included."""
    serials: frozenset[int]

    @classmethod
    def parse(cls, document: bytes) -> Self:
        """Read one or more DER CRLs, one after the other; the first one's number stands for all (TR-9).

        Raises: CertificateError if one is none, or has no CRLNumber or nextUpdate.
        """
        facts = [cls._parse(der) for der in split_crls(document)]
        return cls(
            number=facts[0].number,
            this_update=min(each.this_update for each in facts),
            next_update=min(each.next_update for each in facts),
            serials=frozenset().union(*(each.serials for each in facts)),
        )

    @classmethod
    def _parse(cls, der: bytes) -> Self:
        try:
            crl = x509.load_der_x509_crl(der)
            number = crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
            next_update = crl.next_update_utc
            serials = frozenset(entry.serial_number for entry in crl)
        except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension) as error:
            raise CertificateError(f"not a usable CRL: {error}", reason="malformed") from None
        if next_update is None:
            raise CertificateError("not a usable CRL: no nextUpdate", reason="malformed")
        return cls(
            number=number,
            this_update=microseconds(crl.last_update_utc),
            next_update=microseconds(next_update),
            serials=serials,
        )

    def is_due(self, now: int) -> bool:
        """Tell whether a new CRL is to be made although nothing was revoked."""
        return now >= self.this_update + microseconds(LIFE)


def split_crls(document: bytes) -> list[bytes]:
    """Return the DER CRLs that stand one after the other in a document, at least one.

    Raises: CertificateError if it is no sequence of DER values.
    """
    found = der_values(document)
    if not found:
        raise CertificateError("not a usable CRL: it is empty", reason="malformed")
    return found


def der_values(data: bytes) -> list[bytes]:
    """Return the DER values that stand one after the other, none of them empty.

    Raises: CertificateError if it is no sequence of them.
    """
    found, start, view = [], 0, memoryview(data)
    while start < len(data):
        header, length = _der_header(view[start:])
        end = start + header + length
        if not length or end > len(data):
            raise CertificateError("not a usable CRL: it is cut off", reason="malformed")
        found.append(data[start:end])
        start = end
    return found


def der_content(value: bytes) -> bytes:
    """Return what a DER value contains."""
    return value[_der_header(memoryview(value))[0] :]


def _der_header(data: memoryview) -> tuple[int, int]:
    """How long it is, and how long what follows it has to be."""
    length, header = (data[1] if len(data) > 1 else 0), 2
    if length & 0x80:
        header += length & 0x7F
        length = int.from_bytes(data[2:header], "big")
    return header, length


MAX_CRL_BYTES = 4 << 20
"""Of another site: a hundred thousand entries."""

_PEM = b"-----BEGIN X509 CRL-----"


def read_crl(data: bytes) -> bytes:
    """Return the CRLs of a file, DER or PEM, as DER. Raises: CertificateError: it holds none."""
    if _PEM not in data:
        return data
    try:
        parts = [_PEM + part for part in data.split(_PEM)[1:]]
        return b"".join(x509.load_pem_x509_crl(part).public_bytes(Encoding.DER) for part in parts)
    except ValueError as error:
        raise CertificateError(f"not a usable CRL: {error}", reason="malformed") from None


def check_crl(der: bytes, authorities: Sequence[bytes]) -> tuple[CrlFacts, bytes]:
    """Read another site's CRL, as every member will, and say which site CA has signed it.

    Args:
        der: the list.
        authorities: certificates of site CAs (DER) that may have.

    Returns: what it says, and the certificate.
    Raises: CertificateError: it is malformed, more than one, too large, or signed by none of them.
    """
    if len(der) > MAX_CRL_BYTES:
        raise CertificateError(f"a CRL of {len(der)} bytes is too large", reason="malformed")
    facts = CrlFacts.parse(der)
    try:
        # One that a member cannot read would keep every member from all lists.
        count = _core.count_crls(der)
    except ValueError as error:
        raise CertificateError(f"not a usable CRL: {error}", reason="malformed") from None
    if count != 1 or facts.number > _MAX_NUMBER:
        raise CertificateError("not one CRL with a number of at most 63 bits", reason="malformed")
    crl = x509.load_der_x509_crl(der)
    for authority in authorities:
        certificate = parse_certificate(authority)
        if certificate.subject == crl.issuer and _is_signed(crl, certificate):
            return facts, authority
    raise CertificateError(
        "the CRL is signed by no site CA of another site in the trust bundle",
        reason="unknown-issuer",
        cure="list that site's CA in the trust bundle first; see: sealcast authority bundle draft",
    )


def _is_signed(crl: x509.CertificateRevocationList, certificate: x509.Certificate) -> bool:
    try:
        return crl.is_signature_valid(certificate.public_key())  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return False


def crl_number(document: bytes) -> int:
    """Return the CRLNumber of the first of one or more DER CRLs (TR-9). Raises: CertificateError."""
    try:
        crl = x509.load_der_x509_crl(split_crls(document)[0])
        return crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
    except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension) as error:
        raise CertificateError(f"not a usable CRL: {error}", reason="malformed") from None


def crl_builder(
    *, issuer: CertificateIssuer, number: int, revocations: Iterable[Revocation], now: int
) -> x509.CertificateRevocationListBuilder:
    """Build a CRL, to be signed by the site CA.

    `number` must be above that of every CRL of the site before it.
    """
    # All entries at once: the builder's own method copies those before for each one.
    entries = [_entry(each.serial, each.time) for each in sorted(revocations, key=attrgetter("serial"))]
    return (
        x509.CertificateRevocationListBuilder(revoked_certificates=entries)
        .issuer_name(issuer.subject)
        .last_update(to_certificate_time(now))
        .next_update(to_certificate_time(now + microseconds(LIFE + GRACE)))
        .add_extension(x509.CRLNumber(number), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer.key_identifier),
            critical=False,
        )
    )


def _entry(serial: int, time: int) -> x509.RevokedCertificate:
    return (
        x509.RevokedCertificateBuilder()
        .serial_number(serial)
        .revocation_date(to_certificate_time(time))
        .build()
    )
