"""A file of 4 GiB over real sockets: how fast, and the resident memory of both sides all the while.

    python -m bench.files [--gibibytes N] [--rate MEGABITS] [--folder DIR]

One `sealcast send`, one `sealcast receive`, the memory of both looked at twice a second. Of the source each
eighth piece has bytes of its own and the rest are holes, so that it takes half a gibibyte of the disk; what
is received takes all four. Writes one JSON object; ends with 1 if a side holds 200 MiB or more, or goes on
growing: the median of its last quarter is more than 16 MiB above that of the second.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

from bench.children import Child, sealcast
from bench.memory import resident_mebibytes
from bench.site import Site

LIMIT_MEBIBYTES = 200
GROWTH_MEBIBYTES = 16
_PIECE = 256 << 10
_FILLED = 8
_LOOK_SECONDS = 0.5


def make_source(path: Path, size: int) -> None:
    """Write a file of real bytes and holes."""
    with path.open("wb") as file:
        for start in range(0, size, _PIECE * _FILLED):
            file.seek(start)
            file.write(os.urandom(min(_PIECE, size - start)))
        file.truncate(size)


async def watch(children: dict[str, Child], samples: dict[str, list[float]]) -> None:
    """Note the resident memory of processes, until cancelled."""
    while True:
        for name, child in children.items():
            samples[name].append(resident_mebibytes(child.pid, "Rss"))
        await asyncio.sleep(_LOOK_SECONDS)


def medians(samples: list[float]) -> list[float]:
    """Of each quarter of the time: what waits for a moment, for a disk or a slow process, is no growth."""
    size = max(len(samples) // 4, 1)
    quarters = [samples[start : start + size] for start in range(0, len(samples), size)]
    return [round(statistics.median(quarter), 1) for quarter in quarters[:4]]


def is_flat(samples: list[float]) -> bool:
    """Whether the last quarter holds about what the second did."""
    found = medians(samples)
    return found[-1] - found[min(1, len(found) - 1)] <= GROWTH_MEBIBYTES


async def transfer(folder: Path, size: int, rate: int) -> dict[str, object]:
    """Send one file to one receiver."""
    source, output = folder / "source.bin", folder / "output"
    output.mkdir()
    await asyncio.to_thread(make_source, source, size)
    async with Site(folder / "site") as site:
        # What the publisher retains of the stream is memory, too: as much as a channel has by default.
        channel = await site.channel(rate, retention="64M")
        to, of = str(await site.device("sub-1")), str(await site.device("pub-1"))
        receive = sealcast("receive", to, channel, "--output", output, "--count", "1", "--json")
        receiver = await site.children.start("receiver", receive)
        started = time.monotonic()
        send = sealcast("send", of, channel, source, "--linger", "120s", "--json")
        sender = await site.children.start("sender", send)
        samples: dict[str, list[float]] = {"sender": [], "receiver": []}
        looking = asyncio.create_task(watch({"sender": sender, "receiver": receiver}, samples))
        try:
            received = await receiver.line(3600.0)
            seconds = time.monotonic() - started
        finally:
            looking.cancel()
            await asyncio.gather(looking, return_exceptions=True)
        sent = await sender.line(120.0)
    with source.open("rb") as file:
        digest = await asyncio.to_thread(hashlib.file_digest, file, "sha256")
    whole = received["sha256"] == sent["sha256"] == digest.hexdigest()
    return {
        "bytes": size,
        "seconds": round(seconds, 1),
        "MiB/s": round(size / seconds / (1 << 20), 1),
        "samples": len(samples["sender"]),
        "peak MiB": {name: round(max(values), 1) for name, values in samples.items()},
        "medians of quarters MiB": {name: medians(values) for name, values in samples.items()},
        "held": whole
        and all(max(values) < LIMIT_MEBIBYTES and is_flat(values) for values in samples.values()),
    }


def main() -> int:
    """Run it once; 1 if it did not hold."""
    parser = argparse.ArgumentParser(prog="python -m bench.files", description=__doc__)
    parser.add_argument("--gibibytes", type=float, default=4.0)
    parser.add_argument("--rate", type=int, default=500, metavar="MEGABITS", help="of the channel")
    parser.add_argument("--folder", type=Path, help="on a disk with twice the room; by default a new one")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        size = int(options.gibibytes * (1 << 30))
        result = asyncio.run(transfer(Path(folder), size, options.rate))
    print(json.dumps(result))
    return 0 if result["held"] else 1


if __name__ == "__main__":
    sys.exit(main())
