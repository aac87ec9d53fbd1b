"""Entries of the directory move forward only, and do not pile up: SC-5, SC-18, DP-27, DP-32."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy.orm import Session

from sealcast.authority import channels
from sealcast.authority.directory import (
    MAX_STREAMS_PER_DEVICE,
    SILENT,
    StoredStream,
    drop_ended,
    load_streams,
    put_stream,
)
from sealcast.authority.site import Site
from tests.authority.conftest import SECOND, settings

ECG = "ward/ecg"
NOW = 1_700_000_000 * SECOND


@pytest.fixture
def session(folder: Path) -> Iterator[Session]:
    site = Site.open(folder)
    with site.storage.transaction() as session:
        channels.add_channel(session, site, settings(ECG), NOW)
        yield session


def entry(number: int, *, next_sequence: int = 0, instance: str = "") -> StoredStream:
    return StoredStream(
        stream=number.to_bytes(16, "big"),
        device="monitor-1",
        instance=instance,
        credential=b"bundle",
        head=f"head {next_sequence}".encode() if next_sequence else None,
        next_sequence=next_sequence,
        final=False,
        endpoint=("192.0.2.7", 4711),
        not_after=NOW + 3600 * SECOND,
    )


def heads(session: Session) -> list[int]:
    return [stream.next_sequence for stream in load_streams(session, ECG)]


def test_a_head_moves_forward_only(session: Session) -> None:
    for next_sequence in (5, 9, 7):
        put_stream(session, ECG, entry(1, next_sequence=next_sequence), NOW)
    assert heads(session) == [9]


def test_an_end_is_final(session: Session) -> None:
    put_stream(session, ECG, replace(entry(1, next_sequence=9), final=True), NOW)
    put_stream(session, ECG, entry(1, next_sequence=12), NOW)
    assert heads(session) == [9]


def test_an_update_without_a_head_keeps_it(session: Session) -> None:
    put_stream(session, ECG, entry(1, next_sequence=9), NOW)
    put_stream(session, ECG, replace(entry(1, next_sequence=9), head=None, endpoint=None), NOW)
    (stored,) = load_streams(session, ECG)
    assert (stored.head, stored.endpoint) == (b"head 9", None)


def test_the_predecessor_of_a_new_stream_stays_and_older_ones_go(session: Session) -> None:
    for number in range(5):
        put_stream(session, ECG, entry(number), NOW + number * 2 * SILENT)
    assert [stream.stream[-1] for stream in load_streams(session, ECG)] == [3, 4]


def test_streams_that_live_beside_each_other_stay(session: Session) -> None:
    for number in range(5):
        put_stream(session, ECG, entry(number), NOW + number)
    put_stream(session, ECG, entry(9, instance="second"), NOW + 2 * SILENT)
    assert len(load_streams(session, ECG)) == 6


def test_one_device_cannot_fill_the_directory(session: Session) -> None:
    for number in range(MAX_STREAMS_PER_DEVICE + 20):
        put_stream(session, ECG, entry(number), NOW + number)
    assert len(load_streams(session, ECG)) == MAX_STREAMS_PER_DEVICE


def test_an_entry_ends_with_its_credential(session: Session) -> None:
    put_stream(session, ECG, entry(1), NOW)
    drop_ended(session, NOW + 3599 * SECOND)
    assert load_streams(session, ECG)
    drop_ended(session, NOW + 3600 * SECOND)
    assert not load_streams(session, ECG)
