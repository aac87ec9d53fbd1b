"""Files over a channel: begin, parts, end with the hash; whole at the other side, or not there at all.

A transfer is a run of messages on the topic `sealcast.file`, each one CBOR array:
`["begin", id, name, size]`, `["part", id, offset, data]`, `["end", id, sha256]`; id: 16 random bytes.
Whoever holds a whole transfer acknowledges it to the publisher (spec/side-channel.md section 2).
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from sealcast import _core
from sealcast.endpoint.events import Event, Gap, MessageLost, StreamClosed
from sealcast.endpoint.publisher import Publisher
from sealcast.endpoint.subscriber import Subscriber
from sealcast.errors import CertificateError, IncompleteError, StorageError
from sealcast.pki.files import storage_errors, sync_folder
from sealcast.pki.signed import decode_array, encode_cbor
from sealcast.sidechannel.messages import Acknowledgement

log = logging.getLogger(__name__)

TOPIC = "sealcast.file"
PART_BYTES = 256 << 10
TRANSFER_ID_BYTES = 16
MAX_NAME_BYTES = 255
_ACKNOWLEDGEMENT_POLL_SECONDS = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a file has come."""

    name: str
    size: int
    """Bytes."""
    done: int
    """Bytes sent, or received and written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedFile:
    """A whole file: hash checked, in its place."""

    path: Path
    size: int
    sha256: bytes
    publisher: str
    """Device name."""


OnProgress = Callable[[Progress], None]


# -- sending -------------------------------------------------------------------------------------------------


class FileSender:
    """Sends files through a publisher and waits for the acknowledgements.

    sender = FileSender()
    async with device.publisher(channel, on_acknowledgement=sender.acknowledged) as publisher:
        await sender.send(publisher, [Path("image.bin")], linger=30.0)

    """

    def __init__(self, on_progress: OnProgress | None = None) -> None:
        """Take who is told of the progress."""
        self._on_progress = on_progress or (lambda _progress: None)
        self._hashes: dict[bytes, bytes] = {}
        self._acknowledged: dict[bytes, set[str]] = {}

    def acknowledged(self, device: str, acknowledgement: Acknowledgement) -> None:
        """Take an acknowledgement; one with another hash than ours counts for nothing."""
        if self._hashes.get(acknowledgement.transfer) == acknowledgement.sha256:
            self._acknowledged.setdefault(acknowledgement.transfer, set()).add(device)

    async def send(self, publisher: Publisher, paths: Sequence[Path], *, linger: float) -> None:
        """Send files and stay until every joined subscriber has acknowledged each of them.

        Args:
            publisher: open, with `on_acknowledgement=self.acknowledged`.
            paths: the files.
            linger: seconds after which nobody is waited for any longer.

        Raises:
            StorageError: a file cannot be read, or shrinks while it is being sent.
            IncompleteError: nobody has joined, or names those who have not acknowledged.
        """
        # All are opened before the first byte goes out: a missing one is no half-done work.
        files = [_open(path) for path in paths]
        try:
            await self._someone(publisher, linger)
            for path, file in zip(paths, files, strict=True):
                await self._send_one(publisher, path, file)
        finally:
            for file in files:
                file.close()
        await self._everyone(publisher, linger)

    async def _send_one(self, publisher: Publisher, path: Path, file: BinaryIO) -> None:
        transfer, digest = os.urandom(TRANSFER_ID_BYTES), hashlib.sha256()
        size = os.fstat(file.fileno()).st_size
        name = path.name
        await publisher.send(encode_cbor(["begin", transfer, name, size]), topic=TOPIC)
        offset = 0
        self._on_progress(Progress(name=name, size=size, done=0))
        while offset < size:
            with storage_errors(path):
                part = await asyncio.to_thread(file.read, min(PART_BYTES, size - offset))
            if not part:
                raise StorageError(
                    str(path), f"ends at byte {offset} of {size}", cure="send it when nobody writes it"
                )
            digest.update(part)
            await publisher.send(encode_cbor(["part", transfer, offset, part]), topic=TOPIC)
            offset += len(part)
            self._on_progress(Progress(name=name, size=size, done=offset))
        self._hashes[transfer] = digest.digest()
        await publisher.send(encode_cbor(["end", transfer, digest.digest()]), topic=TOPIC)

    async def _someone(self, publisher: Publisher, linger: float) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + linger
        while not await publisher.members():
            if loop.time() >= deadline:
                raise IncompleteError(
                    f"nobody has joined channel {publisher.channel!r}",
                    cure="start `sealcast receive` on the other devices first",
                )
            await asyncio.sleep(min(0.5, linger))

    async def _everyone(self, publisher: Publisher, linger: float) -> None:
        await publisher.drained()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + linger
        while missing := await self._missing(publisher):
            if loop.time() >= deadline:
                raise IncompleteError(
                    f"not acknowledged within {linger:g} s by: {', '.join(sorted(missing))}",
                    cure="see whether they are running, then send again or with a longer --linger",
                )
            await asyncio.sleep(_ACKNOWLEDGEMENT_POLL_SECONDS)

    async def _missing(self, publisher: Publisher) -> set[str]:
        complete = [self._acknowledged.get(transfer, set()) for transfer in self._hashes]
        return {
            member for member in await publisher.members() if not all(member in done for done in complete)
        }


def _open(path: Path) -> BinaryIO:
    with storage_errors(path):
        if path.is_dir():
            raise StorageError(str(path), "is a folder", cure="name files")
        if path.exists() and not path.is_file():
            # A pipe or a device has no size, and opening one may wait for ever.
            raise StorageError(
                str(path), "is not a regular file", cure="publish it with: sealcast publish --raw"
            )
        return path.open("rb")


# -- receiving -----------------------------------------------------------------------------------------------


@dataclass(slots=True, kw_only=True)
class _Incoming:
    name: str
    size: int
    publisher: str
    stream: bytes
    partial: Path
    file: BinaryIO
    digest: Any
    done: int = 0


class FileReceiver:
    """Writes transfers into a folder; a file has its name only when it is whole and its hash is right."""

    def __init__(self, folder: Path, on_progress: OnProgress | None = None) -> None:
        """Take the folder to write into; it has to be there."""
        self._folder = folder
        self._on_progress = on_progress or (lambda _progress: None)
        self._incoming: dict[tuple[bytes, bytes], _Incoming] = {}
        self._lost: list[str] = []
        self._acknowledging: set[asyncio.Task[None]] = set()

    async def receive(self, subscriber: Subscriber) -> AsyncGenerator[ReceivedFile, None]:
        """Iterate over whole files as they come in, acknowledging each.

        Raises:
            StorageError: the folder cannot be written; what was half-written is removed.
            IncompleteError: a file that had begun is lost in part.
        """
        try:
            async for item in subscriber.items():
                if isinstance(item, Event):
                    self._judge(item)
                elif item.topic == TOPIC and (received := await self._take(item)) is not None:
                    self._acknowledge(subscriber, item, received[0], received[1].sha256)
                    yield received[1]
        finally:
            if self._acknowledging:
                await asyncio.wait(self._acknowledging, timeout=5.0)
            self.discard()

    def discard(self) -> None:
        """Remove everything half-written."""
        for incoming in self._incoming.values():
            incoming.file.close()
            incoming.partial.unlink(missing_ok=True)
        self._incoming.clear()

    async def _take(self, message: _core.Message) -> tuple[bytes, ReceivedFile] | None:
        try:
            fields = decode_array(message.data)
        except CertificateError:
            fields = []
        match fields:
            case ["begin", bytes(transfer), str(name), int(size)] if len(transfer) == TRANSFER_ID_BYTES:
                self._begin(message, transfer, name, size)
            case ["part", bytes(transfer), int(offset), bytes(data)]:
                await self._part(message, transfer, offset, data)
            case ["end", bytes(transfer), bytes(sha256)]:
                received = await self._end(message, transfer, sha256)
                return None if received is None else (transfer, received)
            case _:
                log.warning("a message of %s on topic %s is no part of a file", message.publisher, TOPIC)
        return None

    def _begin(self, message: _core.Message, transfer: bytes, name: str, size: int) -> None:
        if not is_file_name(name):
            log.warning("%s sends a file of the name %r, which is refused", message.publisher, name)
            return
        partial = self._folder / f".{name}.{transfer.hex()[:8]}.part"
        with storage_errors(partial):
            file = partial.open("xb")
        self._incoming[message.stream_id, transfer] = _Incoming(
            name=name,
            size=size,
            publisher=message.publisher,
            stream=message.stream_id,
            partial=partial,
            file=file,
            digest=hashlib.sha256(),
        )
        self._on_progress(Progress(name=name, size=size, done=0))

    async def _part(self, message: _core.Message, transfer: bytes, offset: int, data: bytes) -> None:
        incoming = self._incoming.get((message.stream_id, transfer))
        if incoming is None:
            return
        if offset != incoming.done or offset + len(data) > incoming.size:
            # A part before this one is lost; its gap has been told.
            self._give_up(message.stream_id, transfer)
            return
        incoming.digest.update(data)
        with storage_errors(incoming.partial):
            await asyncio.to_thread(incoming.file.write, data)
        incoming.done += len(data)
        self._on_progress(Progress(name=incoming.name, size=incoming.size, done=incoming.done))

    async def _end(self, message: _core.Message, transfer: bytes, sha256: bytes) -> ReceivedFile | None:
        incoming = self._incoming.get((message.stream_id, transfer))
        if incoming is None:
            return None
        if incoming.done != incoming.size or incoming.digest.digest() != sha256:
            self._give_up(message.stream_id, transfer)
            return None
        path = self._folder / incoming.name
        await asyncio.to_thread(_put_in_place, incoming.file, incoming.partial, path)
        del self._incoming[message.stream_id, transfer]
        return ReceivedFile(path=path, size=incoming.size, sha256=sha256, publisher=incoming.publisher)

    def _give_up(self, stream: bytes, transfer: bytes) -> None:
        incoming = self._incoming.pop((stream, transfer))
        incoming.file.close()
        incoming.partial.unlink(missing_ok=True)
        raise IncompleteError(
            f"file {incoming.name!r} of {incoming.publisher} is lost in part",
            cure="have it sent again, at a lower rate or with a longer retention of the channel",
        )

    def _judge(self, event: Event) -> None:
        if isinstance(event, Gap | MessageLost | StreamClosed):
            log.warning("lost: %s", event)
            for stream, transfer in tuple(self._incoming):
                if stream == event.stream_id:
                    self._give_up(stream, transfer)

    def _acknowledge(
        self, subscriber: Subscriber, message: _core.Message, transfer: bytes, sha256: bytes
    ) -> None:
        work = subscriber.acknowledge(message.stream_id, transfer, sha256)
        task = asyncio.get_running_loop().create_task(work)
        self._acknowledging.add(task)
        task.add_done_callback(self._acknowledging.discard)


def is_file_name(name: str) -> bool:
    """Whether a name of a peer is a plain file name: no folder, not hidden, printable."""
    return (
        0 < len(name.encode()) <= MAX_NAME_BYTES - 16
        and not name.startswith(".")
        and not any(character in "/\\\0" for character in name)
        and name.isprintable()
    )


def _put_in_place(file: BinaryIO, partial: Path, path: Path) -> None:
    with storage_errors(path):
        file.flush()
        os.fsync(file.fileno())
        file.close()
        partial.replace(path)
        sync_folder(path.parent)
