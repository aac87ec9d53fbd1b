"""Resident memory of processes that wait."""

from __future__ import annotations

import asyncio
from pathlib import Path

from bench.children import Child, end, sealcast
from bench.figures import Figure, Figures, below
from bench.site import Site

GROUP = "resident memory of a process that waits"
_MEBIBYTE = 1024  # KiB, as /proc says it
_SETTLE_SECONDS = 2.0


def resident_mebibytes(pid: int, what: str) -> float:
    """MiB of a process, as `/proc/PID/smaps_rollup` has it under that word."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith(what + ":"):
            return int(line.split()[1]) / _MEBIBYTE
    raise ValueError(f"the system does not tell {what} of process {pid}")


async def measure(site: Site, figures: Figures, *, rounds: int, quick: bool) -> None:
    """Start each anew in each round; the authority is the one that has served this run."""
    channel = await site.channel()
    subscriber, publisher = str(await site.device("sub-1")), str(await site.device("pub-1"))
    settle = _SETTLE_SECONDS / 4 if quick else _SETTLE_SECONDS
    names = ("subscriber", "subscriber, command line", "publisher", "authority")
    resident: dict[str, list[float]] = {name: [] for name in names}
    shared: dict[str, list[float]] = {name: [] for name in names}

    def take(name: str, child: Child) -> None:
        resident[name].append(resident_mebibytes(child.pid, "Rss"))
        shared[name].append(resident_mebibytes(child.pid, "Pss"))

    for _ in range(rounds):
        for name, role, device in (
            (names[0], "idle_subscriber", subscriber),
            (names[2], "idle_publisher", publisher),
        ):
            child = await site.children.start(role, end(role, device=device, channel=channel))
            await child.line()
            await asyncio.sleep(settle)
            take(name, child)
            await child.finish()
        child = await site.children.start("command", sealcast("subscribe", subscriber, channel))
        await asyncio.sleep(settle + 2.0)
        take(names[1], child)
        await child.stop()
        if site.authority is not None:
            take(names[3], site.authority)
    for name in names:
        note = f"proportional share {max(shared[name]):.0f} MiB at most"
        bar = below(80) if name == names[0] else None
        figures.add(Figure(group=GROUP, name=name, unit="MiB", values=resident[name], bar=bar, note=note))
