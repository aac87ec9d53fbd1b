"""Mode `realtime`: in order, no wait beyond the deadline, what is passed over is told (DP-43)."""

import pytest

from sealcast.endpoint.events import Gap
from sealcast.testing import MILLISECOND, BurstLoss, Faults, SideChannelFaults, Simulation, verify
from tests.scenarios.common import MONITOR, NEAR, SEEDS, assert_nothing_lost, mixed_load

PROMPT = "prompt"
BAD = Faults(burst=BurstLoss(begin=0.02, mean_length=5))


@pytest.mark.parametrize("seed", SEEDS)
def test_what_repair_cannot_bring_in_time_is_told(seed: int) -> None:
    sim = Simulation(seed, publishers=[MONITOR], subscribers=[NEAR])
    prompt = sim.add_subscriber(PROMPT, delivery="realtime", deadline=20 * MILLISECOND, faults=BAD)
    sim.settle()
    sim.side_channel.faults = SideChannelFaults(delay=100 * MILLISECOND)
    mixed_load(sim)
    verify(sim, allow_gaps=True)
    assert len(sim.subscriber(NEAR).messages) > len(prompt.messages)
    assert any(isinstance(event, Gap) for event in prompt.events)


@pytest.mark.parametrize("seed", SEEDS)
def test_repair_within_the_deadline_mends_everything(seed: int) -> None:
    sim = Simulation(seed, publishers=[MONITOR], subscribers=[NEAR])
    sim.add_subscriber(PROMPT, delivery="realtime", deadline=500 * MILLISECOND, faults=BAD)
    sim.settle()
    mixed_load(sim)
    verify(sim)
    assert_nothing_lost(sim)
