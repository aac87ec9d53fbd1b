"""Half of all datagrams come twice: each message is delivered once (B1)."""

import pytest

from sealcast.testing import MILLISECOND, Faults
from tests.scenarios.common import FAR, SEEDS, over_link


@pytest.mark.parametrize("seed", SEEDS)
def test_everything_arrives_once(seed: int) -> None:
    sim = over_link(seed, Faults(duplicate=0.5, reorder_delay=100 * MILLISECOND))
    assert sim.subscriber(FAR).refusals["duplicate"] > 50
