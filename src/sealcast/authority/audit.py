"""What was done, by whom and when: appended in the transaction that does it, never changed."""

from sqlalchemy.orm import Session

from sealcast.authority.models import AuditRow


def record(session: Session, now: int, action: str, subject: str, **detail: str | int | bool | None) -> None:
    """Append one line; secrets and tokens have no place in it.

    Args:
        session: the transaction that does it.
        now: microseconds.
        action: verb and noun, for example `revoke device`.
        subject: the name of what it is done to.
        detail: more, for example a serial number.
    """
    session.add(AuditRow(time=now, action=action, subject=subject, detail=dict(detail)))
