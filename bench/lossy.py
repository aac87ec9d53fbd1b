"""One file of 200 MiB over a wire that loses packets: Sealcast, UFTP and NORM, in turns.

Whoever sends is given the rate at which it is fastest of those that are tried. Loss is at the receiving host,
by nftables, for all alike: without nft, or not as root, only the part without loss is run.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import median

from bench.children import ChildError, end
from bench.comparison import failing, left_out
from bench.figures import Figure, Figures, at_least
from bench.rivals.norm import Norm
from bench.rivals.packages import took
from bench.rivals.uftp import GCM, PLAIN, Uftp
from bench.site import Site
from bench.wire import FAR, Wire

FILE_BYTES = 200 << 20
TRIED_BYTES = 64 << 20
KEPT = 0.8
"""Of the rate without loss, at 5 %."""
_LOSSES = {
    "no loss": None,
    "1 % lost": "numgen random mod 1000 < 10",
    "5 % lost": "numgen random mod 1000 < 50",
    "20 % lost": "numgen random mod 1000 < 200",
    "5 % lost, 10 in a row": "numgen inc mod 200 < 10",
}
_STEPS = {
    "Sealcast": (1000, 1500, 1750, 2000, 2500),
    f"UFTP, {PLAIN}": (400, 700, 1000),
    f"UFTP, {GCM}": (300, 500, 800),
    "NORM, no security": (200, 350, 500),
}
_PATIENCE_SECONDS = 300.0
_BUDGET_SECONDS = 40.0
"""Of one sender at one loss: who needs longer is measured fewer times."""

Transfer = Callable[[Path, int], Awaitable[float]]
"""Seconds that a file takes, at a rate in Mbit/s."""


async def measure(site: Site, figures: Figures, *, rounds: int, quick: bool) -> None:
    """Measure each loss, and whoever is here."""
    size, tried = (16 << 20, 4 << 20) if quick else (FILE_BYTES, TRIED_BYTES)
    with Wire() as wire:
        async with Site(site.folder / "lossy", wire) as between:
            file, small = between.folder / "file", between.folder / "small"
            file.write_bytes(os.urandom(size))
            small.write_bytes(os.urandom(tried))
            senders = _senders(between)
            unlost: float | None = None
            for loss, rule in _LOSSES.items():
                try:
                    wire.lose(rule)
                except (OSError, subprocess.CalledProcessError) as error:
                    if rule is not None:
                        print(f"    {loss} is left out: {error}", flush=True)
                        continue
                rates = await _measure(senders, file, small, size * 8 / 1e6, rounds)
                _report(
                    figures, f"a file of {size >> 20} MiB, {loss}", rates, unlost if "5 %" in loss else None
                )
                if rule is None and "Sealcast" in rates:
                    unlost = median(rates["Sealcast"])


def _senders(site: Site) -> dict[str, Transfer]:
    senders: dict[str, Transfer] = {"Sealcast": lambda file, rate: _ours(site, file, rate)}
    with left_out("UFTP"):
        uftp = Uftp(site.folder / "uftp")
        for how in (PLAIN, GCM):

            async def by_uftp(file: Path, rate: int, how: str = how) -> float:
                return await uftp.transfer(site, how, file, rate=rate)

            senders[f"UFTP, {how}"] = by_uftp
    with left_out("NORM"):
        norm = Norm(site.folder / "norm")

        async def by_norm(file: Path, rate: int) -> float:
            return await norm.transfer(site, file, rate=rate)

        senders["NORM, no security"] = by_norm
    return senders


async def _measure(
    senders: dict[str, Transfer], file: Path, small: Path, megabits: float, rounds: int
) -> dict[str, list[float]]:
    """Return Mbit/s by sender, each at the rate at which a smaller file goes best, a run of each in turn."""
    best = {}
    for name, transfer in senders.items():
        tried = {}
        for rate in _STEPS[name]:
            with failing(f"{name} at {rate} Mbit/s"):
                tried[rate] = await transfer(small, rate)
        if tried:
            best[name] = min(tried, key=tried.__getitem__)
    rates: dict[str, list[float]] = {}
    spent = dict.fromkeys(best, 0.0)
    for _ in range(rounds):
        for name, rate in best.items():
            if spent[name] > _BUDGET_SECONDS:
                continue
            started = time.monotonic()
            with failing(f"{name} at {rate} Mbit/s"):
                rates.setdefault(name, []).append(megabits / await senders[name](file, rate))
            spent[name] += time.monotonic() - started
    return rates


def _report(figures: Figures, group: str, rates: dict[str, list[float]], unlost: float | None) -> None:
    ours = rates.get("Sealcast", [])
    others = {name: values for name, values in rates.items() if name != "Sealcast"}
    best = max((median(values) for values in others.values()), default=None)
    if ours:
        bar = None if best is None else at_least(best)
        note = "sealed, signed, verified; the bar is the fastest of the others"
        figures.add(Figure(group=group, name="Sealcast", unit="Mbit/s", values=ours, bar=bar, note=note))
    for name, values in others.items():
        figures.add(Figure(group=group, name=name, unit="Mbit/s", values=values, ratio_to="Sealcast"))
    if ours and unlost:
        kept = [rate / unlost for rate in ours]
        name = "Sealcast: share of its rate without loss"
        figures.add(Figure(group=group, name=name, unit="", values=kept, bar=at_least(KEPT)))


async def _ours(site: Site, file: Path, rate: int) -> float:
    """Return seconds from the order to send until the file is whole in its place."""
    channel = await site.channel(rate)
    received = site.folder / "received"
    received.mkdir(exist_ok=True)
    take = end("receive_file", device=str(await site.device("sub-1")), channel=channel, folder=str(received))
    send = end("send_file", device=str(await site.device("pub-1")), channel=channel, path=str(file))
    receiver = await site.start("file-receiver", take, FAR)
    try:
        await receiver.line()
        sender = await site.start("file-sender", send)
        try:
            await sender.line()
            sender.order("go")
            start = (await sender.line())["start"]
            got = await receiver.line(_PATIENCE_SECONDS)
            await sender.line(_PATIENCE_SECONDS)
        finally:
            await sender.finish()
    finally:
        await receiver.finish()
    if not took(received, file):
        raise ChildError("the file did not arrive")
    seconds: float = got["last"] - start
    return seconds
