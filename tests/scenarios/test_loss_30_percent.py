"""30 % of all datagrams are lost, credentials and heartbeats too."""

import pytest

from sealcast.testing import Faults
from tests.scenarios.common import FAR, SEEDS, over_link


@pytest.mark.parametrize("seed", SEEDS)
def test_everything_arrives(seed: int) -> None:
    sim = over_link(seed, Faults(loss=0.3))
    assert sim.subscriber(FAR).engine.counters()["repaired"] > 10
