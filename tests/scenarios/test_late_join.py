"""A subscriber joins a stream in full run under loss: nothing of before, all after its admission (DP-34)."""

import pytest

from sealcast.testing import MILLISECOND, Faults, verify
from tests.scenarios.common import MONITOR, SEEDS, assert_nothing_lost, ward


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("loss", [0.0, 0.2])
def test_nothing_of_before_and_everything_after(seed: int, loss: float) -> None:
    sim = ward(seed)
    publisher = sim.publisher(MONITOR)
    publisher.send_every(3 * MILLISECOND, 1500)
    sim.run(2 + 0.37 * (seed % 5))
    before = sim.now
    late = sim.add_subscriber("late", faults=Faults(loss=loss))
    sim.settle()
    joined = sim.now
    sim.run(3)
    verify(sim)
    assert_nothing_lost(sim)
    got = [publisher.stream.sent[message.message_id].time for message in late.messages]
    assert min(got) >= before
    assert len(got) >= sum(sent.time > joined + 100 * MILLISECOND for sent in publisher.stream.sent)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_silent_stream_is_followed_from_its_next_message(seed: int) -> None:
    sim = ward(seed)
    publisher = sim.publisher(MONITOR)
    publisher.send_numbered(50)
    sim.run(7)
    late = sim.add_subscriber("late")
    sim.settle()
    sim.run(5)
    assert late.messages == []
    publisher.send_numbered(1)
    sim.run(1)
    verify(sim)
    assert [message.message_id for message in late.messages] == [50]
    assert_nothing_lost(sim)
