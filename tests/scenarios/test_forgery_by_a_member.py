"""A member forges, replays and carries over from another channel, with every key that it holds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import pytest

from sealcast.pki import StreamCredential
from sealcast.testing import (
    MILLISECOND,
    SECOND,
    ChannelOptions,
    Faults,
    SideChannelFaults,
    Simulation,
    verify,
)
from tests.insider import Insider
from tests.reference import schedule
from tests.reference.frames import Frame
from tests.reference.seal import Sealer
from tests.reference.wire import Datagram, PacketType
from tests.scenarios.common import FAR, MONITOR, NEAR, SEEDS, assert_nothing_lost, ward

FORGED = [Frame(message_id=number, data=b"forged").serialize() for number in range(4)]


def data_packets(sim: Simulation) -> list[Datagram]:
    packets = (Datagram.parse(sighting.datagram) for sighting in sim.network.tap)
    return [packet for packet in packets if packet.header.type == PacketType.DATA]


def recombined(insider: Insider, packets: list[Datagram]) -> Iterator[bytes]:
    """DP-20: packets of known roots with another signature or another header, and the right gate tag."""
    blocks: dict[bytes, list[Datagram]] = {}
    for packet in packets:
        blocks.setdefault(packet.header.block_id, []).append(packet)
    whole = [block for block in blocks.values() if block[0].header.count > 1]
    for block, other in pairwise(whole):
        for packet in block:
            flipped = bytes([packet.signature[0] ^ 1, *packet.signature[1:]])
            yield insider.gated_anew(replace(packet, signature=flipped))
            yield insider.gated_anew(replace(packet, signature=other[0].signature))
            later = replace(packet.header, first_sequence=packet.header.first_sequence + 100_000)
            yield insider.gated_anew(replace(packet, header=later))


def announced(sim: Simulation, insider: Insider, stream: Sealer, like: Datagram, device: str) -> list[bytes]:
    """Credential packets of a stream that the insider's own device vouches for, in the name of `device`."""
    identity = sim.subscriber(FAR).identity
    credential = StreamCredential(
        spki=schedule.spki(stream.public_key),
        channel_id=insider.channel_id,
        suite=insider.suite,
        site_id=sim.site.site_id,
        device=device,
        certificate_hash=identity.certificate_hash,
        not_before=sim.now - SECOND,
        not_after=sim.now + 3600 * SECOND,
        start_nonce=bytes(16),
        instance="",
        succeeds=None,
    )
    return insider.announcement(stream, like.header, credential, identity.signer, identity.chain)


@pytest.mark.parametrize("seed", SEEDS)
def test_invariant_4_only_what_its_publisher_signed_for_this_channel_and_none_twice(seed: int) -> None:
    sim = ward(seed)
    elsewhere = Simulation(
        seed, publishers=[MONITOR], subscribers=[NEAR], options=ChannelOptions(name="ward/other")
    )
    assert elsewhere.site.site_id == sim.site.site_id, "the same site, the same devices"
    # Many blocks are half there when the mixtures of their other halves come.
    sim.network.set_faults(Faults(loss=0.5), [NEAR])
    sim.side_channel.faults = SideChannelFaults(failure=1.0)
    for one in (sim, elsewhere):
        one.publisher(MONITOR).send_numbered(200, 300)
        one.publisher(MONITOR).send_every(5 * MILLISECOND, 400)
        one.run(1)
    insider, seen = Insider.of(sim, FAR), data_packets(sim)
    latest, stream_id = seen[-1], sim.publisher(MONITOR).stream.stream_id
    near = sim.subscriber(NEAR)
    near.refusals.clear()

    # In the name of the monitor, ahead of it and in its own places.
    impostor = insider.impostor(stream_id)
    places = (0, latest.header.sequence + 1, latest.header.sequence + 500)
    forged = [d for place in places for d in insider.block(impostor, latest.header, FORGED, place)]
    # As a publisher of its own, in its own name, which the policy does not list, and in the monitor's.
    for device in (FAR, MONITOR):
        own = insider.sealer()
        forged += announced(sim, insider, own, latest, device)
        forged += insider.block(own, latest.header, FORGED, 0)
    mixtures = list(recombined(insider, seen))
    assert len(mixtures) > 150
    forged += mixtures
    sim.network.inject(forged, [NEAR])
    sim.run(0.01)
    assert near.refusals["signature"] > 100
    # Each was refused; the first half of a credential with the second.
    assert near.refusals["credential"] == 2
    assert near.refusals.total() == len(forged) - 2
    sim.calm()
    # What was signed, but for another channel; and all that was ever said here, twice more.
    sim.network.inject([sighting.datagram for sighting in elsewhere.network.tap], [NEAR])
    said = [sighting.datagram for sighting in sim.network.tap]
    sim.network.inject([*said, *reversed(said)], [NEAR])

    sim.run(5)
    verify(sim)
    assert_nothing_lost(sim)
    sent = [message.data for message in sim.publisher(MONITOR).stream.sent]
    assert [message.data for message in near.messages] == sent
    assert len(sent) == 600
    assert {(message.publisher, message.stream_id) for message in near.messages} == {(MONITOR, stream_id)}
