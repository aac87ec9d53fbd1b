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
    """Run the benchmark, which counts its own runs, and says of each figure the median and the spread."""
    del rounds
    program = str(built("sealcast-core", "bench", "engine"))
    output = await site.children.run("engine", [program, "--json", *(["64"] if quick else [])])
    all_told = json.loads(output)
    for told in all_told:
        is_engine = told["unit"] == "packets/s"
        # The bars hold for the suite that is the default.
        has_bar = is_engine and told["name"].endswith(BAR_CASE) and "ChaCha" not in told["name"]
        figures.add(
            Figure(
                group=GROUP if is_engine else PRIMITIVES,
                name=told["name"],
                unit=told["unit"],
                values=[told["low"], told["median"], told["high"]],
                bar=at_least(150_000) if has_bar else None,
                note=f"{told['runs']} runs",
            )
        )
    median = {told["name"]: told["median"] for told in all_told}
    for what, seal, signature in (("seal", "seal", "sign"), ("open", "open", "verify")):
        _add_share(figures, median, what, f"Aes256Gcm {seal}, 1204 bytes", f"Ed25519 {signature}, 144 bytes")


def _add_share(figures: Figures, median: dict[str, float], what: str, aead: str, signature: str) -> None:
    """How much of the primitives' own speed is left: AEAD, hash, and a signature for 64 packets."""
    parts = (aead, "leaf, BLAKE3, 1284 bytes, 64 at a time", signature)
    if any(part not in median for part in parts):
        return  # a quick run has no primitives
    each, hashed, signed = (median[part] for part in parts)
    limit = 1e9 / (each + hashed + signed / 64)
    rate = median[f"{what}, Aes256GcmBlake3, {BAR_CASE}"]
    figures.add(
        Figure(
            group=GROUP,
            name=f"{what}, Aes256GcmBlake3, {BAR_CASE}: share of the crypto limit",
            unit="",
            values=[rate / limit],
            bar=at_least(0.6),
            note=f"limit {limit:,.0f} packets/s: AES-256-GCM, BLAKE3 and a signature for 64, of this run",
        )
    )
