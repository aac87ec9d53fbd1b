"""A publisher dies without a word and starts again: a new stream that succeeds the old one (DP-32).

What had left it arrives; what it still had to say is a gap of unknown end.
"""

import pytest

from sealcast.endpoint.events import Gap, StreamStarted, SuccessionConflict
from sealcast.testing import MILLISECOND, Faults, Simulation, verify
from tests.scenarios.common import FAR, MONITOR, NEAR, SEEDS, ward


def crash_and_restart(sim: Simulation) -> None:
    publisher = sim.publisher(MONITOR)
    publisher.send_every(5 * MILLISECOND, 10_000)
    sim.run(1)
    publisher.crash()
    sim.run(0.5)
    publisher.start()
    sim.settle()
    publisher.send_every(5 * MILLISECOND, 100)
    sim.run(2)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_new_stream_succeeds_the_old_one(seed: int) -> None:
    sim = ward(seed)
    crash_and_restart(sim)
    verify(sim)
    first, second = sim.publisher(MONITOR).streams
    for name in (FAR, NEAR):
        subscriber = sim.subscriber(name)
        started = [event for event in subscriber.events if isinstance(event, StreamStarted)]
        assert [event.succeeds for event in started] == [None, first.stream_id]
        gaps = [event for event in subscriber.events if isinstance(event, Gap)]
        assert [(gap.stream_id, gap.last) for gap in gaps] == [(first.stream_id, None)]
        # On a good line everything that had been sealed is here.
        got = [message.message_id for message in subscriber.messages if message.stream_id == first.stream_id]
        assert got == list(range(first.count))
        assert sum(message.stream_id == second.stream_id for message in subscriber.messages) == 100
        assert not any(isinstance(event, SuccessionConflict) for event in subscriber.events)


@pytest.mark.parametrize("seed", SEEDS)
def test_under_loss_what_is_missing_of_the_old_stream_is_told(seed: int) -> None:
    sim = ward(seed)
    sim.network.set_faults(Faults(loss=0.2), [FAR])
    crash_and_restart(sim)
    # Nobody can repair the end of the old stream: it is given up after retention.
    sim.run(70)
    verify(sim)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_hundred_restarts_leave_nobody_deaf(seed: int) -> None:
    """More streams than a subscriber keeps at a time (64) come and go; the last one is heard as well."""
    sim = ward(seed)
    publisher = sim.publisher(MONITOR)
    for _ in range(100):
        publisher.send_numbered(3)
        sim.run(0.05)
        publisher.restart()
        sim.settle()
    sim.run(1)
    publisher.send_numbered(10)
    sim.run(1)
    verify(sim)
    for subscriber in sim.subscribers.values():
        last = publisher.stream.stream_id
        assert sum(message.stream_id == last for message in subscriber.messages) == 10
