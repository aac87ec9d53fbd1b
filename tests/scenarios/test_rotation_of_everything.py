"""Everything that rotates does so in mid-stream, one after the other and at once: 0 lost, nothing stalls."""

from __future__ import annotations

import pytest

from sealcast._core import Message
from sealcast.endpoint.events import StreamClosed, StreamEnded, StreamStarted
from sealcast.testing import MILLISECOND, SECOND, ChannelOptions, verify
from tests.insider import read_keys
from tests.scenarios.common import FAR, MONITOR, NEAR, SEEDS, assert_nothing_lost, ward


@pytest.mark.parametrize("seed", SEEDS)
def test_invariant_6_a_rotation_of_anything_loses_nothing_and_stalls_nothing(seed: int) -> None:
    sim = ward(seed, options=ChannelOptions(slot_length=3 * SECOND))
    publisher, near = sim.publisher(MONITOR), sim.subscriber(NEAR)
    for name in ("gone", "also-gone"):
        sim.add_subscriber(name)
    sim.settle()
    old = publisher.identity
    publisher.send_every(10 * MILLISECOND, 1590)
    sim.run(2)
    sim.remove("gone")
    sim.run(2)
    sim.renew(MONITOR)
    sim.run(2)
    # The key server starts anew: another control stream, another counter.
    sim.outage(0.3)
    sim.run(2)
    # CRL, policy, generation, step and slot at once.
    sim.key_server.revoke_certificate(old)
    sim.remove("also-gone")
    sim.add_subscriber("late")
    sim.renew(MONITOR)
    sim.run(8)
    # The stream itself: signed end, successor.
    publisher.finish()
    sim.run_until(lambda: publisher.engine.is_finished, 2)
    publisher.stop()
    publisher.start()
    sim.settle()
    publisher.send_every(10 * MILLISECOND, 200)
    sim.run(4)

    verify(sim)
    assert_nothing_lost(sim)
    assert not any(isinstance(event, StreamClosed) for event in near.events)
    first, second = (stream.stream_id for stream in publisher.streams)
    started = [event for event in near.events if isinstance(event, StreamStarted)]
    assert [(event.stream_id, event.succeeds) for event in started] == [(first, None), (second, first)]
    assert [event.stream_id for event in near.events if isinstance(event, StreamEnded)] == [first]
    epochs = {message.epoch for message in near.messages}
    assert len({slot for slot, _, _ in epochs}) >= 6, "slots"
    assert len({generation for _, generation, _ in epochs}) == 3, "generations"
    assert len({(generation, step) for _, generation, step in epochs}) >= 4, "a step"
    # The stream id stands at offset 6 (wire.md section 2).
    assert len({read_keys(body).beacon[6:22] for body in near.key_answers}) == 2, "control streams"
    waits = [
        happened.time - sim.streams[happened.item.stream_id].sent[happened.item.message_id].time
        for name in (NEAR, FAR)
        for happened in sim.subscriber(name).history
        if isinstance(happened.item, Message)
    ]
    assert len(waits) > 3000
    assert max(waits) < SECOND
