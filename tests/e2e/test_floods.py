"""Floods from outside and from a member, over a network of their own: the genuine stream loses nothing.

Every test also watches that the subscriber's host sends nothing to the group (invariant 2), and that the
subscriber's memory stays what it was. SEALCAST_FLOOD says how many seconds a flood at its full rate lasts,
100,000 datagrams a second from outside, 20,000 bad signatures a second from a member: then time is judged,
too. Without it the rate is one that every machine can send, and time is not looked at.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.ward import Stream, Ward, streaming
from tests.figures import record

SOAK_SECONDS = float(os.environ.get("SEALCAST_FLOOD", "0"))
OUTSIDE, MEMBER = (100_000, 20_000) if SOAK_SECONDS else (10_000, 3_000)
"""Datagrams a second."""
SECONDS = SOAK_SECONDS or 1.5
CORE_SHARE = 0.25
"""Of a core, that small packets from outside may cost over what the stream alone does."""
GROWTH = 16 * 1024
"""KiB, what an allocator may keep."""
JUDGED = ("junk", "good-header")
"""Small packets, as the share of a core is stated for; of larger ones it is written down alone."""

pytestmark = [pytest.mark.needs_program("ip", "unshare", "nsenter"), pytest.mark.timeout(60 + 8 * SECONDS)]


@pytest.fixture
def stream(ward: Ward) -> Iterator[Stream]:
    with streaming(ward) as running:
        yield running


def flood(stream: Stream, kind: str, rate: int) -> tuple[int, dict[str, Any], dict[str, Any]]:
    """Flood; return how many datagrams were sent, and the subscriber's word before and after."""
    ward = stream.ward
    attacker = ward.start(
        "evil", "-m", "tests.e2e.attacker", kind, str(ward.site.devices / "evil"), ward.channel.name,
        ward.channel.group, str(ward.channel.port), ward.hosts.address("evil"), str(rate), str(SECONDS),
    )  # fmt: skip
    attacker.wait_line("ready")
    before = stream.told()
    finished = attacker.wait(SECONDS + 30)
    assert finished.code == 0, finished.err
    return int(attacker.out[-1]), before, stream.told()


def judge(stream: Stream, kind: str, rate: int, *reasons: str) -> None:
    """Flood; nothing is lost, nothing is said, nothing grows, and the flood was refused for these reasons."""
    stream.told()
    sent, before, after = flood(stream, kind, rate)
    assert sent > 0.3 * rate * SECONDS
    counted = {name: after["counters"][name] - before["counters"][name] for name in after["counters"]}
    refused = sum(counted[reason] for reason in reasons)
    assert after["losses"] == []
    assert after["count"] > before["count"], "the stream went on"
    assert refused > 0.2 * sent, (sent, {name: count for name, count in counted.items() if count})
    assert after["resident"] - before["resident"] < GROWTH
    if SOAK_SECONDS:
        cost = (after["cpu"] - before["cpu"]) / SECONDS
        time.sleep(SECONDS)
        idle = (stream.told()["cpu"] - after["cpu"]) / SECONDS
        figures = {
            "what": f"flood: {kind}",
            "count": sent,
            "seconds": SECONDS,
            "lost": 0,
            "repaired": counted["repaired"],
            "dropped-by-kernel": counted["dropped-by-kernel"],
            "core": round(cost, 3),
            "core-idle": round(idle, 3),
            "growth-KiB": after["resident"] - before["resident"],
        }
        record(figures)
        assert kind not in JUDGED or cost - idle <= CORE_SHARE, figures
    stream.silent()


def test_a1_junk_from_outside(stream: Stream) -> None:
    judge(stream, "junk", OUTSIDE, "malformed")


def test_a2_good_headers_with_junk_bodies(stream: Stream) -> None:
    judge(stream, "good-header", OUTSIDE, "malformed", "gate")


def test_a4_epochs_that_nobody_has_are_asked_for_by_nobody(stream: Stream) -> None:
    judge(stream, "unknown-epochs", OUTSIDE, "gate", "epoch-not-ours", "signature", "signature-budget")


def test_a5_stream_ids_without_end(stream: Stream) -> None:
    judge(stream, "stream-ids", OUTSIDE, "unknown-stream", "gate")


def test_c2_signatures_that_hold_nothing_from_a_member(stream: Stream) -> None:
    """They use up the budget for signatures: what of the stream is not checked for it comes by repair."""
    judge(stream, "bad-signatures", MEMBER, "signature", "signature-budget")


@pytest.mark.parametrize(("kind", "rate"), [("bad-parity", OUTSIDE), ("pollution", MEMBER)])
def test_c10_parity_that_nobody_signed(stream: Stream, kind: str, rate: int) -> None:
    judge(stream, kind, rate, "gate", "signature", "signature-budget", "duplicate", "malformed")
