"""Full packets as fast as they go, two processes on loopback: through the Python API, and bare UDP beside."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Protocol

from bench.children import end
from bench.engine import built
from bench.figures import Figure, Figures, at_least
from bench.site import UNPACED_MEGABITS, Site
from bench.wire import FAR

GROUP = "two processes on loopback, full packets"

MESSAGE_BYTES = 1196
"""Fills a packet of an MTU of 1500: 1,204 bytes of frames (spec/wire.md DP-6), 8 of them the frame's own."""
DATAGRAM_BYTES = 1452
SETTLE_SECONDS = 1.5
"""A subscriber that learns of a stream before the directory does looks there again a second later, and asks
for no repair until then: that belongs to the start of a stream, not to its rate."""
REPAIRED = 0.01
"""Of the messages of a run, at most, that may come by repair."""
STEPS_MEGABITS = (300, 400, 500, 600, 700, 800, 1000, 1200, 1400, 1600, 1800, 2000, 2300, 2600, 3000)
"""Rates that are tried, in bits of datagrams, until two in a row lose or are not reached."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One stream, delivered."""

    messages: int
    message_bytes: int
    seconds: float
    """From the first send to the last receipt."""
    send_seconds: float
    lost: int
    wrong: int
    repaired: int
    dropped_by_kernel: int
    datagram_bytes: float
    """Mean."""
    send_cpu: float
    """Seconds, of all threads of the process."""
    receive_cpu: float
    signatures: float | None = None
    """A packet; one is for a block. None: not counted."""

    @property
    def rate(self) -> float:
        """Messages a second."""
        return self.messages / self.seconds

    @property
    def gigabits(self) -> float:
        """Gbit/s of messages."""
        return self.rate * self.message_bytes * 8 / 1e9

    @property
    def faults(self) -> str:
        """What went other than it should."""
        return f"{self.lost} lost, {self.wrong} wrong, {self.repaired} repaired"

    @property
    def is_clean(self) -> bool:
        """Whether all of it came, and nearly all by multicast; what a repair takes is part of `seconds`."""
        return self.lost == self.wrong == 0 and self.repaired <= self.messages * REPAIRED


async def run_stream(
    site: Site,
    *,
    rate: int,
    count: int,
    max_block: int = 64,
    message_bytes: int = MESSAGE_BYTES,
    receiving: Sequence[str] = (),
) -> Run:
    """Send `count` messages from one process to another.

    `receiving`: a program that takes folder, channel, count and length, in place of our own.
    """
    channel = await site.channel(rate)
    sender, receiver = str(await site.device("pub-1")), str(await site.device("sub-1"))
    both = {"channel": channel, "count": count, "message_bytes": message_bytes}
    if receiving:
        subscribe = [*receiving, receiver, channel, str(count), str(message_bytes)]
    else:
        subscribe = end("subscribe", device=receiver, **both)
    publish = end("publish", device=sender, max_block=max_block, **both)
    subscriber = await site.start("subscriber", subscribe, FAR)
    try:
        await subscriber.line()
        publisher = await site.start("publisher", publish)
        try:
            await publisher.line()
            await subscriber.line()
            await asyncio.sleep(SETTLE_SECONDS)
            publisher.order("go")
            sent = await publisher.line(120)
            got = await subscriber.line(120)
            publisher.order("done")
            await publisher.line()
        finally:
            await publisher.finish()
    finally:
        await subscriber.finish()
    return Run(
        messages=got["received"],
        message_bytes=message_bytes,
        seconds=got["last"] - sent["start"],
        send_seconds=sent["seconds"],
        lost=got["lost"],
        wrong=got["wrong"],
        repaired=got["counters"]["repaired"],
        dropped_by_kernel=got["counters"]["dropped-by-kernel"],
        datagram_bytes=sent["bytes"] / sent["packets"],
        send_cpu=sent["cpu"],
        receive_cpu=got["cpu"],
        signatures=sent["blocks"] / sent["packets"],
    )


class Runner(Protocol):
    """Sends messages of a length at a rate."""

    async def __call__(self, site: Site, *, rate: int, count: int, message_bytes: int) -> Run:
        """Return what became of them."""


async def run_bare(
    site: Site, *, mode: str, count: int, datagram_bytes: int = DATAGRAM_BYTES
) -> tuple[float, float]:
    """Send bare datagrams; return those received a second, and the part that came."""
    program = str(built("sealcast-net", "example", "bare_udp"))
    group, port = site.group()
    where = [f"{group}:{port}", site.wire.interface if site.wire is not None else "127.0.0.1", mode]
    receiver = await site.start("bare-receiver", [program, "receive", *where], FAR)
    try:
        await receiver.line()
        sender = await site.start("bare-sender", [program, "send", *where, str(datagram_bytes), str(count)])
        await sender.output()
        got = await receiver.line()
    finally:
        await receiver.stop()
    return got["datagrams"] / got["seconds"], got["datagrams"] / count


async def fastest_clean(
    site: Site,
    *,
    seconds: float,
    rounds: int,
    steps: Sequence[int] = STEPS_MEGABITS,
    message_bytes: int = MESSAGE_BYTES,
    send: Runner = run_stream,
) -> tuple[int, list[Run]]:
    """Find the highest step at which the receiver keeps up in every one of `rounds` runs; return them too."""
    good, misses = steps[0], 0
    for rate in steps:
        count = count_of(rate, seconds, message_bytes)
        run = await send(site, rate=rate, count=count, message_bytes=message_bytes)
        print(f"    at {rate} Mbit/s: {run.rate:,.0f} messages/s, {run.faults}", flush=True)
        is_reached = run.seconds < seconds / 0.9
        if run.is_clean and is_reached:
            good = rate
        misses = 0 if run.is_clean and is_reached else misses + 1
        # One miss may be somebody else's use of the machine.
        if misses == 2:
            break
    runs: list[Run] = []
    for rate in sorted((step for step in steps if step <= good), reverse=True):
        runs.clear()
        for _ in range(rounds):
            count = count_of(rate, seconds, message_bytes)
            runs.append(await send(site, rate=rate, count=count, message_bytes=message_bytes))
            if not runs[-1].is_clean:
                print(f"    at {rate} Mbit/s: {runs[-1].faults} in run {len(runs)}, a step down", flush=True)
                break
        if all(run.is_clean for run in runs):
            return rate, runs
    return steps[0], runs


def count_of(rate: int, seconds: float, message_bytes: int) -> int:
    """How many messages a rate carries in so many seconds; a frame's own fields take 8 bytes."""
    in_a_packet = (MESSAGE_BYTES + 8) // (message_bytes + 8)
    return int(rate * 1e6 / 8 / DATAGRAM_BYTES * seconds * in_a_packet)


async def measure(site: Site, figures: Figures, *, rounds: int, quick: bool) -> None:
    """Measure all streams; what is compared runs in turns."""
    seconds = 0.7 if quick else 2.0
    many, few, bare = (40_000, 5_000, 100_000) if quick else (150_000, 20_000, 400_000)
    plain: list[tuple[float, float]] = []
    offload: list[tuple[float, float]] = []
    unpaced: list[Run] = []
    signed: list[Run] = []
    for _ in range(rounds):
        plain.append(await run_bare(site, mode="plain", count=bare))
        offload.append(await run_bare(site, mode="offload", count=bare))
        unpaced.append(await run_stream(site, rate=UNPACED_MEGABITS, count=many))
        signed.append(await run_stream(site, rate=UNPACED_MEGABITS, count=few, max_block=1))
    rate, paced = await fastest_clean(site, seconds=seconds, rounds=rounds)

    base = "bare UDP, sendmmsg + recvmmsg (rust/net/examples/bare_udp.rs)"

    def add(name: str, unit: str, values: list[float], **more: object) -> None:
        figures.add(Figure(group=GROUP, name=name, unit=unit, values=values, **more))  # type: ignore[arg-type]

    def came(runs: list[tuple[float, float]]) -> str:
        return f"{median(part for _, part in runs):.1%} of what was sent came; {DATAGRAM_BYTES} bytes each"

    add(base, "datagrams/s", [rate for rate, _ in plain], note=came(plain))
    with_offload = [rate for rate, _ in offload]
    add("bare UDP with UDP_SEGMENT + UDP_GRO", "datagrams/s", with_offload, ratio_to=base, note=came(offload))
    for name, runs in (
        (f"Python API, paced at {rate} Mbit/s", paced),
        ("Python API, unpaced", unpaced),
        ("Python API, unpaced, a signature per packet", signed),
    ):
        faults = [f"{sum(run.lost + run.wrong for run in runs)} lost"]
        faults.append(f"{median(run.repaired / run.messages for run in runs):.1%} repaired")
        faults.append(f"datagrams of {median(run.datagram_bytes for run in runs):.0f} bytes")
        note, values = ", ".join(faults), [run.rate for run in runs]
        bar = at_least(50_000) if runs is paced else None
        add(name, "messages/s", values, ratio_to=base, note=note, bar=bar)
        add(f"{name}: goodput", "Gbit/s", [run.gigabits for run in runs])
        add(f"{name}: publisher's CPU", "µs/message", [run.send_cpu / run.messages * 1e6 for run in runs])
        add(f"{name}: subscriber's CPU", "µs/message", [run.receive_cpu / run.messages * 1e6 for run in runs])
