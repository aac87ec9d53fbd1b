"""Options out of their range, and messages that cannot be sent."""

import math

import pytest

from sealcast.endpoint.limits import (
    MAX_MESSAGE_BYTES,
    check_delivery,
    check_messages,
    check_range,
    check_seconds,
    check_start,
    check_topic,
)
from sealcast.errors import UsageError


@pytest.mark.parametrize("value", [1, 64])
def test_the_ends_of_a_range_are_in_it(value: int) -> None:
    assert check_range("max_block", value, 1, 64) == value


@pytest.mark.parametrize("value", [0, 65, -1])
def test_beyond_a_range(value: int) -> None:
    with pytest.raises(UsageError, match=f"max_block is {value}") as caught:
        check_range("max_block", value, 1, 64)
    assert caught.value.cure == "use 1 to 64"


@pytest.mark.parametrize("value", [0, 0.5, 3600])
def test_a_length_of_time(value: float) -> None:
    assert check_seconds("linger", value) == value


@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf])
def test_no_length_of_time(value: float) -> None:
    with pytest.raises(UsageError, match="linger"):
        check_seconds("linger", value)


def test_deadlines() -> None:
    assert check_delivery("reliable", None) is None
    assert check_delivery("unordered", None) is None
    assert check_delivery("realtime", 0.05) == 50_000
    assert check_delivery("realtime", 0.001) == 1000


@pytest.mark.parametrize(
    ("delivery", "deadline", "told"),
    [
        ("sorted", None, "no delivery mode 'sorted'"),
        ("realtime", None, "without a deadline"),
        ("realtime", 0.0009, "a deadline of 0.0009 s"),
        ("realtime", math.nan, "a deadline of nan s"),
        ("realtime", 3601, "a deadline of 3601 s"),
        ("reliable", 0.05, "a deadline of 0.05 s with delivery 'reliable'"),
    ],
)
def test_no_delivery(delivery: str, deadline: float | None, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        check_delivery(delivery, deadline)


def test_starts() -> None:
    assert check_start("last", "realtime") == "last"
    assert check_start("start", "reliable") == "start"
    with pytest.raises(UsageError, match="no start 'first'"):
        check_start("first", "reliable")
    with pytest.raises(UsageError, match="start 'start' with delivery 'realtime'"):
        check_start("start", "realtime")


@pytest.mark.parametrize("topic", [None, "", "ward/ecg", "ö" * 127])
def test_topics(topic: str | None) -> None:
    check_topic(topic)


@pytest.mark.parametrize("topic", ["t" * 256, "ö" * 128, "a\udcffb"])
def test_no_topics(topic: str) -> None:
    with pytest.raises(UsageError, match="topic"):
        check_topic(topic)


def test_one_message_that_is_too_long_is_named() -> None:
    check_messages([], MAX_MESSAGE_BYTES)
    check_messages([b"", bytes(MAX_MESSAGE_BYTES)], MAX_MESSAGE_BYTES)
    with pytest.raises(UsageError, match="message 1 of 3 has 16777217 bytes: none was sent"):
        check_messages([b"", bytes(MAX_MESSAGE_BYTES + 1), b""], MAX_MESSAGE_BYTES)
