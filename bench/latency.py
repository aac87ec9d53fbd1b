"""A lone small message from an idle sender: one way between two hosts that share a clock."""

from __future__ import annotations

from statistics import median, quantiles

from bench.children import Child, end
from bench.engine import built
from bench.figures import Bar, Figure, Figures, below
from bench.sealed import lone_ages, signature_micros
from bench.site import Site
from bench.wire import FAR, Wire

GROUP = "a lone message of 100 bytes, one way"
INTERVAL_SECONDS = 0.005
MESSAGE_BYTES = 100
BARE = "bare UDP"
ENGINE_MICROS, API_MICROS = 40, 150
"""What may be added to bare UDP, a signature and its verification."""

Ages = list[float]


async def _api(site: Site, count: int) -> Ages:
    channel = await site.channel()
    both = {"channel": channel, "count": count}
    subscribe = end("subscribe_lone", device=str(await site.device("sub-1")), **both)
    how = {"interval": INTERVAL_SECONDS, "message_bytes": MESSAGE_BYTES}
    publish = end("publish_lone", device=str(await site.device("pub-1")), **both, **how)
    subscriber = await site.start("subscriber", subscribe, FAR)
    await subscriber.line()
    publisher = await site.start("publisher", publish)
    await publisher.line()
    await subscriber.line()
    publisher.order("go")
    return await _ages(publisher, subscriber)


async def _bare(site: Site, count: int) -> Ages:
    program = str(built("sealcast-net", "example", "bare_udp"))
    group, port = site.group()
    where = [f"{group}:{port}", site.wire.interface if site.wire is not None else "lo"]
    how = [f"{INTERVAL_SECONDS * 1e6:.0f}", str(MESSAGE_BYTES), str(count)]
    receiver = await site.start("bare-receiver", [program, "receive-lone", *where, str(count)], FAR)
    await receiver.line()
    sender = await site.start("bare-sender", [program, "send-lone", *where, *how])
    return await _ages(sender, receiver)


async def _ages(sender: Child, receiver: Child) -> Ages:
    try:
        ages: Ages = (await receiver.line(120))["ages"]
    finally:
        await sender.finish()
        await receiver.finish()
    return ages


async def measure(site: Site, figures: Figures, *, rounds: int, quick: bool) -> None:
    """Measure the API, the engine with sockets and bare sockets in turns."""
    count = 200 if quick else 1000
    api, engine, bare, signatures = [], [], [], []
    how = (INTERVAL_SECONDS, MESSAGE_BYTES, count)
    with Wire() as wire:
        async with Site(site.folder / "latency", wire) as between:
            for _ in range(rounds):
                bare.append(quantiles(await _bare(between, count), n=100))
                engine.append(quantiles(await lone_ages(between, *how), n=100))
                api.append(quantiles(await _api(between, count), n=100))
                signatures.append(await signature_micros(between))
        where = "two hosts" if wire.is_real else "loopback"
    note = f"{where}, {count} samples a run, one every {INTERVAL_SECONDS * 1e3:g} ms"

    def add(name: str, values: Ages, note: str = "", bar: Bar | None = None, base: str | None = None) -> None:
        figures.add(
            Figure(group=GROUP, name=name, unit="µs", values=values, note=note, bar=bar, ratio_to=base)
        )

    signed = median(sign + verify for sign, verify in signatures)
    add("a signature and its verification, alone", [sign + verify for sign, verify in signatures])
    for part, place in (("p50", 49), ("p99", 98)):
        base = f"{BARE}, {part}"
        add(base, [run[place] for run in bare], note)
        least = median(run[place] for run in bare) + signed
        for name, more, runs in (
            ("engine with sockets", ENGINE_MICROS, engine),
            ("Python API", API_MICROS, api),
        ):
            bar = below(least + more) if part == "p50" else None
            add(f"{name}, {part}", [run[place] for run in runs], note, bar, base)
