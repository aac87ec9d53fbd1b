"""Where devices take messages of their peers, as rows (SC-34): one place for each device.

Every function runs inside the caller's transaction.
"""

from collections.abc import Callable

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from sealcast.authority.models import EndpointRow


def put_endpoint(session: Session, device: str, endpoint: tuple[str, int] | None, now: int) -> None:
    """Store where a device is reached, which is written as TR-13 says; None: nowhere any more."""
    if endpoint is None:
        forget(session, device)
        return
    host, port = endpoint
    session.merge(EndpointRow(device=device, host=host, port=port, updated=now))
    session.flush()


def endpoint_of(session: Session, device: str) -> tuple[str, int] | None:
    """Where a device is reached, as far as it has said."""
    row = session.get(EndpointRow, device)
    return None if row is None else (row.host, row.port)


def forget(session: Session, device: str) -> None:
    """Drop what a device has said; it is removed, or listens no more."""
    session.execute(delete(EndpointRow).where(EndpointRow.device == device))


def drop_unlisted(session: Session, is_listed: Callable[[str], bool]) -> None:
    """Drop those of devices that no policy lists any more; `is_listed`: whether one does."""
    for device in session.scalars(select(EndpointRow.device)).all():
        if not is_listed(device):
            forget(session, device)
