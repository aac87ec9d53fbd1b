"""What 1,000 subscribers cost a publisher: counted at one and at a thousand, all of them real.

System calls are counted by strace, from outside; without it they are left out by name. A broker's TLS fan-out
stands beside the CPU.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
from collections.abc import AsyncIterator, Mapping, Sequence
from statistics import median

from bench.children import Child, Report, end
from bench.comparison import failing, left_out
from bench.figures import Figure, Figures, below
from bench.memory import resident_mebibytes
from bench.rivals import brokers
from bench.site import Manager, Site, enrol

GROUP = "what a publisher pays for its subscribers"
CROWD = 1000
FEW = 20
"""So many already report their losses as often as any number does, and all that serves them is in memory."""
SAME = 1.1
"""More than that is more than the moments at which heartbeats fall."""
CPU, KERNEL = "CPU", "CPU in the kernel"
_PROCESSES = 4
_AT_ONCE = 16
MESSAGES = 40
INTERVAL_SECONDS = 0.1
_BROKER_MESSAGES = 2_000
_SENDING = re.compile(r"^(?:\s*\S+){3}\s+(\d+)\s.*\bsendmmsg$", re.MULTILINE)
"""Of strace's table: how often the call was made by which the driver sends on a group."""
_PATIENCE_SECONDS = 300.0


async def measure(site: Site, figures: Figures, *, rounds: int, quick: bool) -> None:
    """Send to one, to a few, then to all of them, from one publisher."""
    crowd, messages = (FEW + 20, 40) if quick else (CROWD, MESSAGES)
    channel = await site.channel(retention="64M")
    publisher = await site.children.start(
        "crowd-publisher",
        end("publish_to_crowd", device=str(await site.device("pub-crowd")), channel=channel),
    )
    try:
        await publisher.line()
        folders = await _enrol(site, crowd)
        counted = [_Counted(publisher, site) for _ in range(3)]
        async with contextlib.AsyncExitStack() as subscribed:
            subscribers: list[Child] = []
            for count, added in zip(counted, (folders[:1], folders[1:FEW], folders[FEW:]), strict=True):
                subscribers += await subscribed.enter_async_context(_subscribed(site, channel, added))
                for _ in range(rounds):
                    await count.count(subscribers, messages)
    finally:
        await publisher.finish()
    _report(figures, *(count.values for count in counted), crowd=crowd)
    await _brokers(site, figures, crowd, rounds, quick)


class _Counted:
    """What a number of streams of lone messages cost, each value of one of them."""

    def __init__(self, publisher: Child, site: Site) -> None:
        self.values: dict[str, list[float]] = {}
        self._publisher = publisher
        self._table = site.folder / "strace"

    async def count(self, subscribers: Sequence[Child], messages: int) -> None:
        """Send so many, until every subscriber has them all; and again, with the system calls counted."""
        sent = await self._send(subscribers, messages)
        told = {
            "packets": sent["packets"] / messages,
            "signatures": sent["blocks"] / messages,
            CPU: sent["own"] / messages * 1e6,
            KERNEL: sent["system"] / messages * 1e6,
            "packets of repair": sent["repairs_served"] / messages,
            "resident": resident_mebibytes(self._publisher.pid, "Rss"),
        }
        if shutil.which("strace") is None:
            print("    system calls are left out: there is no strace", flush=True)
        else:
            async with self._traced():
                await self._send(subscribers, messages)
            calls = _SENDING.findall(self._table.read_text())
            told["system calls that send"] = sum(map(int, calls)) / messages
        for name, value in told.items():
            self.values.setdefault(name, []).append(value)

    async def _send(self, subscribers: Sequence[Child], messages: int) -> Report:
        self._publisher.order(f"{messages} {INTERVAL_SECONDS}")
        sent = await self._publisher.line(_PATIENCE_SECONDS)
        for child in subscribers:
            child.order(str(sent["total"]))
        for child in subscribers:
            await child.line(_PATIENCE_SECONDS)
        return sent

    @contextlib.asynccontextmanager
    async def _traced(self) -> AsyncIterator[None]:
        """Count the system calls that send meanwhile."""
        trace = ("-f", "-c", "-e", "trace=sendmmsg", "-o", str(self._table))
        strace = await asyncio.create_subprocess_exec(
            "strace", *trace, "-p", str(self._publisher.pid), stderr=asyncio.subprocess.PIPE
        )
        try:
            # It says so once it is attached.
            if strace.stderr is not None:
                await strace.stderr.readline()
            yield
        finally:
            strace.terminate()
            await strace.communicate()


async def _enrol(site: Site, count: int) -> list[str]:
    """Enrol as many devices as there will be subscribers; return their folders."""
    manager, gate = Manager(site.authority_folder), asyncio.Semaphore(_AT_ONCE)

    async def folder_of(name: str) -> str:
        async with gate:
            return str((await enrol(site, manager, name)).path)

    try:
        return await asyncio.gather(*(folder_of(f"sub-crowd-{number}") for number in range(count)))
    finally:
        await manager.close()


@contextlib.asynccontextmanager
async def _subscribed(site: Site, channel: str, folders: Sequence[str]) -> AsyncIterator[list[Child]]:
    """Processes in which all of these subscribe."""
    parts = [part for start in range(_PROCESSES) if (part := folders[start::_PROCESSES])]
    children: list[Child] = []
    try:
        for number, part in enumerate(parts):
            role = end("subscribe_as_crowd", devices=part, channel=channel)
            children.append(await site.children.start(f"crowd-{len(folders)}-{number}", role))
        for child in children:
            await child.line(_PATIENCE_SECONDS)
        yield children
    finally:
        for child in children:
            await child.finish()


def _report(
    figures: Figures,
    alone: Mapping[str, list[float]],
    few: Mapping[str, list[float]],
    many: Mapping[str, list[float]],
    *,
    crowd: int,
) -> None:
    notes = {
        CPU: "most of it are reports of losses, 8 a second at most of however many subscribers",
        KERNEL: "here it also hands each packet to every subscriber's socket; on a wire, switches do",
        "packets of repair": "of those that all subscribers together have lost",
    }
    for name, values in alone.items():
        if name == "resident":
            continue
        unit = "µs a message" if name in (CPU, KERNEL) else "a message"
        base = f"{name}, 1 subscriber"
        figures.add(Figure(group=GROUP, name=base, unit=unit, values=values))
        figures.add(
            Figure(
                group=GROUP,
                name=f"{name}, {crowd:,} subscribers",
                unit=unit,
                values=many[name],
                ratio_to=base,
                bar=None if name in notes else below(SAME * median(values)),
                note=notes.get(name, f"100 bytes every {INTERVAL_SECONDS * 1e3:g} ms; heartbeats count too"),
            )
        )
    figures.add(
        Figure(
            group=GROUP,
            name=f"memory that {FEW} subscribers take",
            unit="MiB",
            values=[each - median(alone["resident"]) for each in few["resident"]],
            note="of the publisher's process, resident: what the first reports and requests load",
        )
    )
    figures.add(
        Figure(
            group=GROUP,
            name="memory that 1,000 more subscribers take",
            unit="MiB",
            values=[(each - median(few["resident"])) * 1000 / (crowd - FEW) for each in many["resident"]],
            bar=below(1),
            note="of the publisher's process, resident",
        )
    )


async def _brokers(site: Site, figures: Figures, crowd: int, rounds: int, quick: bool) -> None:
    messages = _BROKER_MESSAGES // 10 if quick else _BROKER_MESSAGES
    for broker in brokers.BROKERS:
        for receivers in (1, crowd):
            # As many deliveries take long enough to be seen, and no longer.
            count = messages if receivers == 1 else max(20, messages * 10 // receivers)
            with left_out(broker.name), failing(f"{broker.name} to {receivers}"):
                seconds = [
                    await brokers.fan_out(
                        site, broker, site.folder / broker.name.lower(), receivers=receivers, count=count
                    )
                    for _ in range(rounds)
                ]
                figures.add(
                    Figure(
                        group=GROUP,
                        name=f"CPU of {broker.name} over TLS, receivers: {receivers:,}",
                        unit="µs",
                        values=[each / count * 1e6 for each in seconds],
                        note=f"{brokers.MESSAGE_BYTES:,} bytes a message, as fast as they go",
                    )
                )
