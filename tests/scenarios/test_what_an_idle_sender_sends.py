"""When a sender signs, and how often it makes itself known: read off the wire."""

from __future__ import annotations

import pytest

from sealcast.testing import MILLISECOND, SECOND, ChannelOptions, Simulation
from tests.reference.wire import Datagram, Header, PacketType
from tests.scenarios.common import MONITOR, NEAR, SEEDS


def headers(sim: Simulation, kind: PacketType) -> list[tuple[int, Header]]:
    """When each packet of a type left the publisher, and its header."""
    packets = [
        (sighting.time, Datagram.parse(sighting.datagram).header)
        for sighting in sim.network.tap
        if sighting.sender == MONITOR
    ]
    return [(time, header) for time, header in packets if header.type == kind]


@pytest.mark.parametrize("seed", SEEDS)
def test_a_lone_message_is_signed_at_once_and_a_heap_in_large_blocks(seed: int) -> None:
    """DP-13: no timer waits for company."""
    sim = Simulation(seed, publishers=[MONITOR], subscribers=[NEAR])
    publisher = sim.publisher(MONITOR)
    for _ in range(20):
        publisher.send(b"beat")
        sim.run(0.05)
    lone = headers(sim, PacketType.DATA)
    assert [header.count for _, header in lone] == [1] * 20
    queued = [message.time for message in publisher.stream.sent]
    assert all(left - came < MILLISECOND for (left, _), came in zip(lone, queued, strict=True))
    publisher.send_numbered(128, 1000)
    sim.run(0.5)
    assert {header.count for _, header in headers(sim, PacketType.DATA)[20:]} == {64}


@pytest.mark.parametrize("seed", SEEDS)
def test_the_credential_is_repeated(seed: int) -> None:
    """DP-31: at the start, with each change of epoch, and at least every two seconds."""
    sim = Simulation(
        seed, publishers=[MONITOR], subscribers=[NEAR], options=ChannelOptions(slot_length=5 * SECOND)
    )
    publisher = sim.publisher(MONITOR)
    publisher.send_every(100 * MILLISECOND, 300)
    sim.run(12)
    sim.add_subscriber("late")
    sim.run(6)
    sim.remove("late")
    sim.run(12)
    told = [(time, header.epoch) for time, header in headers(sim, PacketType.CREDENTIAL) if header.index == 0]
    sealed = [(time, header.epoch) for time, header in headers(sim, PacketType.DATA)]
    assert told[0][0] <= sealed[0][0]
    times = [time for time, _ in told]
    assert max(later - time for time, later in zip(times, [*times[1:], sim.now], strict=True)) <= 2 * SECOND
    epochs = {epoch for _, epoch in sealed}
    assert len(epochs) >= 7, "slots, a step and a generation have turned"
    for epoch in epochs:
        first = min(time for time, other in sealed if other == epoch)
        assert min(time for time, other in told if other == epoch) <= first + 10 * MILLISECOND
