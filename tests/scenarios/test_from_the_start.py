"""From the start is from the admission on, which a member that was killed keeps (DP-44, KM-10)."""

import pytest

from sealcast.testing import MILLISECOND, Faults, Simulation, verify
from tests.scenarios.common import MONITOR, NEAR, SEEDS, assert_nothing_lost

AWAY, NEW = "away", "new"


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("loss", [0.0, 0.2])
def test_everything_since_the_admission_and_no_gap_before(seed: int, loss: float) -> None:
    """Of who is new, and of who was killed and has everything that was sent while it was away."""
    sim = Simulation(seed, publishers=[MONITOR], subscribers=[NEAR])
    faults = Faults(loss=loss)
    away = sim.add_subscriber(AWAY, start="start", faults=faults)
    sim.settle()
    away.crash()
    publisher = sim.publisher(MONITOR)
    publisher.send_every(3 * MILLISECOND, 1000)
    sim.run(2)
    away.start()
    sim.run(0.5)
    new = sim.add_subscriber(NEW, start="start", faults=faults)
    sim.settle()
    sim.run(2)
    verify(sim)
    assert_nothing_lost(sim)
    assert len(away.joins) == 2
    assert [message.message_id for message in away.messages] == list(range(1000))
    _, joined, admission = new.joins[0]
    switched = publisher.stream.switched(admission)
    assert switched is not None
    ids = [message.message_id for message in new.messages]
    assert ids == list(range(ids[0], 1000))
    # From the first message that was sealed under its admission on, also if the join was answered later.
    assert 0 < ids[0] < 999
    assert publisher.stream.sent[ids[0] - 1].time <= switched, f"joined {joined}"
