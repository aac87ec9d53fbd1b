"""Removal of a device: its certificates on the CRL, its name out of every policy, its keys worthless.

All of it is one transaction; half of a removal cannot be stored.
"""

import hashlib
from dataclasses import dataclass
from typing import NamedTuple
from weakref import WeakSet

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from sealcast.authority import approvals, audit, endpoints
from sealcast.authority.issuance import strike_off
from sealcast.authority.models import CertificateRow, CrlRow, DeviceRow, TokenRow, UnrecordedRow
from sealcast.authority.other_sites import other_crls
from sealcast.ca import Issuer, LocalIssuer
from sealcast.errors import UnknownNameError
from sealcast.pki.crl import GRACE, LIFE, Revocation, crl_number, is_due
from sealcast.pki.names import Role, check_device_name
from sealcast.pki.times import microseconds


class CrlDates(NamedTuple):
    """Number and times of the CRL in force, microseconds."""

    number: int
    issued: int
    next_update: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CurrentCrl:
    """The CRL in force."""

    number: int
    issued: int
    next_update: int
    """Microseconds; the grace included."""
    own: bytes
    """DER: this site's list alone."""
    der: bytes
    """It and the lists of other sites after it, as members get them (TR-9)."""
    digest: bytes
    """SHA-256 of that, 32 bytes."""

    @property
    def others(self) -> bytes:
        """DER: the lists of other sites."""
        return self.der[len(self.own) :]

    def is_due(self, now: int) -> bool:
        """Whether a new one is to be made although nothing was revoked."""
        return is_due(self.issued, now)


def load_crl(session: Session) -> CurrentCrl:
    """The latest CRL; there is one from `init` on."""
    row = session.scalars(select(CrlRow).order_by(CrlRow.number.desc()).limit(1)).one()
    return _current(session, row)


def crl_dates(session: Session) -> CrlDates:
    """What `load_crl` says, without the list."""
    return CrlDates(
        *session.execute(
            select(CrlRow.number, CrlRow.issued, CrlRow.next_update).order_by(CrlRow.number.desc()).limit(1)
        ).one()
    )


_told: WeakSet[LocalIssuer] = WeakSet()
"""Issuers that were given every revocation since they were opened: a ledger that came back from a backup may
lack some. A signer process may start anew at any time, and is given all of them each time.
"""


def _current(session: Session, row: CrlRow) -> CurrentCrl:
    document = row.der + other_crls(session)
    return CurrentCrl(
        number=row.number,
        issued=row.issued,
        next_update=row.next_update,
        own=row.der,
        der=document,
        digest=hashlib.sha256(document).digest(),
    )


def issue_crl(
    session: Session, issuer: Issuer, now: int, *, jump: int = 0, device: str | None = None
) -> CurrentCrl:
    """Sign and store a CRL of every revoked certificate that has not ended, under the next number.

    Args:
        session: the transaction.
        issuer: the site CA, which may choose a higher number, and leaves nothing out that was on a CRL.
        now: microseconds.
        jump: numbers to leave out, after a restore.
        device: the only one of which certificates were revoked since the CRL before; None: not known.
    """
    session.flush()
    number = (session.scalar(select(func.max(CrlRow.number))) or 0) + 1 + jump
    recorded = select(CertificateRow.serial, CertificateRow.revoked).where(
        CertificateRow.revoked.is_not(None), CertificateRow.not_after > now
    )
    unrecorded = select(UnrecordedRow.serial, UnrecordedRow.revoked).where(
        UnrecordedRow.revoked.is_not(None), UnrecordedRow.ends > now
    )
    if device is not None and issuer in _told:
        # It knows the others, and its ledger cannot be exchanged while it is open here.
        recorded = recorded.where(CertificateRow.name == device)
        unrecorded = unrecorded.where(UnrecordedRow.name == device)
    revoked = [*session.execute(recorded), *session.execute(unrecorded)]
    der = issuer.issue_crl(
        number=number,
        # One of the future was revoked while the clock was ahead; the issuer signs no such thing.
        revocations=[
            Revocation(serial=int(serial, 16), time=min(when or now, now)) for serial, when in revoked
        ],
        now=now,
    )
    if isinstance(issuer, LocalIssuer):
        _told.add(issuer)
    number = crl_number(der)
    row = CrlRow(number=number, issued=now, next_update=now + microseconds(LIFE + GRACE), der=der)
    session.add(row)
    session.flush()
    return _current(session, row)


def revoke_device(session: Session, issuer: Issuer, name: str, now: int) -> CurrentCrl | None:
    """Revoke every certificate of a device, and what else stands in its name, save its place in channels.

    The caller settles the channels (settlement.py) in the same transaction.

    Returns:
        The CRL that says so; None if it was revoked before.

    Raises:
        UnknownNameError: no such device.
    """
    device = session.get(DeviceRow, check_device_name(name))
    if device is None:
        raise UnknownNameError(f"unknown device {name!r}", cure="see: sealcast authority device list DIR")
    endpoints.forget(session, name)
    if device.revoked is not None:
        # A token that was handed out before must not bring it back.
        session.execute(
            delete(TokenRow).where(
                TokenRow.device == name, TokenRow.kind == Role.DEVICE, TokenRow.used.is_(None)
            )
        )
        approvals.forget_device(session, name)
        return None
    device.revoked = now
    issuer.remove(name, now)
    strike_off(session, name, now)
    crl = issue_crl(session, issuer, now, device=name)
    audit.record(session, now, "revoke device", name, crl_number=crl.number)
    return crl
