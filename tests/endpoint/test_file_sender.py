"""The sending side of files, with receivers behind it that lose, are killed, and come back."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from sealcast.endpoint.events import Refused
from sealcast.endpoint.file_receiver import FileReceiver
from sealcast.endpoint.file_sender import FileSender
from sealcast.endpoint.publisher import Publisher
from sealcast.endpoint.subscriber import Subscriber
from sealcast.endpoint.transfer import (
    PIECE_BYTES,
    TOPIC,
    Ask,
    FileMessage,
    Offer,
    Part,
    Progress,
    ReceivedFile,
    SentFile,
    parse_message,
)
from sealcast.errors import IncompleteError, StorageError
from sealcast.sidechannel.peer_messages import FileReport

PIECES = 7
DATA = os.urandom(PIECE_BYTES * (PIECES - 1) + 1000)
Hook = Callable[[FileMessage], object]


class Receiver:
    """A device with `FileReceiver`; stands where a subscriber is."""

    def __init__(self, name: str, folder: Path, stage: Stage) -> None:
        self.name, self.folder, self.stage = name, folder, stage
        self.files: list[ReceivedFile] = []
        self.losses: list[str] = []
        self.lose: Callable[[Part], bool] = lambda _: False
        self._queue: asyncio.Queue[object] = asyncio.Queue()
        folder.mkdir(exist_ok=True)
        self.task = asyncio.create_task(self._run())

    def take(self, message: bytes, stream: bytes) -> None:
        parsed = parse_message(message)
        if not (isinstance(parsed, Part) and self.lose(parsed)):
            self._queue.put_nowait(
                SimpleNamespace(topic=TOPIC, data=message, publisher="p", stream_id=stream)
            )

    async def items(self) -> AsyncIterator[object]:
        while True:
            yield await self._queue.get()
            self._queue.task_done()

    async def idle(self) -> None:
        """Wait until everything that has come is worked off."""
        await self._queue.join()

    def refusal(self, _event: Refused) -> None:
        return None

    async def report_files(self, report: FileReport) -> None:
        self.stage.sender.report(self.name, report)

    async def kill(self) -> None:
        """As SIGKILL would, but for what is in the hands of the operating system."""
        self.stage.receivers.remove(self)
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    async def _run(self) -> None:
        receiver = FileReceiver(self.folder, on_loss=self.losses.append)
        async with aclosing(receiver.receive(cast(Subscriber, self))) as files:
            async for file in files:
                self.files.append(file)


class Stage:
    """Stands where a publisher is: hands each message to every receiver, and to the test before."""

    channel = "c"

    def __init__(self, *, stream: bytes = bytes(16), hook: Hook = lambda _: None) -> None:
        self.receivers: list[Receiver] = []
        self.absent: set[str] = set()
        self.sent: list[FileMessage] = []
        self.told: list[Progress] = []
        self.stream, self.hook = stream, hook
        self.sender = FileSender(cast(Publisher, self), self.told.append)

    @property
    def parts(self) -> int:
        return sum(isinstance(message, Part) for message in self.sent)

    def add(self, name: str, folder: Path) -> Receiver:
        receiver = Receiver(name, folder, self)
        self.receivers.append(receiver)
        return receiver

    async def members(self) -> list[str]:
        return sorted({receiver.name for receiver in self.receivers} | self.absent)

    def is_listed(self, device: str) -> bool:
        return device != "removed"

    async def send(self, data: bytes, *, topic: str) -> int:
        message = parse_message(data)
        assert (topic, message is not None) == (TOPIC, True)
        if message is not None:
            self.sent.append(message)
            if asyncio.iscoroutine(work := self.hook(message)):
                await work
        for receiver in self.receivers:
            receiver.take(data, self.stream)
        await asyncio.sleep(0)
        return 0

    async def send_many(self, messages: Sequence[bytes], *, topic: str) -> None:
        for message in messages:
            await self.send(message, topic=topic)

    async def drained(self) -> None:
        pass

    async def run(self, *paths: Path, linger: float = 5.0) -> tuple[SentFile, ...]:
        async with asyncio.timeout(30):
            return await self.sender.send(paths, linger=linger)

    async def close(self) -> None:
        for receiver in tuple(self.receivers):
            await receiver.kill()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "tree"
    (folder / "sub" / "empty").mkdir(parents=True)
    (folder / "image").write_bytes(DATA)
    (folder / "sub" / "small").write_bytes(b"small")
    (folder / "none").write_bytes(b"")
    return folder


def content(folder: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(folder)): None if path.is_dir() else path.read_bytes()
        for path in folder.rglob("*")
    }


async def test_a_folder_arrives_as_it_is(tmp_path: Path, source: Path) -> None:
    stage = Stage()
    receivers = [stage.add(name, tmp_path / name) for name in ("a", "b")]
    sent = await stage.run(source)
    assert [(file.name, file.receivers) for file in sent] == [
        (name, ("a", "b")) for name in ("tree/image", "tree/none", "tree/sub/small")
    ]
    for receiver in receivers:
        assert content(receiver.folder / "tree") == content(source)
        assert len(receiver.files) == 3
    assert stage.parts == PIECES + 1
    assert {(told.name, told.done) for told in stage.told if told.done == told.size} == {
        (name, size) for name, size in
        [("tree/image", len(DATA)), ("tree/none", 0), ("tree/sub/small", 5), ("tree/sub/empty", 0)]
    }  # fmt: skip
    await stage.close()


async def test_what_is_lost_is_sent_again_and_no_more(tmp_path: Path, source: Path) -> None:
    """SC-47: each of them loses another piece, and one loses it twice."""
    stage = Stage()
    losses = {"a": [1], "b": [4, 4]}
    for name, pieces in losses.items():
        receiver = stage.add(name, tmp_path / name)

        def lose(part: Part, left: list[int] = pieces) -> bool:
            return bool(left) and part.offset == left[0] * PIECE_BYTES and left.pop() >= 0

        receiver.lose = lose
    await stage.run(source / "image")
    assert stage.parts == PIECES + 3
    assert [(tmp_path / name / "image").read_bytes() for name in losses] == [DATA, DATA]
    await stage.close()


async def test_a_receiver_that_was_killed_goes_on(tmp_path: Path, source: Path) -> None:
    """It is started again while the sending goes on, and needs nothing again that it has on its disk."""
    stage = Stage()
    first = stage.add("a", tmp_path / "a")

    async def kill(message: FileMessage) -> None:
        if isinstance(message, Part) and message.offset == 5 * PIECE_BYTES:
            stage.hook = lambda _: None
            await first.idle()
            await first.kill()
            stage.absent.add("a")
            asyncio.get_running_loop().call_later(0.3, lambda: stage.add("a", tmp_path / "a"))

    stage.hook = kill
    await stage.run(source / "image")
    # Of those that came before the kill none was sent again.
    assert stage.parts == PIECES + 2
    assert (tmp_path / "a" / "image").read_bytes() == DATA
    await stage.close()


async def test_a_sender_that_was_killed_goes_on(tmp_path: Path, source: Path) -> None:
    """SC-47: on another stream; what receivers have is neither sent nor handed on anew; a changed file is."""

    class KilledError(Exception):
        pass

    def kill(message: FileMessage) -> None:
        if isinstance(message, Part) and message.offset == 3 * PIECE_BYTES:
            raise KilledError

    first = Stage(hook=kill)
    receivers = [first.add(name, tmp_path / name) for name in ("a", "b")]
    with pytest.raises(KilledError):
        await first.run(source / "sub", source / "image")
    (source / "sub" / "small").write_bytes(b"changed")
    second = Stage(stream=bytes([1] * 16))
    for receiver in receivers:
        receiver.stage = second
        second.receivers.append(receiver)
    await second.run(source / "sub", source / "image")
    assert second.parts == PIECES - 3 + 1
    for receiver in receivers:
        assert (receiver.folder / "image").read_bytes() == DATA
        assert (receiver.folder / "sub" / "small").read_bytes() == b"changed"
        assert [file.path.name for file in receiver.files] == ["small", "small", "image"]
    third = Stage(stream=bytes([2] * 16))
    for receiver in receivers:
        receiver.stage = third
        third.receivers.append(receiver)
    sent = await third.run(source / "sub", source / "image")
    assert third.parts == 0
    assert all(file.receivers == ("a", "b") for file in sent)
    assert all(len(receiver.files) == 3 for receiver in receivers)
    await third.close()


async def test_who_says_nothing_is_named_and_the_others_have_it(tmp_path: Path, source: Path) -> None:
    stage = Stage()
    stage.absent = {"silent", "removed"}
    stage.add("a", tmp_path / "a")
    with pytest.raises(IncompleteError, match=r"^not acknowledged within 2 s by: silent$"):
        await stage.run(source, linger=2.0)
    assert content(tmp_path / "a" / "tree") == content(source)
    await stage.close()


async def test_who_refuses_is_named_with_the_reason(tmp_path: Path, source: Path) -> None:
    stage = Stage()
    receiver = stage.add("a", tmp_path / "a")
    (receiver.folder / "image").write_bytes(b"mine")
    with pytest.raises(IncompleteError, match=r"^refused by a: 'image' \(another file has its name"):
        await stage.run(source / "image", source / "none")
    assert (stage.parts, (receiver.folder / "none").exists()) == (0, True)
    await stage.close()


async def test_nobody_has_joined() -> None:
    with pytest.raises(IncompleteError, match="nobody has joined"):
        await Stage().run(Path(__file__), linger=0.1)


async def test_a_file_that_changes_is_withdrawn(tmp_path: Path, source: Path) -> None:
    stage = Stage()
    receiver = stage.add("a", tmp_path / "a")

    def change(message: FileMessage) -> None:
        if isinstance(message, Ask):
            (source / "image").write_bytes(DATA[::-1])

    stage.hook = change
    with pytest.raises(StorageError, match="image: changes while it is being sent"):
        await stage.run(source / "image")
    await receiver.idle()
    assert receiver.losses == ["lost: file 'image' of p: it changes while it is being sent"]
    assert list(receiver.folder.iterdir()) == []
    await stage.close()


async def test_d2_a_greedy_receiver_does_not_keep_a_sender(tmp_path: Path, source: Path) -> None:
    """One that says to lack everything, whatever comes, and of files that there are not."""
    stage = Stage()
    stage.absent = {"greedy"}
    offer = Offer(number=0, count=1, name="image", size=len(DATA), sha256=hashlib.sha256(DATA).digest())

    def want(message: FileMessage) -> None:
        batch = stage.sender._batch
        if not isinstance(message, Part) and batch is not None:
            missing = ((offer.id, ((0, 2**63),)), (bytes(16), ((0, 2**63),)))
            report = FileReport(channel=bytes(32), stream=stage.stream, round=batch.round, missing=missing)
            asyncio.get_running_loop().call_soon(stage.sender.report, "greedy", report)

    stage.hook = want
    with pytest.raises(IncompleteError, match="by: greedy"):
        await stage.run(source / "image", linger=0.2)
    assert stage.parts <= 32 * PIECES
