"""Versions of the trust bundle that a backup may lack: none is made anew in their place.

Devices hold what was lost and follow nothing else, so another version of the same number would leave them
behind for good. After a restore, and when a device reports a later version, one that was issued before that
is still taken, and none that was issued after it, until the operator says that nothing is missing.

The audit log is where this is kept: it cannot be changed, and tells who said what. A report proves nothing,
so a device that lies stops new versions until the operator says so, and no more.
"""

import logging

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from sealcast.authority import audit
from sealcast.authority.models import AuditRow, BundleRow
from sealcast.errors import CertificateError

_DOUBT = "doubt trust bundle"
_AHEAD = "report unknown trust bundle"
_SETTLED = "settle trust bundle"

CURE = (
    "import what is missing: sealcast authority bundle import DIR FILE (a device's folder holds its version "
    "as `bundle`), then stop the service and say: sealcast authority restored DIR --bundle-is-latest"
)

_log = logging.getLogger(__name__)


def doubt(session: Session, site_name: str, now: int) -> None:
    """Note that the folder comes from a backup, which may lack versions."""
    audit.record(session, now, _DOUBT, site_name)


def settle(session: Session, site_name: str, now: int) -> None:
    """Note that the operator says that the latest version is here, whatever was reported."""
    audit.record(session, now, _SETTLED, site_name, version=_latest(session))


def note_unknown(session: Session, device: str, version: int, digest: bytes, now: int) -> None:
    """Note, and log, that a device holds what this authority does not have; once while that is so.

    One whose word the operator has not taken before is not believed again: it could stop everything for good.
    """
    latest = _latest(session)
    settled = session.scalars(select(AuditRow).where(AuditRow.action == _SETTLED)).all()
    said = session.scalars(select(AuditRow).where(AuditRow.action == _AHEAD, AuditRow.subject == device))
    for entry in said:
        told = entry.detail["version"]
        after = [each.detail["version"] for each in settled if each.id > entry.id]
        if any(told > there for there in after):
            return
        # Bounded, whatever a device says: one entry for what is ahead, one for each version that is here.
        if not after and (told == version or min(told, version) > latest):
            return
    audit.record(session, now, _AHEAD, device, version=version, hash=digest.hex())
    _log.error(
        "device %s holds a version %d of the trust bundle that is not here: does this authority come from a "
        "backup? (%s)",
        device,
        version,
        CURE,
    )


def check_settled(session: Session, issued: int) -> None:
    """Refuse a version that is made now although later ones may have been lost. `issued`: when it was made.

    Raises: CertificateError, with what to do.
    """
    doubtful = why_not(session, issued)
    if doubtful is not None:
        raise CertificateError(doubtful, reason="lost", cure=CURE)


def why_not(session: Session, issued: int) -> str | None:
    """Why a version that was issued then is not taken; None if nothing speaks against it."""
    settled = _settled(session)
    doubted = session.scalar(
        select(func.min(AuditRow.time)).where(AuditRow.id > settled, AuditRow.action == _DOUBT)
    )
    if doubted is not None and issued >= doubted:
        return (
            "this authority comes from a backup, which may lack versions of the trust bundle: devices that "
            "hold them would never follow a new one"
        )
    latest = _latest(session)
    reports = session.scalars(
        select(AuditRow).where(AuditRow.id > settled, AuditRow.action == _AHEAD).order_by(AuditRow.id)
    )
    for report in reports:
        version = report.detail["version"]
        if version > latest and issued >= report.time:
            return (
                f"device {report.subject!r} holds version {version} of the trust bundle, and the last one "
                f"here is {latest}: it would never follow a new one"
            )
    return None


def _settled(session: Session) -> int:
    """Number of the last entry that says that nothing is missing; 0 without one."""
    return session.scalar(select(func.max(AuditRow.id)).where(AuditRow.action == _SETTLED)) or 0


def _latest(session: Session) -> int:
    return session.scalar(select(func.max(BundleRow.version))) or 0
