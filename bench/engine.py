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
BAR_CASE = "blocks of 64"
"""Under load, to which the engine's bars apply."""


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
    """Run the benchmark; it prints figures as JSON: a line each, or one array of all."""
    program = str(built("sealcast-core", "bench", "engine"))
    words = ["--json", "--rounds", str(rounds), *(["--quick"] if quick else [])]
    output = await site.children.run("engine", [program, *words])
    told = [json.loads(line) for line in output.splitlines()]
    for figure in told[0] if told and isinstance(told[0], list) else told:
        is_engine = figure["unit"] == "packets/s"
        has_bar = is_engine and figure["name"].endswith(BAR_CASE) and "ChaCha" not in figure["name"]
        # Without the single runs: what is known of them.
        values = figure.get("values") or [figure["low"], figure["median"], figure["high"]]
        figures.add(
            Figure(
                group=GROUP if is_engine else PRIMITIVES,
                name=figure["name"],
                unit=figure["unit"],
                values=values,
                bar=at_least(150_000) if has_bar else None,
                note=f"{figure['runs']} runs" if "runs" in figure else "",
            )
        )
