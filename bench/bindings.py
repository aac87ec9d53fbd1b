"""What each language's binding takes in: the same stream, at the pace that the engine keeps without one.

Also what a small subscriber in C costs: the library, its start, its memory.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.children import ChildError
from bench.comparison import failing, left_out
from bench.figures import Figure, Figures, at_least, below
from bench.plane import SMALL_BYTES
from bench.rivals.packages import MissingError
from bench.sealed import run_sealed
from bench.site import Site
from bench.stream import MESSAGE_BYTES, Run, count_of, fastest_clean, run_stream
from bench.wire import FAR, Wire

GROUP = "received through each binding"
ROOT = Path(__file__).resolve().parents[1]
LIBRARY = ROOT / "target" / "release" / "libsealcast.so"
RESIDENT_MEBIBYTES = 4
_STEPS = {MESSAGE_BYTES: (1000, 1500, 2000, 2500), SMALL_BYTES: (600, 800, 900)}
"""Mbit/s: what a publisher in Python sends, too."""


@dataclass(frozen=True, slots=True)
class Binding:
    """A receiving end in one language."""

    name: str
    folder: str
    """Of its SDK; its Makefile makes `build/receive`."""
    needs: tuple[str, ...]
    """Programs."""
    share: float | None = None
    """Of what the engine takes in without a binding, at least."""
    environment: tuple[str, ...] = ()


C = Binding("C", "c", ("cc",), 0.9)


def _bindings() -> list[Binding]:
    """Every language, with Java once for each way into the library."""
    bindings = [C, Binding("C++", "cpp", ("cc", "c++"), 0.9)]
    for java in sorted({java.resolve() for java in Path("/usr/lib/jvm").glob("*/bin/java")}):
        release = (java.parents[1] / "release").read_text()
        found = re.search(r'JAVA_VERSION="(\d+)', release)
        if found is None or int(found[1]) < 17:
            continue
        way = "JNA" if int(found[1]) < 22 else "foreign functions"
        name = f"Java {found[1]}, {way}"
        bindings.append(Binding(name, "java", ("javac", "mvn"), 0.6, ("env", f"JAVA={java}")))
    return [*bindings, Binding("C# on Mono", "csharp", ("cc", "mcs", "mono"))]


async def measure(site: Site, figures: Figures, *, rounds: int, quick: bool) -> None:
    """Take every binding in turns at one pace, for full packets and for small messages."""
    with Wire() as wire:
        async with Site(site.folder / "bindings", wire) as between:
            for length, steps in _STEPS.items():
                await _measure(between, figures, length, steps, rounds, quick)
            with failing("a subscriber in C"):
                await _small_subscriber(between, figures, rounds)


async def _measure(
    site: Site, figures: Figures, length: int, steps: Sequence[int], rounds: int, quick: bool
) -> None:
    seconds = 0.7 if quick else 2.0
    rate, _ = await fastest_clean(
        site, seconds=seconds, rounds=1, steps=steps, message_bytes=length, send=run_sealed
    )
    bindings = _bindings()
    what = "full packets" if length == MESSAGE_BYTES else f"{length} bytes"
    count = count_of(rate, seconds, length)
    runs: dict[str, list[Run]] = {}
    receivers: dict[str, Sequence[str]] = {"Python": ()}
    for binding in bindings:
        with left_out(binding.name), failing(binding.name):
            receivers[binding.name] = (*binding.environment, str(_built(binding)))
    for _ in range(rounds):
        direct = await run_sealed(site, rate=rate, count=count, message_bytes=length)
        runs.setdefault("Rust, no binding", []).append(direct)
        for name, receiving in receivers.items():
            with failing(f"{name}, {what}"):
                run = await run_stream(
                    site, rate=rate, count=count, message_bytes=length, receiving=receiving
                )
                runs.setdefault(name, []).append(run)
    base = f"Rust, no binding, {what}"
    reached = sorted(run.rate for run in runs["Rust, no binding"])[len(runs["Rust, no binding"]) // 2]
    shares = {binding.name: binding.share for binding in bindings}
    for name, of in runs.items():
        share = shares.get(name)
        micros = sum(run.receive_cpu for run in of) / sum(run.messages for run in of) * 1e6
        missing = sum(run.lost + run.wrong for run in of)
        figures.add(
            Figure(
                group=GROUP,
                name=f"{name}, {what}",
                unit="messages/s",
                values=[run.rate for run in of],
                ratio_to=None if name == "Rust, no binding" else base,
                bar=None if share is None else at_least(share * reached),
                note=f"paced at {rate} Mbit/s; {missing} lost, {micros:.2f} µs of CPU each",
            )
        )


def _built(binding: Binding) -> Path:
    """Build the library, and the receiving end of a language. Raises: MissingError, ChildError."""
    missing = [program for program in binding.needs if shutil.which(program) is None]
    if missing:
        raise MissingError(f"it is built with {', '.join(missing)}")
    folder = ROOT / "sdk" / binding.folder
    library = ["cargo", "build", "--release", "--locked", "--quiet", "-p", "sealcast-capi"]
    for command, where in ((library, ROOT), (["make", "build/receive"], folder)):
        done = subprocess.run(command, cwd=where, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise ChildError(f"cannot build the receiving end in {binding.name}: {done.stderr[-200:]}")
    return folder / "build" / "receive"


def _stripped_bytes() -> int:
    with tempfile.TemporaryDirectory() as folder:
        stripped = Path(folder, LIBRARY.name)
        shutil.copy(LIBRARY, stripped)
        subprocess.run(["strip", stripped], check=True)
        return stripped.stat().st_size


def _resident_own_mebibytes(process: int) -> float:
    """What is resident of a process, but for the libraries of others; the C library counts."""
    kibibytes, is_own = 0, True
    for line in Path(f"/proc/{process}/smaps").read_text().splitlines():
        words = line.split()
        if "-" in words[0] and not words[0].endswith(":"):
            name = Path(words[5]).name if len(words) > 5 else ""
            is_own = ".so" not in name or name.startswith(("libsealcast", "libc.so", "ld-"))
        elif words[0] == "Rss:" and is_own:
            kibibytes += int(words[1])
    return kibibytes / 1024


async def _small_subscriber(site: Site, figures: Figures, rounds: int) -> None:
    """A program in C that has joined and waits."""
    program, channel = str(_built(C)), await site.channel()
    size = _stripped_bytes()
    device = str(await site.device("sub-1"))
    starts, resident = [], []
    for _ in range(rounds):
        child = await site.start("small", [program, device, channel, "1", "1"], FAR)
        try:
            starts.append((await child.line())["start"] * 1e3)
            resident.append(_resident_own_mebibytes(child.pid))
        finally:
            await child.stop()
    figures.add(Figure(group=GROUP, name="the library, stripped", unit="MiB", values=[size / 2**20]))
    figures.add(
        Figure(
            group=GROUP,
            name="a subscriber in C, from its first line to the join",
            unit="ms",
            values=starts,
            note="with TLS, the CRL and the policy",
        )
    )
    figures.add(
        Figure(
            group=GROUP,
            name="a subscriber in C, resident memory of its own",
            unit="MiB",
            values=resident,
            bar=below(RESIDENT_MEBIBYTES),
            note="without libcurl, TLS and what these load",
        )
    )
