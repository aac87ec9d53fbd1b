"""A subscriber dies, starts again, and is played everything once more: nothing comes twice (B2)."""

import pytest

from sealcast.testing import MILLISECOND, Faults, verify
from tests.scenarios.common import FAR, MONITOR, SEEDS, ward


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_is_delivered_twice_and_nothing_is_lost_from_then_on(seed: int) -> None:
    sim = ward(seed)
    sim.network.set_faults(Faults(loss=0.1), [FAR])
    publisher, far = sim.publisher(MONITOR), sim.subscriber(FAR)
    publisher.send_every(5 * MILLISECOND, 600)
    sim.run(1)
    far.crash()
    sim.run(0.3)
    before = len(far.messages)
    assert before > 100
    recorded = [sighting.datagram for sighting in sim.network.tap]
    far.start()
    # The replay begins before it has joined, and is repeated when it has.
    sim.network.inject(recorded, [FAR])
    sim.settle()
    sim.network.inject(recorded, [FAR])
    sim.run(2)
    publisher.send_numbered(20)
    sim.network.inject([sighting.datagram for sighting in sim.network.tap], [FAR])
    verify(sim)
    assert len(far.messages) > before + 20


@pytest.mark.parametrize("seed", SEEDS)
def test_repair_does_not_bring_back_what_was_delivered_before(seed: int) -> None:
    """The directory's head is up to 2 s old; what is above it is asked for, and is not for this start."""
    sim = ward(seed)
    publisher, far = sim.publisher(MONITOR), sim.subscriber(FAR)
    sim.run(3)
    publisher.send_numbered(50, 1000)
    sim.run(0.2)
    assert len(far.messages) == 50
    far.restart()
    sim.settle()
    publisher.send_numbered(5)
    sim.run(5)
    verify(sim)
    assert len(far.messages) == 55
