"""A subscriber is removed in full run under loss, and keeps running, listening and trying (E1).

It opens 0 packets of the new generation, with every key that it ever held and every step derived from them;
the others lose 0.
"""

from collections.abc import Iterable, Iterator

import pytest
from cryptography.exceptions import InvalidTag

from sealcast.endpoint.events import Refused
from sealcast.testing import (
    MILLISECOND,
    SECOND,
    ChannelOptions,
    Faults,
    SideChannelFaults,
    Simulation,
    verify,
)
from tests.insider import read_keys
from tests.reference import schedule, seal
from tests.reference.wire import Datagram, Epoch, PacketType
from tests.scenarios.common import FAR, MONITOR, NEAR, SEEDS, assert_nothing_lost, ward

MAX_STEP = 255


class Removed:
    """A removed device that never forgot a secret, and is bound by no rule of KM-8 to KM-12."""

    def __init__(self, sim: Simulation, answers: Iterable[bytes]) -> None:
        self._suite, self._channel = sim.key_server.options.suite, sim.key_server.channel_id
        self.slots: dict[int, bytes] = {}
        self.steps: dict[tuple[int, int], bytes] = {}
        self._epochs: dict[tuple[bytes, bytes, Epoch], bytes] = {}
        for body in answers:
            keys = read_keys(body)
            self.slots.update((number, secret.reveal()) for number, secret in keys.slots)
            self.steps[keys.generation, keys.step] = keys.secret.reveal()
        for (generation, step), secret in list(self.steps.items()):
            for passed in range(step, MAX_STEP):
                secret = schedule.next_step(secret, self._channel, generation, passed)
                self.steps.setdefault((generation, passed + 1), secret)

    def opens(self, packet: Datagram, *, every_slot: bool = False) -> bool:
        """Whether any pair of a slot secret and a step secret opens the packet."""
        header = packet.header
        slots = self.slots.values() if every_slot else filter(None, [self.slots.get(header.epoch.slot)])
        for slot in slots:
            for step in self.steps.values():
                secret = self._stream_secret(slot, step, header.epoch, header.stream_id)
                key = schedule.kdf(secret, "block", header.block_id)
                try:
                    seal.aead(self._suite, key).decrypt(
                        seal.nonce(header.index), packet.body, header.serialize() + self._channel
                    )
                except InvalidTag:
                    continue
                return True
        return False

    def _stream_secret(self, slot: bytes, step: bytes, epoch: Epoch, stream: bytes) -> bytes:
        place = (slot, step, epoch)
        if place not in self._epochs:
            secret = schedule.epoch_secret(self._suite, self._channel, epoch, slot, step)
            self._epochs[place] = schedule.stream_secret(secret, self._suite, self._channel, stream)
        return self._epochs[place]


def data_packets(sim: Simulation, since: int) -> Iterator[Datagram]:
    for sighting in sim.network.tap:
        if sighting.time >= since and sighting.datagram[5] == PacketType.DATA:
            yield Datagram.parse(sighting.datagram)


@pytest.mark.parametrize("seed", SEEDS)
def test_invariant_5_the_removed_opens_nothing_and_the_others_lose_nothing(seed: int) -> None:
    sim = ward(seed, options=ChannelOptions(slot_length=2 * SECOND))
    gone = sim.add_subscriber("gone")
    sim.settle()
    sim.network.set_faults(Faults(loss=0.2))
    publisher = sim.publisher(MONITOR)
    publisher.send_every(10 * MILLISECOND, 700)
    sim.run(3)
    assert len(gone.messages) > 100
    generation, removed_at = sim.remove("gone"), sim.now
    sim.run(5)
    verify(sim)
    assert_nothing_lost(sim)
    assert any(isinstance(event, Refused) for event in gone.events)

    old = [p for p in data_packets(sim, removed_at) if p.header.epoch.generation < generation]
    new = [p for p in data_packets(sim, removed_at) if p.header.epoch.generation >= generation]
    assert len(new) > 300
    assert all(packet.header.time <= removed_at + SECOND for packet in old), "followed within a second"
    thief = Removed(sim, gone.key_answers)
    assert thief.opens(next(data_packets(sim, removed_at - SECOND))), "the attack works at all"
    assert {packet.header.epoch.slot for packet in new} & thief.slots.keys(), "it holds slots of then"
    assert not any(thief.opens(packet) for packet in new)
    assert not any(thief.opens(packet, every_slot=True) for packet in new[:20])


@pytest.mark.parametrize("seed", SEEDS)
def test_the_others_lose_nothing_when_an_answer_is_lost(seed: int) -> None:
    sim = ward(seed)
    sim.add_subscriber("gone")
    sim.settle()
    sim.network.set_faults(Faults(loss=0.2))
    sim.side_channel.faults = SideChannelFaults(failure=0.2, lost_answer=0.2)
    sim.publisher(MONITOR).send_every(10 * MILLISECOND, 500)
    sim.run(1)
    sim.remove("gone")
    sim.run(6)
    sim.calm()
    verify(sim)
    assert_nothing_lost(sim)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_member_that_slept_through_a_whole_generation_reads_it_afterwards(seed: int) -> None:
    """Two removals fall into a partition: the first secrets of both generations are handed out (KM-18)."""
    sim = ward(seed, options=ChannelOptions(retention=20 * SECOND))
    sim.add_subscriber("first")
    sim.add_subscriber("second")
    sim.settle()
    sim.publisher(MONITOR).send_every(10 * MILLISECOND, 1000)
    sim.run(1)
    sim.partition(FAR, seconds=5)
    sim.run(1)
    sim.remove("first")
    sim.run(2)
    sim.remove("second")
    sim.run(6)
    verify(sim)
    assert len(sim.subscriber(NEAR).messages) == 1000
    assert len(sim.subscriber(FAR).messages) == 1000


@pytest.mark.parametrize("seed", SEEDS)
def test_a_join_right_after_a_removal_loses_nothing_for_who_was_cut_off(seed: int) -> None:
    """Who fetches keys after the join is given step 1 and, as a member since before, step 0 too (KM-18)."""
    sim = ward(seed, options=ChannelOptions(retention=5 * SECOND))
    sim.add_subscriber("gone")
    sim.settle()
    sim.publisher(MONITOR).send_every(2 * MILLISECOND, 500)
    sim.run(0.3)
    sim.partition(FAR, seconds=0.3)
    sim.remove("gone")
    sim.run(0.1)
    sim.add_subscriber("late")
    sim.run(2)
    verify(sim)
    assert len(sim.subscriber(NEAR).messages) == 500
    assert len(sim.subscriber(FAR).messages) == 500
