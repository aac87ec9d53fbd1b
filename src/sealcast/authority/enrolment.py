"""Tokens and certificates of devices, as rows.

Spec: spec/side-channel.md SC-10 to SC-12.
"""

import base64
import hashlib
import secrets
from collections.abc import Iterable

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from sealcast.authority import audit
from sealcast.authority.issuance import certificate_row
from sealcast.authority.models import CertificateRow, DeviceRow, TokenRow
from sealcast.ca import IssuedCertificate, Issuer
from sealcast.errors import CertificateError, TokenError
from sealcast.pki.certificates import parse_certificate
from sealcast.pki.names import Role, check_device_name
from sealcast.pki.policy_rules import check_roles
from sealcast.pki.renewal_proof import RenewalProof
from sealcast.pki.times import microseconds

PROOF_ALLOWANCE = 300_000_000
"""Microseconds by which the clocks of device and authority may differ in a proof."""

RECOVERY_GRACE = 30 * 86_400_000_000
"""Microseconds after its certificate's end in which a device may recover by a proof."""

_TOKEN_BYTES = 20
"""160 bits: 32 characters of base32, which no shell and no option parser takes for anything else."""


def create_token(
    session: Session,
    *,
    device: str,
    ttl: int,
    now: int,
    roles: Iterable[str] | None = None,
    kind: Role = Role.DEVICE,
) -> str:
    """Make a one-time token for the enrolment of `device`; only its hash is stored.

    Args:
        session: the transaction.
        device: name of the device; it need not exist.
        ttl: microseconds that it is good for.
        now: microseconds.
        roles: that the device gets by its enrolment; None leaves a device that is known those it has.
        kind: what enrols; for an admin, `device` is its name.

    Raises:
        UsageError: not a device name, not a role, or too many roles.
    """
    check_device_name(device)
    checked = None if roles is None else list(check_roles(roles))
    session.execute(delete(TokenRow).where(TokenRow.expires <= now, TokenRow.used.is_(None)))
    token = base64.b32encode(secrets.token_bytes(_TOKEN_BYTES)).decode("ascii").lower()
    session.add(
        TokenRow(
            hash=token_hash(token),
            device=device,
            kind=str(kind),
            created=now,
            expires=now + ttl,
            roles=checked,
        )
    )
    audit.record(
        session,
        now,
        "make token",
        device,
        kind=str(kind),
        expires=now + ttl,
        roles=" ".join(checked) if checked else None,
    )
    return token


def token_kind(session: Session, token: str) -> Role:
    """What a token makes; of one that is unknown, a device: `check_token` refuses it."""
    row = session.get(TokenRow, token_hash(token))
    return Role.DEVICE if row is None else Role(row.kind)


def check_token(session: Session, *, device: str, token: str, now: int, kind: Role = Role.DEVICE) -> TokenRow:
    """The row of a token that admits `device`, as what it is, now.

    Raises:
        TokenError: unknown, used, expired, or of another device. Whoever holds no valid token cannot tell
            whether one exists: the last case reads like the first.
    """
    row = session.get(TokenRow, token_hash(token))
    if row is None or (row.device, row.kind) != (device, kind):
        raise TokenError(f"no such token for device {device!r}")
    if row.used is not None:
        raise TokenError(f"the token of device {device!r} has been used already")
    if row.expires <= now:
        raise TokenError(f"the token of device {device!r} has expired")
    return row


def enrol(
    session: Session, issuer: Issuer, *, device: str, token: str, csr: bytes, now: int
) -> IssuedCertificate:
    """Certify a device by its token, which is used up in this transaction and only in it (SC-12).

    Raises:
        TokenError: the token does not admit it.
        CsrError: the request is bad, or for another name; the token stays good.
    """
    row = check_token(session, device=device, token=token, now=now)
    issued = issuer.issue_device(csr, device, now)
    session.add(certificate_row(issued))
    session.flush()
    row.used, row.serial = now, f"{issued.serial:x}"
    known = session.get(DeviceRow, device)
    if known is None:
        session.add(DeviceRow(name=device, enrolled=now, roles=row.roles or []))
    else:
        # The operator made the token after the removal (revoke_device deletes older ones): it may come back.
        known.enrolled, known.revoked = now, None
        if row.roles is not None:
            known.roles = row.roles
    audit.record(session, now, "enrol device", device, serial=f"{issued.serial:x}")
    return issued


def renew(session: Session, issuer: Issuer, *, current: bytes, csr: bytes, now: int) -> IssuedCertificate:
    """Certify anew the device that holds `current` (DER), whose chain has been verified.

    Revocation is judged here once more, in the transaction that issues: between the check of the request and
    now the device may have been removed.

    Raises:
        CertificateError: revoked, or not a certificate that this site knows.
        CsrError: the request is bad, or for another name.
    """
    digest = hashlib.sha256(current).digest()
    issued = issuer.renew_device(current, csr, now)
    name = issued.identity.name
    device = session.get(DeviceRow, name)
    rows = session.scalars(
        select(CertificateRow).where(CertificateRow.name == name, CertificateRow.role == "device")
    )
    row = next((row for row in rows if hashlib.sha256(row.der).digest() == digest), None)
    if device is None or row is None:
        raise CertificateError(
            f"the certificate of device {name!r} is not in the register",
            reason="unknown-certificate",
            cure="enrol it with a token",
        )
    if device.revoked is not None or row.revoked is not None:
        raise CertificateError(
            f"device {name!r} is revoked", reason="revoked", cure="enrol it anew with a token"
        )
    session.add(certificate_row(issued))
    audit.record(session, now, "renew device", name, serial=f"{issued.serial:x}")
    return issued


def recover(
    session: Session, issuer: Issuer, *, proof: RenewalProof, grace: int, now: int
) -> IssuedCertificate:
    """Certify anew a device whose certificate has expired, by a proof whose signature holds (SC-22).

    That the certificate is one of ours is told by the register, byte for byte.

    Args:
        session: the transaction.
        issuer: the site CA.
        proof: of the device.
        grace: microseconds after a certificate's end in which it may still be renewed; 0: never.
        now: microseconds.

    Raises:
        CertificateError: not expired, past the grace, revoked, unknown, or a proof of another time.
        CsrError: the request is bad, or for another name.
    """
    if abs(now - proof.time) > PROOF_ALLOWANCE:
        raise CertificateError(
            "the proof was signed at another time than now", reason="time", cure="set the device's clock"
        )
    end = microseconds(parse_certificate(proof.certificate).not_valid_after_utc)
    if now < end:
        raise CertificateError(
            "the certificate has not expired: it is renewed over TLS", reason="not-expired", cure="renew it"
        )
    if now >= end + grace:
        raise CertificateError(
            f"the certificate expired more than {grace // 86_400_000_000} days ago, past this site's grace",
            reason="expired",
            cure="enrol it again with a token",
        )
    return renew(session, issuer, current=proof.certificate, csr=proof.csr, now=now)


def token_hash(token: str) -> bytes:
    """What is stored of a token: SHA-256, 32 bytes."""
    return hashlib.sha256(token.encode()).digest()
