"""Clocks are set back, set ahead, drift, stand still (H1, H2, fault 15). Spec: TR-27, TR-28.

Nothing that ended is taken again, nothing is lost for ever; once the clock is right all goes on by itself.
"""

from __future__ import annotations

import pytest

from sealcast.endpoint.events import Blocked, Refused, StreamClosed, StreamStarted
from sealcast.testing import MILLISECOND, SECOND, START, ChannelOptions, Simulation, verify
from tests.scenarios.common import FAR, FIRST_SEED, MONITOR, NEAR, assert_nothing_lost, ward

MINUTES = 120 * SECOND
DAY = 86_400 * SECOND
YEARS = 3650 * DAY
JUMPS = [-YEARS, -DAY, -MINUTES, MINUTES, DAY, YEARS]
WRONG_SECONDS = 40
"""Longer than between two looks at certificates, shorter than retention."""


def told(sim: Simulation, name: str, kind: type) -> int:
    host = sim.publishers.get(name) or sim.subscriber(name)
    return sum(isinstance(event, kind) for event in host.events)


@pytest.mark.parametrize("ahead", JUMPS)
@pytest.mark.parametrize("who", [MONITOR, FAR])
def test_h1_h2_fault_15_a_clock_that_is_set_and_set_right_again_loses_nothing(who: str, ahead: int) -> None:
    sim = ward(FIRST_SEED)
    host = sim.publishers.get(who) or sim.subscriber(who)
    sim.publisher(MONITOR).send_every(100 * MILLISECOND, 10 * (WRONG_SECONDS + 20))
    sim.run(5)
    host.set_clock(ahead)
    sim.run(WRONG_SECONDS)
    sent, received = len(sim.publisher(MONITOR).stream.sent), len(sim.subscriber(FAR).messages)
    stops = sent - received > 10
    # A date beyond what was signed is refused, and said; a date before it harms nobody.
    says = told(sim, MONITOR, Blocked) + told(sim, FAR, StreamClosed)
    assert stops == bool(says) == (ahead == YEARS or (ahead == DAY and who == FAR)), (sent, received, says)
    host.set_clock(0)
    sim.run(25)
    verify(sim)
    assert_nothing_lost(sim)
    assert host.signed_time <= sim.now


@pytest.mark.parametrize("drift", [500, -500, -1_000_000])
def test_fault_15_a_clock_that_drifts_or_stands_still_loses_nothing(drift: int) -> None:
    """Slots go on turning with the key server's beacons."""
    sim = ward(FIRST_SEED, options=ChannelOptions(slot_length=5 * SECOND))
    for host in sim.hosts:
        host.drift_ppm = drift
    sim.publisher(MONITOR).send_every(50 * MILLISECOND, 600)
    sim.run(35)
    verify(sim)
    assert_nothing_lost(sim)
    assert len({message.epoch[0] for message in sim.subscriber(FAR).messages}) >= 6


@pytest.mark.parametrize("back", [-YEARS, -DAY, -MINUTES])
def test_h1_what_has_expired_is_not_taken_again_when_the_clock_goes_back(back: int) -> None:
    """Not by a subscriber that runs, not by one that is started anew, not by the publisher itself."""
    sim = ward(FIRST_SEED)
    publisher, far, near = sim.publisher(MONITOR), sim.subscriber(FAR), sim.subscriber(NEAR)
    publisher.crash()
    # It has a minute to live.
    publisher.identity = sim.site.issue_device(MONITOR, sim.now + 60 * SECOND - 90 * DAY)
    publisher.start()
    sim.settle()
    publisher.send_numbered(5)
    sim.run(100)
    assert far.messages[-1].message_id == 4
    for subscriber in (far, near):
        assert [event.reason for event in subscriber.events if isinstance(event, StreamClosed)] == ["expired"]
    publisher.send_numbered(5)
    for host in sim.hosts:
        host.set_clock(back)
    near.restart()
    sim.run(100)
    assert near.has_joined
    assert any(isinstance(event, Blocked) and "expired" in event.reason for event in publisher.events)
    for subscriber in (far, near):
        started = [event for event in subscriber.events if isinstance(event, StreamStarted)]
        assert sum(event.stream_id == publisher.stream.stream_id for event in started) == 1
        assert subscriber.messages[-1].message_id == 4
    # A renewal brings it back, under the clocks as they are.
    publisher.renew()
    sim.run(10)
    assert far.messages[-1].message_id == 9


def test_h3_a_device_that_boots_in_1970_goes_on_by_what_it_has_seen_signed_and_a_new_one_is_refused() -> None:
    sim = ward(FIRST_SEED)
    far = sim.subscriber(FAR)
    assert START - 60 * SECOND <= far.signed_time <= sim.now
    for subscriber in sim.subscribers.values():
        subscriber.crash()
        subscriber.set_clock(-sim.now)
        assert subscriber.wall == 0
    sim.subscriber(NEAR).signed_time = 0
    for subscriber in sim.subscribers.values():
        subscriber.start()
    sim.run(10)
    sim.publisher(MONITOR).send_numbered(5)
    sim.run(5)
    assert len(far.messages) == 5
    # Without any memory of the time there is no way round validity.
    near = sim.subscriber(NEAR)
    assert not near.has_joined
    assert {event.reason for event in near.events if isinstance(event, Refused)} == {
        "key server: not-yet-valid"
    }
    near.set_clock(0)
    sim.run(20)
    sim.publisher(MONITOR).send_numbered(5)
    sim.run(5)
    assert [message.message_id for message in near.messages] == list(range(5, 10))
