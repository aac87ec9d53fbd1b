"""The processes of the demo: how they are started, spoken with, and ended, each by its own process id.

Both directions are lines of JSON: orders on standard input, reports on standard output. Standard error goes
to a file beside the process's notes. Each child sees the end of its standard input when this process ends,
however it ends, and stops.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

from sealcast.errors import IncompleteError, SealcastError

Report = dict[str, Any]

LONGEST_LINE = 4 << 20
_GENTLE_SECONDS = 3.0
"""Between asking a child to end and ending it."""

_HERE = Path(__file__).parent
_PYTHON = sys.executable
_MAIN = "import sys; from sealcast.cli import main; sys.exit(main())"
_BUILD_VARIABLES = frozenset({"SEALCAST_DEBUG", "SEALCAST_TOKEN"})


def sealcast_command(*arguments: str | Path) -> list[str]:
    """Return the command line of `sealcast` with these arguments."""
    return [_PYTHON, "-c", _MAIN, *map(str, arguments)]


def module_command(module: str, *arguments: str | Path) -> list[str]:
    """Return the command line of one of our processes."""
    return [_PYTHON, "-m", f"sealcast.cli.demo.{module}", *map(str, arguments)]


def isolated_command(script: str, *arguments: str | Path, sees_libraries: bool = False) -> list[str]:
    """Return the command line of a script beside this file that sees the standard library alone.

    `sees_libraries`: the installed libraries too, but neither the working folder nor PYTHONPATH.
    """
    options = ("-I",) if sees_libraries else ("-I", "-S")
    return [_PYTHON, *options, str(_HERE / script), *map(str, arguments)]


class Child:
    """One running process."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, log: Path) -> None:
        self.name = name
        self.log = log
        self._process = process
        self._reader: asyncio.Task[None] | None = None
        self._stopping = False

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self._process.returncode is None

    def listen(self, on_report: Callable[[Report], None]) -> None:
        """Hand each line of its standard output to `on_report`."""
        self._reader = asyncio.create_task(self._read(on_report))

    def order(self, order: Report) -> None:
        """Write one line to its standard input."""
        stdin = self._process.stdin
        if stdin is not None and not stdin.is_closing():
            stdin.write(json.dumps(order).encode() + b"\n")

    async def line(self) -> Report:
        """Read one line of its standard output. Raises: IncompleteError if it has ended instead."""
        stdout = self._process.stdout
        line = b"" if stdout is None else await stdout.readline()
        if not line:
            await self._process.wait()
            raise self.failure()
        report: Report = json.loads(line)
        return report

    async def end(self, seconds: float) -> bool:
        """Close its standard input and wait for its end and its last words; return whether it came."""
        self._stopping = True
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            async with asyncio.timeout(seconds):
                await self._process.wait()
                if self._reader is not None:
                    await self._reader
        except TimeoutError:
            return False
        return True

    async def stop(self) -> None:
        """End it for certain."""
        self._stopping = True
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
        try:
            async with asyncio.timeout(_GENTLE_SECONDS):
                await self._process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.gather(self._reader, return_exceptions=True)

    def check(self) -> None:
        """Raise IncompleteError if it has ended and nobody asked it to."""
        if not self._stopping and not self.is_running:
            raise self.failure()

    def failure(self) -> IncompleteError:
        """Return what its end means, with its last words."""
        lines = self.log.read_text(errors="replace").strip().splitlines()
        last = lines[-1] if lines else f"exit code {self._process.returncode}"
        return IncompleteError(
            f"{self.name} has ended before its time: {last}",
            cure=f"run again with --keep, see {self.log.name}",
        )

    async def _read(self, on_report: Callable[[Report], None]) -> None:
        stdout = self._process.stdout
        if stdout is None:
            return
        while line := await stdout.readline():
            on_report(json.loads(line))


class Children:
    """All of them; leaving the block ends every one."""

    def __init__(self, logs: Path) -> None:
        """`logs`: folder for what they write to standard error."""
        self._logs = logs
        self._running: list[Child] = []

    async def __aenter__(self) -> Children:
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(*(child.stop() for child in self._running))

    async def start(self, name: str, command: Sequence[str]) -> Child:
        """Start a process."""
        log = self._logs / f"{name}.log"
        with log.open("ab") as errors:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
                limit=LONGEST_LINE,
                env=_environment(),
                # A terminal's Ctrl-C is for this process alone, which then ends the others in order.
                start_new_session=True,
            )
        child = Child(name, process, log)
        self._running.append(child)
        return child

    async def run(self, name: str, command: Sequence[str], *, text: str = "") -> str:
        """Run a command to its end and return its standard output. Raises: IncompleteError."""
        child = await self.start(name, command)
        try:
            output, _ = await child._process.communicate(text.encode())
        except asyncio.CancelledError:
            await child.stop()
            raise
        self._running.remove(child)
        if child._process.returncode != 0:
            raise child.failure()
        return output.decode()

    def check(self) -> None:
        """Raise IncompleteError if one has ended and nobody asked it to."""
        for child in self._running:
            child.check()


async def gather(*work: Coroutine[Any, Any, str]) -> list[str]:
    """Run all at once; the first error ends the others."""
    tasks: list[asyncio.Task[str]] = []
    try:
        async with asyncio.TaskGroup() as group:
            tasks += [group.create_task(one) for one in work]
    except* SealcastError as errors:
        error: BaseException = errors
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        raise error from None
    return [task.result() for task in tasks]


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in _BUILD_VARIABLES}
