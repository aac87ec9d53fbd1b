"""Files: what a receiver accepts, and that nothing half-written stays."""

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealcast.endpoint.events import Event, Gap
from sealcast.endpoint.subscriber import Subscriber
from sealcast.endpoint.transfer import TOPIC, FileReceiver, FileSender, ReceivedFile, is_file_name
from sealcast.errors import IncompleteError, StorageError
from sealcast.pki.signed import encode_cbor
from sealcast.sidechannel.messages import Acknowledgement

TRANSFER = bytes(range(16))
STREAM = b"s" * 16


@pytest.mark.parametrize("name", ["image.bin", "a b", "größe.txt", "x" * 239])
def test_plain_names_are_taken(name: str) -> None:
    assert is_file_name(name)


@pytest.mark.parametrize("name", ["", ".hidden", "..", "a/b", "a\\b", "a\0b", "a\nb", "\x1b[2J", "x" * 240])
def test_other_names_are_refused(name: str) -> None:
    assert not is_file_name(name)


@given(st.text())
def test_an_accepted_name_stays_in_its_folder(name: str) -> None:
    if is_file_name(name):
        assert (Path("/folder") / name).parent == Path("/folder")


class Feed:
    """Stands where a subscriber's items come from; the receiver under test is real."""

    def __init__(self, items: list[object]) -> None:
        self._items = items
        self.acknowledged: list[tuple[bytes, bytes, bytes]] = []

    async def items(self) -> AsyncIterator[object]:
        for item in self._items:
            yield item

    async def acknowledge(self, stream: bytes, transfer: bytes, sha256: bytes) -> None:
        self.acknowledged.append((stream, transfer, sha256))


def message(*fields: object, topic: str = TOPIC) -> object:
    return SimpleNamespace(topic=topic, data=encode_cbor(list(fields)), publisher="p", stream_id=STREAM)


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


async def received(folder: Path, items: list[object]) -> tuple[list[ReceivedFile], Feed]:
    feed = Feed(items)
    receiver = FileReceiver(folder)
    files = [file async for file in receiver.receive(cast(Subscriber, feed))]
    return files, feed


def run_of(data: bytes, *, name: str = "f.bin", sha256: bytes | None = None) -> list[object]:
    digest = hashlib.sha256(data).digest() if sha256 is None else sha256
    half = len(data) // 2
    return [
        message("begin", TRANSFER, name, len(data)),
        message("part", TRANSFER, 0, data[:half]),
        message("part", TRANSFER, half, data[half:]),
        message("end", TRANSFER, digest),
    ]


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


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda run: [*run[:3], message("end", TRANSFER, bytes(32))], id="another hash"),
        pytest.param(lambda run: [run[0], run[2], run[3]], id="a part is missing"),
        pytest.param(lambda run: [run[0], run[1], run[3]], id="the last part is missing"),
        pytest.param(
            lambda run: [
                *run[:2],
                Gap(publisher="p", instance="", stream_id=STREAM, first=3, last=4),
                *run[2:],
            ],
            id="a gap was reported",
        ),
    ],
)
async def test_a_spoilt_file_leaves_nothing(tmp_path: Path, spoil: Any) -> None:
    with pytest.raises(IncompleteError, match=r"f\.bin"):
        await received(tmp_path, spoil(run_of(b"0123456789")))
    assert names(tmp_path) == []


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


def test_events_are_values() -> None:
    gap: Event = Gap(publisher="p", instance="", stream_id=STREAM, first=1, last=None)
    assert gap == Gap(publisher="p", instance="", stream_id=STREAM, first=1, last=None)
