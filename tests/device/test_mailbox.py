"""The mailbox on the disk: bounds, once each, order, restarts, damage. SC-35 to SC-38."""

import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sealcast.device.folder import MESSAGES, DeviceFolder
from sealcast.device.mailbox import FORGOTTEN_AFTER, REMEMBERED, Bounds, Mailbox, sole_holder
from sealcast.errors import OutboxFullError, StorageError
from sealcast.sidechannel.messages import MAX_PEER_BODY
from sealcast.sidechannel.peer_messages import (
    MAX_MESSAGE_DATA,
    MAX_MESSAGES,
    InboxRequest,
    PostedMessage,
)

ONE, OTHER = f"{'0' * 32}:one", f"{'1' * 32}:one"
BOUNDS = Bounds()


def message(number: int, data: bytes = b"x", topic: str | None = None, time: int = 1) -> PostedMessage:
    return PostedMessage(id=number.to_bytes(16), topic=topic, time=time, data=data)


@pytest.fixture
def mailbox(tmp_path: Path) -> Iterator[Mailbox]:
    mailbox = Mailbox(tmp_path)
    yield mailbox
    mailbox.close()


def pragma(folder: Path, name: str) -> object:
    with closing(sqlite3.connect(folder / MESSAGES / "mail.db")) as database:
        return database.execute(f"PRAGMA {name}").fetchone()[0]


def test_it_waits_for_the_disk_and_is_for_nobody_else(mailbox: Mailbox, tmp_path: Path) -> None:
    assert pragma(tmp_path, "journal_mode") == "wal"
    mailbox.queue(ONE, [message(1)], BOUNDS)
    for file in (tmp_path / MESSAGES).iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
    assert stat.S_IMODE((tmp_path / MESSAGES).stat().st_mode) == 0o700


def test_what_is_queued_comes_in_order_and_outlives_a_restart(tmp_path: Path) -> None:
    first = Mailbox(tmp_path)
    first.queue(ONE, [message(number) for number in range(3)], BOUNDS)
    first.queue(OTHER, [message(7)], BOUNDS)
    first.close()
    second = Mailbox(tmp_path)
    second.queue(ONE, [message(3, b"data", "topic", 9)], BOUNDS)
    batch = second.next_batch(ONE)
    assert batch == [*(message(number) for number in range(3)), message(3, b"data", "topic", 9)]
    second.delivered(ONE, batch[:2])
    assert [each.id for each in second.next_batch(ONE)] == [each.id for each in batch[2:]]
    assert (second.waiting(ONE), second.waiting(OTHER)) == (2, 1)
    assert second.waits(batch[3].id)
    assert not second.waits(batch[0].id)
    second.close()


def test_a_batch_fits_a_request_whatever_is_in_it(mailbox: Mailbox) -> None:
    mailbox.queue(ONE, [message(n, bytes(MAX_MESSAGE_DATA), "t" * 255, 2**62) for n in range(2)], BOUNDS)
    mailbox.queue(ONE, [message(n, b"") for n in range(10, 10 + 2 * MAX_MESSAGES)], BOUNDS)
    mailbox.queue(ONE, [message(n, bytes(997), "t" * 30) for n in range(5000, 7100)], BOUNDS)
    sizes = []
    while batch := mailbox.next_batch(ONE):
        assert len(InboxRequest(messages=tuple(batch)).serialize()) <= MAX_PEER_BODY
        sizes.append(len(batch))
        mailbox.delivered(ONE, batch)
    # Beside the second large one there is room for a few.
    assert sizes[0] == 1
    assert max(sizes) == MAX_MESSAGES
    assert sum(sizes) == 2 + 2 * MAX_MESSAGES + 2100


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.integers(0, 30), min_size=1, max_size=8), max_size=12))
def test_each_id_is_stored_once_in_the_order_of_its_first_coming(
    tmp_path_factory: pytest.TempPathFactory, requests: list[list[int]]
) -> None:
    """SC-37."""
    box = Mailbox(tmp_path_factory.mktemp("device"))
    for numbers in requests:
        assert box.store(ONE, [message(number) for number in numbers], 1, BOUNDS) == len(numbers)
    expected = list(dict.fromkeys(number for numbers in requests for number in numbers))
    assert [int.from_bytes(each.id) for each in box.received(0, 1000)] == expected
    box.close()


def test_a_full_inbox_keeps_what_it_has_and_takes_a_beginning(mailbox: Mailbox) -> None:
    """SC-36: a quarter for each sender; room comes by taking alone."""
    bounds = Bounds(messages=8)
    assert mailbox.store(ONE, [message(number) for number in range(5)], 1, bounds) == 2
    assert mailbox.store(ONE, [message(2)], 1, bounds) == 0
    # What it has already it can say so of, full or not.
    assert mailbox.store(ONE, [message(0), message(1), message(2)], 1, bounds) == 2
    for name in ("a", "b", "c"):
        assert mailbox.store(f"{'2' * 32}:{name}", [message(1), message(2)], 1, bounds) == 2
    assert mailbox.store(OTHER, [message(1)], 1, bounds) == 0
    mailbox.taken(mailbox.received(0, 1)[0].number)
    assert mailbox.store(OTHER, [message(1)], 1, bounds) == 1
    assert mailbox.store(ONE, [message(0)], 1, bounds) == 1
    assert [each.peer for each in mailbox.received(0, 100) if each.peer in (ONE, OTHER)] == [ONE, OTHER]


def test_bytes_are_bounded_too(mailbox: Mailbox) -> None:
    bounds = Bounds(bytes=4 * (MAX_MESSAGE_DATA + 1024))
    largest = [message(number, bytes(MAX_MESSAGE_DATA)) for number in range(2)]
    assert mailbox.store(ONE, largest, 1, bounds) == 1
    with pytest.raises(OutboxFullError):
        mailbox.queue(ONE, largest, bounds)
    mailbox.queue(ONE, largest[:1], bounds)
    with pytest.raises(OutboxFullError, match=ONE):
        mailbox.queue(ONE, largest[1:], bounds)
    mailbox.delivered(ONE, largest[:1])
    mailbox.queue(ONE, largest[1:], bounds)


def test_one_dead_peer_leaves_room_for_others(mailbox: Mailbox) -> None:
    bounds = Bounds(messages=8)
    for peer in (ONE, OTHER, f"{'2' * 32}:a", f"{'2' * 32}:b"):
        mailbox.queue(peer, [message(hash(peer) % 2**60), message(hash(peer) % 2**60 + 1)], bounds)
        with pytest.raises(OutboxFullError, match=peer):
            mailbox.queue(peer, [message(1)], bounds)
    with pytest.raises(OutboxFullError, match="8 messages"):
        mailbox.queue(f"{'3' * 32}:a", [message(1)], bounds)


def test_what_is_too_old_is_dropped_from_the_outbox_alone(mailbox: Mailbox) -> None:
    bounds = Bounds(age=10)
    mailbox.queue(ONE, [message(1, time=100), message(2, time=105)], bounds)
    assert mailbox.expired(ONE, 109, bounds) == []
    assert mailbox.expired(ONE, 110, bounds) == [message(1).id]
    assert mailbox.waiting(ONE) == 1
    mailbox.store(ONE, [message(1, time=0)], 0, bounds)
    mailbox.forget(FORGOTTEN_AFTER - 1)
    assert mailbox.store(ONE, [message(1)], 0, bounds) == 1
    assert len(mailbox.received(0, 10)) == 1


def test_ids_are_bounded_and_the_latest_stay(mailbox: Mailbox) -> None:
    numbers = range(REMEMBERED + 100)
    for start in range(0, len(numbers), 1024):
        part = [message(number) for number in numbers[start : start + 1024]]
        assert mailbox.store(ONE, part, 1, BOUNDS) == len(part)
    mailbox.taken(2**60)
    mailbox.store(ONE, [message(number) for number in numbers[-1024:]], 2, BOUNDS)
    mailbox.store(ONE, [message(numbers[100])], 2, BOUNDS)
    assert mailbox.received(0, 10) == []
    mailbox.store(ONE, [message(0)], 2, BOUNDS)
    assert len(mailbox.received(0, 10)) == 1
    mailbox.forget(2 + FORGOTTEN_AFTER)
    mailbox.store(ONE, [message(numbers[-1])], 2, BOUNDS)
    assert len(mailbox.received(0, 10)) == 2


def test_a_place_is_remembered(mailbox: Mailbox) -> None:
    assert mailbox.place(ONE) is None
    mailbox.note_place(ONE, ("192.0.2.7", 1))
    mailbox.note_place(ONE, ("192.0.2.7", 2))
    assert mailbox.place(ONE) == ("192.0.2.7", 2)


def test_damage_and_later_versions_are_one_clear_error(tmp_path: Path) -> None:
    Mailbox(tmp_path).close()
    file = tmp_path / MESSAGES / "mail.db"
    with closing(sqlite3.connect(file)) as database:
        database.execute("PRAGMA user_version = 2")
    with pytest.raises(StorageError, match=r"mail\.db: of a newer version, 2"):
        Mailbox(tmp_path)
    file.write_bytes(b"no database at all" * 1000)
    with pytest.raises(StorageError, match=r"mail\.db: file is not a database") as caught:
        Mailbox(tmp_path)
    assert "remove it" in caught.value.cure
    (tmp_path / "file").touch()
    with pytest.raises(StorageError):
        Mailbox(tmp_path / "file")


def test_a_lock_is_held_by_one(tmp_path: Path) -> None:
    with sole_holder(tmp_path, "inbox") as first, sole_holder(tmp_path, "inbox") as second:
        assert (first, second) == (True, False)
    with sole_holder(tmp_path, "inbox") as third:
        assert third


def test_a_folder_with_messages_is_still_a_folder_to_enrol_into(tmp_path: Path) -> None:
    Mailbox(tmp_path).close()
    with DeviceFolder.open_for_writing(tmp_path):
        pass
