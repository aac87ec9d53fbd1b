"""The sending side of files: offers, the pieces that somebody lacks, and the question who lacks what.

Files go out in batches. Each is hashed and offered before its first byte, so that what a receiver has, from
an earlier run or another one, is not sent anew; then the pieces that are asked for are sent and the question
is put again, until all have everything or one has been silent for too long.

Spec: spec/side-channel.md section 4, SC-46 and SC-47 above all.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from sealcast import system
from sealcast.endpoint.listing import Listing, Source, list_files
from sealcast.endpoint.runs import Runs
from sealcast.endpoint.transfer import (
    MAX_OFFERS,
    PIECE_BYTES,
    TOPIC,
    Ask,
    Offer,
    OnProgress,
    Part,
    Progress,
    SentFile,
    Withdrawal,
)
from sealcast.errors import IncompleteError, StorageError
from sealcast.pki.files import storage_errors
from sealcast.sidechannel.peer_messages import FileReport

if TYPE_CHECKING:
    from sealcast.endpoint.publisher import Publisher

_BATCH_BYTES = 1 << 30
"""Of a batch, or one file: what is hashed before its first byte goes out."""
_READ_PIECES = 16
"""Read at once, off the event loop: 4 MiB."""
_HASH_BYTES = 1 << 20
_MAX_PASSES = 32
"""Over one batch: nobody makes a sender go on for ever."""
_MAX_RUNS = 4096
"""Of pieces that are wanted of a file; beyond it all between is sent."""
_FIRST_ANSWER_SECONDS = 5.0
_ANSWER_SECONDS = 1.0
_ASK_AGAIN_SECONDS = 0.25
"""What follows a packet shows at once that it was lost; a heartbeat would show it after a second."""
_IDLE_SECONDS = 0.25
_OFFER_SECONDS = 1.0
"""Within it a file that is being sent is offered again, to those who have just come."""
_MEMBERS_SECONDS = 0.5
_SPREAD_MILLISECONDS, _MAX_SPREAD_MILLISECONDS = 1, 2000
"""For each member, and for all."""


@dataclass(slots=True, kw_only=True)
class _Entry:
    """A file of the batch that is being sent."""

    source: Source
    offer: Offer
    id: bytes
    state: tuple[int, ...]
    """What an operating system says of a file that nobody has changed."""
    wanted: Runs = field(default_factory=Runs)

    def want(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Note pieces that somebody lacks."""
        for first, last in ranges:
            if first < self.offer.pieces:
                self.wanted.add(first, min(last, self.offer.pieces - 1))
        if len(self.wanted) > _MAX_RUNS:
            (first, _), *_, (_, last) = self.wanted.ranges()
            self.wanted.add(first, last)


@dataclass(slots=True)
class _Batch:
    """What is offered at the moment, and who has said what of it."""

    entries: list[_Entry]
    round: int
    index: dict[bytes, int] = field(init=False)
    settled: dict[str, set[int]] = field(default_factory=dict)
    """By device: what it has whole, or refuses."""
    whole: dict[int, set[str]] = field(default_factory=dict)
    answered: set[str] = field(default_factory=set)
    """Who has answered the present question."""
    busy: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.index = {entry.id: place for place, entry in enumerate(self.entries)}

    def owes(self, device: str) -> bool:
        """Whether a device has neither taken nor refused all."""
        return len(self.settled.get(device, ())) < len(self.entries)


class FileSender:
    """Sends files through a publisher, which hands it the reports of receivers."""

    def __init__(self, publisher: Publisher, on_progress: OnProgress | None = None) -> None:
        """Take the publisher, which has to be open, and who is told of the progress."""
        self._publisher = publisher
        self._on_progress = on_progress or (lambda _progress: None)
        self._batch: _Batch | None = None
        self._news = asyncio.Event()
        # Who is still waited for, who was given up, and what was refused.
        self._waiting: set[str] = set()
        self._silent: set[str] = set()
        self._refusals: dict[tuple[str, str], str] = {}
        self._spread = 0
        self._round = 0

    def report(self, device: str, report: FileReport) -> None:
        """Take the report of a receiver; what it says of other files than those of the moment is dropped."""
        batch = self._batch
        if batch is None:
            return
        places = batch.index
        settled = batch.settled.setdefault(device, set())
        for file in report.whole:
            if (place := places.get(file)) is not None:
                settled.add(place)
                batch.whole.setdefault(place, set()).add(device)
        for file, reason in report.refused:
            if (place := places.get(file)) is not None:
                settled.add(place)
                self._refusals[device, batch.entries[place].offer.name] = reason
        if report.round == batch.round:
            if report.is_busy:
                batch.busy.add(device)
            else:
                batch.answered.add(device)
                for file, ranges in report.missing:
                    if (place := places.get(file)) is not None:
                        batch.entries[place].want(ranges)
        self._news.set()

    async def send(self, paths: Sequence[Path | str] | Listing, *, linger: float) -> tuple[SentFile, ...]:
        """Send files; see `Publisher.send_files`."""
        listing = paths if isinstance(paths, Listing) else await asyncio.to_thread(list_files, paths)
        members = await self._someone(linger)
        self._waiting = set(members)
        self._spread = min(len(members) * _SPREAD_MILLISECONDS, _MAX_SPREAD_MILLISECONDS)
        sent: list[SentFile] = []
        count = len(listing.sources)
        numbered = [*enumerate(listing.sources)]
        batches = _batches(numbered)
        is_over = threading.Event()

        def offers() -> asyncio.Future[list[_Entry]]:
            return asyncio.ensure_future(asyncio.to_thread(_offers, next(batches, []), count, is_over))

        following = offers()
        try:
            while entries := await following:
                # The next ones are hashed while these are sent.
                following = offers()
                self._round += 1
                self._batch = batch = _Batch(entries, self._round)
                await self._send_batch(batch, linger)
                for place, entry in enumerate(entries):
                    if entry.offer.sha256 is not None:
                        sent.append(_sent(entry, entry.offer.sha256, batch.whole.get(place, set())))
        finally:
            self._batch = None
            is_over.set()
            await asyncio.gather(following, return_exceptions=True)
        self._judge(linger)
        return tuple(sent)

    async def _send_batch(self, batch: _Batch, linger: float) -> None:
        loop = asyncio.get_running_loop()
        await self._ask(batch)
        await self._answers(batch, min(_FIRST_ANSWER_SECONDS, linger), linger)
        if any(device not in batch.answered for device in self._owing(batch)):
            # One that says nothing may have nothing.
            for entry in batch.entries:
                entry.want([(0, entry.offer.pieces - 1)] if entry.offer.pieces else [])
        self._tell_of_what_is_there(batch)
        passes, deadline = 0, loop.time() + linger
        while True:
            if passes < _MAX_PASSES and any(entry.wanted.count for entry in batch.entries):
                await self._send_wanted(batch, is_first=passes == 0)
                passes, deadline = passes + 1, loop.time() + linger
            elif not (owing := self._owing(batch)):
                break
            elif loop.time() >= deadline or passes >= _MAX_PASSES:
                self._silent |= owing
                self._waiting -= owing
                break
            else:
                await asyncio.sleep(min(_IDLE_SECONDS, linger))
            await self._ask(batch)
            await self._answers(batch, min(_ANSWER_SECONDS, linger), linger)

    def _owing(self, batch: _Batch) -> set[str]:
        # One that the policy lists no more has been removed, and is not to have the files.
        return {
            device for device in self._waiting if batch.owes(device) and self._publisher.is_listed(device)
        }

    async def _ask(self, batch: _Batch) -> None:
        """Offer everything and ask who lacks what; who has come meanwhile learns what there is."""
        messages = [entry.offer.serialize() for entry in batch.entries]
        messages.append(self._question(batch))
        batch.answered.clear()
        await self._publisher.send_many(messages, topic=TOPIC)
        await self._publisher.drained()

    def _question(self, batch: _Batch) -> bytes:
        return Ask(round=batch.round, spread_milliseconds=self._spread).serialize()

    async def _answers(self, batch: _Batch, seconds: float, busy_seconds: float) -> None:
        """Wait until everybody has answered, for some seconds; longer for those that say to be busy."""
        loop = asyncio.get_running_loop()
        started, seconds = loop.time(), seconds + self._spread / 1000
        while silent := {device for device in self._owing(batch) if device not in batch.answered}:
            limit = max(seconds, busy_seconds) if silent & batch.busy else seconds
            if (left := started + limit - loop.time()) <= 0:
                return
            self._news.clear()
            try:
                async with asyncio.timeout(min(left, _ASK_AGAIN_SECONDS)):
                    await self._news.wait()
            except TimeoutError:
                await self._publisher.send(self._question(batch), topic=TOPIC)

    async def _send_wanted(self, batch: _Batch, *, is_first: bool) -> None:
        """Send what somebody lacks; answers to earlier questions tell nothing new from now on."""
        self._round = batch.round = batch.round + 1
        batch.busy.clear()
        for entry in batch.entries:
            if entry.wanted.count:
                wanted, entry.wanted = entry.wanted, Runs()
                await self._send_pieces(entry, wanted, tell=is_first)

    async def _send_pieces(self, entry: _Entry, wanted: Runs, *, tell: bool) -> None:
        loop, publisher, offer = asyncio.get_running_loop(), self._publisher, entry.offer
        announcement = offer.serialize()
        path = entry.source.path
        left = wanted.count * PIECE_BYTES
        if offer.pieces - 1 in wanted:
            left += offer.length(offer.pieces - 1) - PIECE_BYTES
        due = 0.0
        with storage_errors(path):
            file = await asyncio.to_thread(system.open_file, path, os.O_RDONLY)
        reading: asyncio.Future[list[bytes]] | None = None
        try:
            reads = _reads(wanted)
            if (now := next(reads, None)) is not None:
                reading = asyncio.ensure_future(asyncio.to_thread(_parts, file, entry, *now))
            while reading is not None:
                parts = await reading
                # The disk reads ahead while the network sends.
                now = next(reads, None)
                reading = (
                    None
                    if now is None
                    else asyncio.ensure_future(asyncio.to_thread(_parts, file, entry, *now))
                )
                for part in parts:
                    if loop.time() >= due:
                        await publisher.send(announcement, topic=TOPIC)
                        due = loop.time() + _OFFER_SECONDS
                    await publisher.send(part, topic=TOPIC)
                    left = max(left - PIECE_BYTES, 0)
                    if tell:
                        self._tell(entry, offer.size - left)
            if _state(file) != entry.state:
                raise _changed(path)
        except StorageError:
            await publisher.send(Withdrawal(file=entry.id).serialize(), topic=TOPIC)
            raise
        finally:
            if reading is not None:
                # It must not read from a descriptor that is another file's by then.
                with suppress(Exception):
                    await asyncio.shield(reading)
            os.close(file)

    def _tell(self, entry: _Entry, done: int) -> None:
        offer = entry.offer
        self._on_progress(
            Progress(name=offer.name, size=offer.size, done=done, number=offer.number, count=offer.count)
        )

    def _tell_of_what_is_there(self, batch: _Batch) -> None:
        for entry in batch.entries:
            if not entry.wanted.count:
                self._tell(entry, entry.offer.size)

    async def _someone(self, linger: float) -> frozenset[str]:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + linger
        while not (members := await self._publisher.members()):
            if loop.time() >= deadline:
                raise IncompleteError(
                    f"nobody has joined channel {self._publisher.channel!r}",
                    cure="start `sealcast receive` on the other devices first",
                )
            await asyncio.sleep(min(_MEMBERS_SECONDS, linger))
        return frozenset(members)

    def _judge(self, linger: float) -> None:
        """Raises: IncompleteError, which names whoever has not everything."""
        problems = []
        if silent := sorted(filter(self._publisher.is_listed, self._silent)):
            problems.append(f"not acknowledged within {linger:g} s by: {', '.join(silent)}")
        refused: dict[str, list[str]] = {}
        for (device, name), reason in sorted(self._refusals.items()):
            if self._publisher.is_listed(device):
                refused.setdefault(device, []).append(f"{name!r} ({reason})")
        for device, names in refused.items():
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            problems.append(f"refused by {device}: {', '.join(names[:3])}{more}")
        if problems:
            raise IncompleteError(
                "; ".join(problems),
                cure="see whether they are running and what they say, then send again: what they have "
                "is not sent anew",
            )


def _batches(numbered: list[tuple[int, Source]]) -> Iterator[list[tuple[int, Source]]]:
    batch: list[tuple[int, Source]] = []
    size = 0
    for number, source in numbered:
        if batch and (len(batch) == MAX_OFFERS or size + (source.size or 0) > _BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append((number, source))
        size += source.size or 0
    if batch:
        yield batch


def _offers(batch: list[tuple[int, Source]], count: int, is_over: threading.Event) -> list[_Entry]:
    """Read files once through, and say what they are. Raises: StorageError."""
    entries = []
    for number, source in batch:
        sha256, size, state = (None, 0, ()) if source.size is None else _hash(source.path, is_over)
        offer = Offer(number=number, count=count, name=source.name, size=size, sha256=sha256)
        entries.append(_Entry(source=source, offer=offer, id=offer.id, state=state))
    return entries


def _hash(path: Path, is_over: threading.Event) -> tuple[bytes, int, tuple[int, ...]]:
    """SHA-256, size and state of a file; less of it once nobody wants to know any more."""
    digest, size, buffer = hashlib.sha256(), 0, bytearray(_HASH_BYTES)
    with storage_errors(path), path.open("rb", buffering=0) as file:
        state = _state(file.fileno())
        while (read := file.readinto(buffer)) and not is_over.is_set():
            digest.update(memoryview(buffer)[:read])
            size += read
        if not is_over.is_set() and (_state(file.fileno()) != state or size != state[2]):
            raise _changed(path)
    return digest.digest(), size, state


def _state(file: int) -> tuple[int, ...]:
    status = os.fstat(file)
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _changed(path: Path) -> StorageError:
    return StorageError(str(path), "changes while it is being sent", cure="send it when nobody writes it")


def _reads(wanted: Runs) -> Iterator[tuple[int, int]]:
    """First piece and how many, of what is read at once."""
    for first, last in wanted.ranges():
        for piece in range(first, last + 1, _READ_PIECES):
            yield piece, min(_READ_PIECES, last + 1 - piece)


def _parts(file: int, entry: _Entry, first: int, count: int) -> list[bytes]:
    """Read pieces and make messages of them. Raises: StorageError."""
    path, offer = entry.source.path, entry.offer
    if _state(file) != entry.state:
        raise _changed(path)
    start = first * PIECE_BYTES
    wanted = min(count * PIECE_BYTES, offer.size - start)
    with storage_errors(path):
        data = memoryview(system.read_at(file, wanted, start))
    if len(data) != wanted:
        raise _changed(path)
    return [
        Part(file=entry.id, offset=start + at, data=data[at : at + PIECE_BYTES]).serialize()
        for at in range(0, wanted, PIECE_BYTES)
    ]


def _sent(entry: _Entry, sha256: bytes, receivers: set[str]) -> SentFile:
    return SentFile(
        path=entry.source.path,
        name=entry.offer.name,
        size=entry.offer.size,
        sha256=sha256,
        receivers=tuple(sorted(receivers)),
    )
