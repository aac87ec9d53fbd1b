"""Mode `unordered`: each message as soon as it is complete, each once, none missing (DP-33)."""

import pytest

from sealcast.testing import MILLISECOND, Faults, Simulation, verify
from tests.scenarios.common import MONITOR, NEAR, SEEDS, assert_nothing_lost, mixed_load

LOOSE = "loose"


@pytest.mark.parametrize("seed", SEEDS)
def test_everything_arrives_once_and_sooner(seed: int) -> None:
    sim = Simulation(seed, publishers=[MONITOR], subscribers=[NEAR])
    faults = Faults(loss=0.1, reorder=0.25, reorder_delay=300 * MILLISECOND, duplicate=0.1)
    loose = sim.add_subscriber(LOOSE, delivery="unordered", faults=faults)
    sim.settle()
    mixed_load(sim)
    sim.publisher(MONITOR).send_numbered(3, 300_000)
    verify(sim)
    assert_nothing_lost(sim)
    ids = [message.message_id for message in loose.messages]
    assert ids != sorted(ids), "a gap holds nothing up"
    assert sorted(ids) == list(range(len(ids)))
