"""Makers whose certificates admit to a first enrolment, as rows."""

from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from sqlalchemy import select
from sqlalchemy.orm import Session

from sealcast.authority import audit
from sealcast.authority.models import MakerRow
from sealcast.errors import CertificateError, UnknownNameError, UsageError
from sealcast.pki.certificates import certificates_pem, parse_certificate
from sealcast.pki.files import read_file
from sealcast.pki.idevid import Maker, NameRule, parse_crls

MAX_MAKERS = 64
"""Each certificate of an unknown maker is judged by every one."""


CRL_HEAD = b"-----BEGIN X509 CRL-----"


def read_maker(path: Path, rule: NameRule, crl_files: tuple[Path, ...] = ()) -> Maker:
    """Read a maker's files: PEM with one root and the CA certificates below it, and CRLs.

    Raises:
        StorageError: a file cannot be read.
        CertificateError: it is not what it should be; names the file.
    """
    crls: list[bytes] = []
    current = path
    try:
        for current in crl_files:
            crls += parse_crls(read_file(current))
        current = path
        return Maker.parse(read_file(path), rule, crls)
    except CertificateError as error:
        raise CertificateError(f"{current}: {error.problem}", reason=error.reason, cure=error.cure) from None


def maker_texts(maker: Maker) -> tuple[str, str]:
    """A maker as `parse_maker` reads it: certificates and CRLs in PEM."""
    return (
        certificates_pem(maker.certificates).decode("ascii"),
        b"".join(map(_crl_pem, maker.crls)).decode("ascii"),
    )


def parse_maker(certificates: str, rule: NameRule, crls: str) -> Maker:
    """Read a maker from PEM texts; `crls` may be empty.

    Raises:
        CertificateError: it is not what it should be.
    """
    return Maker.parse(certificates.encode(), rule, parse_crls(crls.encode()) if crls else ())


def add_maker(session: Session, maker: Maker, now: int) -> None:
    """Store a maker, in place of what was known under its root.

    Raises:
        UsageError: there are too many.
    """
    row = session.get(MakerRow, maker.fingerprint)
    if row is None:
        if len(session.scalars(select(MakerRow.fingerprint)).all()) >= MAX_MAKERS:
            raise UsageError(f"more than {MAX_MAKERS} makers", cure="remove one first")
        row = MakerRow(fingerprint=maker.fingerprint)
        session.add(row)
    row.subject = parse_certificate(maker.root).subject.rfc4514_string()[:200]
    row.certificates, row.crls = (text.encode() for text in maker_texts(maker))
    row.rule, row.added = str(maker.rule), now
    session.flush()
    audit.record(
        session, now, "add maker", row.subject, fingerprint=row.fingerprint.hex(), rule=str(maker.rule)
    )


def remove_maker(session: Session, fingerprint: bytes, now: int) -> str:
    """Forget a maker; devices that were enrolled stay.

    Returns:
        Its subject.

    Raises:
        UnknownNameError: it is not known.
    """
    row = session.get(MakerRow, fingerprint)
    if row is None:
        raise UnknownNameError(
            f"no maker has the root {fingerprint.hex()}", cure="see: sealcast authority maker list DIR"
        )
    subject = row.subject
    session.delete(row)
    audit.record(session, now, "remove maker", subject, fingerprint=fingerprint.hex())
    return subject


def load_makers(session: Session) -> tuple[Maker, ...]:
    """Every maker."""
    return tuple(
        parse_maker(row.certificates.decode(), NameRule(row.rule), row.crls.decode())
        for row in session.scalars(select(MakerRow).order_by(MakerRow.added, MakerRow.fingerprint))
    )


def _crl_pem(der: bytes) -> bytes:
    return x509.load_der_x509_crl(der).public_bytes(serialization.Encoding.PEM)
