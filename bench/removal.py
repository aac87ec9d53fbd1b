"""How soon a removal is in force: seen from the return of `sealcast authority device revoke`."""

from __future__ import annotations

import asyncio
import time

from bench.children import Child, end
from bench.figures import Figure, Figures
from bench.site import Site

GROUP = "a removal, from the return of `authority device revoke`"
MEMBERS = 3
INTERVAL_SECONDS = 0.002
_PATIENCE_SECONDS = 10.0


async def measure(site: Site, figures: Figures, *, rounds: int, quick: bool) -> None:
    """Remove one joined device a round, while a publisher sends steadily to it and to others."""
    del quick
    channel = await site.channel()
    publish = end(
        "publish_steadily", device=str(await site.device("pub-1")), channel=channel, interval=INTERVAL_SECONDS
    )
    command, last_sealed, followed = [], [], []
    members = []
    for index in range(MEMBERS):
        device = str(await site.device(f"sub-{index + 1}"))
        watch = end("watch_generations", device=device, channel=channel)
        members.append(await site.children.start(f"member-{index + 1}", watch))
    for member in members:
        await member.line()
    publisher = await site.children.start("publisher", publish)
    await publisher.line()
    try:
        for index in range(rounds):
            name = f"sub-removed-{index + 1}"
            watch = end("watch_generations", device=str(await site.device(name)), channel=channel)
            removed = await site.children.start("removed", watch)
            await removed.line()
            await asyncio.sleep(1.0)
            member_report = [await _newest(member) for member in members]
            old = max(generation for generation, _, _ in member_report)
            asked = time.time_ns()
            await site.revoke(name)
            returned = time.time_ns()
            # All must have heard a message of a newer generation.
            until = time.monotonic() + _PATIENCE_SECONDS
            reports: list[list[list[int]]] = []
            while time.monotonic() < until:
                await asyncio.sleep(0.3)
                reports = [await _generations(member) for member in members]
                if all(report[-1][0] > old for report in reports):
                    break
            await asyncio.sleep(0.5)
            reports = [await _generations(member) for member in members]
            sealed = max(last for report in reports for generation, _, last in report if generation <= old)
            first = max(min(at for generation, at, _ in report if generation > old) for report in reports)
            command.append((returned - asked) / 1e6)
            last_sealed.append(sealed / 1e3 - returned / 1e6)
            followed.append(first / 1e3 - returned / 1e6)
            await removed.stop()
    finally:
        await publisher.finish()
        for member in members:
            await member.finish()
    note = "below zero: before the command had returned"
    what = f"{MEMBERS} members, a message every {INTERVAL_SECONDS * 1e3:g} ms"
    last = "last packet sealed under the old generation"
    new = "last member to receive a packet of the new generation"
    figures.add(
        Figure(
            group=GROUP, name="the command itself", unit="ms", values=command, note="a process's start too"
        )
    )
    figures.add(Figure(group=GROUP, name=last, unit="ms", values=last_sealed, note=note))
    figures.add(Figure(group=GROUP, name=new, unit="ms", values=followed, note=what))


async def _generations(member: Child) -> list[list[int]]:
    member.order("report")
    generations: list[list[int]] = (await member.line())["generations"]
    return generations


async def _newest(member: Child) -> list[int]:
    generations: list[list[int]] = []
    for _ in range(50):
        if generations := await _generations(member):
            break
        await asyncio.sleep(0.1)
    return generations[-1]
