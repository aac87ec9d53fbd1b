"""The receiving side of files: what is offered is taken piece by piece, and has its name once it is whole.

Pieces come in any order, from any stream of the publisher. What is not here when the publisher asks is said
to it over the side channel, and comes again. A file that was interrupted stays as a partial file, and is gone
on with when it is offered again.

Spec: spec/side-channel.md section 4.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import OrderedDict
from collections.abc import AsyncGenerator, Iterable
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from typing import TYPE_CHECKING

from sealcast import _core
from sealcast.endpoint.destination import BAD_NAME_ERRORS, Destination
from sealcast.endpoint.events import Alarm, Event, Gap, Loss, MessageLost, Refused, StreamClosed, StreamEnded
from sealcast.endpoint.listing import is_file_name
from sealcast.endpoint.partial import MAX_RUNS, PartialFile, sweep
from sealcast.endpoint.piece_writer import PieceWriter
from sealcast.endpoint.transfer import (
    MAX_OFFERS,
    PIECE_BYTES,
    TOPIC,
    Ask,
    Offer,
    OnLoss,
    OnProgress,
    Part,
    Progress,
    ReceivedFile,
    Withdrawal,
    parse_message,
)
from sealcast.errors import StorageError
from sealcast.sidechannel.peer_messages import MAX_MISSING_RANGES, MAX_REASON, FileReport

if TYPE_CHECKING:
    from sealcast.endpoint.subscriber import Subscriber

log = logging.getLogger(__name__)

MAX_PARTIAL_FILES = 64
"""Of one publisher that have begun and are not whole; of further ones nothing is taken for the time being."""
MAX_PUBLISHERS = 64
"""Whose offers are kept."""

_BUSY_SECONDS = 0.5
_REPORT_EVERY_SECONDS = 0.2
"""A publisher that asks all the time is told no more often."""
_FAREWELL_SECONDS = 2.0
_REMEMBERED = 4096
_REPORTED_RANGES = 4096
"""In one report, of all files: it fits the body of a request."""


class _State(Enum):
    OFFERED = auto()
    """Nobody has looked yet what is here of it."""
    TAKING = auto()
    WHOLE = auto()
    REFUSED = auto()


@dataclass(slots=True, kw_only=True)
class _Transfer:
    """A file that is offered."""

    offer: Offer
    id: bytes
    publisher: str
    stream: bytes
    """The latest one that has offered it."""
    partial: PartialFile
    state: _State = _State.OFFERED
    reason: str = ""
    """Why it is refused."""
    has_begun: bool = False


@dataclass(slots=True)
class _Stream:
    """What a publisher has said on one stream."""

    publisher: str
    round: int = 0
    next_number: int = 0
    """One above the highest that was offered."""
    count: int = 0
    report: asyncio.Task[None] | None = None
    next_report: float = 0.0


class FileReceiver:
    """Writes files into a folder; each has its name only when it is whole and its hash is right.

    A file that is there already is kept, and the new one refused, unless it was received here from the same
    publisher before; one that is there byte for byte counts as received.
    """

    def __init__(
        self,
        folder: Path,
        on_progress: OnProgress | None = None,
        on_loss: OnLoss | None = None,
        *,
        overwrite: bool = False,
    ) -> None:
        """Prepare.

        Args:
            folder: to write into; has to be there.
            on_progress: is told how far each file has come.
            on_loss: is told, in a line, of each file that does not come; by default the log.
            overwrite: replace whatever file is there.
        """
        self.unnamed_losses = 0
        """What was lost while nothing was known of its publisher's files: files may be among it."""
        self._lost: dict[tuple[str, str], None] = {}
        self._destination = Destination(folder, overwrite=overwrite)
        self._on_progress = on_progress or (lambda _progress: None)
        self._on_loss = on_loss or log.warning
        self._transfers: OrderedDict[str, OrderedDict[bytes, _Transfer]] = OrderedDict()
        self._streams: OrderedDict[bytes, _Stream] = OrderedDict()
        self._writer = PieceWriter()
        # What was handed on, so that it is handed on once.
        self._told: OrderedDict[tuple[str, bytes], None] = OrderedDict()

    @property
    def lost(self) -> list[str]:
        """Names of the files that were offered and are not here."""
        return [name for _, name in self._lost]

    def unfinished(self) -> list[tuple[str, int, int]]:
        """Name, bytes that are here, and size, of each file that has begun and is not whole."""
        return [
            (transfer.offer.name, transfer.partial.done, transfer.offer.size)
            for transfers in self._transfers.values()
            for transfer in transfers.values()
            if transfer.has_begun and transfer.state is _State.TAKING
        ]

    async def receive(self, subscriber: Subscriber) -> AsyncGenerator[ReceivedFile]:
        """Iterate over whole files as they come in; `lost` names the others.

        Raises:
            StorageError: the folder cannot be written.
            CertificateError, NotAllowedError, UnknownChannelError: the site refuses this device from now on;
                what was half-written is removed.
        """
        folder = self._destination.path
        if count := await asyncio.to_thread(sweep, folder):
            log.info("%s: removed %d half-written files that nobody goes on with", folder, count)
        try:
            async for item in subscriber.items():
                if isinstance(item, Refused) and (refusal := subscriber.refusal(item)) is not None:
                    await self._drop_all(str(refusal))
                    raise refusal
                if isinstance(item, Event):
                    await self._judge(item)
                elif item.topic == TOPIC:
                    for received in await self._take(subscriber, item):
                        yield received
        finally:
            await self._end(subscriber)

    # -- messages --------------------------------------------------------------------------------------------

    async def _take(self, subscriber: Subscriber, message: _core.Message) -> list[ReceivedFile]:
        match parse_message(message.data):
            case Part() as part:
                return await self._part(message, part)
            case Offer() as offer:
                await self._offer(message, offer)
            case Ask() as ask:
                return await self._answer(subscriber, message, ask)
            case Withdrawal(file=file):
                transfer = self._find(message, file)
                if transfer is not None and transfer.state in (_State.OFFERED, _State.TAKING):
                    await self._drop(transfer, "it changes while it is being sent")
            case None:
                log.warning("a message of %s on topic %s is no part of a file", message.publisher, TOPIC)
        return []

    def _find(self, message: _core.Message, file: bytes) -> _Transfer | None:
        transfers = self._transfers.get(message.publisher)
        return None if transfers is None else transfers.get(file)

    async def _offer(self, message: _core.Message, offer: Offer) -> None:
        publisher, id = message.publisher, offer.id
        stream = self._stream(message.stream_id, publisher)
        stream.next_number = max(stream.next_number, offer.number + 1)
        stream.count = max(stream.count, offer.count)
        transfers = self._transfers.setdefault(publisher, OrderedDict())
        self._transfers.move_to_end(publisher)
        if len(self._transfers) > MAX_PUBLISHERS:
            await self._forget(self._transfers.popitem(last=False)[1].values())
        transfer = transfers.get(id)
        if transfer is None:
            transfer = transfers[id] = _Transfer(
                offer=offer,
                id=id,
                publisher=publisher,
                stream=message.stream_id,
                partial=PartialFile(self._destination.path, offer, publisher),
            )
            if not is_file_name(offer.name):
                self._refuse(transfer, "no plain file name")
        elif transfer.stream != message.stream_id:
            # Another run: what was here may not be any more, and what was in the way may be gone.
            transfer.stream, transfer.offer = message.stream_id, offer
            if transfer.state in (_State.WHOLE, _State.REFUSED) and is_file_name(offer.name):
                transfer.state = _State.OFFERED
        transfers.move_to_end(id)
        if len(transfers) > 2 * MAX_OFFERS:
            await self._forget([transfers.popitem(last=False)[1]])

    def _stream(self, id: bytes, publisher: str) -> _Stream:
        stream = self._streams.setdefault(id, _Stream(publisher))
        self._streams.move_to_end(id)
        if len(self._streams) > MAX_PUBLISHERS:
            self._streams.popitem(last=False)
        return stream

    async def _forget(self, transfers: Iterable[_Transfer]) -> None:
        for transfer in transfers:
            await self._writer.finish(transfer.partial)
            self._writer.let_go(transfer.partial)

    async def _part(self, message: _core.Message, part: Part) -> list[ReceivedFile]:
        transfer = self._find(message, part.file)
        if transfer is None:
            return []  # Its offer comes again.
        found = await self._look(transfer) if transfer.state is _State.OFFERED else []
        piece, rest = divmod(part.offset, PIECE_BYTES)
        offer, partial = transfer.offer, transfer.partial
        if transfer.state is not _State.TAKING or piece in partial.have:
            return found
        if rest or piece >= offer.pieces or len(part.data) != offer.length(piece):
            log.warning("a part of file %r of %s is none of it", offer.name, message.publisher)
            return found
        if not await self._begin(transfer):
            return found
        if piece in partial.have or (len(partial.have) >= MAX_RUNS and piece - 1 not in partial.have):
            return found
        partial.have.add(piece, piece)
        await self._writer.write(partial, piece, part.data)
        self._progress(transfer)
        if partial.is_whole:
            found += await self._complete(transfer)
        return found

    async def _begin(self, transfer: _Transfer) -> bool:
        """Have its partial file open; False if that is not to be."""
        partial = transfer.partial
        if not transfer.has_begun:
            begun = self._transfers[transfer.publisher].values()
            if sum(other.has_begun and other.state is _State.TAKING for other in begun) >= MAX_PARTIAL_FILES:
                return False
        if not partial.is_open:
            await self._writer.flush()
            try:
                await asyncio.to_thread(partial.open)
            except StorageError as error:
                if isinstance(error.__cause__, OSError) and error.__cause__.errno in BAD_NAME_ERRORS:
                    self._refuse(transfer, error.detail)
                    return False
                raise
        transfer.has_begun = True
        self._writer.hold(partial)
        return True

    async def _complete(self, transfer: _Transfer) -> list[ReceivedFile]:
        """Check the hash, and give the file its name."""
        await self._writer.finish(transfer.partial)
        partial, offer = transfer.partial, transfer.offer
        if await asyncio.to_thread(partial.digest) != offer.sha256:
            await self._drop(transfer, "its hash is wrong")
            return []
        place = self._destination.place
        is_placed, problem = await asyncio.to_thread(place, partial, offer, transfer.publisher)
        if problem is not None:
            await self._drop(transfer, problem)
            return []
        if is_placed:
            self._writer.let_go(partial)
        else:
            self._writer.remove(partial)
        return self._whole(transfer, was_there=not is_placed)

    def _whole(self, transfer: _Transfer, *, was_there: bool) -> list[ReceivedFile]:
        transfer.state = _State.WHOLE
        offer, key = transfer.offer, (transfer.publisher, transfer.id)
        self._lost.pop((transfer.publisher, offer.name), None)
        if was_there:
            self._progress(transfer, offer.size)
        if offer.sha256 is None or (was_there and key in self._told):
            return []
        self._told[key] = None
        if len(self._told) > _REMEMBERED:
            self._told.popitem(last=False)
        return [
            ReceivedFile(
                path=self._destination.path / offer.name,
                size=offer.size,
                sha256=offer.sha256,
                publisher=transfer.publisher,
                was_there=was_there,
            )
        ]

    # -- what is here ----------------------------------------------------------------------------------------

    async def _look(self, transfer: _Transfer) -> list[ReceivedFile]:
        """See what is here of a file that is offered."""
        offer, partial, destination = transfer.offer, transfer.partial, self._destination
        if offer.sha256 is None:
            problem = await asyncio.to_thread(destination.make_folder, offer.name)
            if problem is None:
                return self._whole(transfer, was_there=True)
            self._refuse(transfer, problem)
            return []
        if await asyncio.to_thread(destination.holds, offer):
            if partial.is_open or transfer.has_begun:
                self._writer.remove(partial)
            return self._whole(transfer, was_there=True)
        problem = await asyncio.to_thread(destination.obstacle, offer, transfer.publisher)
        if problem is not None:
            self._refuse(transfer, problem)
            return []
        if await asyncio.to_thread(partial.find):
            transfer.has_begun = True
            self._progress(transfer)
        if partial.is_open:
            self._writer.hold(partial)
        problem = await asyncio.to_thread(destination.lack_of_room, offer, partial.done)
        if problem is not None:
            self._refuse(transfer, problem)
            return []
        transfer.state = _State.TAKING
        if partial.is_whole and await self._begin(transfer):
            return await self._complete(transfer)
        return []

    async def _answer(self, subscriber: Subscriber, message: _core.Message, ask: Ask) -> list[ReceivedFile]:
        """Say what is here of all that this stream has offered."""
        await self._writer.flush()
        stream = self._stream(message.stream_id, message.publisher)
        asked = [
            transfer
            for transfer in self._transfers.get(message.publisher, {}).values()
            if transfer.stream == message.stream_id
        ]
        found: list[ReceivedFile] = []
        loop = asyncio.get_running_loop()
        # Reading what is here may take longer than the publisher waits for those who say nothing.
        busy = loop.create_task(self._say_busy(subscriber, message.stream_id, ask.round))
        try:
            for transfer in asked:
                if transfer.state is _State.OFFERED:
                    found += await self._look(transfer)
        finally:
            busy.cancel()
            await asyncio.gather(busy, return_exceptions=True)
        if stream.report is not None and not stream.report.done():
            if stream.round == ask.round:
                # Asked once more before this answer is there.
                return found
            stream.report.cancel()
        stream.round = ask.round
        report = self._report(message.stream_id, ask.round)
        delay = ask.spread_milliseconds / 1000 * int.from_bytes(os.urandom(2)) / 0xFFFF
        delay = max(delay, stream.next_report - loop.time())
        stream.next_report = loop.time() + delay + _REPORT_EVERY_SECONDS
        stream.report = loop.create_task(_report_later(subscriber, report, delay))
        return found

    async def _say_busy(self, subscriber: Subscriber, stream: bytes, round: int) -> None:
        await asyncio.sleep(_BUSY_SECONDS)
        await subscriber.report_files(FileReport(channel=bytes(32), stream=stream, round=round, is_busy=True))

    def _report(self, stream: bytes, round: int) -> FileReport:
        transfers = [
            transfer
            for transfer in self._transfers.get(self._streams[stream].publisher, {}).values()
            if transfer.stream == stream
        ][-MAX_OFFERS:]
        missing = []
        room = _REPORTED_RANGES
        for transfer in transfers:
            if transfer.state in (_State.TAKING, _State.OFFERED) and room:
                ranges = transfer.partial.have.missing(transfer.offer.pieces)[: min(room, MAX_MISSING_RANGES)]
                room -= len(ranges)
                missing.append((transfer.id, tuple(ranges)))
        return FileReport(
            channel=bytes(32),
            stream=stream,
            round=round,
            whole=tuple(each.id for each in transfers if each.state is _State.WHOLE),
            refused=tuple((each.id, each.reason) for each in transfers if each.state is _State.REFUSED),
            missing=tuple((id, ranges) for id, ranges in missing if ranges),
        )

    # -- losses and ends -------------------------------------------------------------------------------------

    def _refuse(self, transfer: _Transfer, reason: str) -> None:
        transfer.state, transfer.reason = _State.REFUSED, reason[:MAX_REASON]
        self._writer.let_go(transfer.partial)
        self._lose(transfer, reason)

    def _lose(self, transfer: _Transfer, reason: str) -> None:
        self._lost[transfer.publisher, transfer.offer.name] = None
        if len(self._lost) > _REMEMBERED:
            self._lost.pop(next(iter(self._lost)))
        self._on_loss(f"lost: file {transfer.offer.name!r} of {transfer.publisher}: {reason}")

    async def _drop(self, transfer: _Transfer, reason: str) -> None:
        """Give a file up, with what is here of it."""
        await self._writer.finish(transfer.partial)
        self._writer.remove(transfer.partial)
        transfer.partial = PartialFile(self._destination.path, transfer.offer, transfer.publisher)
        transfer.has_begun = False
        self._refuse(transfer, reason)

    async def _drop_all(self, reason: str) -> None:
        for transfers in self._transfers.values():
            for transfer in transfers.values():
                if transfer.has_begun and transfer.state is _State.TAKING:
                    await self._drop(transfer, reason)

    async def _judge(self, event: Event) -> None:
        match event:
            case Gap(last=None) | StreamEnded():
                await self._suspend(event.stream_id, event.publisher)
            case StreamClosed():
                for transfer in tuple(self._transfers.get(event.publisher, {}).values()):
                    if transfer.stream == event.stream_id and transfer.state is _State.TAKING:
                        await self._drop(transfer, f"its stream is not accepted any more: {event.reason}")
                if event.stream_id not in self._streams:
                    self._lose_unnamed(event)
            case Gap() | MessageLost():
                # What is offered is asked for again; before the first offer nobody knows what there was.
                if event.stream_id not in self._streams:
                    self._lose_unnamed(event)
            case _:
                if isinstance(event, Alarm):
                    log.warning("%s", event)

    def _lose_unnamed(self, event: Loss) -> None:
        self.unnamed_losses += 1
        self._on_loss(str(event))

    async def _suspend(self, stream: bytes, publisher: str) -> None:
        """A publisher has ended: what is not whole waits for it to be offered again."""
        known = self._streams.pop(stream, None)
        if known is not None and known.next_number < known.count:
            self.unnamed_losses += 1
            left = known.count - known.next_number
            self._on_loss(f"lost: the last {left} files of {publisher}: it has ended before them")
        for transfer in self._transfers.get(publisher, {}).values():
            if transfer.stream != stream or transfer.state not in (_State.TAKING, _State.OFFERED):
                continue
            await self._writer.finish(transfer.partial)
            self._writer.let_go(transfer.partial)
            done, size = transfer.partial.done, transfer.offer.size
            self._lose(
                transfer, f"its publisher has ended; {done} of {size} bytes are kept until it is sent again"
            )

    async def _end(self, subscriber: Subscriber) -> None:
        """Write what has come, let go of it, and tell publishers what is here."""
        with suppress(StorageError):
            await self._writer.flush()
        under_way = [stream.report for stream in self._streams.values() if stream.report is not None]
        for report in under_way:
            report.cancel()
        # What is cancelled has a connection to close.
        await asyncio.gather(*under_way, return_exceptions=True)
        for transfer in (each for many in self._transfers.values() for each in many.values()):
            if transfer.has_begun and not transfer.partial.have.count:
                self._writer.remove(transfer.partial)
            else:
                self._writer.let_go(transfer.partial)
        words = [
            subscriber.report_files(self._report(id, stream.round))
            for id, stream in self._streams.items()
            if stream.count
        ]
        if words:
            tasks = [asyncio.ensure_future(word) for word in words]
            _, late = await asyncio.wait(tasks, timeout=_FAREWELL_SECONDS)
            for task in late:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _progress(self, transfer: _Transfer, done: int | None = None) -> None:
        offer = transfer.offer
        self._on_progress(
            Progress(
                name=offer.name,
                size=offer.size,
                done=transfer.partial.done if done is None else done,
                number=offer.number,
                count=offer.count,
            )
        )


async def _report_later(subscriber: Subscriber, report: FileReport, delay: float) -> None:
    await asyncio.sleep(delay)
    await subscriber.report_files(report)
