"""A publisher is revoked: its stream is closed everywhere, and nothing that it signs later is delivered."""

import pytest

from sealcast.endpoint.events import Refused, StreamClosed
from sealcast.testing import MILLISECOND, Faults, Simulation, verify
from tests.scenarios.common import FAR, NEAR, SEEDS

STOLEN, HONEST = "stolen", "honest"


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("loss", [0.0, 0.2])
def test_invariant_5_the_revoked_signs_in_vain(seed: int, loss: float) -> None:
    sim = Simulation(seed, publishers=[STOLEN, HONEST], subscribers=[FAR, NEAR])
    sim.network.set_faults(Faults(loss=loss))
    sim.publisher(STOLEN).send_every(10 * MILLISECOND, 1000)
    sim.publisher(HONEST).send_every(10 * MILLISECOND, 800)
    sim.run(2)
    generation = sim.revoke(STOLEN)
    sim.run(1)
    counts = {name: heard(sim, name) for name in (FAR, NEAR)}
    # It goes on with all its keys; it even gets what it said repeated by an accomplice.
    sim.run(2)
    sim.network.inject([sighting.datagram for sighting in sim.network.tap if sighting.sender == STOLEN])
    sim.run(5)
    for name in (FAR, NEAR):
        subscriber = sim.subscriber(name)
        closed = [event for event in subscriber.events if isinstance(event, StreamClosed)]
        assert {event.publisher for event in closed} == {STOLEN}
        assert heard(sim, name) == counts[name] < 400
        assert max(message.epoch[1] for message in subscriber.messages) == generation
    assert any(isinstance(event, Refused) for event in sim.publisher(STOLEN).events)
    verify(sim)


def heard(sim: Simulation, name: str) -> int:
    """Messages of the stolen device that a subscriber has delivered."""
    return sum(message.publisher == STOLEN for message in sim.subscriber(name).messages)
