"""5 % of all datagrams are lost, independently: everything is mended, with few requests."""

import pytest

from sealcast.testing import Faults
from tests.scenarios.common import FAR, SEEDS, over_link


@pytest.mark.parametrize("seed", SEEDS)
def test_everything_arrives(seed: int) -> None:
    sim = over_link(seed, Faults(loss=0.05))
    counters = sim.subscriber(FAR).engine.counters()
    assert counters["repaired"] > 0
    # Ranges are merged: far fewer requests than packets lost in a block.
    assert counters["requests"] <= counters["repaired"] + 10
