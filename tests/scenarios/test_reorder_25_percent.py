"""A quarter of all datagrams is held up for up to 750 ms: order and number of the messages stay."""

import pytest

from sealcast.testing import MILLISECOND, Faults
from tests.scenarios.common import SEEDS, over_link


@pytest.mark.parametrize("seed", SEEDS)
def test_everything_arrives_in_order(seed: int) -> None:
    sim = over_link(seed, Faults(reorder=0.25, reorder_delay=750 * MILLISECOND))
    assert sim.network.counters.held_up > 20
