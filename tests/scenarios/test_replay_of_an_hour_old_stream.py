"""An hour of a stream is played to a subscriber that was not there: it delivers none of it."""

import pytest

from sealcast.testing import SECOND, ChannelOptions, verify
from tests.scenarios.common import MONITOR, NEAR, SEEDS, ward

FRESH = "fresh"


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("minutes", [10, 120])
@pytest.mark.parametrize("ended", [False, True])
def test_nothing_is_delivered(seed: int, minutes: int, ended: bool) -> None:
    # With the long slot its keys are those of the replay's slot too; generation and step alone keep it out.
    sim = ward(seed, options=ChannelOptions(slot_length=minutes * 60 * SECOND))
    publisher = sim.publisher(MONITOR)
    publisher.send_numbered(200, 900)
    sim.run(1)
    if ended:
        publisher.finish()
        sim.run(1)
        publisher.stop()
    recorded = [sighting.datagram for sighting in sim.network.tap]
    sim.run(3600)
    fresh = sim.add_subscriber(FRESH)
    sim.network.inject(recorded, [FRESH])
    sim.settle()
    # As it was, in one go, and slowly.
    sim.network.inject(recorded, [FRESH])
    for datagram in recorded:
        sim.network.inject([datagram], [FRESH])
        sim.run(0.01)
    sim.run(5)
    assert fresh.messages == []
    assert sim.subscriber(NEAR).messages
    verify(sim)
