"""What the primitives of a packet cost, by library: `bench/primitives` does the measuring."""

from __future__ import annotations

import json
import subprocess

from bench.children import ROOT, ChildError
from bench.figures import Figure, Figures
from bench.site import Site

GROUP = "primitives by library, one core"
_PLACE = ROOT / "bench" / "primitives"
_TARGET = ROOT / "target" / "primitives"


async def measure(site: Site, figures: Figures, *, rounds: int, quick: bool) -> None:
    """Build and run the comparison; the libraries that lose are no dependencies of the product."""
    del rounds, quick
    for told in json.loads(await site.children.run("primitives", [_built()])):
        figures.add(
            Figure(
                group=GROUP,
                name=f"{told['what']}: {told['library']}",
                unit="ns",
                values=[told["low"], told["median"], told["high"]],
                note="9 runs",
            )
        )


def _built() -> str:
    command = ["cargo", "build", "--release", "--locked", "--quiet", "--target-dir", str(_TARGET)]
    done = subprocess.run(command, cwd=_PLACE, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ChildError(f"cargo cannot build {_PLACE}: {done.stderr.strip().splitlines()[-1:]}")
    return str(_TARGET / "release" / "sealcast-primitives")
