"""A subscriber without any multicast: the same packets, verified alike, from a repair node or the publisher.

SC-44, SC-45.
"""

from __future__ import annotations

from functools import partial

import pytest

from sealcast._core import Message
from sealcast.endpoint.events import Gap, SourcePassedOver
from sealcast.pki.signed import encode_cbor
from sealcast.sidechannel.messages import RepairAnswer
from sealcast.testing import MILLISECOND, SECOND, ChannelOptions, SideChannelFaults, Simulation, verify
from tests.scenarios.common import FAR, MONITOR, NEAR, SEEDS, assert_nothing_lost, mixed_load

KEEPER = "keeper"


def ward_without(seed: int, *, node: bool = False, options: ChannelOptions | None = None) -> Simulation:
    """A ward with one subscriber that no multicast reaches, and maybe a repair node."""
    sim = Simulation(seed, publishers=[MONITOR], options=options)
    if node:
        sim.add_repair_node(KEEPER)
        sim.settle()
    sim.add_subscriber(FAR, path="side-channel")
    sim.add_subscriber(NEAR)
    sim.settle()
    # The publisher hears of the policy that lists them.
    sim.run(2)
    return sim


def passed_over(sim: Simulation) -> list[tuple[str, str]]:
    told = [event for event in sim.subscriber(FAR).events if isinstance(event, SourcePassedOver)]
    return [(event.source, event.reason) for event in told]


def _has(sim: Simulation, messages: int) -> bool:
    return len(sim.subscriber(FAR).messages) == messages


@pytest.mark.parametrize("node", [False, True])
@pytest.mark.parametrize("seed", SEEDS[:3])
def test_everything_arrives_in_order(seed: int, node: bool) -> None:
    sim = ward_without(seed, node=node)
    mixed_load(sim)
    sim.publisher(MONITOR).finish()
    sim.run(2)
    verify(sim)
    assert_nothing_lost(sim)
    far, near = sim.subscriber(FAR), sim.subscriber(NEAR)
    assert [message.data for message in far.messages] == [message.data for message in near.messages]
    assert far.engine.counters()["followed"] > 200
    assert not far.refusals, "a datagram has reached it"
    assert far.engine.last_heard() == [], "it knows of the end"
    publisher = sim.publisher(MONITOR).engine.counters()
    assert (publisher["repairs_served"] == 0) is node


def test_a_message_is_pushed_as_soon_as_it_is_sealed() -> None:
    """Idle: one way of the side channel (5 ms) after it was sent, not at the next look."""
    sim = ward_without(1)
    taken = []
    for number in range(1, 20):
        sent = sim.now
        sim.publisher(MONITOR).send_numbered(1, 100)
        assert sim.run_until(partial(_has, sim, number), 1.0)
        taken.append(sim.now - sent)
        sim.run(0.37)
    assert max(taken) <= 20 * MILLISECOND, taken
    # And whoever waits asks for nothing meanwhile.
    before = sim.subscriber(FAR).engine.counters()["requests"]
    sim.run(60)
    assert sim.subscriber(FAR).engine.counters()["requests"] - before <= 13


def test_d4_a_node_that_dies_is_followed_by_another_source() -> None:
    """D4: it hangs up; the publisher is asked at once, and the node again when it is back."""
    sim = ward_without(2, node=True)
    sim.publisher(MONITOR).send_every(10 * MILLISECOND, 800)
    sim.run(2)
    sim.repair_nodes[KEEPER].crash()
    sim.run(2)
    assert sim.publisher(MONITOR).engine.counters()["repairs_served"] > 100
    sim.run(5)
    assert _has(sim, 800)
    assert_nothing_lost(sim)
    verify(sim)
    assert passed_over(sim) == [(KEEPER, "no-answer")]


def test_d4_a_node_that_answers_nobody_is_followed_by_another_source() -> None:
    """D4: it takes requests and is silent; after 8 s the publisher is asked, whose retention has it all."""
    sim = ward_without(2, node=True)
    sim.repair_nodes[KEEPER].crash()
    sim.side_channel.listen(*sim.repair_nodes[KEEPER].endpoint, KEEPER, lambda *_: None)
    sim.publisher(MONITOR).send_every(10 * MILLISECOND, 500)
    assert sim.run_until(partial(_has, sim, 500), 16.0)
    assert_nothing_lost(sim)
    verify(sim)


def test_d4_a_node_that_withholds_everything_is_passed_over() -> None:
    """D4: it says that there is nothing, though a publisher that lives says something every second."""
    sim = ward_without(3, node=True)
    node = sim.repair_nodes[KEEPER]
    node.withheld, node.is_mute = set(range(10_000)), True
    sim.publisher(MONITOR).send_every(10 * MILLISECOND, 500)
    assert sim.run_until(partial(_has, sim, 500), 12.0)
    assert_nothing_lost(sim)
    assert (KEEPER, "withheld") in passed_over(sim)
    verify(sim)


def test_d4_a_node_that_withholds_some_is_found_out() -> None:
    """D4: holes in what it gives are asked for of the publisher."""
    sim = ward_without(4, node=True)
    sim.repair_nodes[KEEPER].withheld = set(range(3, 400, 7))
    sim.publisher(MONITOR).send_every(10 * MILLISECOND, 400)
    assert sim.run_until(partial(_has, sim, 400), 6.0)
    assert_nothing_lost(sim)
    assert (KEEPER, "withheld") in passed_over(sim)
    verify(sim)


def _poisoned(body: bytes) -> bytes:
    answer = RepairAnswer.parse(body)
    packets = [packet[:-100] + bytes([packet[-100] ^ 1]) + packet[-99:] for packet in answer.packets]
    return encode_cbor({"packets": packets, "oldest": answer.oldest, "head": answer.head})


def test_d3_nothing_is_believed_because_it_came_over_tls() -> None:
    """D3: a node that changes a bit of each packet delivers nothing; it is named, and the publisher asked."""
    sim = ward_without(5, node=True)
    sim.repair_nodes[KEEPER].poison = _poisoned
    sim.publisher(MONITOR).send_every(10 * MILLISECOND, 400)
    assert sim.run_until(partial(_has, sim, 400), 6.0)
    assert_nothing_lost(sim)
    verify(sim)
    assert passed_over(sim) == [(KEEPER, "bad-packets")]


@pytest.mark.parametrize("seed", SEEDS[:3])
def test_lines_that_break_lose_nothing(seed: int) -> None:
    sim = ward_without(seed, node=True)
    sim.side_channel.faults = SideChannelFaults(jitter=30 * MILLISECOND, failure=0.1, lost_answer=0.1)
    mixed_load(sim)
    sim.run(5)
    mend = sim.partition(FAR)
    mixed_load(sim)
    sim.run(3)
    mend()
    mixed_load(sim)
    sim.calm()
    sim.run(15)
    verify(sim)
    assert_nothing_lost(sim)
    assert len(sim.subscriber(FAR).messages) == len(sim.publisher(MONITOR).stream.sent)


@pytest.mark.parametrize("seed", SEEDS[:3])
def test_streams_that_come_and_go_are_heard_of_within_moments(seed: int) -> None:
    """SC-45: no timer; the poll tells that there is another directory."""
    sim = ward_without(seed, node=True)
    publisher = sim.publisher(MONITOR)
    publisher.send_numbered(20, 300)
    sim.run(1)
    publisher.restart()
    sim.settle()
    publisher.send_numbered(20, 300)
    sim.add_publisher("second")
    sim.settle()
    sim.publisher("second").send_numbered(20, 300)
    assert sim.run_until(partial(_has, sim, 60), 2.5)
    assert sim.key_server.requests["streams"] < 20
    verify(sim)


def test_keys_turn_while_it_is_followed() -> None:
    """Slots, joins, a removal: nothing is lost, and who was removed gets no more."""
    sim = ward_without(6, options=ChannelOptions(slot_length=3 * SECOND))
    sim.add_subscriber("gone", path="side-channel")
    sim.settle()
    sim.publisher(MONITOR).send_every(20 * MILLISECOND, 600)
    sim.run(3)
    sim.add_subscriber("late")
    sim.run(1)
    sim.remove("gone")
    at = sim.now
    sim.run(12)
    assert _has(sim, 600)
    assert_nothing_lost(sim)
    delivered = [item.time for item in sim.subscriber("gone").history if isinstance(item.item, Message)]
    assert 0 < max(delivered) < at + SECOND // 2
    verify(sim)


def test_from_its_admission_onwards() -> None:
    """Who joins in the middle gets what is sealed from then on, each once, whoever it asks."""
    sim = ward_without(7, node=True)
    sim.publisher(MONITOR).send_every(5 * MILLISECOND, 1200)
    sim.run(2)
    for name in ("late-1", "late-2"):
        sim.add_subscriber(name, path="side-channel")
        sim.run(1)
    sim.run(8)
    verify(sim)
    assert_nothing_lost(sim)
    assert 0 < len(sim.subscriber("late-2").messages) < len(sim.subscriber("late-1").messages) < 1200


def test_who_does_not_read_is_held_nowhere_and_catches_up() -> None:
    """Its own buffer is bounded; the publisher has what it has not asked for, while retention lasts."""
    sim = ward_without(8, options=ChannelOptions(retention=20 * SECOND))
    slow = sim.add_subscriber("slow", path="side-channel", buffer_bytes=200_000)
    sim.settle()
    sim.run(2)
    slow.is_reading = False
    sim.publisher(MONITOR).send_every(10 * MILLISECOND, 500, 1000)
    sim.run(8)
    slow.is_reading = True
    slow.take()
    sim.run(5)
    assert len(slow.messages) == 500
    slow.is_reading = False
    sim.publisher(MONITOR).send_every(10 * MILLISECOND, 500, 1000)
    sim.run(30)
    slow.is_reading = True
    slow.take()
    sim.run(10)
    # After the retention it is told what it has missed.
    gaps = [event for event in slow.events if isinstance(event, Gap)]
    assert gaps
    assert len(slow.messages) < 1000
    assert _has(sim, 1000)
    verify(sim, allow_gaps=True)
