"""The audit log: who did what, when, with which outcome; append-only, each entry bound to the one before.

    hash = SHA-256("sealcast/1 audit" ‖ 0x00 ‖ hash of the entry before ‖ content)
    content = JSON [number, time, actor, action, subject, outcome, detail], keys sorted, no spaces, ASCII

The first entry continues 32 zero bytes. An entry is written in the transaction of what it tells, so that
neither is there without the other. Numbers have no gaps.

What `verify` detects: any entry that was changed, added, exchanged or removed, except that a log cut off at
its end looks like a shorter one. For that the head (number and hash of the last entry) is compared with
`audit.head`, a copy beside the database that a running service renews every 30 seconds, and with any head
that the operator has kept elsewhere. Who can write the whole folder can forge the log and that copy, but no
head that is kept elsewhere.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from sqlalchemy import select
from sqlalchemy.orm import Session

from sealcast.authority.models import AuditRow
from sealcast.errors import StorageError, UsageError
from sealcast.pki.files import PRIVATE, read_file, write_atomically

HEAD_FILE = "audit.head"

AUTHORITY = "authority"
"""Actor of what the authority does by itself."""

DONE = "done"
REFUSED = "refused"

_GENESIS = bytes(32)
_ACTOR = "audit actor"
_WRITTEN = "audit entries"
_LAST = "audit head"
_ROWS_AT_ONCE = 1000
_HEAD = re.compile(r"([1-9][0-9]{0,17}):([0-9a-f]{64})")

Detail = str | int | bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """The last entry of a log."""

    number: int
    hash: bytes
    """32 bytes."""

    def __str__(self) -> str:
        return f"{self.number}:{self.hash.hex()}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what `str` writes.

        Raises:
            UsageError: it is not that.
        """
        found = _HEAD.fullmatch(text.strip())
        if found is None:
            raise UsageError(
                f"not the head of an audit log: {text[:80]!r}",
                cure="give NUMBER:HASH as `audit verify` printed it",
            )
        return cls(number=int(found[1]), hash=bytes.fromhex(found[2]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What `verify` found."""

    entries: int
    """How many fit, from the first on."""
    head: Head | None
    """The last one that fits."""
    first_bad: int | None = None
    """Number of the first entry that does not fit, or that is missing."""
    fault: str = ""
    """What is wrong with it."""


def act_as(session: Session, actor: str) -> None:
    """Say who does what is recorded in this transaction from now on."""
    session.info[_ACTOR] = actor


def record(session: Session, now: int, action: str, subject: str, **detail: Detail) -> None:
    """Append an entry for what this transaction does; secrets and tokens have no place in it.

    Args:
        session: the transaction that does it.
        now: microseconds.
        action: verb and noun, for example `revoke device`.
        subject: the name of what it is done to.
        detail: more, for example a serial number.
    """
    _append(session, now, action, subject, DONE, detail)


def record_refusal(session: Session, now: int, action: str, subject: str, **detail: Detail) -> None:
    """Append an entry for what was asked for and not done."""
    _append(session, now, action, subject, REFUSED, detail)


def entries_written(session: Session) -> int:
    """How many entries this transaction has appended."""
    return int(session.info.get(_WRITTEN, 0))


def head(session: Session) -> Head | None:
    """The last entry; None while there is none."""
    last = session.execute(select(AuditRow.id, AuditRow.hash).order_by(AuditRow.id.desc()).limit(1)).first()
    return None if last is None else Head(number=last.id, hash=last.hash)


def verify(session: Session, *known: Head) -> Verdict:
    """Check every entry, and that the log goes on from heads that were known before."""
    expected = {each.number: each.hash for each in known}
    if len(expected) < len({(each.number, each.hash) for each in known}):
        raise UsageError("two different heads with one number", cure="one of them is of another log")
    last = Head(number=0, hash=_GENESIS)
    rows = session.scalars(
        select(AuditRow)
        .order_by(AuditRow.id)
        .execution_options(yield_per=_ROWS_AT_ONCE, populate_existing=True)
    )
    for row in rows:
        fault = _fault(row, last, expected.get(row.id))
        if fault:
            # The number that should have come here: of a missing entry, its own.
            return _verdict(last, last.number + 1, fault)
        last = Head(number=row.id, hash=row.hash)
        session.expunge(row)
    if missing := [number for number in expected if number > last.number]:
        return _verdict(
            last, last.number + 1, f"the log ends before entry {max(missing)}, which was seen earlier"
        )
    return _verdict(last, None, "")


def read_head_file(folder: Path) -> Head | None:
    """The copy of the head beside the database; None if none was made yet.

    Raises:
        StorageError: it is damaged.
    """
    path = folder / HEAD_FILE
    if not path.exists():
        return None
    try:
        return Head.parse(read_file(path, limit=200).decode("ascii", "replace"))
    except UsageError as error:
        raise StorageError(
            str(path), str(error), cure="find out who changed it; verify the log with a head kept elsewhere"
        ) from None


def told_head(folder: Path) -> str:
    """What the copy says, for the log; a damaged copy is no reason not to go on."""
    try:
        return str(read_head_file(folder))
    except StorageError as error:
        return error.detail


def write_head_file(folder: Path, session: Session, *, accept: bool = False) -> bool:
    """Renew the copy of the head, unless the log has lost what the present copy names.

    Args:
        folder: of the authority.
        session: reads the log.
        accept: renew it in any case: after a restore that somebody has asked for.

    Returns:
        False if the log does not hold the entry that the copy names; then the copy stays as evidence.
    """
    present = head(session)
    try:
        known = read_head_file(folder)
    except StorageError:
        if not accept:
            return False
        known = None
    if known == present or present is None:
        return known == present
    if known is not None and not accept:
        stored = session.execute(select(AuditRow.hash).where(AuditRow.id == known.number)).scalar()
        if stored != known.hash:
            return False
    write_atomically(folder / HEAD_FILE, f"{present}\n".encode(), PRIVATE)
    return True


def entry_hash(previous: bytes, content: bytes) -> bytes:
    """The hash of an entry. `previous`: that of the entry before, 32 bytes."""
    return hashlib.sha256(b"sealcast/1 audit\x00" + previous + content).digest()


def _append(
    session: Session, now: int, action: str, subject: str, outcome: str, detail: Mapping[str, Detail]
) -> None:
    # Entries of one transaction go on from each other.
    last = session.info.get(_LAST) or head(session) or Head(number=0, hash=_GENESIS)
    row = AuditRow(
        id=last.number + 1,
        time=now,
        actor=session.info.get(_ACTOR, AUTHORITY),
        action=action,
        subject=subject,
        outcome=outcome,
        detail=dict(detail),
        previous=last.hash,
    )
    row.hash = entry_hash(row.previous, _content(row))
    session.add(row)
    session.info[_LAST] = Head(number=row.id, hash=row.hash)
    session.info[_WRITTEN] = entries_written(session) + 1


def _content(row: AuditRow) -> bytes:
    fields: list[Any] = [row.id, row.time, row.actor, row.action, row.subject, row.outcome, row.detail]
    return json.dumps(fields, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")


def _fault(row: AuditRow, last: Head, expected: bytes | None) -> str:
    if row.id != last.number + 1:
        return f"missing: entry {row.id} follows entry {last.number}"
    if row.previous != last.hash:
        return "it does not continue the entry before"
    if row.hash != entry_hash(row.previous, _content(row)):
        return "its content is not what its hash says"
    if expected is not None and row.hash != expected:
        return "it is not the entry that was seen earlier under this number"
    return ""


def _verdict(last: Head, first_bad: int | None, fault: str) -> Verdict:
    return Verdict(entries=last.number, head=last if last.number else None, first_bad=first_bad, fault=fault)
