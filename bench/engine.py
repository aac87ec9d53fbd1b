"""The engine without sockets, and its primitives: `rust/core/benches/engine.rs` does the measuring."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

from bench.children import ROOT, ChildError
from bench.figures import Figure, Figures, at_least
from bench.site import Site

GROUP = "the engine alone, one core"
PRIMITIVES = "primitives, one core"
BAR_BLOCK = 64
"""The block size under load, to which the engine's bars apply."""


@functools.cache
def built(package: str, kind: str, name: str) -> Path:
    """Build a benchmark or example of the workspace and return the program."""
    command = ["cargo", "build", "--release", "--locked", "--quiet", "--package", package, f"--{kind}", name]
    environment = os.environ | {"PYO3_PYTHON": os.environ.get("PYO3_PYTHON", sys.executable)}
    done = subprocess.run(
        [*command, "--message-format", "json"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise ChildError(f"cargo cannot build {name}: {done.stderr.strip().splitlines()[-1:]}")
    programs = [json.loads(line).get("executable") for line in done.stdout.splitlines()]
    return Path(next(program for program in reversed(programs) if program))


async def measure(site: Site, figures: Figures, *, rounds: int, quick: bool) -> None:
    """Run the benchmark; it prints a line of JSON for each figure."""
    program = str(built("sealcast-core", "bench", "engine"))
    words = ["--json", "--rounds", str(rounds), *(["--quick"] if quick else [])]
    bars = {f"{side}, blocks of {BAR_BLOCK}": at_least(150_000) for side in ("seal", "open")}
    for line in (await site.children.run("engine", [program, *words])).splitlines():
        told = json.loads(line)
        group = PRIMITIVES if told["group"] == "primitive" else GROUP
        figures.add(
            Figure(
                group=group,
                name=told["name"],
                unit=told["unit"],
                values=told["values"],
                bar=bars.get(told["name"]) if group == GROUP else None,
                note=told.get("note", ""),
            )
        )
