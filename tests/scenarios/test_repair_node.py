"""A repair node among sources: who is asked, what it can give, what it cannot open."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import cbor2
import pytest
from cryptography.exceptions import InvalidTag

from sealcast.endpoint.events import SourcePassedOver
from sealcast.keys import MemberRole
from sealcast.pki.signed import encode_cbor
from sealcast.sidechannel.messages import RepairAnswer
from sealcast.testing import MILLISECOND, SECOND, ChannelOptions, Faults, Simulation, verify
from tests.reference import schedule, seal
from tests.reference.wire import Datagram, PacketType
from tests.scenarios.common import FAR, MONITOR, NEAR, SEEDS, assert_nothing_lost, mixed_load, ward

KEEPER = "keeper"


def ward_with_node(seed: int) -> Simulation:
    """A ward with a repair node on a good line, known to all."""
    sim = Simulation(seed, publishers=[MONITOR])
    sim.add_repair_node(KEEPER)
    sim.settle()
    for name in (FAR, NEAR):
        sim.add_subscriber(name)
    sim.settle()
    # The publisher hears of the policy that lists them.
    sim.run(2)
    return sim


def data_of(sim: Simulation) -> list[bytes]:
    sent = [sighting.datagram for sighting in sim.network.tap if sighting.sender == MONITOR]
    return [datagram for datagram in sent if Datagram.parse(datagram).header.type == PacketType.DATA]


@pytest.mark.parametrize("seed", SEEDS)
def test_what_is_lost_comes_from_the_node_and_costs_the_publisher_nothing(seed: int) -> None:
    sim = ward_with_node(seed)
    publisher, node = sim.publisher(MONITOR), sim.repair_nodes[KEEPER]
    sim.network.set_faults(Faults(loss=0.1), [FAR])
    mixed_load(sim)
    sim.calm()
    verify(sim)
    assert_nothing_lost(sim)
    assert node.served > 0
    assert sim.subscriber(FAR).engine.counters()["repaired"] > 10
    assert publisher.engine.counters()["repairs_served"] == 0


@pytest.mark.parametrize("seed", SEEDS[:2])
def test_a_node_serves_a_stream_whose_publisher_died(seed: int) -> None:
    sim = ward_with_node(seed)
    publisher = sim.publisher(MONITOR)
    publisher.send_numbered(100, 700)
    sim.run(1)
    mend = sim.network.partition([FAR])
    publisher.send_numbered(300, 700)
    sim.run(3)
    publisher.crash()
    mend()
    # It hears nothing, asks the directory, learns of the head there, and asks the node.
    sim.run(20)
    assert len(sim.subscriber(FAR).messages) == 400
    assert_nothing_lost(sim)


def test_d4_a_node_that_withholds_is_passed_over_and_named() -> None:
    """D4: it says nothing of chosen packets; they come from the publisher within moments."""
    sim = ward_with_node(1)
    node = sim.repair_nodes[KEEPER]
    mend = sim.network.partition([FAR])
    sim.publisher(MONITOR).send_numbered(500, 900)
    sim.run(0.3)
    node.withheld = set(range(3, 400, 7))
    mend()
    sim.publisher(MONITOR).send_numbered(1, 900)
    began = sim.now
    assert sim.run_until(partial(_has, sim, 501), 2.0)
    assert sim.now - began < 500_000
    told = [event for event in sim.subscriber(FAR).events if isinstance(event, SourcePassedOver)]
    assert [(event.source, event.reason) for event in told] == [(KEEPER, "withheld")]
    assert_nothing_lost(sim)
    verify(sim)


def test_d4_a_node_that_is_dead_is_passed_over_and_asked_last() -> None:
    """D4: no answer; the next source is asked after 2 s at the latest (SC-41), and first from then on."""
    sim = ward_with_node(2)
    sim.repair_nodes[KEEPER].crash()
    sim.side_channel.listen(*sim.repair_nodes[KEEPER].endpoint, KEEPER, lambda *_: None)
    for number, limit in enumerate((2.5, 0.5, 0.5), 1):
        mend = sim.network.partition([FAR])
        sim.publisher(MONITOR).send_numbered(50, 900)
        sim.run(0.3)
        mend()
        sim.publisher(MONITOR).send_numbered(1, 900)
        assert sim.run_until(partial(_has, sim, 51 * number), limit)
    told = [event for event in sim.subscriber(FAR).events if isinstance(event, SourcePassedOver)]
    assert [(event.source, event.reason) for event in told] == [(KEEPER, "no-answer")]
    assert_nothing_lost(sim)


def _has(sim: Simulation, messages: int) -> bool:
    return len(sim.subscriber(FAR).messages) == messages


@pytest.mark.parametrize("suite", [1, 2, 3])
def test_nothing_opens_with_all_that_a_node_holds(suite: int) -> None:
    """KM-21: each secret that it was ever given, in each place of the key schedule, opens no data packet."""
    sim = Simulation(1, publishers=[MONITOR], options=ChannelOptions(suite=suite, slot_length=5_000_000))
    node = sim.add_repair_node(KEEPER)
    for _ in range(3):
        sim.settle()
        sim.publisher(MONITOR).send_numbered(3, 300)
        sim.run(5)
        sim.add_subscriber(f"late-{sim.now}")
    sim.settle()
    sim.publisher(MONITOR).send_numbered(1, 300)
    sim.run(0.5)
    node_fields = [cbor2.loads(body) for body in node.key_answers]
    assert all("slots" not in fields and "generation" not in fields for fields in node_fields)
    given = {bytes(key) for fields in node_fields for grant in fields["gates"][1] for key in grant[2:]}
    assert len(given) > 20
    assert node.engine.held_secrets() == ([], [])
    packets = data_of(sim)
    assert len(packets) >= 3
    channel = sim.key_server.channel_id
    tried = 0
    for content in packets:
        datagram = Datagram.parse(content)
        for key in _keys_from(given, suite, channel, datagram):
            tried += 1
            with pytest.raises(InvalidTag):
                seal.aead(suite, key).decrypt(
                    seal.nonce(datagram.header.index), datagram.body, content[:64] + channel
                )
    assert tried > 500
    # With the key server's secrets the last one opens in the same way.
    keys, last = sim.key_server.keys, Datagram.parse(packets[-1])
    assert (last.header.epoch.generation, last.header.epoch.step) == keys.generation.position
    slot = keys.slots.secrets[last.header.epoch.slot].reveal()
    secret = schedule.epoch_secret(suite, channel, last.header.epoch, slot, keys.generation.secret.reveal())
    key = schedule.block_key(secret, suite, channel, last.header.stream_id, last.header.block_id)
    nonce = seal.nonce(last.header.index)
    assert seal.aead(suite, key).decrypt(nonce, last.body, packets[-1][:64] + channel)


def _keys_from(given: set[bytes], suite: int, channel: bytes, packet: Datagram) -> Iterator[bytes]:
    """What a secret gives if it is taken for a block key, or for what one is derived from."""
    stream, block = packet.header.stream_id, packet.header.block_id
    for secret in given:
        yield secret
        yield schedule.kdf(secret, "block", block)
        yield schedule.block_key(secret, suite, channel, stream, block)
        yield schedule.credential_block_key(secret, stream, block)


def test_a_node_takes_no_secret_that_opens_though_it_is_handed_out() -> None:
    """KM-21: a key server that gives a repair node the keys of a subscriber is refused."""
    sim = ward(1)
    body = sim.subscriber(FAR).key_answers[0]
    node = sim.add_repair_node(KEEPER)
    sim.side_channel.serve_keys(lambda *asked: asked[-1](200, body))
    sim.run(3)
    assert not node.has_joined
    assert node.engine.held_secrets() == ([], [])


def test_nothing_from_before_a_members_admission_is_served() -> None:
    """SC-42; a joiner that was told of an older head passes over what it may not open."""
    sim = ward_with_node(3)
    node = sim.repair_nodes[KEEPER]
    sim.publisher(MONITOR).send_numbered(10, 500)
    sim.run(20)
    stream = sim.publisher(MONITOR).engine.stream_id
    sim.add_subscriber("late")
    sim.settle()
    sim.publisher(MONITOR).send_numbered(5, 500)
    sim.run(1)
    membership = sim.key_server.keys.membership
    early, late = membership.admission(NEAR), membership.admission("late")
    assert early is not None
    assert late is not None
    of_all = node.engine.served(stream, [(0, 2**62 - 1)], early, sim.now)
    of_late = node.engine.served(stream, [(0, 2**62 - 1)], late, sim.now)
    assert of_all is not None
    assert of_late is not None
    assert set(of_late[0]) < set(of_all[0])
    epochs = [Datagram.parse(packet).header.epoch for packet in of_late[0]]
    assert epochs
    assert all((epoch.generation, epoch.step) >= late[:2] for epoch in epochs)


def test_d1_a_packet_that_many_lost_is_asked_for_once_each() -> None:
    """D1: 200 receivers lose one packet together; a request each, spread in time, and the publisher none."""
    sim = ward_with_node(4)
    many = [f"bed{number}" for number in range(200)]
    for name in many:
        sim.add_subscriber(name)
    sim.settle(60)
    sim.publisher(MONITOR).send_numbered(20, 500)
    sim.run(1)
    before = sim.repair_nodes[KEEPER].served
    mend = sim.network.partition(many)
    sim.publisher(MONITOR).send_numbered(1, 500)
    sim.run(0.005)
    mend()
    sim.publisher(MONITOR).send_numbered(20, 500)
    sim.run(2)
    verify(sim)
    assert_nothing_lost(sim)
    assert 200 <= sim.repair_nodes[KEEPER].served - before <= 240
    assert sim.publisher(MONITOR).engine.counters()["repairs_served"] == 0


def _altered(body: bytes) -> bytes:
    answer = RepairAnswer.parse(body)
    packets = [flip(packet, 100) for packet in answer.packets]
    return RepairAnswer(packets=tuple(packets), oldest=answer.oldest, head=answer.head).serialize()


def flip(packet: bytes, at: int) -> bytes:
    return packet[:at] + bytes((packet[at] ^ 1,)) + packet[at + 1 :]


def _of_another_stream(body: bytes) -> bytes:
    answer = RepairAnswer.parse(body)
    packets = [packet[:6] + bytes(16) + packet[22:] for packet in answer.packets]
    return RepairAnswer(packets=tuple(packets), oldest=answer.oldest, head=None).serialize()


def _old(body: bytes) -> bytes:
    """All but what was asked for is left of it: the first packet of the stream, again and again."""
    answer = RepairAnswer.parse(body)
    return RepairAnswer(packets=answer.packets[:1] * 1000, oldest=2**62 - 1, head=answer.head).serialize()


def _too_many(body: bytes) -> bytes:
    return encode_cbor({"packets": [b"x"] * 2000, "oldest": 0, "head": None})


POISONS = {
    "altered": (_altered, "bad-packets"),
    "of another stream": (_of_another_stream, "withheld"),
    "old": (_old, "withheld"),
    "truncated": (lambda body: body[: len(body) // 2], "bad-packets"),
    "no body at all": (lambda _: b"", "bad-packets"),
    "too many packets": (_too_many, "bad-packets"),
}


@pytest.mark.parametrize("poison", POISONS)
def test_d3_a_poisoned_answer_mends_nothing_and_loses_nothing(poison: str) -> None:
    """D3: what a cache makes of an answer the checks of DP-18 catch; the publisher is asked at once."""
    sim = ward_with_node(5)
    sim.repair_nodes[KEEPER].poison, reason = POISONS[poison]
    mend = sim.network.partition([FAR])
    sim.publisher(MONITOR).send_numbered(300, 900)
    sim.run(0.3)
    mend()
    sim.publisher(MONITOR).send_numbered(1, 900)
    assert sim.run_until(partial(_has, sim, 301), 1.0)
    told = [event for event in sim.subscriber(FAR).events if isinstance(event, SourcePassedOver)]
    assert [(event.source, event.reason) for event in told] == [(KEEPER, reason)]
    assert_nothing_lost(sim)
    verify(sim)


def test_d2_a_node_that_has_had_enough_of_one_is_left_alone() -> None:
    """D2: another source is asked; where there is none, it is asked after the time that it said (SC-43)."""
    sim = ward_with_node(6)
    node = sim.repair_nodes[KEEPER]
    node.retry_after = 3
    mend = sim.network.partition([FAR])
    sim.publisher(MONITOR).send_numbered(50, 900)
    sim.run(0.3)
    mend()
    sim.publisher(MONITOR).send_numbered(1, 900)
    assert sim.run_until(partial(_has, sim, 51), 0.5)
    told = [event for event in sim.subscriber(FAR).events if isinstance(event, SourcePassedOver)]
    assert [(event.source, event.reason) for event in told] == [(KEEPER, "busy")]
    mend = sim.network.partition([FAR])
    sim.publisher(MONITOR).send_numbered(50, 900)
    sim.run(3)
    sim.publisher(MONITOR).crash()
    mend()
    assert not sim.run_until(partial(_has, sim, 101), 15)
    node.retry_after = None
    assert sim.run_until(partial(_has, sim, 101), 8)
    assert_nothing_lost(sim)


def test_a_node_keeps_all_over_every_turn_of_the_keys() -> None:
    """KM-21: slots, more steps than it was given at once, and generations turn under it."""
    sim = Simulation(7, publishers=[MONITOR], options=ChannelOptions(slot_length=2 * SECOND))
    node = sim.add_repair_node(KEEPER)
    sim.settle()
    sim.publisher(MONITOR).send_every(20 * MILLISECOND, 500, 300)
    for number in range(8):
        sim.add_subscriber(f"late{number}")
        sim.run(1)
        if number % 3 == 2:
            sim.remove(f"late{number}")
    sim.run(4)
    sent = data_of(sim)
    assert len({Datagram.parse(packet).header.epoch for packet in sent}) > 8
    assert node.engine.kept()[0] == len(sent)


def test_who_came_before_the_node_hears_of_it_when_it_misses_something() -> None:
    """SC-41: the directory is looked into again, and once more after the node has moved."""
    sim = ward(8)
    # A new policy has all look into the directory: that is over when the node comes.
    sim.key_server.allow(KEEPER, MemberRole.REPAIR)
    sim.run(5)
    node = sim.add_repair_node(KEEPER)
    sim.settle()
    sim.run(62)
    for served in (1, 2):
        for _ in range(2):
            mend = sim.network.partition([FAR])
            sim.publisher(MONITOR).send_numbered(20, 900)
            sim.run(0.3)
            mend()
            sim.publisher(MONITOR).send_numbered(1, 900)
            sim.run(8)
        assert node.served == served
        sim.run(11)
        sim.side_channel.close(*node.endpoint)
        node.endpoint = "elsewhere.example", 443
        sim.side_channel.listen(*node.endpoint, KEEPER, node.answer)
        sim.key_server.put_repair_node(KEEPER, node.endpoint)
    assert_nothing_lost(sim)
    verify(sim)
