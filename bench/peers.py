"""Messages between peers: from `send` to the other application, over both disks; and how many in a second.

Both devices are in this process, the authority in its own; both wait for the disk of the bench's folder.
"""

from __future__ import annotations

import asyncio
import os
import time
from statistics import quantiles

from bench.figures import Figure, Figures
from bench.site import Site
from sealcast.endpoint import Device, Inbox, Peer

GROUP = "messages between peers, over TLS 1.3, on both disks before they count"
ONE_BY_ONE = 200
SMALL, SMALL_BYTES = 20_000, 100
LARGE, LARGE_BYTES = 50, 1_000_000
_PATIENCE_SECONDS = 120.0


async def measure(site: Site, figures: Figures, *, rounds: int, quick: bool) -> None:
    """Send one by one, then as many as go."""
    await site.channel()
    sender, receiver = [Device.open(await site.device(name)) for name in ("pub-peer", "sub-peer")]
    divisor = 20 if quick else 1
    delays: list[float] = []
    small: list[float] = []
    large: list[float] = []
    async with receiver.inbox() as inbox, sender.peer("sub-peer") as peer:
        for _ in range(rounds):
            async with asyncio.timeout(_PATIENCE_SECONDS):
                delays += [await _delay(peer, inbox) for _ in range(ONE_BY_ONE // divisor)]
                await peer.delivered()
                small.append(await _rate(peer, inbox, SMALL // divisor, SMALL_BYTES))
                large.append(await _rate(peer, inbox, LARGE // divisor, LARGE_BYTES) * LARGE_BYTES / 1e6)
    cuts = quantiles(delays, n=100, method="inclusive")
    note = f"{SMALL_BYTES} bytes, {len(delays)} one after the other"
    for name, cut in (("p50", 49), ("p99", 98)):
        figures.add(
            Figure(
                group=GROUP,
                name=f"from `send` to `recv`: {name}",
                unit="ms",
                values=[cuts[cut]],
                note=note,
            )
        )
    figures.add(Figure(group=GROUP, name=f"{SMALL_BYTES}-byte messages", unit="messages/s", values=small))
    figures.add(Figure(group=GROUP, name=f"messages of {LARGE_BYTES:,} bytes", unit="MB/s", values=large))


async def _delay(peer: Peer, inbox: Inbox) -> float:
    """Milliseconds from the call to the message."""
    start = time.perf_counter()
    await peer.send(os.urandom(SMALL_BYTES))
    await inbox.recv()
    return (time.perf_counter() - start) * 1e3


async def _rate(peer: Peer, inbox: Inbox, count: int, size: int) -> float:
    """Messages a second, until all are at the application and acknowledged."""
    start = time.perf_counter()
    await peer.send_many([bytes(size)] * count)
    taken = 0
    while taken < count:
        taken += len(await inbox.recv_many(1024))
    await peer.delivered()
    return count / (time.perf_counter() - start)
