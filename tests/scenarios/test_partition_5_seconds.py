"""A subscriber hears and reaches nobody for 5 s of full traffic, then catches up."""

import pytest

from sealcast.testing import MILLISECOND, verify
from tests.scenarios.common import FAR, MONITOR, NEAR, SEEDS, assert_nothing_lost, ward


@pytest.mark.parametrize("seed", SEEDS)
def test_everything_is_caught_up(seed: int) -> None:
    sim = ward(seed)
    # More than one repair answer holds (1,024 packets).
    sim.publisher(MONITOR).send_every(2 * MILLISECOND, 3000, 1000)
    sim.run(0.5)
    sim.partition(FAR, seconds=5)
    sim.run(4.9)
    behind = len(sim.subscriber(FAR).messages)
    assert len(sim.subscriber(NEAR).messages) - behind > 2000
    sim.run(1)
    verify(sim, seconds=10)
    assert_nothing_lost(sim)
    assert len(sim.subscriber(FAR).messages) == 3000


@pytest.mark.parametrize("seed", SEEDS)
def test_a_publisher_that_was_cut_off_is_repaired_from(seed: int) -> None:
    sim = ward(seed)
    sim.publisher(MONITOR).send_every(20 * MILLISECOND, 400)
    sim.run(1)
    sim.partition(MONITOR, seconds=5)
    sim.run(8)
    verify(sim, seconds=10)
    assert_nothing_lost(sim)
