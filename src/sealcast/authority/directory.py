"""The directory of live streams, as rows (SC-5, SC-18).

An entry's head only moves forward, and its end is final: an old or reordered update changes nothing (DP-27).
"""

from dataclasses import dataclass

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from sealcast.authority.models import StreamRow

MAX_STREAMS_PER_DEVICE = 64
"""Per channel; a device that restarts often keeps its latest ones. More would let one device fill the
disk.
"""

SILENT = 60_000_000
"""Microseconds after which a stream that is not renewed is taken for dead; publishers renew every 10 s
(SC-5).
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredStream:
    """An entry of the directory. Its credential has been verified when it was stored."""

    stream: bytes
    """16 bytes."""
    device: str
    instance: str
    credential: bytes
    head: bytes | None
    next_sequence: int
    """From the head; 0 without one."""
    final: bool
    endpoint: tuple[str, int] | None
    not_after: int
    """End of the credential, microseconds."""


def load_streams(session: Session, channel: str) -> tuple[StoredStream, ...]:
    """The entries of a channel, oldest update first."""
    rows = session.scalars(select(StreamRow).where(StreamRow.channel == channel).order_by(StreamRow.updated))
    return tuple(
        StoredStream(
            stream=row.stream_id,
            device=row.device,
            instance=row.instance,
            credential=row.credential,
            head=row.head,
            next_sequence=row.next_sequence,
            final=row.final,
            endpoint=None if row.host is None or row.port is None else (row.host, row.port),
            not_after=row.not_after,
        )
        for row in rows
    )


def put_stream(session: Session, channel: str, entry: StoredStream, now: int) -> None:
    """Store an entry, or bring it up to date."""
    host, port = entry.endpoint if entry.endpoint is not None else (None, None)
    row = session.get(StreamRow, (channel, entry.stream))
    if row is None:
        _make_room(session, channel, entry.device, entry.instance, now)
        session.add(
            StreamRow(
                channel=channel,
                stream_id=entry.stream,
                device=entry.device,
                instance=entry.instance,
                credential=entry.credential,
                head=entry.head,
                next_sequence=entry.next_sequence,
                final=entry.final,
                host=host,
                port=port,
                not_after=entry.not_after,
                updated=now,
            )
        )
        return
    if row.final or entry.next_sequence < row.next_sequence:
        return
    row.credential, row.not_after = entry.credential, entry.not_after
    row.host, row.port = host, port
    row.updated = now
    if entry.head is not None:
        row.head, row.next_sequence, row.final = entry.head, entry.next_sequence, entry.final


def drop_ended(session: Session, now: int) -> None:
    """Forget entries whose credential has ended."""
    session.execute(delete(StreamRow).where(StreamRow.not_after <= now))


def _make_room(session: Session, channel: str, device: str, instance: str, now: int) -> None:
    """Forget entries of a device that are of no more use, before a new one is added.

    The latest of the same instance stays, whatever its age: it is what the new stream succeeds (DP-32).
    """
    rows = session.scalars(
        select(StreamRow)
        .where(StreamRow.channel == channel, StreamRow.device == device)
        .order_by(StreamRow.updated.desc())
    ).all()
    older = [row for row in rows if row.instance == instance][1:]
    silent = [row for row in older if now - row.updated > SILENT]
    for row in {*silent, *rows[MAX_STREAMS_PER_DEVICE - 1 :]}:
        session.delete(row)
    session.flush()
