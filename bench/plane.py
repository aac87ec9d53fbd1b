"""The data plane between two hosts: sealed, signed and verified, next to bare UDP in turns.

Two network namespaces joined by a veth pair as root, else loopback.
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import median

from bench.figures import Figure, Figures, at_least, below
from bench.sealed import run_sealed
from bench.site import Site
from bench.stream import MESSAGE_BYTES, Run, fastest_clean, run_bare
from bench.wire import Wire

SMALL_BYTES = 100
ENGINE_RATIO = 2.3
API_RATIO = 1.5
SIGNATURES = 1 / 20
"""Under load, of a signature for each packet."""
SMALL_RATE = 1_000_000
_SMALL_STEPS_MEGABITS = (600, 800, 1000, 1100, 1200, 1300, 1400, 1500, 1600, 1800, 2000)
_STEPS_MEGABITS = (1000, 1500, 2000, 2500, 3000, 3500, 4000, 4500, 5000, 5500, 6000, 7000, 8000)


async def measure(site: Site, figures: Figures, *, rounds: int, quick: bool) -> None:
    """Measure with the devices taking buffers of many datagrams, and cutting them first."""
    with Wire() as wire:
        async with Site(site.folder / "plane", wire) as between:
            await _measure(between, figures, "two hosts" if wire.is_real else "loopback", rounds, quick)
            if wire.segments(False):
                await _measure(between, figures, "two hosts, tx-udp-segmentation off", rounds, quick)


async def _measure(site: Site, figures: Figures, where: str, rounds: int, quick: bool) -> None:
    group = f"the data plane, {where}"
    seconds = 0.7 if quick else 2.0
    bare = 100_000 if quick else 400_000
    plain: list[float] = []
    offload: list[float] = []
    for _ in range(rounds):
        for mode, values in (("plain", plain), ("offload", offload)):
            came, _ = await run_bare(site, mode=mode, count=bare, datagram_bytes=MESSAGE_BYTES)
            values.append(came)
    engine_rate, engine = await fastest_clean(
        site, seconds=seconds, rounds=rounds, steps=_STEPS_MEGABITS, send=run_sealed
    )
    rate, full = await fastest_clean(site, seconds=seconds, rounds=rounds, steps=_STEPS_MEGABITS)
    small_rate, small = await fastest_clean(
        site, seconds=seconds, rounds=rounds, steps=_SMALL_STEPS_MEGABITS, message_bytes=SMALL_BYTES
    )
    base = "bare UDP, sendmmsg + recvmmsg"

    def add(name: str, unit: str, values: list[float], **more: object) -> None:
        figures.add(Figure(group=group, name=name, unit=unit, values=values, **more))  # type: ignore[arg-type]

    add(base, "datagrams/s", plain, note=f"{MESSAGE_BYTES} bytes each")
    add("bare UDP with UDP_SEGMENT + UDP_GRO", "datagrams/s", offload, ratio_to=base)
    _add_runs(
        add,
        f"engine with sockets, full packets, paced at {engine_rate} Mbit/s",
        engine,
        base,
        at_least(ENGINE_RATIO * median(plain)),
    )
    _add_runs(
        add,
        f"Python API, full packets, paced at {rate} Mbit/s",
        full,
        base,
        at_least(API_RATIO * median(plain)),
    )
    _add_runs(
        add,
        f"Python API, {SMALL_BYTES} bytes, paced at {small_rate} Mbit/s",
        small,
        base,
        at_least(SMALL_RATE),
    )


def _add_runs(add: Callable[..., None], name: str, runs: list[Run], base: str, bar: object) -> None:
    lost, repaired = (
        sum(run.lost + run.wrong for run in runs),
        median(run.repaired / run.messages for run in runs),
    )
    add(
        name,
        "messages/s",
        [run.rate for run in runs],
        ratio_to=base,
        bar=bar,
        note=f"{lost} lost, {repaired:.1%} repaired",
    )
    add(f"{name}: goodput", "Gbit/s", [run.gigabits for run in runs])
    add(f"{name}: publisher's CPU", "µs/message", [run.send_cpu / run.messages * 1e6 for run in runs])
    add(f"{name}: subscriber's CPU", "µs/message", [run.receive_cpu / run.messages * 1e6 for run in runs])
    if signatures := [run.signatures for run in runs if run.signatures is not None]:
        add(f"{name}: signatures", "a packet", signatures, bar=below(SIGNATURES))
