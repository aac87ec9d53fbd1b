"""What a receiver asks for, when, and what it is given: requests over the side channel after losses."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import pytest

from sealcast import _core
from sealcast.sidechannel.messages import RepairRequest
from sealcast.testing import MILLISECOND, BurstLoss, Faults, Simulation, verify
from sealcast.testing.side_channel import Respond
from tests.reference.wire import Datagram, PacketType
from tests.scenarios.common import FAR, MONITOR, NEAR, SEEDS, ward

CROWD = 1000


@dataclass(frozen=True, slots=True)
class Asked:
    """A request for repair."""

    time: int
    device: str
    command: _core.Command

    @property
    def ranges(self) -> tuple[tuple[int, int], ...]:
        return RepairRequest.parse(self.command.body).ranges


def overhear(sim: Simulation, monkeypatch: pytest.MonkeyPatch) -> list[Asked]:
    """Every request for repair from now on."""
    asked: list[Asked] = []
    exchange = sim.side_channel.exchange

    def listen(device: str, certificate: bytes, command: _core.Command, respond: Respond) -> None:
        if command.path == "/v1/repair":
            asked.append(Asked(sim.now, device, command))
        exchange(device, certificate, command, respond)

    monkeypatch.setattr(sim.side_channel, "exchange", listen)
    return asked


@pytest.mark.parametrize("seed", SEEDS)
def test_requests_are_merged_and_spread(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """SC-9: receivers that lost the same do not ask together, and many gaps are one request."""
    sim = ward(seed)
    asked = overhear(sim, monkeypatch)
    for name in ("third", "fourth", "fifth"):
        sim.add_subscriber(name)
    sim.settle()
    names = [FAR, NEAR, "third", "fourth", "fifth"]
    sim.network.set_faults(Faults(burst=BurstLoss(begin=0.1, mean_length=3)), names)
    sim.publisher(MONITOR).send_numbered(640, 1000)
    sim.run(0.5)
    sim.calm()
    verify(sim)
    by_device: defaultdict[str, list[Asked]] = defaultdict(list)
    for one in asked:
        assert one.command.peers is not None
        assert [peer[1] for peer in one.command.peers] == [MONITOR], "the sources, in their order"
        by_device[one.device].append(one)
    assert set(by_device) == set(names)
    for requests in by_device.values():
        ranges = [pair for one in requests for pair in one.ranges]
        assert len(ranges) > 20, "many gaps"
        assert len(requests) <= len(ranges) // 4, "in few requests"
        for one in requests:
            for (_, last), (first, _) in zip(one.ranges, one.ranges[1:], strict=False):
                assert first > last + 1, "what adjoins is one range"
    assert len({requests[0].time for requests in by_device.values()}) == len(names)


def test_d1_what_a_thousand_have_lost_is_asked_for_once_by_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """One packet, on the way to all of them: at most 1.2 requests each, and not in one moment."""
    names = [f"r{number}" for number in range(CROWD)]
    sim = Simulation(1, publishers=[MONITOR], subscribers=names)
    asked = overhear(sim, monkeypatch)
    publisher = sim.publisher(MONITOR)
    publisher.send_numbered(1, 100)
    sim.run(0.5)
    assert not asked
    sim.network.set_faults(Faults(loss=1.0), names)
    publisher.send_numbered(1, 100)
    sim.run(0.005)
    sim.calm()
    publisher.send_numbered(1, 100)
    sim.run(1)
    verify(sim)
    assert {one.device for one in asked} == set(names)
    assert len(asked) <= 1.2 * CROWD
    assert len({one.ranges for one in asked}) == 1, "one read of the publisher's serves them all (SC-43)"
    times = sorted(one.time for one in asked)
    assert times[-1] - times[0] > 10 * MILLISECOND


def test_a_packet_is_served_again_as_it_was() -> None:
    """DP-17: byte for byte, path, signature and gate tag included."""
    sim = ward(1)
    publisher = sim.publisher(MONITOR)
    publisher.send_numbered(200, 700)
    publisher.send_every(5 * MILLISECOND, 50)
    sim.run(1)
    sent = [sighting.datagram for sighting in sim.network.tap if sighting.sender == MONITOR]
    data = {d for d in sent if Datagram.parse(d).header.type == PacketType.DATA}
    packets, oldest, head = publisher.engine.repair([(0, 10_000)], sim.now)
    assert len(packets) == len(data) > 100
    assert {bytes(packet) for packet in packets} == data
    assert oldest == 0
    assert head in sent
