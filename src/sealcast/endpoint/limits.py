"""Ranges of the options of publishers and subscribers, checked before anything happens."""

import math
from collections.abc import Mapping, Sequence
from typing import Literal

from sealcast.errors import UsageError

MAX_MESSAGE_BYTES = 16 << 20
"""What a publisher sends at most as one message, and what a subscriber takes, unless told otherwise."""

LARGEST_MESSAGE_BYTES = 1 << 30
"""What they can be told: it is whole in the memory of both."""

MAX_RETAIN_TOPICS = 8192
"""Of how many last values a subscriber remembers that it had them."""

MAX_TOPIC_BYTES = 255
"""The length of a topic is one byte (spec/wire.md DP-23)."""

MIN_MTU, MAX_MTU = 576, 9000
"""What every IPv4 path carries, and the jumbo frames of a local network."""

MAX_BLOCK = 64
"""Packets that one signature covers (spec/wire.md DP-4)."""

MIN_FEC_MILLISECONDS, MAX_FEC_MILLISECONDS = 1, 2000
"""No subscriber waits longer for parity (spec/wire.md DP-41)."""

MAX_BYTES = 1 << 40
"""Of a buffer: more than a machine has."""

MIN_DEADLINE_SECONDS, MAX_DEADLINE_SECONDS = 0.001, 3600
"""Below a millisecond every reordering is a loss; above an hour nothing is retained that long."""

MIN_BUFFER_BYTES = 1 << 16
"""A packet has to fit, and a gap of some."""


def check_range(what: str, value: int, least: int, most: int) -> int:
    """Return `value` if it lies within `least` and `most`. Raises: UsageError, naming it as `what`."""
    if not least <= value <= most:
        raise UsageError(f"{what} is {value}", cure=f"use {least} to {most}")
    return value


def check_delivery(delivery: str, deadline: float | None) -> int | None:
    """Return the deadline in microseconds, as `realtime` needs one. Raises: UsageError."""
    if delivery not in ("reliable", "realtime", "unordered"):
        raise UsageError(
            f"there is no delivery mode {delivery!r}", cure="use 'reliable', 'realtime' or 'unordered'"
        )
    if delivery != "realtime":
        if deadline is not None:
            raise UsageError(
                f"a deadline of {deadline} s with delivery {delivery!r}",
                cure="use delivery 'realtime', or no deadline",
            )
        return None
    if deadline is None:
        raise UsageError(
            "delivery 'realtime' without a deadline", cure="say how late is too late, for example 50 ms"
        )
    if not MIN_DEADLINE_SECONDS <= deadline <= MAX_DEADLINE_SECONDS:
        raise UsageError(
            f"a deadline of {deadline} s",
            cure=f"use {MIN_DEADLINE_SECONDS} to {MAX_DEADLINE_SECONDS} seconds",
        )
    return round(deadline * 1e6)


def check_start(start: str, delivery: str) -> Literal["now", "last", "start"]:
    """Return from where on streams are wanted. Raises: UsageError."""
    match start:
        case "start" if delivery == "realtime":
            raise UsageError(
                "start 'start' with delivery 'realtime', which leaves out what is late",
                cure="use another delivery, or start 'now' or 'last'",
            )
        case "now" | "last" | "start":
            return start
        case _:
            raise UsageError(f"there is no start {start!r}", cure="use 'now', 'last' or 'start'")


def check_path(path: str, routing: Mapping[str, object]) -> bool:
    """Whether packets come over the side channel, which has no use for `routing`. Raises: UsageError."""
    if path not in ("multicast", "side-channel"):
        raise UsageError(f"there is no path {path!r}", cure="use 'multicast' or 'side-channel'")
    is_side_channel = path == "side-channel"
    for name, value in routing.items():
        if is_side_channel and value is not None:
            raise UsageError(
                f"{name} {value!r} with path 'side-channel', which has no multicast",
                cure=f"leave {name} out, or use path 'multicast'",
            )
    return is_side_channel


def check_seconds(what: str, value: float) -> float:
    """Return `value` if it is a length of time, which may be zero. Raises: UsageError."""
    if not 0 <= value < math.inf:
        raise UsageError(f"{what} is {value} s", cure="use 0 or more seconds")
    return value


def check_topic(topic: str | None) -> None:
    """Check that a topic can stand in a packet. Raises: UsageError."""
    if topic is None:
        return
    try:
        length = len(topic.encode())
    except UnicodeEncodeError:
        raise UsageError(f"topic {topic[:80]!r} is no UTF-8", cure="use text that is") from None
    if length > MAX_TOPIC_BYTES:
        raise UsageError(
            f"a topic of {length} bytes: {topic[:80]!r}", cure=f"use at most {MAX_TOPIC_BYTES} bytes of UTF-8"
        )


def check_messages(messages: Sequence[bytes], most: int) -> None:
    """Check that all of them can be sent, so that none is when one cannot. Raises: UsageError."""
    if messages and max(map(len, messages)) > most:
        at, size = next((at, len(one)) for at, one in enumerate(messages) if len(one) > most)
        raise UsageError(
            f"message {at} of {len(messages)} has {size} bytes: none was sent",
            cure=f"send at most {most} bytes at a time",
        )
