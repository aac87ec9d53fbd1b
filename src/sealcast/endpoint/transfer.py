"""Files over a channel: begin, parts, end with the hash; whole at the other side, or not there at all.

A transfer is a run of messages on the topic `sealcast.file`, each one CBOR array:
`["begin", id, name, size]`, `["part", id, offset, data]`, `["end", id, sha256]`; id: 16 random bytes.
Whoever holds a whole transfer acknowledges it to the publisher (spec/side-channel.md section 2).
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import logging
import os
from collections import OrderedDict, deque
from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from sealcast import _core
from sealcast.endpoint.events import Alarm, Event, Gap, Loss, MessageLost, Refused, StreamClosed, StreamEnded
from sealcast.endpoint.partial import PartialFile, is_file_name, sweep
from sealcast.endpoint.publisher import Publisher
from sealcast.endpoint.subscriber import Subscriber
from sealcast.errors import CertificateError, IncompleteError, StorageError, UsageError
from sealcast.pki.files import storage_errors
from sealcast.pki.signed import decode_array, encode_cbor
from sealcast.sidechannel.messages import Acknowledgement

log = logging.getLogger(__name__)

TOPIC = "sealcast.file"
PART_BYTES = 256 << 10
TRANSFER_ID_BYTES = 16
MAX_OPEN_TRANSFERS = 64
"""Transfers of one stream that a receiver takes at a time."""

_REMEMBERED_TRANSFERS = 1024
_REMEMBERED_NAMES = 4096
_BAD_NAME_ERRORS = (errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL)
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
    """As the channel's policy writes it: a name, or `<site id>:<name>` of another site."""


OnProgress = Callable[[Progress], None]
OnLoss = Callable[[str], None]
"""Is told of a loss, in one line."""


# -- sending -------------------------------------------------------------------------------------------------


def check_names(paths: Sequence[Path]) -> None:
    """Check that a receiver can take each file under its name.

    Raises:
        UsageError: two have one name, or no receiver takes a file of that name.
    """
    seen: dict[str, Path] = {}
    for path in paths:
        if not is_file_name(path.name):
            raise UsageError(
                f"{path}: no receiver takes a file of the name {path.name!r}",
                cure="rename it: printable, not hidden, without backslash, 239 bytes at most",
            )
        if path.name in seen:
            raise UsageError(
                f"{seen[path.name]} and {path} have the same name for a receiver", cure="send them one by one"
            )
        seen[path.name] = path


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
        """Send files and stay until those who had joined when it began have acknowledged each of them.

        One that leaves without having acknowledged is missing; one that joins later is not waited for.

        Args:
            publisher: open, with `on_acknowledgement=self.acknowledged`.
            paths: the files.
            linger: seconds after which nobody is waited for any longer.

        Raises:
            UsageError: as `check_names`, before the first byte.
            StorageError: a file cannot be read, or shrinks while it is being sent.
            IncompleteError: nobody has joined, or names those who have not acknowledged.
            CertificateError, NotAllowedError: the site does not let this device publish any more.
        """
        check_names(paths)
        # All are opened before the first byte goes out: a missing one is no half-done work.
        files = [_open(path) for path in paths]
        try:
            receivers = await self._someone(publisher, linger)
            transfers = [
                await self._send_one(publisher, path, file) for path, file in zip(paths, files, strict=True)
            ]
        finally:
            for file in files:
                file.close()
        await publisher.drained()
        await self._everyone(publisher, receivers, transfers, linger)

    async def _send_one(self, publisher: Publisher, path: Path, file: BinaryIO) -> bytes:
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
        return transfer

    async def _someone(self, publisher: Publisher, linger: float) -> frozenset[str]:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + linger
        while not (members := await publisher.members()):
            if loop.time() >= deadline:
                raise IncompleteError(
                    f"nobody has joined channel {publisher.channel!r}",
                    cure="start `sealcast receive` on the other devices first",
                )
            await asyncio.sleep(min(0.5, linger))
        return frozenset(members)

    async def _everyone(
        self,
        publisher: Publisher,
        receivers: frozenset[str],
        transfers: Collection[bytes],
        linger: float,
    ) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + linger
        # One that the policy lists no more has been removed, and is not to have the file.
        while missing := {name for name in self._missing(receivers, transfers) if publisher.is_listed(name)}:
            if loop.time() >= deadline:
                raise IncompleteError(
                    f"not acknowledged within {linger:g} s by: {', '.join(sorted(missing))}",
                    cure="see whether they are running, then send again or with a longer --linger",
                )
            await asyncio.sleep(_ACKNOWLEDGEMENT_POLL_SECONDS)

    def _missing(self, receivers: frozenset[str], transfers: Collection[bytes]) -> set[str]:
        complete = [self._acknowledged.get(transfer, set()) for transfer in transfers]
        return {receiver for receiver in receivers if not all(receiver in done for done in complete)}


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
    partial: PartialFile
    digest: Any
    done: int = 0


class FileReceiver:
    """Writes transfers into a folder; a file has its name only when it is whole and its hash is right.

    A transfer that is lost in part, or that its publisher spoils, is dropped alone: all others go on. A file
    that is there already is kept, and the new one lost, unless it was received here from the same publisher
    before; one that is there byte for byte counts as received.
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
            on_loss: is told of each loss; by default the log.
            overwrite: replace whatever file is there.
        """
        self.lost: list[str] = []
        """Names of the files that had begun and were dropped."""
        self.unnamed_losses = 0
        """What was lost while no file of its publisher was open: whole files may be among it."""
        self._folder = folder
        self._overwrite = overwrite
        self._on_progress = on_progress or (lambda _progress: None)
        self._on_loss = on_loss or log.warning
        self._incoming: dict[tuple[bytes, bytes], _Incoming] = {}
        # No honest publisher uses an id twice; those of late are enough to see a repetition.
        self._closed: deque[tuple[bytes, bytes]] = deque(maxlen=_REMEMBERED_TRANSFERS)
        # From whom a name was received here. What is forgotten is not replaced.
        self._owners: OrderedDict[str, str] = OrderedDict()
        self._acknowledging: set[asyncio.Task[None]] = set()

    async def receive(self, subscriber: Subscriber) -> AsyncGenerator[ReceivedFile, None]:
        """Iterate over whole files as they come in, acknowledging each; `lost` names the others.

        What a receiver that was killed has left half-written in the folder is removed first.

        Raises:
            StorageError: the folder cannot be written; what was half-written is removed.
            CertificateError, NotAllowedError, UnknownChannelError: the site refuses this device from now on;
                what was half-written is lost.
        """
        if count := await asyncio.to_thread(sweep, self._folder):
            log.info("%s: removed %d half-written files of a receiver that is gone", self._folder, count)
        try:
            async for item in subscriber.items():
                if isinstance(item, Refused) and (refusal := subscriber.refusal(item)) is not None:
                    for key in tuple(self._incoming):
                        self._drop(key, str(refusal))
                    raise refusal
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
            incoming.partial.remove()
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
        key = message.stream_id, transfer
        if (problem := self._objection(key, name)) is not None:
            log.warning("file %r of %s is refused: %s", name, message.publisher, problem)
            return
        try:
            partial = PartialFile.create(self._folder, name)
        except StorageError as error:
            if isinstance(error.__cause__, OSError) and error.__cause__.errno in _BAD_NAME_ERRORS:
                log.warning("file %r of %s is refused: %s", name, message.publisher, error.detail)
                return
            raise
        self._incoming[key] = _Incoming(
            name=name,
            size=size,
            publisher=message.publisher,
            partial=partial,
            digest=hashlib.sha256(),
        )
        self._on_progress(Progress(name=name, size=size, done=0))

    def _objection(self, key: tuple[bytes, bytes], name: str) -> str | None:
        if key in self._incoming or key in self._closed:
            return "its id has begun before"
        if not is_file_name(name):
            return "no plain file name"
        if (self._folder / name).is_dir():
            return "a folder has its name"
        if sum(stream == key[0] for stream, _ in self._incoming) >= MAX_OPEN_TRANSFERS:
            return f"{MAX_OPEN_TRANSFERS} files of this stream are open"
        return None

    async def _part(self, message: _core.Message, transfer: bytes, offset: int, data: bytes) -> None:
        incoming = self._incoming.get((message.stream_id, transfer))
        if incoming is None:
            return
        if offset != incoming.done or offset + len(data) > incoming.size:
            self._drop(
                (message.stream_id, transfer), f"a part at byte {offset} where {incoming.done} was due"
            )
            return
        incoming.digest.update(data)
        await asyncio.to_thread(incoming.partial.write, data)
        incoming.done += len(data)
        self._on_progress(Progress(name=incoming.name, size=incoming.size, done=incoming.done))

    async def _end(self, message: _core.Message, transfer: bytes, sha256: bytes) -> ReceivedFile | None:
        incoming = self._incoming.get((message.stream_id, transfer))
        if incoming is None:
            return None
        key = message.stream_id, transfer
        if incoming.done != incoming.size:
            self._drop(key, f"it ends at byte {incoming.done} of {incoming.size}")
            return None
        if incoming.digest.digest() != sha256:
            self._drop(key, "its hash is wrong")
            return None
        if not await self._place(incoming, sha256):
            self._drop(key, "another file has its name, and is kept (see --overwrite)")
            return None
        del self._incoming[key]
        self._closed.append(key)
        return ReceivedFile(
            path=self._folder / incoming.name,
            size=incoming.size,
            sha256=sha256,
            publisher=incoming.publisher,
        )

    async def _place(self, incoming: _Incoming, sha256: bytes) -> bool:
        """Give a whole file its name; False if another one has it that is not to be replaced."""
        path, name = self._folder / incoming.name, incoming.name
        replaces = self._overwrite or self._owners.get(name) == incoming.publisher
        if await asyncio.to_thread(incoming.partial.place, path, replaces=replaces):
            self._owners[name] = incoming.publisher
            if len(self._owners) > _REMEMBERED_NAMES:
                self._owners.popitem(last=False)
            return True
        if await asyncio.to_thread(_holds, path, incoming.size, sha256):
            incoming.partial.remove()
            return True
        return False

    def _drop(self, key: tuple[bytes, bytes], reason: str) -> None:
        incoming = self._incoming.pop(key)
        self._closed.append(key)
        incoming.partial.remove()
        self.lost.append(incoming.name)
        self._on_loss(f"lost: file {incoming.name!r} of {incoming.publisher}: {reason}")

    def _judge(self, event: Event) -> None:
        match event:
            case Gap():
                reason = "packets are lost for good"
            case MessageLost():
                reason = f"a message is lost: {event.reason}"
            case StreamClosed():
                reason = f"its stream is not accepted any more: {event.reason}"
            case StreamEnded():
                reason = "the publisher ended before it was whole"
            case _:
                if isinstance(event, Alarm):
                    log.warning("%s", event)
                return
        spoilt = [key for key in self._incoming if key[0] == event.stream_id]
        for key in spoilt:
            self._drop(key, reason)
        if not spoilt and isinstance(event, Loss):
            self.unnamed_losses += 1
            self._on_loss(str(event))

    def _acknowledge(
        self, subscriber: Subscriber, message: _core.Message, transfer: bytes, sha256: bytes
    ) -> None:
        work = subscriber.acknowledge(message.stream_id, transfer, sha256)
        task = asyncio.get_running_loop().create_task(work)
        self._acknowledging.add(task)
        task.add_done_callback(self._acknowledging.discard)


def _holds(path: Path, size: int, sha256: bytes) -> bool:
    """Whether a file is there already, byte for byte."""
    with suppress(OSError):
        if path.is_file() and path.stat().st_size == size:
            with path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").digest() == sha256
    return False
