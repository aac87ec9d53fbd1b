"""Slots are fetched long before they are needed, and not by everyone at once."""

from __future__ import annotations

from itertools import pairwise

import pytest

from sealcast.testing import SECOND, ChannelOptions, Simulation
from tests.insider import read_keys
from tests.scenarios.common import MONITOR, SEEDS

SLOT = 60 * SECOND
SUBSCRIBERS = [f"bed{number}" for number in range(5)]


@pytest.mark.parametrize("seed", SEEDS)
def test_slots_are_prefetched_in_the_last_third(seed: int) -> None:
    """KM-13: at a random moment of the last third of what is held."""
    options = ChannelOptions(slot_length=SLOT, slots_ahead=5)
    sim = Simulation(seed, publishers=[MONITOR], subscribers=SUBSCRIBERS, options=options)
    sim.run(20 * 60)
    moments: list[float] = []
    first_fetches = set()
    for host in sim.hosts:
        answers = [read_keys(body) for body in host.key_answers]
        assert len(answers) > 3
        first_fetches.add(answers[1].time)
        for held, fetched in pairwise(answers):
            # KM-1: what is held lasts to the end of its last slot.
            last = max(number for number, _ in held.slots)
            end = held.time - held.time % SLOT + (last - present(held.slots, options.slots_ahead) + 1) * SLOT
            moments.append((fetched.time - held.time) / (end - held.time))
    assert min(moments) > 2 / 3
    assert max(moments) < 1
    # Drawn from the first half of the third, which is a sixth of the whole.
    assert max(moments) - min(moments) > 0.1, "spread over the third"
    assert len(first_fetches) == len(sim.hosts), "not together"


def present(slots: tuple[tuple[int, object], ...], ahead: int) -> int:
    """The slot of the time of an answer: so many below the last one."""
    return max(number for number, _ in slots) - ahead
