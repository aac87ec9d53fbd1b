"""The other end of `children`: what a process of ours says and is told."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator, Coroutine
from typing import Any

from sealcast import system


def say(**report: object) -> None:
    """Write one line of JSON to standard output."""
    sys.stdout.write(json.dumps(report) + "\n")
    sys.stdout.flush()


async def orders() -> AsyncIterator[dict[str, Any]]:
    """Iterate over the lines of JSON on standard input, until its end."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin.buffer
    )
    while line := await reader.readline():
        yield json.loads(line)


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run a process to its end; SIGTERM ends it in order."""

    async def guarded() -> None:
        task = asyncio.current_task()
        if task is not None:
            system.on_signals(lambda _number: task.cancel(), "SIGTERM")
        await main

    try:
        system.run(guarded())
    except asyncio.CancelledError:
        sys.exit(128 + signal.SIGTERM)
    except BrokenPipeError:
        # Whoever started us is gone.
        sys.stderr.close()
        sys.exit(1)
