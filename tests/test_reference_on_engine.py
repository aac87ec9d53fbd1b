"""The reference receiver, written from the specification alone, opens what the engine seals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import pytest

from sealcast.sidechannel.fields import MalformedMessageError
from sealcast.sidechannel.messages import JoinAnswer, KeysAnswer
from sealcast.testing import MILLISECOND, SECOND, ChannelOptions, Sighting, Simulation
from tests.reference import schedule, trust
from tests.reference.bodies import Beacon, Heartbeat
from tests.reference.receiver import Receiver
from tests.reference.wire import GATE_TAG_BYTES, Datagram, Epoch, PacketType

MONITOR, NEAR, LATE = "monitor", "near", "late"
LARGE = 100_000
"""Bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """What the group saw of one stream, and what one member was told over the side channel."""

    sim: Simulation
    stream_id: bytes
    datagrams: list[Sighting]
    join: JoinAnswer
    keys: list[KeysAnswer]

    @property
    def sent(self) -> list[tuple[int, bytes, str | None]]:
        messages = self.sim.streams[self.stream_id].sent
        return [(number, message.data, message.topic) for number, message in enumerate(messages)]

    def of_type(self, kind: PacketType) -> Iterator[Datagram]:
        for sighting in self.datagrams:
            packet = Datagram.parse(sighting.datagram)
            if packet.header.type == kind:
                yield packet

    def epochs(self) -> list[Epoch]:
        return sorted({packet.header.epoch for packet in self.of_type(PacketType.DATA)})


class Member:
    """The reference receiver, told what `NEAR` was told, when the key server said it."""

    def __init__(self, recording: Recording) -> None:
        sim, join = recording.sim, recording.join
        anchors, now = [sim.site.root], join.keys.time
        policy = trust.accept_policy(join.policy, chain=join.issuers, anchors=anchors, now=now)
        self.receiver = Receiver(policy.suite, policy.channel_id, policy=policy, anchors=anchors)
        self.stated: set[Epoch] = set()
        self._channel_id = policy.channel_id
        self._untold = list(recording.keys)
        beacon = Datagram.parse(join.keys.beacon)
        control = trust.accept_stream(
            join.key_server,
            stream_id=beacon.header.stream_id,
            policy=policy,
            anchors=anchors,
            role="key-server",
            now=now,
            packet_time=beacon.header.time,
        )
        self.receiver.add_stream(control.public_key, control=True)

    def listen(self, sighting: Sighting) -> str | None:
        """Take one datagram of the group, after the answers that came before it; the reason of a refusal."""
        while self._untold and self._untold[0].time <= sighting.time:
            self._learn(self._untold.pop(0))
        return self.receiver.receive(sighting.datagram, sighting.time)

    def _learn(self, keys: KeysAnswer) -> None:
        """KM-17: every secret fits a commitment of the beacon beside it."""
        packet = Datagram.parse(keys.beacon)
        body = Beacon.parse(packet.body)
        for number, secret in keys.slots:
            commitment = body.slot_commitments[number - body.first_slot]
            self.receiver.add_slot(number, secret.reveal(), commitment)
            self.stated.add(Epoch(slot=number, generation=keys.generation, step=keys.step))
        assert (packet.header.epoch.generation, packet.header.epoch.step) == (keys.generation, keys.step)
        self.receiver.add_generation(
            keys.generation, keys.step, keys.secret.reveal(), body.generation_commitment
        )
        assert self.receiver.receive(keys.beacon, keys.time, over_side_channel=True) in (None, "counter")


def record(suite: int) -> Recording:
    """A publisher's stream from its first datagram to its end, over a slot turn and a join."""
    options = ChannelOptions(suite=suite, slot_length=4 * SECOND)
    sim = Simulation(suite, publishers=[MONITOR], subscribers=[NEAR], options=options)
    publisher = sim.publisher(MONITOR)
    for number in range(20):
        publisher.send_numbered(1, 8 + number)
        sim.run(0.02)
    publisher.send(b"")
    for topic in ("alarm", "vitals/heart rate", "Wärme", "x" * 255):
        publisher.send(topic.encode() * 3, topic)
        publisher.send(b"", topic)
    sim.run(0.1)
    publisher.send_numbered(1000, 20)
    sim.run(0.1)
    publisher.send(bytes(range(250)) * (LARGE // 250), "image")
    sim.run(0.1)
    publisher.send_every(20 * MILLISECOND, 300, 300)
    sim.run(3)
    sim.add_subscriber(LATE)
    sim.run(4)
    publisher.send_numbered(200, 900)
    publisher.send_numbered(1, LARGE)
    sim.run(1)
    publisher.finish()
    assert sim.run_until(lambda: publisher.engine.is_finished, 2)
    sim.run(2)

    first, *others = sim.subscriber(NEAR).key_answers
    join = JoinAnswer.parse(first)
    return Recording(
        sim=sim,
        stream_id=publisher.stream.stream_id,
        datagrams=list(said_once(sighting for sighting in sim.network.tap if sighting.sender == MONITOR)),
        join=join,
        keys=[join.keys, *map(read_keys, others)],
    )


def said_once(sightings: Iterable[Sighting]) -> Iterator[Sighting]:
    """Leave out what only says the end again: no receiver heeds it (DP-27)."""
    ended = False
    for sighting in sightings:
        packet = Datagram.parse(sighting.datagram)
        is_end = packet.header.type == PacketType.HEARTBEAT and Heartbeat.parse(packet.body).ended
        if not (ended and is_end):
            yield sighting
        ended = ended or is_end


def read_keys(body: bytes) -> KeysAnswer:
    try:
        return JoinAnswer.parse(body).keys
    except MalformedMessageError:
        return KeysAnswer.parse(body)


@pytest.fixture(scope="module", params=[1, 2], ids=["suite 1", "suite 2"])
def recording(request: pytest.FixtureRequest) -> Recording:
    return record(request.param)


def test_the_recording_holds_what_the_others_rely_on(recording: Recording) -> None:
    epochs, counts = recording.epochs(), Counter(p.header.count for p in recording.of_type(PacketType.DATA))
    assert len({epoch.slot for epoch in epochs}) >= 2, "a slot turn"
    assert len({(epoch.generation, epoch.step) for epoch in epochs}) == 2, "a join"
    assert counts[1] > 100, "blocks of one packet"
    assert counts[64] >= 64, "full blocks"
    assert recording.sim.network.counters.lost == 0


def test_every_message_comes_out_in_order(recording: Recording) -> None:
    member = Member(recording)
    receiver = member.receiver
    assert recording.stream_id not in receiver.streams
    refused: Counter[tuple[int, str | None]] = Counter()
    for sighting in recording.datagrams:
        knew = recording.stream_id in receiver.streams
        reason = member.listen(sighting)
        kind = sighting.datagram[5]
        if reason is not None:
            refused[kind, reason] += 1
        if not knew and recording.stream_id in receiver.streams:
            assert kind == PacketType.CREDENTIAL, "the stream made itself known"
            assert not receiver.messages
    assert not refused
    assert not receiver.reports
    assert {message.stream_id for message in receiver.messages} == {recording.stream_id}
    assert [(m.message_id, m.data, m.topic) for m in receiver.messages] == recording.sent
    assert all(message.retained is None for message in receiver.messages)
    assert max(Counter(m.sequence for m in receiver.messages).values()) > 30, "many messages to a packet"
    told = recording.sim.subscriber(NEAR).messages
    assert [(m.sequence, m.time) for m in receiver.messages] == [(m.sequence, m.time) for m in told]
    assert set(recording.epochs()) - member.stated, "steps of its own were taken (KM-9)"


def test_heartbeats_are_obeyed(recording: Recording) -> None:
    bodies = [Heartbeat.parse(packet.body) for packet in recording.of_type(PacketType.HEARTBEAT)]
    assert [body.counter for body in bodies] == sorted({body.counter for body in bodies})
    assert [body.ended for body in bodies] == sorted(body.ended for body in bodies)
    assert not bodies[0].ended
    assert bodies[-1].ended
    member = Member(recording)
    for sighting in recording.datagrams:
        reason = member.listen(sighting)
        if sighting.datagram[5] == PacketType.HEARTBEAT:
            stream = member.receiver.streams[recording.stream_id]
            body = Heartbeat.parse(Datagram.parse(sighting.datagram).body)
            assert (reason, stream.counter, stream.end is not None) == (None, body.counter, body.ended)
            assert stream.head >= body.next_sequence
    stream = member.receiver.streams[recording.stream_id]
    assert stream.next_sequence == stream.head == bodies[-1].next_sequence
    assert stream.stream_id == schedule.stream_id(stream.public_key)


def chosen(recording: Recording) -> dict[int, str]:
    """The places of datagrams of every kind: the first and the last of each, and inside a large block."""
    places: dict[str, int] = {}
    for place, sighting in enumerate(recording.datagrams):
        header = Datagram.parse(sighting.datagram).header
        kind = PacketType(header.type).name
        places.setdefault(f"first {kind}", place)
        places[f"last {kind}"] = place
        if header.count == 64:
            places.setdefault(f"block, {header.index}", place)
    wanted = ("first", "last", "block, 0", "block, 37", "block, 63")
    return {place: name for name, place in places.items() if name.startswith(wanted)}


def test_one_flipped_bit_is_refused_and_spoils_nothing(recording: Recording) -> None:
    """All bits of what is not the body, one of each byte of the body, just before the datagram itself."""
    member = Member(recording)
    receiver, flipped = member.receiver, chosen(recording)
    kinds = {PacketType(recording.datagrams[place].datagram[5]) for place in flipped}
    assert kinds == {PacketType.DATA, PacketType.HEARTBEAT, PacketType.CREDENTIAL}
    for place, sighting in enumerate(recording.datagrams):
        if place not in flipped:
            assert member.listen(sighting) is None
            continue
        knows = recording.stream_id in receiver.streams
        data = sighting.datagram
        body_bytes = len(Datagram.parse(data).body)
        for bit in range(8 * len(data)):
            byte = bit // 8
            if 64 <= byte < 64 + body_bytes and bit % 8 != byte % 8:
                continue
            changed = bytearray(data)
            changed[byte] ^= 1 << bit % 8
            forged = Sighting(sighting.time, sighting.sender, bytes(changed))
            where = f"{flipped[place]}, byte {byte} of {len(data)}, bit {bit % 8}"
            assert member.listen(forged) is not None, where
            if knows and byte < len(data) - GATE_TAG_BYTES:
                # Past the gate, as a member could send it: the signature has to refuse it.
                assert receiver.receive(bytes(changed), sighting.time, over_side_channel=True), where
        assert member.listen(sighting) is None, flipped[place]
    assert not receiver.reports
    assert [(m.message_id, m.data, m.topic) for m in receiver.messages] == recording.sent
