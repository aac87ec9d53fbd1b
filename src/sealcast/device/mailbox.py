"""Messages between peers on the disk of a device: those to send, and those received and not taken yet.

    DIR/messages/mail.db                  SQLite; a change is on the disk when the call returns
    DIR/messages/inbox.lock               held by the one process that takes what comes in
    DIR/messages/to-<site id>-<name>.lock held by the one process that delivers to a peer

Peers are written `<site id>:<name>` here, whatever their site. What was acknowledged is never dropped: an
inbox that is full takes no more. What has waited too long to be sent is dropped, and told of.
Spec: spec/side-channel.md section 5.
"""

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sealcast import system
from sealcast.device.folder import MESSAGES
from sealcast.errors import OutboxFullError, StorageError, UsageError
from sealcast.pki.files import PRIVATE, storage_errors
from sealcast.sidechannel.peer_messages import (
    MAX_MESSAGE_DATA,
    MAX_MESSAGES,
    MAX_MESSAGES_BYTES,
    MESSAGE_FIELDS,
    PostedMessage,
)
from sealcast.system import sync_folder

REMEMBERED = 16_384
"""Ids of each sender that are kept to know a message again (SC-37)."""

FORGOTTEN_AFTER = 90 * 24 * 3600 * 1_000_000
"""Microseconds after which the ids of a sender that says nothing any more are dropped."""

_DATABASE = "mail.db"
_VERSION = 1
_BUSY_SECONDS = 10.0
_SHARE = 4
"""One peer may fill this part of a box, so that a greedy or dead one leaves room for the others."""

_TABLES = """
CREATE TABLE outbox (
    number INTEGER PRIMARY KEY AUTOINCREMENT, peer TEXT NOT NULL, id BLOB NOT NULL UNIQUE,
    topic TEXT, time INTEGER NOT NULL, data BLOB NOT NULL);
CREATE INDEX outbox_by_peer ON outbox (peer, number);
CREATE TABLE inbox (
    number INTEGER PRIMARY KEY AUTOINCREMENT, peer TEXT NOT NULL, id BLOB NOT NULL,
    topic TEXT, time INTEGER NOT NULL, data BLOB NOT NULL);
CREATE TABLE seen (
    peer TEXT NOT NULL, id BLOB NOT NULL, ordinal INTEGER NOT NULL, time INTEGER NOT NULL,
    PRIMARY KEY (peer, id)) WITHOUT ROWID;
CREATE INDEX seen_by_ordinal ON seen (peer, ordinal);
CREATE TABLE held (
    box TEXT NOT NULL, peer TEXT NOT NULL, messages INTEGER NOT NULL, bytes INTEGER NOT NULL,
    PRIMARY KEY (box, peer)) WITHOUT ROWID;
CREATE TABLE places (peer TEXT PRIMARY KEY, host TEXT NOT NULL, port INTEGER NOT NULL) WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What a box holds at the most; one peer may fill a quarter of it."""

    messages: int = 100_000
    bytes: int = 256 << 20
    age: int = 7 * 24 * 3600 * 1_000_000
    """Microseconds after which a message that could not be delivered is dropped; of the outbox alone."""

    def __post_init__(self) -> None:
        least = _SHARE * (MAX_MESSAGE_DATA + 1024)
        if self.messages < _SHARE or self.bytes < least or self.age <= 0:
            raise UsageError(
                f"a box of {self.messages} messages, {self.bytes} bytes, {self.age} µs",
                cure=f"use at least {_SHARE} messages and {least} bytes, and an age above 0",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredMessage:
    """A message that has come in."""

    number: int
    """Its place in the inbox."""
    peer: str
    """Who sent it: `<site id>:<name>`."""
    id: bytes
    topic: str | None
    time: int
    """When it was given to the sender's outbox, by the sender's clock; microseconds."""
    data: bytes


class Mailbox:
    """The database. Every method blocks, until the disk has it if it changes something; not for two threads
    at once.
    """

    def __init__(self, folder: Path) -> None:
        """Open the mailbox of a device's folder, or make it. Raises: StorageError."""
        self._path = folder / MESSAGES / _DATABASE
        with storage_errors(self._path.parent):
            if not self._path.parent.is_dir():
                self._path.parent.mkdir(mode=0o700, exist_ok=True)
                sync_folder(folder)
            # Readable by nobody else from its first byte on.
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, PRIVATE))
        with self._errors():
            self._database = sqlite3.connect(
                self._path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            try:
                self._database.execute("PRAGMA journal_mode = WAL")
                self._database.execute("PRAGMA synchronous = FULL")
                self._make_tables()
                sync_folder(self._path.parent)
            except BaseException:
                self._database.close()
                raise

    def close(self) -> None:
        """Close the database."""
        with self._errors():
            self._database.close()

    # -- outbox ----------------------------------------------------------------------------------------------

    def queue(self, peer: str, messages: Sequence[PostedMessage], bounds: Bounds) -> None:
        """Put messages behind those that wait for a peer: all of them, or none.

        Raises: OutboxFullError, StorageError.
        """
        with self._transaction():
            self._charge_outbox(peer, messages, bounds)
            self._database.executemany(
                "INSERT INTO outbox (peer, id, topic, time, data) VALUES (?, ?, ?, ?, ?)",
                [(peer, each.id, each.topic, each.time, each.data) for each in messages],
            )

    def next_batch(self, peer: str) -> list[PostedMessage]:
        """The first messages that wait for a peer: as many as one request takes."""
        batch: list[PostedMessage] = []
        room = MAX_MESSAGES_BYTES
        with self._errors():
            # Row by row: the cursor reads no more than is looked at.
            rows = self._database.execute(
                "SELECT id, topic, time, data FROM outbox WHERE peer = ? ORDER BY number LIMIT ?",
                (peer, MAX_MESSAGES),
            )
            for id, topic, time, data in rows:
                message = PostedMessage(id=id, topic=topic, time=time, data=data)
                room -= message.size + MESSAGE_FIELDS
                if batch and room < 0:
                    break
                batch.append(message)
            rows.close()
        return batch

    def delivered(self, peer: str, messages: Sequence[PostedMessage]) -> None:
        """The peer has them: drop them."""
        with self._transaction():
            for each in messages:
                if self._database.execute("DELETE FROM outbox WHERE id = ?", (each.id,)).rowcount:
                    self._hold("outbox", peer, -1, -each.size)

    def expired(self, peer: str, now: int, bounds: Bounds) -> list[bytes]:
        """Drop what has waited for a peer for too long; returns the ids."""
        rows = self._all(
            "SELECT id, length(data), topic FROM outbox WHERE peer = ? AND time <= ? ORDER BY number",
            (peer, now - bounds.age),
        )
        if not rows:
            return []
        with self._transaction():
            for id, length, topic in rows:
                if self._database.execute("DELETE FROM outbox WHERE id = ?", (id,)).rowcount:
                    self._hold("outbox", peer, -1, -_size(length, topic))
        return [id for id, _, _ in rows]

    def waiting(self, peer: str) -> int:
        """How many messages wait for a peer."""
        return self._held("outbox", peer)[0]

    def waits(self, id: bytes) -> bool:
        """Whether a message still waits to be delivered."""
        return bool(self._all("SELECT 1 FROM outbox WHERE id = ?", (id,)))

    def note_place(self, peer: str, place: tuple[str, int]) -> None:
        """Remember where a peer was reached, for when the key server is away."""
        if self.place(peer) != place:
            with self._transaction():
                self._database.execute("REPLACE INTO places VALUES (?, ?, ?)", (peer, *place))

    def place(self, peer: str) -> tuple[str, int] | None:
        """Where a peer was reached last."""
        for host, port in self._all("SELECT host, port FROM places WHERE peer = ?", (peer,)):
            return host, port
        return None

    # -- inbox -----------------------------------------------------------------------------------------------

    def store(self, peer: str, messages: Sequence[PostedMessage], now: int, bounds: Bounds) -> int:
        """Store what a peer has sent, in this order, each id once.

        Returns: how many of the first of them are here now; fewer than all if there is no room.
        """
        with self._transaction():
            mine, total = self._held("inbox", peer), self._held("inbox", None)
            [(ordinal,)] = self._all("SELECT coalesce(max(ordinal), 0) FROM seen WHERE peer = ?", (peer,))
            count = added = size = 0
            for each in messages:
                if not self._all("SELECT 1 FROM seen WHERE peer = ? AND id = ?", (peer, each.id)):
                    added, size, ordinal = added + 1, size + each.size, ordinal + 1
                    if not (
                        _fits(mine, added, size, bounds, _SHARE) and _fits(total, added, size, bounds, 1)
                    ):
                        added, size = added - 1, size - each.size
                        break
                    self._database.execute(
                        "INSERT INTO inbox (peer, id, topic, time, data) VALUES (?, ?, ?, ?, ?)",
                        (peer, each.id, each.topic, each.time, each.data),
                    )
                    self._database.execute(
                        "INSERT INTO seen VALUES (?, ?, ?, ?)", (peer, each.id, ordinal, now)
                    )
                count += 1
            if added:
                self._hold("inbox", peer, added, size)
                self._database.execute(
                    "DELETE FROM seen WHERE peer = ? AND ordinal <= ?", (peer, ordinal - REMEMBERED)
                )
        return count

    def forget(self, now: int) -> None:
        """Drop the ids of senders that have said nothing for a long time."""
        with self._transaction():
            self._database.execute(
                "DELETE FROM seen WHERE peer IN (SELECT peer FROM seen GROUP BY peer HAVING max(time) <= ?)",
                (now - FORGOTTEN_AFTER,),
            )

    def received(self, after: int, limit: int) -> list[StoredMessage]:
        """The next messages that have come in, behind number `after`."""
        rows = self._all(
            "SELECT number, peer, id, topic, time, data FROM inbox WHERE number > ? ORDER BY number LIMIT ?",
            (after, limit),
        )
        names = ("number", "peer", "id", "topic", "time", "data")
        return [StoredMessage(**dict(zip(names, row, strict=True))) for row in rows]

    def taken(self, last: int) -> None:
        """The application is done with all up to number `last`: drop them; their ids stay known."""
        with self._transaction():
            rows = self._all("SELECT peer, length(data), topic FROM inbox WHERE number <= ?", (last,))
            self._database.execute("DELETE FROM inbox WHERE number <= ?", (last,))
            for peer, length, topic in rows:
                self._hold("inbox", peer, -1, -_size(length, topic))

    # -- inside ----------------------------------------------------------------------------------------------

    def _make_tables(self) -> None:
        with self._transaction():
            [(version,)] = self._database.execute("PRAGMA user_version").fetchall()
            if version > _VERSION:
                raise StorageError(
                    str(self._path), f"of a newer version, {version}", cure="use that version of Sealcast"
                )
            if version == 0:
                for statement in filter(str.strip, _TABLES.split(";")):
                    self._database.execute(statement)
                self._database.execute(f"PRAGMA user_version = {_VERSION}")

    def _charge_outbox(self, peer: str, messages: Sequence[PostedMessage], bounds: Bounds) -> None:
        added, size = len(messages), sum(each.size for each in messages)
        for whose, share in ((peer, _SHARE), (None, 1)):
            held = self._held("outbox", whose)
            if not _fits(held, added, size, bounds, share):
                raise OutboxFullError(
                    str(self._path),
                    f"the outbox is full: {held[0]} messages of {held[1]} bytes wait"
                    f"{'' if whose is None else f' for {whose}'}, {added} of {size} bytes were to come, "
                    f"and it takes {bounds.messages // share} of {bounds.bytes // share}",
                )
        self._hold("outbox", peer, added, size)

    def _held(self, box: str, peer: str | None) -> tuple[int, int]:
        """Messages and bytes of a peer in a box; of all peers without one."""
        [(messages, size)] = self._all(
            "SELECT coalesce(sum(messages), 0), coalesce(sum(bytes), 0) FROM held "
            "WHERE box = ? AND coalesce(?, peer) = peer",
            (box, peer),
        )
        return messages, size

    def _hold(self, box: str, peer: str, messages: int, size: int) -> None:
        self._database.execute(
            "INSERT INTO held VALUES (?, ?, ?, ?) ON CONFLICT (box, peer) "
            "DO UPDATE SET messages = messages + excluded.messages, bytes = bytes + excluded.bytes",
            (box, peer, messages, size),
        )

    def _all(self, question: str, values: tuple[str | int | bytes | None, ...]) -> list[Any]:
        with self._errors():
            return self._database.execute(question, values).fetchall()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._errors():
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._database.execute("COMMIT")
            except BaseException:
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
                raise

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise StorageError(
                str(self._path),
                str(error),
                cure="see whether the disk has room; if it is damaged, remove it: what waits in it is lost",
            ) from error


@contextmanager
def sole_holder(folder: Path, name: str) -> Iterator[bool]:
    """Try to hold a lock of the mailbox that one process has at a time; whether it is held now.

    `name`: of the lock. Raises: StorageError.
    """
    path = folder / MESSAGES / f"{name}.lock"
    with storage_errors(path):
        path.parent.mkdir(mode=0o700, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, PRIVATE)
    try:
        try:
            is_held = system.lock(descriptor)
        except OSError:
            is_held = False
        yield is_held
    finally:
        os.close(descriptor)


def _fits(held: tuple[int, int], added: int, size: int, bounds: Bounds, share: int) -> bool:
    return held[0] + added <= bounds.messages // share and held[1] + size <= bounds.bytes // share


def _size(length: int, topic: str | None) -> int:
    return length + len((topic or "").encode())
