"""The processes of a measurement: started, spoken with in lines of JSON, and ended, each by its own id.

Every child ends when this process does, however it ends: the system sends it SIGTERM (Linux), and the end of
its standard input tells it elsewhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

Report = dict[str, Any]

ROOT = Path(__file__).parent.parent
_PR_SET_PDEATHSIG = 1
_GENTLE_SECONDS = 5.0


class ChildError(Exception):
    """A process of the measurement has failed."""


def sealcast(*arguments: str | Path) -> list[str]:
    """Return the command line of `sealcast`."""
    return [str(Path(sys.executable).with_name("sealcast")), *map(str, arguments)]


def end(role: str, **parameters: Any) -> list[str]:
    """Return the command line of one of `bench.ends`."""
    return [sys.executable, "-m", "bench.ends", role, json.dumps(parameters)]


def cpu_seconds(pid: int) -> float:
    """Return the time that a process has used a core, in steps of the system's clock."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Child:
    """One running process."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, log: Path) -> None:
        self.name = name
        self._process = process
        self._log = log

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    async def line(self, seconds: float = 60.0) -> Report:
        """Read one line of its standard output. Raises: ChildError if none comes."""
        stdout = self._process.stdout
        if stdout is None:
            raise ChildError(f"{self.name} has no standard output")
        try:
            async with asyncio.timeout(seconds):
                line = await stdout.readline()
        except TimeoutError:
            raise ChildError(f"{self.name} has said nothing for {seconds:g} s; {self.last_words()}") from None
        if not line:
            raise ChildError(f"{self.name} has ended before its time; {self.last_words()}")
        report: Report = json.loads(line)
        return report

    def order(self, word: str) -> None:
        """Write one line to its standard input."""
        if self._process.stdin is not None:
            self._process.stdin.write(word.encode() + b"\n")

    async def output(self, *, also_errors: bool = False) -> str:
        """Wait for its end and return what it wrote. Raises: ChildError if it failed."""
        output, _ = await self._process.communicate()
        if self._process.returncode != 0:
            raise ChildError(f"{self.name} has failed; {self.last_words()}")
        return output.decode() + (self._log.read_text(errors="replace") if also_errors else "")

    async def finish(self) -> None:
        """Let it end by itself, in order."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_GENTLE_SECONDS):
                await self._process.wait()
        await self.stop()

    async def stop(self) -> None:
        """End it for certain."""
        if self._process.returncode is None:
            # Not by the method of the process, which may take its exit status away from the event loop.
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGTERM)
        try:
            async with asyncio.timeout(_GENTLE_SECONDS):
                await self._process.communicate()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            await self._process.wait()

    def last_words(self) -> str:
        """Return the end of its standard error."""
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return "its last words: " + " | ".join(lines[-3:]) if lines else "it said nothing"


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
        with log.open("wb") as errors:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
                cwd=ROOT,
                env=os.environ | {"PYTHONPATH": str(ROOT)},
                start_new_session=True,
                preexec_fn=_end_with_parent,
            )
        child = Child(name, process, log)
        self._running.append(child)
        return child

    async def run(self, name: str, command: Sequence[str]) -> str:
        """Run a command to its end and return its standard output. Raises: ChildError."""
        child = await self.start(name, command)
        output = await child.output()
        self._running.remove(child)
        return output


_libc = ctypes.CDLL(None) if sys.platform.startswith("linux") else None


def _end_with_parent() -> None:
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM))
