"""Slots turn every second under 20 % loss, with clocks that differ: nothing is lost, nothing stalls."""

import pytest

from sealcast.testing import MILLISECOND, SECOND, ChannelOptions, Faults, Simulation, verify
from tests.scenarios.common import FAR, MONITOR, NEAR, SEEDS, assert_nothing_lost

OPTIONS = ChannelOptions(slot_length=SECOND)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("skew", [-300 * MILLISECOND, 0, 300 * MILLISECOND])
def test_nothing_is_lost(seed: int, skew: int) -> None:
    sim = Simulation(seed, subscribers=[FAR, NEAR], options=OPTIONS)
    sim.add_publisher(MONITOR, skew=skew)
    sim.settle()
    sim.network.set_faults(Faults(loss=0.2), [FAR])
    sim.publisher(MONITOR).send_every(10 * MILLISECOND, 1000)
    sim.run(10.5)
    verify(sim)
    assert_nothing_lost(sim)
    for subscriber in sim.subscribers.values():
        slots = {message.epoch[0] for message in subscriber.messages}
        assert len(slots) >= 10, "messages of at least ten slots"


@pytest.mark.parametrize("seed", SEEDS)
def test_invariant_6_a_turn_of_slots_stalls_nothing(seed: int) -> None:
    """On a good line no message waits for a second."""
    sim = Simulation(seed, publishers=[MONITOR], subscribers=[NEAR], options=OPTIONS)
    sim.publisher(MONITOR).send_every(10 * MILLISECOND, 1000)
    sim.run(11)
    verify(sim)
    sent = sim.publisher(MONITOR).stream.sent
    for happened in sim.subscriber(NEAR).history:
        message_id = getattr(happened.item, "message_id", None)
        if message_id is not None:
            assert happened.time - sent[message_id].time < SECOND
