"""Sealcast beside what others offer, in turns: goodput, latency, and what many receivers cost the sender.

What cannot be installed here is left out by name.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from statistics import median

from bench.children import ChildError
from bench.figures import Figure, Figures, at_least
from bench.rivals import brokers
from bench.rivals.cyclone import ENCRYPT, ORIGIN, PLAIN, Cyclone
from bench.rivals.norm import Norm
from bench.rivals.packages import MissingError
from bench.rivals.uftp import GCM, SIGNED, Uftp
from bench.rivals.uftp import PLAIN as UFTP_PLAIN
from bench.site import UNPACED_MEGABITS, Site
from bench.stream import MESSAGE_BYTES, fastest_clean, run_bare, run_stream
from bench.wire import Wire

GOODPUT = "beside others: goodput, one to one, 0 lost"
LATENCY = "beside others: half a round trip of 100 bytes"
FAN_OUT = "beside others: CPU of the sending side for 100,000 messages of 1 KiB"

CYCLONE_RATIO, UFTP_RATIO = 10, 40
RECEIVERS = (1, 8, 32)
_UFTP_STEPS = {UFTP_PLAIN: (600, 1000, 1400), GCM: (500, 800, 1100), SIGNED: (60, 100, 150)}
_NORM_STEPS = (300, 450, 600)
_OURS_STEPS = (1500, 2000, 2500, 3000, 3500, 4000, 4500)
"""Mbit/s that are tried first, one run each; the best is then measured."""

Measured = Callable[[], Awaitable[float]]


async def measure(site: Site, figures: Figures, *, rounds: int, quick: bool) -> None:
    """Measure whatever is here."""
    with Wire() as wire:
        async with Site(site.folder / "beside", wire) as between:
            folder = between.folder / "rivals"
            cyclone = None
            with left_out("Cyclone DDS"):
                cyclone = Cyclone(folder / "cyclone")
            await _goodput(between, figures, folder, cyclone, rounds, quick)
            if cyclone is not None:
                await _latency(between, figures, cyclone, rounds, quick)
    await _fan_out(site, figures, rounds, quick)


async def _goodput(
    site: Site, figures: Figures, folder: Path, cyclone: Cyclone | None, rounds: int, quick: bool
) -> None:
    samples, bare_count, file_bytes = (20_000, 100_000, 16 << 20) if quick else (150_000, 400_000, 128 << 20)
    file = site.folder / "file"
    file.write_bytes(os.urandom(file_bytes))
    megabits = file_bytes * 8 / 1e6
    message_megabits = MESSAGE_BYTES * 8 / 1e6

    rivals: dict[str, Measured] = {}
    if cyclone is not None:
        for protection in (PLAIN, ENCRYPT, ORIGIN):

            async def samples_of(protection: str = protection) -> float:
                rate = await cyclone.goodput(site, protection, count=samples, message_bytes=MESSAGE_BYTES)
                return rate * message_megabits

            rivals[f"Cyclone DDS, rtps {protection}"] = samples_of
    with left_out("UFTP"):
        uftp = Uftp(folder / "uftp")
        for how, steps in _UFTP_STEPS.items():

            async def uftp_seconds(rate: int, how: str = how) -> float:
                return await uftp.transfer(site, how, file, rate=rate)

            rate = await _best(steps, uftp_seconds)

            async def by_uftp(how: str = how, rate: int = rate) -> float:
                return megabits / await uftp.transfer(site, how, file, rate=rate)

            rivals[f"UFTP, {how}"] = by_uftp
    with left_out("NORM"):
        norm = Norm(folder / "norm")
        rate = await _best(_NORM_STEPS, lambda rate: norm.transfer(site, file, rate=rate))

        async def by_norm(rate: int = rate) -> float:
            return megabits / await norm.transfer(site, file, rate=rate)

        rivals["NORM, no security"] = by_norm

    bare: list[float] = []
    told: dict[str, list[float]] = {name: [] for name in rivals}
    for _ in range(rounds):
        bare.append((await run_bare(site, mode="plain", count=bare_count))[0] * message_megabits)
        for name, run in rivals.items():
            with failing(name):
                told[name].append(await run())
    rate, ours = await fastest_clean(site, seconds=0.7 if quick else 2.0, rounds=rounds, steps=_OURS_STEPS)
    base = "bare UDP, sendmmsg + recvmmsg, as many bytes of payload"
    figures.add(Figure(group=GOODPUT, name=base, unit="Mbit/s", values=bare))
    bars = {
        f"Cyclone DDS, rtps {ORIGIN}": CYCLONE_RATIO,
        f"UFTP, {SIGNED}": UFTP_RATIO,
    }
    limits = [median(told[name]) * ratio for name, ratio in bars.items() if told.get(name)]
    figures.add(
        Figure(
            group=GOODPUT,
            name=f"Sealcast, Python API, paced at {rate} Mbit/s",
            unit="Mbit/s",
            values=[run.gigabits * 1e3 for run in ours],
            ratio_to=base,
            bar=at_least(max(limits)) if limits else None,
            note=f"sealed, signed, verified; the bar is {CYCLONE_RATIO} times Cyclone's with origin "
            f"authentication and {UFTP_RATIO} times UFTP's with a signature per packet",
        )
    )
    for name, values in told.items():
        if values:
            figures.add(Figure(group=GOODPUT, name=name, unit="Mbit/s", values=values, ratio_to=base))


async def _latency(site: Site, figures: Figures, cyclone: Cyclone, rounds: int, quick: bool) -> None:
    count = 200 if quick else 1000
    for protection in (PLAIN, ENCRYPT, ORIGIN):
        with failing(f"Cyclone DDS, {protection}"):
            runs = [
                await cyclone.one_way(site, protection, count=count, message_bytes=100) for _ in range(rounds)
            ]
            for part, place in (("p50", 49), ("p99", 98)):
                figures.add(
                    Figure(
                        group=LATENCY,
                        name=f"Cyclone DDS, rtps {protection}, {part}",
                        unit="µs",
                        values=[run[place] for run in runs],
                        note=f"{count} round trips a run, one every 2 ms",
                    )
                )


async def _fan_out(site: Site, figures: Figures, rounds: int, quick: bool) -> None:
    count = 5_000 if quick else 20_000
    ours = [
        await run_stream(site, rate=UNPACED_MEGABITS, count=count, message_bytes=brokers.MESSAGE_BYTES)
        for _ in range(rounds)
    ]
    base = "Sealcast's publisher, however many receivers"
    values = [run.send_cpu / run.messages * 1e5 for run in ours]
    figures.add(Figure(group=FAN_OUT, name=base, unit="s", values=values))
    for broker in brokers.BROKERS:
        for receivers in RECEIVERS:
            folder = site.folder / broker.name.lower()
            name = f"{broker.name} over TLS, receivers: {receivers}"
            with left_out(broker.name), failing(name):
                seconds = [
                    await brokers.fan_out(site, broker, folder, receivers=receivers, count=count)
                    for _ in range(rounds)
                ]
                values = [each / count * 1e5 for each in seconds]
                figures.add(Figure(group=FAN_OUT, name=name, unit="s", values=values, ratio_to=base))


async def _best(steps: tuple[int, ...], transfer: Callable[[int], Awaitable[float]]) -> int:
    """Return the rate at which a file takes the least time."""
    seconds: dict[int, float] = {}
    for rate in steps:
        with failing(f"a transfer at {rate} Mbit/s"):
            seconds[rate] = await transfer(rate)
    return min(seconds, key=seconds.__getitem__, default=steps[0])


@contextlib.contextmanager
def left_out(name: str) -> Iterator[None]:
    """Do without a rival that cannot be had."""
    try:
        yield
    except MissingError as error:
        print(f"    {name} is left out: {error}", flush=True)


@contextlib.contextmanager
def failing(name: str) -> Iterator[None]:
    """Let a rival fail without ending the run."""
    try:
        yield
    except ChildError as error:
        print(f"    {name} has failed: {error}", flush=True)
