"""The command `sealcast demo`: its options, its signals, its exit code."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sealcast import system

if TYPE_CHECKING:
    from sealcast.cli.demo.evidence import Evidence
    from sealcast.cli.demo.plan import Plan
    from sealcast.cli.demo.table import Display
    from sealcast.cli.demo.verdict import Claim

EXIT_FAILED = 1
"""A claim does not hold."""
DEFAULT_SEED = 1


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(name="demo")(demo)


def demo(
    seed: Annotated[
        int, typer.Option("--seed", metavar="N", help="Of the file that is sent, and of the loss.")
    ] = DEFAULT_SEED,
    as_json: Annotated[
        bool, typer.Option("--json", help="Write the verdict as one JSON object, and nothing else.")
    ] = False,
    keep: Annotated[
        Path | None,
        typer.Option(
            "--keep", metavar="DIR", help="Keep journals, logs and all folders; DIR must not exist."
        ),
    ] = None,
) -> None:
    """Run a whole site on this machine, under loss, and judge what arrived.

    An authority, a publisher and three subscribers, each a process of its own, on the loopback interface: a
    recorded ECG and a file of 64 MiB pass through a switch that drops 5 % for each subscriber. Slots turn,
    the publisher's certificate is renewed, one subscriber is removed and tries all it ever held on what it
    still hears. Takes less than a minute and needs no rights. Exit code 1 if a claim does not hold, that of
    the error if it did not come to its end; --json writes a verdict then too.
    """
    import json
    import time

    from rich.console import Console

    from sealcast.cli.demo.plan import Plan, Scale
    from sealcast.cli.demo.table import Lines, LiveTable, Silence, print_verdict
    from sealcast.cli.demo.verdict import judge, unjudged
    from sealcast.errors import ConfigError, SealcastError

    if system.IS_WINDOWS:
        raise ConfigError("the demo does not run on Windows", cure="run it on Linux or macOS")
    started = time.monotonic()
    console = Console()
    display: Display = Silence() if as_json else LiveTable(console) if console.is_terminal else Lines(console)
    with _folder(keep) as folder:
        plan = Plan.make(folder, seed=seed, scale=Scale(), ecg=find_recording())
        try:
            claims = judge(_perform(plan, display))
        except SealcastError as error:
            if as_json:
                seconds = time.monotonic() - started
                typer.echo(json.dumps(_as_json([unjudged(error)], seed, seconds), indent=2))
            raise
    seconds = time.monotonic() - started
    if as_json:
        typer.echo(json.dumps(_as_json(claims, seed, seconds), indent=2))
    else:
        print_verdict(console, claims, seconds)
    if not all(claim.holds for claim in claims):
        raise typer.Exit(EXIT_FAILED)


def find_recording() -> Path:
    """Return the recorded ECG of the source tree. Raises: StorageError."""
    from sealcast.cli.demo.plan import ECG_FILE
    from sealcast.errors import StorageError

    data = Path(__file__).parents[4] / "examples" / "data" / ECG_FILE
    if not data.is_file():
        raise StorageError(str(data), "is not there", cure="run the demo from a source tree: make demo")
    return data


def _perform(plan: Plan, display: Display) -> Evidence:
    """Run it; the first Ctrl-C, SIGTERM or SIGHUP ends everything in order, later ones change nothing."""
    import asyncio
    import signal

    from sealcast.cli.demo.run import perform

    received: list[int] = []

    async def guarded() -> Evidence:
        task = asyncio.current_task()

        def interrupt(number: int) -> None:
            if not received and task is not None:
                task.cancel()
            received.append(number)

        system.on_signals(interrupt, "SIGINT", "SIGTERM", "SIGHUP")
        return await perform(plan, display)

    try:
        return system.run(guarded())
    except asyncio.CancelledError:
        if received[:1] == [signal.SIGINT]:
            raise KeyboardInterrupt from None
        raise typer.Exit(128 + received[0] if received else EXIT_FAILED) from None


def _as_json(claims: list[Claim], seed: int, seconds: float) -> dict[str, object]:
    return {
        "holds": all(claim.holds for claim in claims),
        "seed": seed,
        "seconds": round(seconds, 1),
        "claims": [{"claim": claim.name, "figure": claim.figure, "holds": claim.holds} for claim in claims],
    }


@contextlib.contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    """Yield a folder that is removed afterwards, or the one that is to be kept."""
    from sealcast.pki.files import storage_errors

    if keep is None:
        with tempfile.TemporaryDirectory(prefix="sealcast-demo-", ignore_cleanup_errors=True) as temporary:
            yield Path(temporary)
        return
    with storage_errors(keep):
        keep.mkdir(mode=0o700)
    yield keep.absolute()
