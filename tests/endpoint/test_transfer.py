"""Files: what a receiver accepts, and that nothing half-written stays (SC-13, SC-14)."""

import hashlib
import resource
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from sealcast.endpoint.events import Event, Gap, MessageLost, Refused, StreamClosed, StreamEnded
from sealcast.endpoint.publisher import Publisher
from sealcast.endpoint.subscriber import Subscriber
from sealcast.endpoint.transfer import (
    MAX_OPEN_TRANSFERS,
    TOPIC,
    FileReceiver,
    FileSender,
    ReceivedFile,
    check_names,
)
from sealcast.errors import CertificateError, IncompleteError, SealcastError, StorageError, UsageError
from sealcast.pki.signed import decode_array, encode_cbor
from sealcast.sidechannel.messages import Acknowledgement

TRANSFER = bytes(range(16))
OTHER = bytes(range(16, 32))
STREAM = b"s" * 16
ELSEWHERE = b"t" * 16


REVOKED = CertificateError("device 'tablet' is revoked", reason="revoked")


class Feed:
    """Stands where a subscriber's items come from; the receiver under test is real."""

    def __init__(self, items: list[object]) -> None:
        self._items = items
        self.acknowledged: list[tuple[bytes, bytes, bytes]] = []

    async def items(self) -> AsyncIterator[object]:
        for item in self._items:
            yield item

    def refusal(self, event: Refused) -> SealcastError | None:
        return REVOKED if event.reason == "revoked" else None

    async def acknowledge(self, stream: bytes, transfer: bytes, sha256: bytes) -> None:
        self.acknowledged.append((stream, transfer, sha256))


def message(*fields: object, topic: str = TOPIC, stream: bytes = STREAM, publisher: str = "p") -> object:
    return SimpleNamespace(topic=topic, data=encode_cbor(list(fields)), publisher=publisher, stream_id=stream)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


async def received(
    folder: Path, items: list[object], *, lost: tuple[str, ...] = (), overwrite: bool = False
) -> tuple[list[ReceivedFile], Feed]:
    """What comes out of a feed; `lost`: the files that have to be told as lost, once each."""
    feed = Feed(items)
    told: list[str] = []
    receiver = FileReceiver(folder, on_loss=told.append, overwrite=overwrite)
    files = [file async for file in receiver.receive(cast(Subscriber, feed))]
    assert tuple(receiver.lost) == lost
    assert receiver.unnamed_losses == 0
    assert len(told) == len(lost)
    assert all(f"{name!r} of p" in line for name, line in zip(lost, told, strict=True))
    return files, feed


def run_of(
    data: bytes,
    *,
    name: str = "f.bin",
    transfer: bytes = TRANSFER,
    stream: bytes = STREAM,
    publisher: str = "p",
) -> list[object]:
    half = len(data) // 2
    fields: list[tuple[object, ...]] = [
        ("begin", transfer, name, len(data)),
        ("part", transfer, 0, data[:half]),
        ("part", transfer, half, data[half:]),
        ("end", transfer, hashlib.sha256(data).digest()),
    ]
    return [message(*one, stream=stream, publisher=publisher) for one in fields]


async def test_a_whole_file_appears_and_is_acknowledged(tmp_path: Path) -> None:
    files, feed = await received(tmp_path, run_of(b"0123456789"))
    assert [file.path for file in files] == [tmp_path / "f.bin"]
    assert (tmp_path / "f.bin").read_bytes() == b"0123456789"
    assert feed.acknowledged == [(STREAM, TRANSFER, hashlib.sha256(b"0123456789").digest())]
    assert names(tmp_path) == ["f.bin"]


async def test_an_empty_file(tmp_path: Path) -> None:
    empty = [message("begin", TRANSFER, "e", 0), message("end", TRANSFER, hashlib.sha256(b"").digest())]
    files, _ = await received(tmp_path, empty)
    assert files[0].size == 0


def event(kind: Any, **values: object) -> object:
    return kind(publisher="p", instance="", stream_id=STREAM, **values)


SPOILS = [
    pytest.param(lambda run: [*run[:3], message("end", TRANSFER, bytes(32))], id="another hash"),
    pytest.param(lambda run: [run[0], run[2], run[3]], id="a part is missing"),
    pytest.param(lambda run: [run[0], run[1], run[1], *run[2:]], id="a part comes twice"),
    pytest.param(lambda run: [*run[:3], message("part", TRANSFER, 10, b"x"), run[3]], id="too long"),
    pytest.param(lambda run: [run[0], run[1], run[3]], id="the last part is missing"),
    pytest.param(lambda run: [*run[:2], event(Gap, first=3, last=4), *run[2:]], id="a gap"),
    pytest.param(
        lambda run: [*run[:2], event(MessageLost, message_id=3, reason="too-long"), *run[2:]],
        id="a message is lost",
    ),
    pytest.param(lambda run: [*run[:2], event(StreamClosed, reason="revoked")], id="the stream is closed"),
    pytest.param(
        lambda run: [*run[:2], event(StreamEnded, next_sequence=9, successor=None)], id="the stream has ended"
    ),
    pytest.param(lambda run: [run[0], run[2], *run], id="what was dropped begins again"),
]


@pytest.mark.parametrize("spoil", SPOILS)
async def test_a_spoilt_file_leaves_nothing(tmp_path: Path, spoil: Any) -> None:
    files, feed = await received(tmp_path, spoil(run_of(b"0123456789")), lost=("f.bin",))
    assert (files, feed.acknowledged, names(tmp_path)) == ([], [], [])


@pytest.mark.parametrize("spoil", SPOILS)
async def test_a_spoilt_file_harms_no_other(tmp_path: Path, spoil: Any) -> None:
    """Not one of another stream that is open meanwhile, of the same id and name; not one that comes after."""
    during = run_of(b"abcdef", stream=ELSEWHERE)
    after = run_of(b"ghi", transfer=OTHER, name="after")
    items = [*during[:2], *spoil(run_of(b"0123456789")), *during[2:], *after]
    await received(tmp_path, items, lost=("f.bin",))
    assert names(tmp_path) == ["after", "f.bin"]
    assert (tmp_path / "f.bin").read_bytes() == b"abcdef"
    assert (tmp_path / "after").read_bytes() == b"ghi"


async def test_a_final_refusal_ends_it_and_names_what_is_lost(tmp_path: Path) -> None:
    feed = Feed([*run_of(b"0123456789")[:2], Refused(reason="revoked"), *run_of(b"01", transfer=OTHER)])
    told: list[str] = []
    receiver = FileReceiver(tmp_path, on_loss=told.append)
    with pytest.raises(CertificateError, match="is revoked"):
        await anext(receiver.receive(cast(Subscriber, feed)))
    assert (receiver.lost, names(tmp_path)) == (["f.bin"], [])
    assert told == ["lost: file 'f.bin' of p: device 'tablet' is revoked"]


async def test_another_refusal_is_none_of_its_business(tmp_path: Path) -> None:
    run = run_of(b"0123456789")
    files, _ = await received(tmp_path, [*run[:2], Refused(reason="too-many-requests"), *run[2:]])
    assert len(files) == 1


async def test_a_loss_outside_of_any_file_may_have_been_one(tmp_path: Path) -> None:
    lost = [
        event(Gap, first=3, last=4),
        event(MessageLost, message_id=5, reason="longer than this subscriber takes"),
        event(StreamClosed, reason="revoked"),
    ]
    ended = event(StreamEnded, next_sequence=9, successor=None)
    told: list[str] = []
    receiver = FileReceiver(tmp_path, on_loss=told.append)
    feed = Feed([*lost, ended, *run_of(b"01", stream=ELSEWHERE)])
    assert len([file async for file in receiver.receive(cast(Subscriber, feed))]) == 1
    assert (receiver.lost, receiver.unnamed_losses) == ([], 3)
    assert told == [
        "lost: packets 3 to 4 of p",
        "lost: message 5 of p: longer than this subscriber takes",
        "p is no longer accepted: revoked",
    ]


class TestNameThatIsTaken:
    """Nothing that is there is lost, unless by leave or by its own publisher."""

    async def test_what_was_there_before_is_kept(self, tmp_path: Path) -> None:
        (tmp_path / "f.bin").write_bytes(b"mine")
        files, feed = await received(tmp_path, run_of(b"0123456789"), lost=("f.bin",))
        assert (files, feed.acknowledged, names(tmp_path)) == ([], [], ["f.bin"])
        assert (tmp_path / "f.bin").read_bytes() == b"mine"

    async def test_by_leave_it_is_replaced(self, tmp_path: Path) -> None:
        (tmp_path / "f.bin").write_bytes(b"mine")
        files, _ = await received(tmp_path, run_of(b"0123456789"), overwrite=True)
        assert len(files) == 1
        assert (tmp_path / "f.bin").read_bytes() == b"0123456789"

    async def test_what_is_there_byte_for_byte_counts_as_received(self, tmp_path: Path) -> None:
        """So that who sends again to those who missed it is acknowledged by all."""
        (tmp_path / "f.bin").write_bytes(b"0123456789")
        files, feed = await received(tmp_path, run_of(b"0123456789"))
        assert (len(files), len(feed.acknowledged), names(tmp_path)) == (1, 1, ["f.bin"])

    async def test_a_publisher_replaces_what_it_has_sent(self, tmp_path: Path) -> None:
        items = [*run_of(b"0123456789"), *run_of(b"newer", transfer=OTHER, stream=ELSEWHERE)]
        files, _ = await received(tmp_path, items)
        assert len(files) == 2
        assert (tmp_path / "f.bin").read_bytes() == b"newer"

    async def test_a_publisher_does_not_replace_what_another_has_sent(self, tmp_path: Path) -> None:
        of_another = run_of(b"0123456789", stream=ELSEWHERE, publisher="p of another name")
        files, _ = await received(tmp_path, [*of_another, *run_of(b"newer")], lost=("f.bin",))
        assert [file.publisher for file in files] == ["p of another name"]
        assert (tmp_path / "f.bin").read_bytes() == b"0123456789"

    async def test_a_link_is_not_followed(self, tmp_path: Path) -> None:
        folder = tmp_path / "folder"
        folder.mkdir()
        (folder / "f.bin").symlink_to(tmp_path / "outside")
        await received(folder, run_of(b"0123456789"), lost=("f.bin",))
        assert names(tmp_path) == ["folder"]


async def test_a_repeated_begin_is_passed_over(tmp_path: Path) -> None:
    run = run_of(b"0123456789")
    again = message("begin", TRANSFER, "other", 3)
    files, feed = await received(tmp_path, [run[0], again, run[1], run[0], *run[2:], *run])
    assert [file.path.name for file in files] == names(tmp_path) == ["f.bin"]
    assert (tmp_path / "f.bin").read_bytes() == b"0123456789"
    assert len(feed.acknowledged) == 1


async def test_the_open_transfers_of_a_stream_are_bounded(tmp_path: Path) -> None:
    count = MAX_OPEN_TRANSFERS + 1
    runs = [run_of(b"01", name=f"{number:03}", transfer=bytes([number] * 16)) for number in range(count)]
    other = run_of(b"01", name="other", stream=ELSEWHERE)
    items = [run[0] for run in runs] + other + [item for run in runs for item in run[1:]]
    await received(tmp_path, items)
    assert names(tmp_path) == [f"{number:03}" for number in range(MAX_OPEN_TRANSFERS)] + ["other"]


async def test_a_full_disk_ends_it_and_leaves_nothing(tmp_path: Path) -> None:
    """A limit on the size of files stands for the full disk: it strikes when the buffer is written out."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    small, large = run_of(b"01", name="small", transfer=OTHER), run_of(bytes(2000), name="large")
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(StorageError, match="large"):
            await received(tmp_path, [*large[:3], *small[:2], large[3]])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert names(tmp_path) == []


async def test_a_folder_of_the_name_stays(tmp_path: Path) -> None:
    (tmp_path / "f.bin").mkdir()
    assert (await received(tmp_path, run_of(b"01")))[0] == []
    assert names(tmp_path) == ["f.bin"]


async def test_an_end_in_the_middle_leaves_nothing(tmp_path: Path) -> None:
    files, _ = await received(tmp_path, run_of(b"0123456789")[:2])
    assert files == []
    assert names(tmp_path) == []


async def test_what_is_no_file_is_passed_over(tmp_path: Path) -> None:
    noise: list[object] = [
        message("begin", b"short", "f", 1),
        message("begin", TRANSFER, "../escape", 1),
        message("part", TRANSFER, 0, b"x"),
        message("end", TRANSFER, bytes(32)),
        message("whatever"),
        message("begin", TRANSFER, "f", 1, topic="another"),
    ]
    assert (await received(tmp_path, noise))[0] == []
    assert names(tmp_path) == []


async def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(StorageError):
        await received(tmp_path / "gone", run_of(b"01"))


def test_an_acknowledgement_of_another_hash_counts_for_nothing() -> None:
    sender = FileSender()
    sender._hashes[TRANSFER] = b"a" * 32

    def word(sha256: bytes) -> Acknowledgement:
        return Acknowledgement(channel=bytes(32), stream=STREAM, transfer=TRANSFER, sha256=sha256)

    sender.acknowledged("tablet", word(b"b" * 32))
    assert sender._acknowledged == {}
    sender.acknowledged("tablet", word(b"a" * 32))
    assert sender._acknowledged == {TRANSFER: {"tablet"}}


class Stage:
    """Stands where a publisher is; who has joined changes with each question, the last answer stays."""

    channel = "c"

    def __init__(self, sender: FileSender, members: list[list[str]], acknowledging: tuple[str, ...]) -> None:
        self._sender, self._members, self._acknowledging = sender, members, acknowledging

    def is_listed(self, device: str) -> bool:
        return device != "removed"

    async def members(self) -> list[str]:
        return self._members.pop(0) if len(self._members) > 1 else self._members[0]

    async def send(self, data: bytes, *, topic: str) -> None:
        match decode_array(data):
            case ["end", transfer, sha256]:
                word = Acknowledgement(channel=bytes(32), stream=STREAM, transfer=transfer, sha256=sha256)
                for device in self._acknowledging:
                    self._sender.acknowledged(device, word)

    async def drained(self) -> None:
        pass


async def sent(folder: Path, members: list[list[str]], *, acknowledging: tuple[str, ...]) -> None:
    files = [folder / "f", folder / "g"]
    for file in files:
        file.write_bytes(b"01")
    sender = FileSender()
    stage = Stage(sender, members, acknowledging)
    await sender.send(cast(Publisher, stage), files, linger=0.3)


async def test_who_joins_later_is_not_waited_for(tmp_path: Path) -> None:
    await sent(tmp_path, [[], ["a"], ["a", "late"]], acknowledging=("a",))


async def test_who_leaves_without_a_word_is_missing(tmp_path: Path) -> None:
    with pytest.raises(IncompleteError, match=r"by: b$"):
        await sent(tmp_path, [["a", "b"], ["a"]], acknowledging=("a",))


async def test_who_leaves_after_the_acknowledgement_is_not_missing(tmp_path: Path) -> None:
    await sent(tmp_path, [["a", "b"], []], acknowledging=("a", "b"))


async def test_a_sender_asks_those_of_this_time_only(tmp_path: Path) -> None:
    """Who joins between two sendings owes nothing for the first."""
    file = tmp_path / "f"
    file.write_bytes(b"01")
    sender = FileSender()
    for device in ("a", "b"):
        stage = Stage(sender, [[device]], (device,))
        await sender.send(cast(Publisher, stage), [file], linger=0.1)


def test_names_that_differ_can_be_sent(tmp_path: Path) -> None:
    check_names([tmp_path / "a", tmp_path / "b", tmp_path / "a" / "c"])


@pytest.mark.parametrize(
    ("paths", "says"),
    [
        (["x/a", "b", "y/a"], r"x/a and y/a have the same name"),
        (["a", "a"], r"a and a have the same name"),
        (["a", ".hidden"], r"'\.hidden'"),
        (["x/a\nb"], r"'a\\nb'"),
        (["a\\b"], r"'a\\\\b'"),
        (["n" * 240], r"no receiver takes a file of the name 'nnn"),
        (["a\udcff"], r"no receiver takes"),
        ([".."], r"no receiver takes"),
    ],
)
async def test_names_that_no_receiver_could_take(paths: list[str], says: str) -> None:
    """Before the first byte: nothing is asked of the publisher, and no file is opened."""
    with pytest.raises(UsageError, match=says):
        await FileSender().send(cast(Publisher, None), [Path(path) for path in paths], linger=0.0)


def test_events_are_values() -> None:
    gap: Event = Gap(publisher="p", instance="", stream_id=STREAM, first=1, last=None)
    assert gap == Gap(publisher="p", instance="", stream_id=STREAM, first=1, last=None)
