"""Losses come in bursts of ten on average (Gilbert-Elliott), one datagram in six."""

import pytest

from sealcast.testing import BurstLoss, Faults
from tests.scenarios.common import FAR, SEEDS, over_link


@pytest.mark.parametrize("seed", SEEDS)
def test_everything_arrives(seed: int) -> None:
    sim = over_link(seed, Faults(burst=BurstLoss(begin=0.02, mean_length=10)))
    assert sim.network.counters.lost > 0
    assert sim.subscriber(FAR).engine.counters()["repaired"] > 0
