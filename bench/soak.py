"""`make soak`: faults for hours, their totals added to a ledger.

    python -m bench.soak [--mutations N] [--seeds N] [--first-seed N] [--no-crashes]

Runs, one after the other: mutated packets against the engine, random simulations, network scenarios of the
engine over more seeds, and kills at every system call. Each adds a line to `bench/results/soak.jsonl`: date,
commit, what ran, how many, how long, whether it held. Ctrl-C ends it; what is done by then is in the ledger.
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
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LEDGER = ROOT / "bench" / "results" / "soak.jsonl"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all parts; 1 if one of them did not hold."""
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=__doc__)
    parser.add_argument("--mutations", type=int, default=1_000_000_000, help="mutated packets")
    parser.add_argument("--seeds", type=int, default=50_000, help="random simulations")
    parser.add_argument("--first-seed", type=int, default=1, help="of the random simulations")
    parser.add_argument("--no-crashes", action="store_true", help="leave out the kills at each system call")
    options = parser.parse_args(arguments)
    cargo = ["cargo", "test", "--release", "--locked", "-p", "sealcast-core", "--test", "engine"]
    pytest = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--timeout", "86400"]
    seeds = {"SEALCAST_SEEDS": str(options.seeds), "SEALCAST_FIRST_SEED": str(options.first_seed)}
    held = [
        _run(
            "mutated packets",
            options.mutations,
            [*cargo, "mutation::"],
            {"SEALCAST_MUTATIONS": str(options.mutations), "SEALCAST_SEED": str(options.first_seed)},
        ),
        _run("random simulations", options.seeds, [*pytest, "tests/test_simulation.py"], seeds),
        _run("network scenarios", 300, [*cargo, "scenario_network::"], {"SEALCAST_SEEDS": "300"}),
    ]
    if not options.no_crashes:
        crashes = [
            "tests/device/test_crash.py",
            "tests/authority/test_crash.py",
            "tests/authority/test_kills.py",
        ]
        with tempfile.TemporaryDirectory() as folder:
            tally = Path(folder) / "kills"
            os.environ["SEALCAST_KILLS"] = str(tally)
            command, soak = [*pytest, *crashes], {"SEALCAST_SOAK": "1"}
            held.append(_run("kills at each system call", lambda: _kills(tally), command, soak))
    return 0 if all(held) else 1


def _kills(tally: Path) -> int:
    """How many points the tests have killed at, those of the recoveries included."""
    if not tally.exists():
        return 0
    return sum(json.loads(line)["points"] for line in tally.read_text(encoding="utf-8").splitlines())


def _run(
    what: str, count: int | Callable[[], int], command: Sequence[str], environment: Mapping[str, str]
) -> bool:
    print(f"{what}: {count:,}" if isinstance(count, int) else what, flush=True)
    started = time.monotonic()
    code = subprocess.run(command, cwd=ROOT, env={**os.environ, **environment}, check=False).returncode
    count = count if isinstance(count, int) else count()
    entry = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "what": what,
        "count": count,
        "seconds": round(time.monotonic() - started, 1),
        "held": code == 0,
        "environment": dict(environment),
    }
    LEDGER.parent.mkdir(exist_ok=True)
    with LEDGER.open("a", encoding="utf-8") as ledger:
        ledger.write(json.dumps(entry) + "\n")
    return code == 0


def _commit() -> str:
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
