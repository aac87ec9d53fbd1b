"""A folder that came from a backup: its operator says so, or it is noticed at a start.

A backup does not know what was used after it was made: generations, policy versions, CRL numbers, beacon
counters, tokens. So all numbers jump at the next start (invariant 8), and tokens are void. A database that is
older than the copy of its audit log's head, which lies beside it, is noticed; a whole folder that is older
cannot be, and waits for `sealcast authority restored`. Until then members refuse what goes back, and say so.
"""

from pathlib import Path

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from sealcast.authority import audit, lost_bundles
from sealcast.authority.models import AuditRow, SiteRow, TokenRow
from sealcast.authority.site import Site, exclusive
from sealcast.errors import ConfigError, StorageError

_START = "start after restore"


def mark_restored(folder: Path, now: int, *, bundle_is_latest: bool = False) -> None:
    """Have the next start pass over every number that the lost history may have used.

    `bundle_is_latest`: the operator says that no version of the trust bundle is missing.

    Raises:
        ConfigError: a service runs on the folder.
        StorageError: it cannot be read or written.
    """
    with exclusive(folder) as held:
        if not held:
            raise ConfigError(f"a service runs on {folder}", cure="stop it, then say this, then start it")
        site = Site.open_for_reading(folder)
        with site.storage.transaction() as session:
            session.get_one(SiteRow, 1).restored = True
            audit.record(session, now, "mark as restored", site.name)
            (lost_bundles.settle if bundle_is_latest else lost_bundles.doubt)(session, site.name, now)


def lost_head(session: Session, folder: Path) -> str | None:
    """The entry of the audit log that was there before and is not in this database; None if none is missing.

    One that a start has passed over already counts no more: the copy stays, as evidence.
    """
    try:
        known = audit.read_head_file(folder)
    except StorageError:
        return None
    if known is None:
        return None
    stored = session.execute(select(AuditRow.hash).where(AuditRow.id == known.number)).scalar()
    if stored == known.hash:
        return None
    starts = session.scalars(select(AuditRow.detail).where(AuditRow.action == _START))
    return None if any(detail.get("head") == str(known) for detail in starts) else str(known)


def pass_over(session: Session, folder: Path, site_name: str, now: int, *, asked: bool) -> None:
    """Void every token, as each may have been used, and note where the lost history ended, if known.

    `asked`: somebody has said that it is a backup, and then whether the trust bundle is the latest.
    """
    if not asked:
        lost_bundles.doubt(session, site_name, now)
    tokens = session.execute(delete(TokenRow).where(TokenRow.used.is_(None)).returning(TokenRow.hash))
    audit.record(session, now, _START, site_name, head=audit.told_head(folder), void_tokens=len(tokens.all()))
