"""A lone small message from an idle sender: one way, two processes of one machine, one clock."""

from __future__ import annotations

from statistics import quantiles

from bench.children import Child, end
from bench.figures import Figure, Figures, below
from bench.site import Site

GROUP = "a lone message of 100 bytes, one way"
INTERVAL_SECONDS = 0.005
MESSAGE_BYTES = 100

Ages = list[float]


async def _api(site: Site, count: int) -> Ages:
    channel = await site.channel()
    both = {"channel": channel, "count": count}
    subscribe = end("subscribe_lone", device=str(await site.device("sub-1")), **both)
    how = {"interval": INTERVAL_SECONDS, "message_bytes": MESSAGE_BYTES}
    publish = end("publish_lone", device=str(await site.device("pub-1")), **both, **how)
    subscriber = await site.children.start("subscriber", subscribe)
    await subscriber.line()
    publisher = await site.children.start("publisher", publish)
    await publisher.line()
    await subscriber.line()
    return await _ages(publisher, subscriber)


async def _bare(site: Site, count: int) -> Ages:
    group, port = site.group()
    both = {"group": group, "port": port, "count": count}
    receiver = await site.children.start("bare-receiver", end("bare_lone_receiver", **both))
    await receiver.line()
    sender = await site.children.start("bare-sender", end("bare_lone", **both, interval=INTERVAL_SECONDS))
    await sender.line()
    return await _ages(sender, receiver)


async def _ages(sender: Child, receiver: Child) -> Ages:
    sender.order("go")
    try:
        ages: Ages = (await receiver.line(120))["ages"]
    finally:
        await sender.finish()
        await receiver.finish()
    return ages


async def measure(site: Site, figures: Figures, *, rounds: int, quick: bool) -> None:
    """Measure the API and plain sockets in turns."""
    count = 200 if quick else 1000
    api, bare = [], []
    for _ in range(rounds):
        bare.append(quantiles(await _bare(site, count), n=100))
        api.append(quantiles(await _api(site, count), n=100))
    note = f"{count} samples a run, one every {INTERVAL_SECONDS * 1e3:g} ms"
    for part, place in (("p50", 49), ("p99", 98)):
        base = f"plain sockets on the same event loop, {part}"
        figures.add(Figure(group=GROUP, name=base, unit="µs", values=[run[place] for run in bare]))
        bar = below(1000) if part == "p50" else None
        values = [run[place] for run in api]
        figures.add(
            Figure(
                group=GROUP,
                name=f"Python API, {part}",
                unit="µs",
                values=values,
                bar=bar,
                ratio_to=base,
                note=note,
            )
        )
