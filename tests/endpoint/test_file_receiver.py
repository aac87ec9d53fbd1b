"""The receiving side of files: whole or not there, gone on with, and no harm from a publisher."""

import asyncio
import hashlib
import resource
import shutil
import tracemalloc
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from sealcast.endpoint.events import Gap, MessageLost, Refused, StreamClosed, StreamEnded
from sealcast.endpoint.file_receiver import MAX_PARTIAL_FILES, FileReceiver
from sealcast.endpoint.partial import MAX_RUNS
from sealcast.endpoint.subscriber import Subscriber
from sealcast.endpoint.transfer import (
    MAX_OFFERS,
    PIECE_BYTES,
    TOPIC,
    Ask,
    FileMessage,
    Offer,
    Part,
    ReceivedFile,
    Withdrawal,
)
from sealcast.errors import CertificateError, SealcastError, StorageError
from sealcast.pki.signed import encode_cbor
from sealcast.sidechannel.peer_messages import FileReport

STREAM, ELSEWHERE = bytes(16), bytes([1] * 16)
DATA = bytes(range(256)) * (PIECE_BYTES // 256) * 2 + b"the last piece"
REVOKED = CertificateError("device 'tablet' is revoked", reason="revoked")
ASK = Ask(round=1, spread_milliseconds=0)


class Feed:
    """Stands where a subscriber is: yields what a test says, and keeps the reports."""

    def __init__(self, items: Iterable[object]) -> None:
        self._items = items
        self.reports: list[FileReport] = []

    async def items(self) -> AsyncIterator[object]:
        for item in self._items:
            if callable(item):
                item()
            else:
                yield item
            await asyncio.sleep(0)

    def refusal(self, event: Refused) -> SealcastError | None:
        return REVOKED if event.reason == "revoked" else None

    async def report_files(self, report: FileReport) -> None:
        self.reports.append(report)


def message(content: FileMessage | bytes, *, stream: bytes = STREAM, publisher: str = "p") -> object:
    data = content if isinstance(content, bytes) else content.serialize()
    return SimpleNamespace(topic=TOPIC, data=data, publisher=publisher, stream_id=stream)


def offer(data: bytes = DATA, *, name: str = "f.bin", number: int = 0, count: int = 1) -> Offer:
    digest = hashlib.sha256(data).digest()
    return Offer(number=number, count=count, name=name, size=len(data), sha256=digest)


def part(of: Offer, piece: int, data: bytes = DATA) -> Part:
    start = piece * PIECE_BYTES
    return Part(file=of.id, offset=start, data=memoryview(data)[start : start + PIECE_BYTES])


def run_of(
    data: bytes = DATA, *, name: str = "f.bin", pieces: Sequence[int] | None = None, **of: Any
) -> list[object]:
    offered = offer(data, name=name)
    order = range(offered.pieces) if pieces is None else pieces
    parts = [part(offered, piece, data) for piece in order]
    return [message(offered, **of), *(message(each, **of) for each in parts)]


def event(kind: Any, **values: object) -> object:
    return kind(publisher="p", instance="", stream_id=STREAM, **values)


ENDED = event(StreamEnded, next_sequence=9, successor=None)


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())


async def received(
    folder: Path, items: Iterable[object], *, lost: tuple[str, ...] = (), overwrite: bool = False
) -> tuple[list[ReceivedFile], Feed, list[str]]:
    """What comes out of a feed; `lost`: the files that are told as lost."""
    feed, told = Feed(items), list[str]()
    receiver = FileReceiver(folder, on_loss=told.append, overwrite=overwrite)
    files = [file async for file in receiver.receive(cast(Subscriber, feed))]
    assert tuple(receiver.lost) == lost, told
    return files, feed, told


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 1, 0, 0, 2)])
async def test_a_whole_file_appears_and_is_reported(tmp_path: Path, order: Sequence[int]) -> None:
    files, feed, _ = await received(tmp_path, [*run_of(pieces=order), message(ASK)])
    assert [(file.path, file.was_there) for file in files] == [(tmp_path / "f.bin", False)]
    assert (tmp_path / "f.bin").read_bytes() == DATA
    assert feed.reports[-1].whole == (offer().id,)
    assert names(tmp_path) == ["f.bin"]


async def test_empty_files_and_folders(tmp_path: Path) -> None:
    folder = Offer(number=1, count=2, name="a/empty", size=0, sha256=None)
    items = [message(offer(b"", name="e", count=2)), message(folder), message(ASK)]
    files, feed, _ = await received(tmp_path, items)
    assert [file.size for file in files] == [0]
    assert (tmp_path / "a" / "empty").is_dir()
    assert len(feed.reports[-1].whole) == 2


async def test_what_is_missing_is_reported_and_taken_when_it_comes(tmp_path: Path) -> None:
    f = offer()
    items = [*run_of(pieces=[1]), message(ASK), message(Ask(round=2, spread_milliseconds=0))]
    _, feed, _ = await received(tmp_path, items)
    assert feed.reports[-1].missing == ((f.id, ((0, 0), (2, 2))),)
    # Another receiver goes on with it, on another stream, and is asked before anything comes.
    again = [message(each, stream=ELSEWHERE) for each in (f, ASK, part(f, 0), part(f, 2))]
    files, feed, _ = await received(tmp_path, again)
    assert len(files) == 1
    assert names(tmp_path) == ["f.bin"]
    assert (tmp_path / "f.bin").read_bytes() == DATA


async def test_it_says_at_once_what_it_has(tmp_path: Path) -> None:
    """SC-48: of files that were received by an earlier run, and of one that was interrupted."""
    await received(tmp_path, [*run_of(b"small", name="small"), *run_of(pieces=[0])])
    offers = [message(offer(b"small", name="small")), message(offer()), message(offer(b"new", name="new"))]
    files, feed, _ = await received(tmp_path, [*offers, message(ASK)])
    assert [(file.path.name, file.was_there) for file in files] == [("small", True)]
    report = feed.reports[0]
    assert report.whole == (offer(b"small", name="small").id,)
    assert dict(report.missing) == {offer().id: ((1, 2),), offer(b"new", name="new").id: ((0, 0),)}


async def test_a_publisher_that_ends_is_waited_for(tmp_path: Path) -> None:
    """Killed, and started again on another stream: what is here is not needed again."""
    f = offer()
    first = [*run_of(pieces=[0, 2]), event(Gap, first=9, last=None)]
    files, _, told = await received(tmp_path, first, lost=("f.bin",))
    kept = len(DATA) - PIECE_BYTES
    says = f"its publisher has ended; {kept} of {len(DATA)} bytes are kept until it is sent again"
    assert told == [f"lost: file 'f.bin' of p: {says}"]
    files, _, told = await received(
        tmp_path, [*first, *(message(each, stream=ELSEWHERE) for each in (f, part(f, 1)))]
    )
    assert len(files) == 1


SPOILS: list[Any] = [
    pytest.param(lambda f: [*(part(f, piece, DATA[::-1]) for piece in (0, 1)), part(f, 2)], id="other bytes"),
    pytest.param(lambda f: [part(f, 0), Withdrawal(file=f.id)], id="it is withdrawn"),
]


@pytest.mark.parametrize("spoil", SPOILS)
async def test_c10_a_spoilt_file_leaves_nothing_and_harms_no_other(tmp_path: Path, spoil: Any) -> None:
    f, other = offer(), run_of(b"abcdef", name="other")
    items = [message(f), other[0], *map(message, spoil(f)), other[1], message(ASK)]
    files, feed, told = await received(tmp_path, items, lost=("f.bin",))
    assert [file.path.name for file in files] == names(tmp_path) == ["other"]
    assert [file for file, _ in feed.reports[-1].refused] == [f.id]
    assert len(told) == 1


@pytest.mark.parametrize(
    "noise",
    [
        lambda f: Part(file=f.id, offset=1, data=memoryview(b"x")),
        lambda f: Part(file=f.id, offset=0, data=memoryview(b"x")),
        lambda f: Part(file=f.id, offset=PIECE_BYTES * 3, data=memoryview(b"x")),
        lambda f: Part(file=f.id, offset=2**60, data=memoryview(b"x")),
        lambda f: Part(file=f.id, offset=PIECE_BYTES * 2, data=memoryview(b"longer than the last piece")),
        lambda f: Part(file=bytes(16), offset=0, data=memoryview(b"x")),
        lambda f: encode_cbor(["whatever"]),
    ],
)
async def test_c10_what_is_no_part_of_a_file_is_passed_over(tmp_path: Path, noise: Any) -> None:
    run = run_of()
    files, *_ = await received(tmp_path, [run[0], message(noise(offer())), *run[1:]])
    assert len(files) == 1


@pytest.mark.parametrize(
    "name",
    ["../escape", "/etc/passwd", "a/../../escape", "a\\b", ".bashrc", "a/.ssh", "nul", "x" * 240, "a\nb", ""],
)
async def test_c8_hostile_names_are_refused(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    items = [*run_of(b"evil", name=name), message(ASK)]
    files, feed, _ = await received(folder, items, lost=(name,))
    assert (files, names(tmp_path)) == ([], [])
    assert feed.reports[-1].refused == ((offer(b"evil", name=name).id, "no plain file name"),)


async def test_c8_a_link_in_the_folder_leads_nowhere(tmp_path: Path) -> None:
    folder, outside = tmp_path / "folder", tmp_path / "outside"
    for each in (folder, outside):
        each.mkdir()
    (folder / "sub").symlink_to(outside)
    (folder / "f.bin").symlink_to(outside / "f.bin")
    empty = Offer(number=0, count=1, name="sub/empty", size=0, sha256=None)
    items = [*run_of(name="sub/x"), *run_of(), message(empty), message(ASK)]
    await received(folder, items, lost=("sub/x", "f.bin", "sub/empty"))
    assert list(outside.iterdir()) == []


class TestNameThatIsTaken:
    """Nothing that is there is lost, unless by leave or by its own publisher."""

    async def test_what_was_there_before_is_kept_and_nothing_is_taken(self, tmp_path: Path) -> None:
        (tmp_path / "f.bin").write_bytes(b"mine")
        files, feed, _ = await received(tmp_path, [message(offer()), message(ASK)], lost=("f.bin",))
        assert (files, (tmp_path / "f.bin").read_bytes()) == ([], b"mine")
        assert feed.reports[-1].missing == ()

    async def test_by_leave_it_is_replaced(self, tmp_path: Path) -> None:
        (tmp_path / "f.bin").write_bytes(b"mine")
        await received(tmp_path, run_of(), overwrite=True)
        assert (tmp_path / "f.bin").read_bytes() == DATA

    async def test_a_publisher_replaces_what_it_has_sent(self, tmp_path: Path) -> None:
        files, *_ = await received(tmp_path, [*run_of(), *run_of(b"newer", stream=ELSEWHERE)])
        assert len(files) == 2
        assert (tmp_path / "f.bin").read_bytes() == b"newer"

    async def test_a_publisher_does_not_replace_what_another_has_sent(self, tmp_path: Path) -> None:
        items = [*run_of(publisher="q", stream=ELSEWHERE), *run_of(b"newer")]
        files, *_ = await received(tmp_path, items, lost=("f.bin",))
        assert [file.publisher for file in files] == ["q"]
        assert (tmp_path / "f.bin").read_bytes() == DATA

    async def test_what_comes_between_is_kept(self, tmp_path: Path) -> None:
        """Somebody takes the name while the file comes in."""

        def take() -> None:
            (tmp_path / "f.bin").write_bytes(b"mine")

        run = run_of()
        files, *_ = await received(tmp_path, [*run[:2], take, *run[2:]], lost=("f.bin",))
        assert (files, (tmp_path / "f.bin").read_bytes()) == ([], b"mine")

    async def test_a_folder_of_the_name_stays(self, tmp_path: Path) -> None:
        (tmp_path / "f.bin").mkdir()
        await received(tmp_path, run_of(), lost=("f.bin",))

    async def test_a_file_where_a_folder_is_needed(self, tmp_path: Path) -> None:
        (tmp_path / "a").write_bytes(b"mine")
        empty = Offer(number=0, count=1, name="a", size=0, sha256=None)
        await received(tmp_path, [*run_of(name="a/b"), message(empty), message(ASK)], lost=("a/b", "a"))
        assert (tmp_path / "a").read_bytes() == b"mine"


async def test_what_is_here_is_handed_on_once(tmp_path: Path) -> None:
    run = run_of()
    again = [message(offer(), stream=ELSEWHERE), message(ASK, stream=ELSEWHERE)]
    files, feed, _ = await received(tmp_path, [*run, *run, *again])
    assert len(files) == 1
    assert feed.reports[-1].whole == (offer().id,)


async def test_d6_what_a_publisher_may_begin_is_bounded(tmp_path: Path) -> None:
    """Partial files, offers, and holes in a file; and a file of 16 TiB costs nothing until it comes."""
    count = MAX_PARTIAL_FILES + 3
    many = [item for number in range(count) for item in run_of(name=f"{number:03}", pieces=[0])]
    vast = Offer(number=0, count=1, name="vast", size=1 << 44, sha256=bytes(32))
    offers = [message(offer(b"x", name=f"o{number}")) for number in range(3 * MAX_OFFERS)]
    receiver = FileReceiver(tmp_path, on_loss=lambda _: None)
    feed = Feed([message(vast), *many, *offers, message(ASK)])
    assert [file async for file in receiver.receive(cast(Subscriber, feed))] == []
    assert sum(name.endswith(".part") for name in names(tmp_path)) == MAX_PARTIAL_FILES
    assert len(feed.reports[-1].missing) == MAX_OFFERS


async def test_d6_of_a_tebibyte_full_of_holes_little_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each second piece comes: so many are taken as there may be runs, and all else is asked for again."""
    room = SimpleNamespace(free=1 << 41)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: room)
    vast = Offer(number=0, count=1, name="vast", size=1 << 40, sha256=bytes(32))
    piece = memoryview(bytes(PIECE_BYTES))
    came = range(0, 2 * (MAX_RUNS + 40), 2)

    def items() -> Iterator[object]:
        yield message(vast)
        for number in came:
            yield message(Part(file=vast.id, offset=number * PIECE_BYTES, data=piece))
        yield message(ASK)

    tracemalloc.start()
    try:
        _, feed, _ = await received(tmp_path, items())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 16 << 20
    ((_, missing),) = feed.reports[-1].missing
    holes = [(number + 1, number + 1) for number in came[: MAX_RUNS - 1]]
    assert missing == (*holes, (came[MAX_RUNS - 1] + 1, vast.pieces - 1))


async def test_a_file_that_has_no_room_is_refused_before_it_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = SimpleNamespace(free=len(DATA) - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: room)
    items = [message(offer()), *run_of(b"small", name="small"), message(ASK)]
    files, feed, told = await received(tmp_path, items, lost=("f.bin",))
    assert [file.path.name for file in files] == ["small"]
    assert told[0].endswith(f"no room: {len(DATA)} bytes are to come, {len(DATA) - 1} are free")
    assert feed.reports[-1].refused[0][1].startswith("no room")


async def test_a_full_disk_ends_it_and_leaves_nothing_under_the_name(tmp_path: Path) -> None:
    """A limit on the size of files stands for the full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(StorageError, match=r"f\.bin"):
            await received(tmp_path, run_of())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not (tmp_path / "f.bin").exists()


async def test_a_final_refusal_ends_it_and_names_what_is_lost(tmp_path: Path) -> None:
    feed, told = Feed([*run_of()[:2], Refused(reason="revoked"), *run_of(b"01", name="g")]), list[str]()
    receiver = FileReceiver(tmp_path, on_loss=told.append)
    with pytest.raises(CertificateError, match="is revoked"):
        await anext(receiver.receive(cast(Subscriber, feed)))
    assert (receiver.lost, names(tmp_path)) == (["f.bin"], [])
    assert told == ["lost: file 'f.bin' of p: device 'tablet' is revoked"]


async def test_another_refusal_is_none_of_its_business(tmp_path: Path) -> None:
    run = run_of()
    files, *_ = await received(tmp_path, [*run[:2], Refused(reason="too-many-requests"), *run[2:]])
    assert len(files) == 1


async def test_losses_before_an_offer_may_have_been_files(tmp_path: Path) -> None:
    lost = [event(Gap, first=3, last=4), event(MessageLost, message_id=5, reason="too long")]
    feed, told = Feed([*lost, event(StreamClosed, reason="revoked"), *run_of(stream=ELSEWHERE)]), list[str]()
    receiver = FileReceiver(tmp_path, on_loss=told.append)
    assert len([file async for file in receiver.receive(cast(Subscriber, feed))]) == 1
    assert (receiver.lost, receiver.unnamed_losses) == ([], 3)
    assert told == [
        "lost: packets 3 to 4 of p",
        "lost: message 5 of p: too long",
        "p is no longer accepted: revoked",
    ]


async def test_a_loss_among_parts_is_asked_for_again(tmp_path: Path) -> None:
    run = run_of()
    items = [run[0], run[1], event(Gap, first=3, last=4), run[3], message(ASK), run[2]]
    files, *_ = await received(tmp_path, items)
    assert len(files) == 1


async def test_files_that_were_never_offered_are_counted(tmp_path: Path) -> None:
    feed, told = Feed([message(offer(b"", name="a", count=4)), message(ASK), ENDED]), list[str]()
    receiver = FileReceiver(tmp_path, on_loss=told.append)
    assert len([file async for file in receiver.receive(cast(Subscriber, feed))]) == 1
    assert (receiver.unnamed_losses, told) == (1, ["lost: the last 3 files of p: it has ended before them"])


async def test_a_publisher_that_is_not_accepted_any_more_leaves_nothing(tmp_path: Path) -> None:
    items = [*run_of(pieces=[0, 1]), event(StreamClosed, reason="revoked")]
    await received(tmp_path, items, lost=("f.bin",))
    assert names(tmp_path) == []


async def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(StorageError):
        await received(tmp_path / "gone", run_of())
