"""Rows 1 to 9 of the faults of a network, over real sockets through the seeded switch.

In every row each subscriber delivers all that was sent, once and in order, and is told of no loss. The
figures are those of quic-interop-runner where it has any: bursts of 3 at 30 %, corruption of 30 %, drops of
the second to the seventh, 750 ms one way, a line that is gone for 5 s and back for 2.

SEALCAST_SEEDS says how many seeds each row is tried with; with more than one come more values, too.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from sealcast.device import DeviceIdentity
from sealcast.endpoint import Device, Publisher, RoutingOverrides, Subscriber
from sealcast.endpoint.events import Event, Gap, MessageLost, SourcePassedOver
from sealcast.repair.node import RepairNode
from sealcast.sidechannel.node_messages import RepairNodeUpdate
from sealcast.sidechannel.server import Admission, Repaired
from sealcast.testing import MILLISECOND, BurstLoss, Faults, Switch
from sealcast.testing.switch import CLEAN
from tests.e2e.processes import Processes
from tests.e2e.site import Channel, Site, command, free_group, free_port

SEEDS = range(1, 1 + int(os.environ.get("SEALCAST_SEEDS", "1")))
IS_SOAK = len(SEEDS) > 1
DEADLINE_SECONDS = 45
DATA, PARITY, HEARTBEAT, CREDENTIAL = 1, 2, 3, 4
"""Types of packets (spec/registry.md)."""

pytestmark = pytest.mark.parametrize("seed", SEEDS)


@dataclass
class Ward:
    """A site with a channel, and devices that are used by one row after the other."""

    site: Site
    channel: Channel

    def device(self, name: str) -> Device:
        return Device.open(self.site.devices / name)


@pytest.fixture(scope="module")
def ward(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ward]:
    processes = Processes()
    try:
        site = Site.start(Path(tmp_path_factory.mktemp("matrix")), processes)
        site.enrol("monitor", "far", "near", "late", "keeper")
        command("authority", "device", "set", site.folder, "keeper", "--role", "repair-node")
        yield Ward(site, site.add_channel("icu3/vitals", "--rate", "50Mbit/s"))
    finally:
        processes.end()


@dataclass
class Listening:
    """A subscriber, and what it was given."""

    subscriber: Subscriber
    events: list[Event]
    messages: list[bytes] = field(default_factory=list)

    async def take(self, count: int) -> None:
        """Take messages until there are so many in all."""
        while len(self.messages) < count:
            self.messages += [message.data for message in await self.subscriber.recv_many()]


@dataclass
class Row:
    """One publisher, its subscribers behind the switch."""

    switch: Switch
    publisher: Publisher
    listening: dict[str, Listening]
    draw: random.Random
    sent: list[bytes] = field(default_factory=list)

    async def send(self, count: int, size: int = 900) -> None:
        """Send numbered messages at once."""
        messages = [b"%d " % (len(self.sent) + number) + bytes(size) for number in range(count)]
        self.sent += messages
        await self.publisher.send_many(messages)

    async def send_for(self, seconds: float, each_seconds: float = 0.005) -> None:
        """Send single messages, as a monitor does."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while loop.time() < end:
            await self.send(1, self.draw.randrange(1, 1000))
            await asyncio.sleep(each_seconds)

    async def send_mixed(self) -> None:
        """Send blocks of several sizes, single messages, and a large one at last."""
        for count in (1, 5, 64, 150, 3):
            await self.send(count)
            await self.publisher.drained()
        await self.send_for(0.3)
        await self.send(1, 20_000)
        await self.send(1, 1)

    async def settle(self) -> None:
        """Wait until everyone has everything."""
        for one in self.listening.values():
            await one.take(len(self.sent))

    def lost(self, name: str = "far") -> int:
        """How many datagrams did not come through to a subscriber."""
        return self.switch.exits[name].counters.lost

    def passed_over(self, name: str = "far") -> list[SourcePassedOver]:
        return [event for event in self.listening[name].events if isinstance(event, SourcePassedOver)]

    def counters(self, name: str = "far") -> dict[str, int]:
        return self.listening[name].subscriber.counters()


@asynccontextmanager
async def row(
    ward: Ward,
    seed: int,
    faults: Faults = CLEAN,
    *,
    shared: Faults = CLEAN,
    names: tuple[str, ...] = ("far",),
    unheard: tuple[str, ...] = (),
    fec: str | None = None,
) -> AsyncIterator[Row]:
    """A stream over the switch; at the end of the block everyone has to have everything, once, in order.

    `unheard` are exits without a subscriber, for others to listen at.
    """
    entrance = free_group(), free_port()
    exits = {name: ("127.0.0.1", free_port()) for name in (*names, *unheard)}
    with Switch(entrance, exits, seed=seed, faults=faults, shared=shared) as switch:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(asyncio.timeout(DEADLINE_SECONDS))
            listening: dict[str, Listening] = {}
            for name in names:
                events: list[Event] = []
                subscriber = ward.device(name).subscriber(
                    ward.channel.name, routing=RoutingOverrides(listen=exits[name]), on_event=events.append
                )
                listening[name] = Listening(await stack.enter_async_context(subscriber), events)
            publisher = await stack.enter_async_context(
                ward.device("monitor").publisher(
                    ward.channel.name, routing=RoutingOverrides(send_to=entrance), linger=0, fec=fec
                )
            )
            running = Row(switch, publisher, listening, random.Random(seed))
            yield running
            await running.settle()
        for name, one in listening.items():
            assert one.messages == running.sent, name
            assert not [event for event in one.events if isinstance(event, Gap | MessageLost)], name


@pytest.mark.parametrize("loss", [0.05, 0.3, *([0.001, 0.01, 0.02, 0.1] if IS_SOAK else [])])
async def test_fault_1_random_loss(ward: Ward, seed: int, loss: float) -> None:
    async with row(ward, seed, Faults(delay=0, loss=loss)) as running:
        await running.send_mixed()
    assert running.lost() >= int(30 * loss)


@pytest.mark.parametrize(
    ("share", "length"), [(0.3, 3), (0.02, 10), *([(0.02, 3), (0.3, 10), (0.3, 100)] if IS_SOAK else [])]
)
@pytest.mark.parametrize("fec", [None, "8+4"])
async def test_fault_2_bursts_of_loss(
    ward: Ward, seed: int, share: float, length: int, fec: str | None
) -> None:
    # The share of time that is bad is begin / (begin + 1 / length).
    begin = share / length / (1 - share)
    burst = BurstLoss(begin=begin, mean_length=length)
    async with row(ward, seed, Faults(delay=0, burst=burst), fec=fec) as running:
        await running.send_mixed()
        await running.send(400)
    assert running.lost() > 0


@pytest.mark.parametrize("is_shared", [True, False], ids=["shared", "separate"])
async def test_fault_3_loss_before_and_behind_the_fan_out(ward: Ward, seed: int, is_shared: bool) -> None:
    bad = Faults(delay=0, loss=0.1)
    shared, faults = (bad, CLEAN) if is_shared else (CLEAN, bad)
    async with row(ward, seed, faults, shared=shared, names=("far", "near")) as running:
        await running.send_mixed()
    if is_shared:
        assert running.switch.counters.lost > 5
        assert (running.lost("far"), running.lost("near")) == (0, 0)
    else:
        assert running.switch.counters.lost == 0
        assert min(running.lost("far"), running.lost("near")) > 5


Drops = Callable[[int, bytes], bool]


def of_type(*types: int) -> Drops:
    return lambda _, datagram: datagram[5] in types


def first_of_type(count: int, wanted: int) -> Drops:
    """The first so many of a type."""
    seen: list[int] = []

    def is_dropped(number: int, datagram: bytes) -> bool:
        if datagram[5] == wanted:
            seen.append(number)
        return datagram[5] == wanted and len(seen) <= count

    return is_dropped


def first_of_each_epoch() -> Drops:
    """Also of the first one."""
    seen: set[bytes] = set()

    def is_dropped(_: int, datagram: bytes) -> bool:
        epoch = datagram[22:30]
        if datagram[5] != DATA or epoch in seen:
            return False
        seen.add(epoch)
        return True

    return is_dropped


CHOSEN: dict[str, Callable[[], Drops]] = {
    "second-to-seventh": lambda: lambda number, _: 2 <= number <= 7,
    "first-packet": lambda: first_of_type(1, DATA),
    "first-credentials": lambda: first_of_type(4, CREDENTIAL),
    "all-heartbeats": lambda: of_type(HEARTBEAT),
    "all-parity": lambda: of_type(PARITY),
}


@pytest.mark.parametrize("chosen", CHOSEN)
async def test_fault_4_chosen_drops(ward: Ward, seed: int, chosen: str) -> None:
    faults = Faults(delay=0, drops=CHOSEN[chosen]())
    async with row(ward, seed, faults, fec="8+2" if chosen == "all-parity" else None) as running:
        await running.send_mixed()
    assert running.lost() > 0


class Withholding(RepairNode):
    """Answers, and says nothing of every third packet that it was asked for."""

    def _repair(
        self,
        channel: bytes,
        stream: bytes,
        ranges: tuple[tuple[int, int], ...],
        admission: Admission | None,
    ) -> Repaired | None:
        found = super()._repair(channel, stream, ranges, admission)
        if found is None:
            return None
        packets, oldest, head = found
        return [packet for number, packet in enumerate(packets) if number % 3], oldest, head


async def test_fault_4_d4_what_a_repair_node_withholds_comes_from_the_publisher(
    ward: Ward, seed: int
) -> None:
    """Over HTTPS; and the node is named."""
    identity = DeviceIdentity.open(ward.site.devices / "keeper")
    events: list[Event] = []
    async with row(ward, seed, names=("near",), unheard=("keeper", "far")) as running:
        node, far = (
            RoutingOverrides(listen=running.switch.exits[name].address) for name in ("keeper", "far")
        )
        subscriber = ward.device("far").subscriber(ward.channel.name, routing=far, on_event=events.append)
        async with Withholding(identity, [ward.channel.name], routing=node) as keeper:
            [kept] = keeper._keepers
            # As `run` does it; who joins afterwards is told of the node.
            await kept.session.key_server.put_repair_node(
                ward.channel.name, RepairNodeUpdate(endpoint=keeper.endpoint)
            )
            async with subscriber:
                running.listening["far"] = Listening(subscriber, events)
                await running.send(20)
                await running.settle()
                running.switch.set_faults(Faults(delay=0, loss=0.5), ["far"])
                while not (told := running.passed_over()):
                    await running.send(100)
                    await running.settle()
    assert {(event.source, event.reason) for event in told} == {("keeper", "withheld")}


@pytest.mark.parametrize("types", [(DATA, PARITY), (DATA, PARITY, HEARTBEAT, CREDENTIAL)])
async def test_fault_4_nothing_more_of_a_stream_is_heard(
    ward: Ward, seed: int, types: tuple[int, ...]
) -> None:
    """Not even a heartbeat: then the directory tells how far it has come."""
    async with row(ward, seed, fec="8+2") as running:
        await running.send(20)
        await running.settle()
        running.switch.set_faults(Faults(delay=0, drops=of_type(*types)))
        await running.send_mixed()
    assert running.lost() > 100


async def test_fault_4_the_last_packets_are_dropped(ward: Ward, seed: int) -> None:
    """Nothing but a heartbeat tells of them."""
    async with row(ward, seed) as running:
        await running.send(20)
        await running.settle()
        running.switch.set_faults(Faults(delay=0, drops=of_type(DATA)))
        await running.send(3)
    assert running.lost() > 0


async def test_fault_4_the_first_packet_of_each_epoch_is_dropped(ward: Ward, seed: int) -> None:
    async with row(ward, seed, Faults(delay=0, drops=first_of_each_epoch())) as running:
        before = running.publisher.epoch
        await running.send(20)
        async with ward.device("late").subscriber(ward.channel.name):
            while running.publisher.epoch == before:
                await running.send_for(0.05)
            await running.send_for(0.2)
    assert running.lost() == 2


@pytest.mark.parametrize(
    "faults",
    [
        Faults(delay=750 * MILLISECOND),
        Faults(delay=0, jitter=100 * MILLISECOND),
        Faults(delay=0, reorder=0.25, reorder_delay=750 * MILLISECOND),
        Faults(delay=0, inversion=16),
    ],
    ids=["750ms-one-way", "jitter", "25-percent-reordered", "blocks-the-wrong-way-round"],
)
async def test_fault_5_delay_and_reordering(ward: Ward, seed: int, faults: Faults) -> None:
    async with row(ward, seed, faults) as running:
        await running.send_mixed()
    assert running.lost() == 0


async def test_fault_6_one_to_ten_copies(ward: Ward, seed: int) -> None:
    faults = Faults(delay=0, duplicate=0.5, copies=10, reorder_delay=100 * MILLISECOND)
    async with row(ward, seed, faults) as running:
        await running.send_mixed()
        # What is still on its way is of packets that were delivered: the next ones are behind it.
        running.switch.set_faults(Faults(delay=120 * MILLISECOND))
        await running.send(5)
        await running.settle()
        assert running.counters()["duplicate"] > 100


@pytest.mark.parametrize("share", [0.02, 0.3])
async def test_fault_7_a10_corruption_delivers_nothing_wrong(ward: Ward, seed: int, share: float) -> None:
    async with row(ward, seed, Faults(delay=0, corruption=share)) as running:
        await running.send_mixed()
    assert running.switch.exits["far"].counters.corrupted > 0


async def test_fault_8_the_mtu_shrinks_in_the_middle(ward: Ward, seed: int) -> None:
    """What no longer fits comes by repair; what is small goes on by multicast."""
    async with row(ward, seed) as running:
        for mtu in (1500, 1280, 576):
            before = running.lost()
            running.switch.set_faults(replace(CLEAN, mtu=mtu))
            await running.send(30, 1200)
            await running.send(5, 100)
            await running.settle()
            assert (running.lost() > before) == (mtu < 1500)


async def test_fault_9_a_line_that_is_gone_for_5_s_and_back_for_2(ward: Ward, seed: int) -> None:
    """Takes these seven seconds: it is the one row whose times are part of it."""
    async with row(ward, seed, names=("far", "near")) as running:
        await running.send_mixed()
        running.switch.cut(["far"])
        await running.send_for(5, 0.01)
        running.switch.heal()
        await running.send_for(2, 0.01)
    assert running.lost("far") > 50
    assert running.lost("near") == 0, "the sender's side is unaffected"


async def test_fault_9_lines_that_are_cut_and_mended_one_after_the_other(ward: Ward, seed: int) -> None:
    """Each in a drawn order: there is a moment when nobody hears anything."""
    async with row(ward, seed, names=("far", "near", "late")) as running:
        names = list(running.listening)
        await running.send(20)
        for change in (running.switch.cut, running.switch.heal):
            running.draw.shuffle(names)
            for name in names:
                change([name])
                await running.send_for(0.1)
        await running.send(20)
    assert all(running.lost(name) for name in names)
