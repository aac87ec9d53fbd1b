"""A bad line: each fault does what it says, and all of it follows from the seed."""

import random

import pytest

from sealcast.testing import MILLISECOND, BurstLoss, Faults
from sealcast.testing.impairment import Counters, Impairment

COUNT = 20_000


def carry(faults: Faults, seed: int = 1, count: int = COUNT) -> tuple[list[tuple[int, int]], Counters]:
    """Send numbered datagrams a millisecond apart; return number and time of each arrival, in order."""
    counters = Counters()
    line = Impairment(random.Random(seed), faults, counters)
    arrivals = [
        (at, int.from_bytes(datagram[:4]))
        for number in range(count)
        for at, datagram in line.carry(number.to_bytes(4) + bytes(96), number * MILLISECOND)
    ]
    return [(number, at) for at, number in sorted(arrivals)], counters


def test_the_seed_decides_everything() -> None:
    faults = Faults(jitter=7, loss=0.1, burst=BurstLoss(begin=0.05, mean_length=4), duplicate=0.1, copies=3)
    assert carry(faults) == carry(faults)
    assert carry(faults) != carry(faults, seed=2)


@pytest.mark.parametrize(("share", "length"), [(0.3, 3), (0.02, 10)])
def test_bursts_have_their_share_and_length(share: float, length: int) -> None:
    burst = BurstLoss(begin=share / length / (1 - share), mean_length=length)
    arrivals, counters = carry(Faults(burst=burst))
    assert counters.lost == pytest.approx(share * COUNT, rel=0.2)
    arrived = {number for number, _ in arrivals}
    begun = sum(number not in arrived and number - 1 in arrived for number in range(1, COUNT))
    assert counters.lost / begun == pytest.approx(length, rel=0.2)


def test_chosen_ones_and_large_ones_are_lost() -> None:
    arrivals, _ = carry(Faults(drops=lambda number, _: 2 <= number <= 7), count=10)
    assert [number for number, _ in arrivals] == [0, 7, 8, 9]
    assert carry(Faults(mtu=128), count=10)[1].lost == 0
    assert carry(Faults(mtu=127), count=10)[1].lost == 10


def test_copies_come_within_their_time() -> None:
    arrivals, counters = carry(Faults(delay=0, duplicate=0.5, copies=10, reorder_delay=50 * MILLISECOND))
    assert counters.duplicated == pytest.approx(0.5 * COUNT, rel=0.1)
    assert len(arrivals) == pytest.approx(COUNT + 0.5 * 5.5 * COUNT, rel=0.1)
    assert all(at - number * MILLISECOND < 50 * MILLISECOND for number, at in arrivals)


def test_order_is_changed_as_asked_for() -> None:
    arrivals, counters = carry(Faults(reorder=0.25, reorder_delay=750 * MILLISECOND))
    assert counters.held_up == pytest.approx(0.25 * COUNT, rel=0.1)
    assert [number for number, _ in arrivals] != list(range(COUNT))
    line = Impairment(random.Random(1), Faults(delay=0, inversion=4), Counters())
    at_once = [arrival for number in range(4) for arrival in line.carry(bytes([number]), 0)]
    assert [data[0] for _, data in sorted(at_once)] == [3, 2, 1, 0]
