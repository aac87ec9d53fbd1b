"""`python -m bench`: measure, and write the report."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from bench import (
    bindings,
    comparison,
    crowd,
    engine,
    enrolment,
    latency,
    lossy,
    memory,
    peers,
    plane,
    primitives,
    refusal,
    removal,
    report,
    scale,
    stream,
)
from bench.children import ChildError
from bench.figures import Figures
from bench.site import Site

PARTS = {
    "primitives": primitives.measure,
    "engine": engine.measure,
    "memory": memory.measure,
    "latency": latency.measure,
    "stream": stream.measure,
    "plane": plane.measure,
    "bindings": bindings.measure,
    "peers": peers.measure,
    "comparison": comparison.measure,
    "lossy": lossy.measure,
    "crowd": crowd.measure,
    "removal": removal.measure,
    "refusal": refusal.measure,
    "enrolment": enrolment.measure,
    "scale": scale.measure,
}
"""In the order in which they run. Memory comes before what makes the authority work hard."""
ROUNDS = 5


async def _measure(names: Sequence[str], figures: Figures, missing: dict[str, str], *, quick: bool) -> None:
    """Run one part after the other; whatever is `missing` in the end has failed, or was not come to."""
    this = asyncio.current_task()
    if this is not None:
        # As Ctrl-C: every process is ended, and the temporary folder removed.
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, this.cancel)
    with tempfile.TemporaryDirectory(prefix="sealcast-bench-") as folder:
        async with Site(Path(folder)) as site:
            for name in names:
                print(f"{name}:", flush=True)
                try:
                    await PARTS[name](site, figures, rounds=ROUNDS, quick=quick)
                except ChildError as error:
                    print(f"bench: {name}: {error}", file=sys.stderr)
                    missing[name] = str(error)
                else:
                    del missing[name]


def main(arguments: Sequence[str]) -> int:
    """Run; return the exit status: 1 where a part failed, 130 if stopped; a missed bar does not change it."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure Sealcast on this machine.")
    parser.add_argument("--quick", action="store_true", help="short runs: to see that everything works")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write; the table goes beside it")
    parser.add_argument(
        "--only", action="append", choices=sorted(PARTS), metavar="NAME", help=", ".join(PARTS)
    )
    options = parser.parse_args(arguments)
    is_whole = not options.quick and options.only is None
    file = options.json or report.RESULTS / ("latest.json" if is_whole else "partial.json")
    figures, facts, start = Figures(), report.machine(), time.monotonic()
    names = [name for name in PARTS if options.only is None or name in options.only]
    missing, is_stopped = dict.fromkeys(names, "stopped before its end"), False
    try:
        asyncio.run(_measure(names, figures, missing, quick=options.quick))
    except ChildError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except (KeyboardInterrupt, asyncio.CancelledError):
        is_stopped = True
        # What a release is measured by is not to be replaced by a part of it.
        file = options.json or report.RESULTS / "partial.json"
    if figures.all:
        command = " ".join(["python -m bench", *arguments])
        seconds = time.monotonic() - start
        report.write(figures, facts, missing, command=command, seconds=seconds, json_file=file)
        print(f"written: {file} and {file.with_suffix('.md').name}")
    if is_stopped:
        print(f"bench: stopped; not measured: {', '.join(missing)}", file=sys.stderr)
        return 130
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
