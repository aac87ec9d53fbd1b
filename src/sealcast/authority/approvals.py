"""Requests that wait for an operator (SC-24, RFC 7030 section 4.2.3: 202 and Retry-After).

A request is a row from its first arrival on, so it survives a restart. It is known again by its key, as its
bytes may change with the TLS session (challengePassword). Whoever repeats it gets 202 until the operator has
decided, then the certificate, or a refusal with the operator's reason.
"""

from enum import StrEnum

from sqlalchemy import delete, func, or_, select
from sqlalchemy.orm import Session

from sealcast.authority import audit
from sealcast.authority.models import ApprovalRow
from sealcast.errors import ConflictError, UnknownNameError, UsageError
from sealcast.est.problems import Problem, RefusedError

RETRY_SECONDS = 60
"""Retry-After: an operator needs minutes, and a device that asks each minute costs nothing."""

MAX_OPEN = 200
"""Requests without any credential that may wait at once: more would only hide the genuine ones."""

PENDING_LIFE = 30 * 86_400_000_000
"""Microseconds without a repetition after which nobody asks any more."""

DECIDED_LIFE = 7 * 86_400_000_000
"""Microseconds for which a decision, or what was issued by it, may still be fetched."""

MAX_REASON = 200
"""Characters."""


class Credential(StrEnum):
    """What was shown with a request."""

    TOKEN = "token"  # noqa: S105 - a word
    MAKER = "maker"
    NONE = "none"


class State(StrEnum):
    """Of a request."""

    PENDING = "pending"
    APPROVED = "approved"
    DENIED = "denied"
    ISSUED = "issued"


_WAITING = (State.PENDING, State.APPROVED)


def ask(
    session: Session,
    *,
    device: str,
    key_hash: bytes,
    generated: bool,
    credential: Credential,
    credential_id: bytes,
    detail: str,
    now: int,
) -> ApprovalRow:
    """The row of a request: as it was decided, or new and pending.

    Args:
        session: the transaction.
        device: name that is asked for.
        key_hash: of the request.
        generated: whether the key is to be made here.
        credential: what was shown.
        credential_id: which token or which maker's certificate; empty without a credential.
        detail: for the operator.
        now: microseconds.

    Raises:
        RefusedError: too many requests wait.
    """
    drop_old(session, now)
    same_asker = (
        ApprovalRow.device == device,
        ApprovalRow.generated == generated,
        ApprovalRow.credential == str(credential),
        ApprovalRow.credential_id == credential_id,
    )
    row = session.scalars(select(ApprovalRow).where(*same_asker, ApprovalRow.key_hash == key_hash)).first()
    if row is not None:
        row.asked = now
        return row
    if credential is Credential.NONE:
        _check_room(session)
    else:
        # A device that starts afresh has a new key; its older request would never be fetched. Whoever has no
        # credential must not push out the requests of others.
        session.execute(delete(ApprovalRow).where(*same_asker, ApprovalRow.state == State.PENDING))
    row = ApprovalRow(
        device=device,
        key_hash=key_hash,
        generated=generated,
        credential=str(credential),
        credential_id=credential_id,
        detail=detail,
        state=State.PENDING,
        requested=now,
        asked=now,
        reason="",
    )
    session.add(row)
    session.flush()
    audit.record(session, now, "ask approval", device, request=row.id, credential=str(credential))
    return row


def approve(session: Session, number: int, now: int) -> str:
    """Let a pending request have its certificate.

    Returns:
        The device's name.

    Raises:
        UnknownNameError: there is no such request.
        ConflictError: it is decided already.
    """
    row = _pending(session, number)
    row.state, row.decided = State.APPROVED, now
    audit.record(session, now, "approve", row.device, request=row.id, key=row.key_hash.hex())
    return row.device


def deny(session: Session, number: int, reason: str, now: int) -> str:
    """Refuse a pending request; `reason` is told to the device.

    Returns:
        The device's name.

    Raises:
        UnknownNameError: there is no such request.
        ConflictError: it is decided already.
        UsageError: the reason is no line of text.
    """
    if not reason.isprintable() or len(reason) > MAX_REASON:
        raise UsageError(
            f"not a reason: {reason[:80]!r}", cure=f"write one line of up to {MAX_REASON} characters"
        )
    row = _pending(session, number)
    row.state, row.decided, row.reason = State.DENIED, now, reason
    audit.record(session, now, "deny", row.device, request=row.id, reason=reason)
    return row.device


def approval_row(session: Session, number: int) -> ApprovalRow:
    """The row of a request.

    Raises:
        UnknownNameError: there is none.
    """
    row = session.get(ApprovalRow, number)
    if row is None:
        raise UnknownNameError(
            f"there is no request {number}", cure="see: sealcast authority approval list DIR"
        )
    return row


def forget_device(session: Session, device: str) -> None:
    """Drop what waits in the name of a device, at its removal: an earlier yes must not bring it back."""
    session.execute(delete(ApprovalRow).where(ApprovalRow.device == device, ApprovalRow.state.in_(_WAITING)))


def waits(session: Session, *, credential_id: bytes, key_hash: bytes) -> bool:
    """Whether a request by this credential and key is not decided, or not fetched, yet."""
    found = select(ApprovalRow.id).where(
        ApprovalRow.credential_id == credential_id,
        ApprovalRow.key_hash == key_hash,
        ApprovalRow.state.in_(_WAITING),
    )
    return session.scalar(found) is not None


def waiting_credentials(session: Session) -> list[bytes]:
    """The tokens (their hashes) by which requests wait."""
    found = select(ApprovalRow.credential_id).where(
        ApprovalRow.credential == str(Credential.TOKEN), ApprovalRow.state.in_(_WAITING)
    )
    return list(session.scalars(found))


def drop_old(session: Session, now: int) -> None:
    """Forget requests that nobody repeats, and decisions that nobody fetches."""
    session.execute(
        delete(ApprovalRow).where(
            or_(
                (ApprovalRow.state == State.PENDING) & (ApprovalRow.asked < now - PENDING_LIFE),
                (ApprovalRow.state != State.PENDING) & (ApprovalRow.decided < now - DECIDED_LIFE),
            )
        )
    )


def _pending(session: Session, number: int) -> ApprovalRow:
    row = approval_row(session, number)
    if row.state != State.PENDING:
        raise ConflictError(f"request {number} is {row.state} already")
    return row


def _check_room(session: Session) -> None:
    waiting = session.scalar(
        select(func.count())
        .select_from(ApprovalRow)
        .where(ApprovalRow.credential == str(Credential.NONE), ApprovalRow.state == State.PENDING)
    )
    if (waiting or 0) >= MAX_OPEN:
        raise RefusedError(Problem.TOO_MANY_REQUESTS, retry_after=RETRY_SECONDS * 60)
