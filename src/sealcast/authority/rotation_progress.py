"""How many devices stand where in a rotation: who has reported the bundle, who has a new certificate."""

from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from sealcast.authority import bundles
from sealcast.authority.models import AdminRow, CertificateRow, ReportRow, RotationRow
from sealcast.authority.rotation_steps import ENDED, Kind
from sealcast.pki.certificates import key_identifier

_NAMES_SHOWN = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Where the devices stand; counts are of those that hold a good certificate."""

    devices: int
    missing: tuple[str, ...]
    """Those that have not reported the trust bundle that is waited for; sorted."""
    old: tuple[str, ...]
    """Those that report by a certificate of the old site CA, or by none, sorted; from the switch on."""
    old_admins: tuple[str, ...]
    """Admins without a certificate of the new site CA."""
    reported: int
    """How many have reported the trust bundle that is waited for."""
    reissued: int
    """How many report by a certificate of the new site CA."""

    def unreported(self) -> str:
        """What is missing before the switch, for people; empty if nothing is."""
        return _counted(self.missing, self.devices, "have not reported the trust bundle")

    def still_old(self) -> str:
        """What is missing before the old site CA can go, for people; empty if nothing is."""
        parts = [_counted(self.old, self.devices, "have no certificate of the new site CA in use")]
        if self.old_admins:
            parts.append(f"{len(self.old_admins)} admins have none: {_shown(self.old_admins)}")
        return "; ".join(part for part in parts if part)


def standing_of(session: Session, row: RotationRow, now: int) -> Standing:
    """Where the devices stand at this step of a rotation; nowhere once it has ended. `now`: microseconds."""
    if row.step in ENDED:
        return Standing(devices=0, missing=(), old=(), old_admins=(), reported=0, reissued=0)
    progress = bundles.bundle_progress(session, row.version or 0, now)
    old: Collection[str] = ()
    admins: Collection[str] = ()
    is_switched = row.kind == Kind.SITE and row.switched is not None
    if is_switched and row.new is not None:
        key = key_identifier(row.new)
        # The certificate that a device reports by is one that it has stored: it may have lost the answer to
        # a renewal.
        renewed = set(
            session.scalars(
                select(ReportRow.device)
                .join(CertificateRow, CertificateRow.serial == ReportRow.serial)
                .where(CertificateRow.issuer == key)
            )
        )
        old = bundles.living_devices(session, now) - renewed
        admins = _living_admins(session, now) - _living_admins(session, now, key)
    return Standing(
        devices=progress.devices,
        missing=progress.missing if row.version is not None else (),
        old=tuple(sorted(old)),
        old_admins=tuple(sorted(admins)),
        reported=progress.reported if row.version is not None else 0,
        reissued=progress.devices - len(old) if is_switched else 0,
    )


def _living_admins(session: Session, now: int, issuer: bytes | None = None) -> set[str]:
    chosen = select(CertificateRow.name).where(
        CertificateRow.role == "admin",
        CertificateRow.revoked.is_(None),
        CertificateRow.not_after > now,
        CertificateRow.name.in_(select(AdminRow.name).where(AdminRow.revoked.is_(None))),
    )
    if issuer is not None:
        chosen = chosen.where(CertificateRow.issuer == issuer)
    return set(session.scalars(chosen))


def _counted(names: tuple[str, ...], devices: int, what: str) -> str:
    return f"{len(names)} of {devices} devices {what}: {_shown(names)}" if names else ""


def _shown(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
    return ", ".join(names[:_NAMES_SHOWN]) + more
