"""One to three bits flip in 30 % of all datagrams: none is delivered wrong, all arrive by repair (A10)."""

import pytest

from sealcast.testing import Faults
from tests.scenarios.common import FAR, SEEDS, over_link


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_wrong_is_delivered_and_everything_arrives(seed: int) -> None:
    sim = over_link(seed, Faults(corruption=0.3))
    far = sim.subscriber(FAR)
    assert far.refusals["gate"] > 10
    # A flip in the epoch makes it look ahead of ours: the small budget for that, and no more.
    assert far.refusals["signature"] < 10
    assert far.engine.counters()["repaired"] > 10
