"""`make soak`: faults for hours, their totals added to a ledger.

    python -m bench.soak [--only PART ...] [--mutations N] [--seeds N] [--first-seed N] [--kills EXPRESSION]
                         [--matrix N] [--flood S] [--gibibytes N] [--calls N]

Runs, one after the other: mutated packets against the engine, random simulations, network scenarios of the
engine over more seeds, the matrix of network faults over real sockets, floods of packets and of connections
at their full rate, a message of 1 GiB, a file of 4 GiB with the memory of both sides, calls of the C
interface at random, every scenario in every language, those of C once more built for Windows and run by
Wine, and kills at every system call. Each adds a line to
`bench/results/soak.jsonl`: date, commit, what ran, how many, how long, whether it held; a flood with what it
cost; of the kills each transition adds one, with how many of its recoveries were killed. Ctrl-C ends it; what
is done by then is in the ledger.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LEDGER = ROOT / "bench" / "results" / "soak.jsonl"
PYTEST = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--timeout", "86400"]
PARTS = (
    "mutations",
    "simulations",
    "network",
    "sockets",
    "floods",
    "message",
    "files",
    "calls",
    "scenarios",
    "windows",
    "kills",
)
LARGEST = 1 << 30
"""Bytes of a message, the most that there may be."""
HALF_OPEN = 10_000
"""Connections to one listener that never come to a request."""
KILLS = [
    "tests/device/test_crash.py",
    "tests/authority/test_crash.py",
    "tests/authority/test_kills.py::test_what_an_agent_does",
    "tests/authority/test_passphrases.py::test_a_change_killed_at_any_call_is_whole_or_absent",
    "tests/authority/test_kills.py::test_operators_changes",
    "tests/authority/test_kills.py::test_from_nothing_to_an_authority",
    "tests/authority/test_rotation_crash.py",
]
"""Every transition that a process is killed in, the longest last."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all parts; 1 if one of them did not hold."""
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="parts to run; all if none")
    parser.add_argument("--mutations", type=int, default=1_000_000_000, help="mutated packets")
    parser.add_argument("--seeds", type=int, default=50_000, help="random simulations")
    parser.add_argument("--first-seed", type=int, default=1, help="of the random simulations")
    parser.add_argument("--flood", type=int, default=20, metavar="S", help="seconds that a flood lasts")
    parser.add_argument("--gibibytes", type=int, default=4, help="of the file that is sent")
    parser.add_argument("--calls", type=int, default=1000, help="seeds of random calls of the C interface")
    parser.add_argument("--matrix", type=int, default=20, help="seeds of each row over real sockets")
    parser.add_argument(
        "--kills", metavar="EXPRESSION", help="which of the kills' tests, as pytest -k has it"
    )
    options = parser.parse_args(arguments)
    _commit()
    cargo = ["cargo", "test", "--profile", "tests", "--locked", "-p", "sealcast-core", "--test", "engine"]
    seeds = {"SEALCAST_SEEDS": str(options.seeds), "SEALCAST_FIRST_SEED": str(options.first_seed)}
    mutations = {"SEALCAST_MUTATIONS": str(options.mutations), "SEALCAST_SEED": str(options.first_seed)}
    parts: dict[str, Callable[[], bool]] = {
        "mutations": lambda: _run("mutated packets", options.mutations, [*cargo, "mutation::"], mutations),
        "simulations": lambda: _run(
            "random simulations", options.seeds, [*PYTEST, "tests/test_simulation.py"], seeds
        ),
        "network": lambda: _run(
            "network scenarios", 300, [*cargo, "scenario_network::"], {"SEALCAST_SEEDS": "300"}
        ),
        "sockets": lambda: _run(
            "network matrix over real sockets, seeds of each row",
            options.matrix,
            [*PYTEST, "tests/e2e/test_network_matrix.py"],
            {"SEALCAST_SEEDS": str(options.matrix)},
        ),
        "floods": lambda: _flood(options.flood),
        "message": lambda: _run(
            "bytes of one message, beside small ones",
            LARGEST,
            [*PYTEST, "tests/e2e/test_large_messages.py"],
            {"SEALCAST_MESSAGE": str(LARGEST)},
        ),
        "files": lambda: _run(
            "bytes of one file, memory of both sides flat and below 200 MiB",
            options.gibibytes << 30,
            [sys.executable, "-m", "bench.files", "--gibibytes", str(options.gibibytes)],
            {},
        ),
        "calls": lambda: _run(
            "calls of the C interface at random, 50,000 a seed; of threads on what has joined; joins",
            options.calls,
            [*PYTEST, "tests/sdk/test_c.py", "-k", "at_random or joins"],
            {"SEALCAST_CALLS": str(options.calls), "SEALCAST_JOINS": str(options.calls)},
        ),
        "scenarios": lambda: _run(
            "scenarios, each in every language as publisher and as subscriber",
            1,
            [*PYTEST, "tests/sdk/test_scenarios.py", "tests/sdk/test_sdks.py"],
            {"SEALCAST_SCENARIOS": "all"},
        ),
        "windows": lambda: _run(
            "scenarios, the C peer for Windows under Wine as publisher and as subscriber",
            1,
            [*PYTEST, "tests/sdk", "-k", "windows"],
            {"SEALCAST_WINDOWS": "1"},
        ),
        "kills": lambda: _kill(["-k", options.kills] if options.kills else []),
    }
    held = [parts[part]() for part in PARTS if part in options.only]
    return 0 if all(held) else 1


def _kill(chosen: Sequence[str]) -> bool:
    """Kill at every call of every transition."""
    print("kills at each system call", flush=True)
    spread = ["--numprocesses", "2", "--dist", "load", "--maxschedchunk", "1"]
    return _each("SEALCAST_KILLS", [*PYTEST, *spread, *chosen, *KILLS], {"SEALCAST_SOAK": "1"})


def _flood(seconds: int) -> bool:
    """Floods of packets and requests, each with its figures, and as many half-open connections as may be."""
    print(f"floods of {seconds} s", flush=True)
    tests = [
        "tests/e2e/test_floods.py",
        "tests/sidechannel/test_floods.py",
        "tests/authority/test_key_floods.py",
    ]
    return _each(
        "SEALCAST_FIGURES",
        [*PYTEST, *tests],
        {"SEALCAST_FLOOD": str(seconds), "SEALCAST_HALF_OPEN": str(HALF_OPEN)},
    )


def _each(variable: str, command: Sequence[str], environment: Mapping[str, str]) -> bool:
    """Run tests that write the ledger's lines themselves; what was done has its line, also before Ctrl-C."""
    with tempfile.TemporaryDirectory() as folder:
        tally = Path(folder) / "tally"
        told = {**os.environ, **environment, variable: str(tally)}
        try:
            code = subprocess.run(command, cwd=ROOT, env=told, check=False).returncode
        finally:
            for line in tally.read_text(encoding="utf-8").splitlines() if tally.exists() else ():
                _add({**json.loads(line), "environment": dict(environment)})
    return code == 0


def _run(what: str, count: int, command: Sequence[str], environment: Mapping[str, str]) -> bool:
    print(f"{what}: {count:,}", flush=True)
    started = time.monotonic()
    code = subprocess.run(command, cwd=ROOT, env={**os.environ, **environment}, check=False).returncode
    seconds = round(time.monotonic() - started, 1)
    held = code == 0
    _add({"what": what, "count": count, "seconds": seconds, "held": held, "environment": dict(environment)})
    return held


def _add(entry: Mapping[str, object]) -> None:
    """Add a line to the ledger, with the date and the commit."""
    stamped = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "commit": _commit(), **entry}
    LEDGER.parent.mkdir(exist_ok=True)
    with LEDGER.open("a", encoding="utf-8") as ledger:
        ledger.write(json.dumps(stamped) + "\n")


@cache
def _commit() -> str:
    """What runs: asked at the start, as others may come meanwhile."""
    found = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return found.stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
