"""A publisher signs its end: every subscriber has everything before it, then is told the end (DP-26)."""

import pytest

from sealcast._core import Message, SendError
from sealcast.endpoint.events import Gap, StreamEnded
from sealcast.testing import MILLISECOND, Faults, verify
from tests.scenarios.common import FAR, MONITOR, NEAR, SEEDS, assert_nothing_lost, ward


@pytest.mark.parametrize("seed", SEEDS)
def test_the_end_comes_last(seed: int) -> None:
    sim = ward(seed)
    sim.network.set_faults(Faults(loss=0.3), [FAR])
    publisher = sim.publisher(MONITOR)
    publisher.send_every(5 * MILLISECOND, 200)
    sim.run(1)
    publisher.finish()
    with pytest.raises(SendError, match="ended"):
        publisher.send(b"too late")
    assert sim.run_until(lambda: publisher.engine.is_finished, 2)
    sim.run(2)
    publisher.stop()
    sim.run(5)
    verify(sim)
    assert_nothing_lost(sim)
    for name in (FAR, NEAR):
        last = sim.subscriber(name).history[-1].item
        assert isinstance(last, StreamEnded)
        assert last.next_sequence == sum(
            1 for item in sim.subscriber(name).history if isinstance(item.item, Message)
        )


@pytest.mark.parametrize("seed", SEEDS)
def test_a_restart_after_the_end_is_no_gap(seed: int) -> None:
    sim = ward(seed)
    publisher = sim.publisher(MONITOR)
    publisher.send_numbered(10)
    sim.run(0.1)
    publisher.finish()
    sim.run(2)
    publisher.stop()
    publisher.start()
    sim.settle()
    publisher.send_numbered(10)
    sim.run(1)
    verify(sim)
    assert not any(isinstance(event, Gap) for event in sim.subscriber(NEAR).events)


@pytest.mark.parametrize("seed", SEEDS)
def test_an_end_that_a_partition_hid_is_not_lost_in_silence(seed: int) -> None:
    """Messages, end and the end of the process fall into a partition: what is lost is told (O8)."""
    sim = ward(seed)
    publisher = sim.publisher(MONITOR)
    publisher.send_every(10 * MILLISECOND, 300)
    sim.run(1)
    sim.partition(FAR, seconds=8)
    sim.run(2.5)
    publisher.finish()
    sim.run(4)
    publisher.stop()
    sim.run(90)
    verify(sim, allow_gaps=True)
