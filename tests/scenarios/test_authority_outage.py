"""The authority is away: prefetched slots carry the stream; nobody can be removed; then it is back."""

import pytest

from sealcast.endpoint.events import Blocked
from sealcast.testing import MILLISECOND, SECOND, ChannelOptions, Faults, Simulation, verify
from tests.scenarios.common import FAR, MONITOR, NEAR, SEEDS, assert_nothing_lost, ward

OPTIONS = ChannelOptions(slot_length=2 * SECOND, slots_ahead=8)


def can_remove(sim: Simulation, name: str) -> bool:
    try:
        sim.remove(name)
    except RuntimeError:
        return False
    return True


@pytest.mark.parametrize("seed", SEEDS)
def test_prefetched_slots_carry_the_stream(seed: int) -> None:
    sim = ward(seed, options=OPTIONS)
    sim.network.set_faults(Faults(loss=0.1), [FAR])
    publisher = sim.publisher(MONITOR)
    publisher.send_every(20 * MILLISECOND, 2000)
    sim.run(5)
    sim.outage(seconds=8)
    assert not can_remove(sim, NEAR)
    sim.run(7)
    # Three slots have turned without anyone to ask, and the stream has not paused.
    assert not any(isinstance(event, Blocked) for event in publisher.events)
    near = sim.subscriber(NEAR)
    assert len({message.epoch[0] for message in near.messages}) >= 5
    assert len(near.messages) >= 590
    sim.run(30)
    assert can_remove(sim, NEAR)
    sim.run(3)
    assert publisher.stream.epochs[-1][1][0] == sim.removed[NEAR]
    publisher.send_numbered(10)
    verify(sim)
    assert_nothing_lost(sim)


@pytest.mark.parametrize("seed", SEEDS)
def test_an_outage_longer_than_the_prefetch_stops_the_stream_and_loses_nothing(seed: int) -> None:
    sim = ward(seed, options=OPTIONS)
    publisher = sim.publisher(MONITOR)
    publisher.send_every(20 * MILLISECOND, 3000)
    sim.run(2)
    sim.outage(seconds=30)
    sim.run(29)
    assert any(isinstance(event, Blocked) for event in publisher.events)
    assert publisher.engine.has_queued
    assert sim.run_until(lambda: not publisher.engine.has_queued, 10)
    sim.run(30)
    verify(sim)
    assert_nothing_lost(sim)
