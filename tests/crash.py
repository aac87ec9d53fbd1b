"""SIGKILL at any system call of a command, by strace, at a small price for each run.

A *warm* process imports once what the commands need and forks for each run. The fork waits until strace holds
it. So no start of an interpreter is paid for, and what strace counts are the calls of the command itself,
which each run makes alike; an import would shift their numbers.
"""

import asyncio
import contextlib
import importlib
import json
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

CALLS = (
    "openat,write,pwrite64,fsync,fdatasync,rename,renameat,renameat2,unlink,unlinkat,mkdir,mkdirat,rmdir,"
    "symlink,symlinkat,link,linkat,chmod,fchmod,fchmodat,ftruncate,flock"
)
"""Those that change a file, and those by which one begins to."""

SOAK = os.environ.get("SEALCAST_SOAK") == "1"
AT_ONCE = 4
"""Runs beside each other: each waits for the disk as much as it computes."""
RUN_SECONDS = 60


@dataclass(frozen=True)
class Call:
    """A system call, by its name and how many of that name its thread had made, itself included."""

    name: str
    number: int

    @property
    def killing(self) -> list[str]:
        """Options of strace: kill the process instead of this call."""
        return ["-e", f"inject={self.name}:signal=SIGKILL:when={self.number}"]


def tracing(log: Path) -> list[str]:
    """Options of strace: follow threads, write every call of interest with the files that it is about."""
    return ["-f", "-y", "-o", str(log), f"--trace={CALLS}"]


def calls_that_matter(log: str, folder: Path) -> list[Call]:
    """The calls on the folder and what is in it. strace counts for each thread and each name apart."""
    counts: Counter[tuple[str, str]] = Counter()
    found = []
    for thread, name, arguments in re.findall(r"^(\d+) +([a-z]\w+)\((.*)$", log, re.MULTILINE):
        counts[thread, name] += 1
        if str(folder) in arguments:
            found.append(Call(name, counts[thread, name]))
    return found


def chosen(calls: list[Call], sample: int) -> list[Call]:
    """As many calls as `sample` says, the first and the last among them; all under SEALCAST_SOAK=1."""
    if SOAK or len(calls) <= sample:
        return calls
    step = (len(calls) - 1) / (sample - 1)
    return [calls[round(index * step)] for index in range(sample)]


class Warm:
    """Processes that have imported the command line, each good for one run at a time."""

    def __init__(self, processes: list[asyncio.subprocess.Process]) -> None:
        self._idle: asyncio.Queue[asyncio.subprocess.Process] = asyncio.Queue()
        for process in processes:
            self._idle.put_nowait(process)

    async def run(self, arguments: Sequence[str], options: Sequence[str], **environment: str) -> int:
        """Run `sealcast` under strace. Returns: its exit code; -9 if it was killed."""
        process = await self._idle.get()
        assert process.stdin is not None
        assert process.stdout is not None
        async with asyncio.timeout(RUN_SECONDS):
            process.stdin.write(json.dumps([list(arguments), environment]).encode() + b"\n")
            number = int(await process.stdout.readline())
            async with attached(number, options):
                os.kill(number, signal.SIGCONT)
                code = int(await process.stdout.readline())
        self._idle.put_nowait(process)
        return code


@contextlib.asynccontextmanager
async def warm(*modules: str) -> AsyncIterator[Warm]:
    """Warm processes for the length of the block; `modules`: what the commands import when they run."""
    processes: list[asyncio.subprocess.Process] = []
    try:
        for _ in range(AT_ONCE):
            processes.append(
                await asyncio.create_subprocess_exec(
                    *(sys.executable, "-c", "from tests.crash import fork_commands; fork_commands()"),
                    *("sealcast.cli", *modules),
                    cwd=ROOT,
                    env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                )
            )
        yield Warm(processes)
    finally:
        for process in processes:
            assert process.stdin is not None
            process.stdin.close()
        for process in processes:
            await process.wait()


@contextlib.asynccontextmanager
async def attached(process: int, options: Sequence[str]) -> AsyncIterator[None]:
    """strace holds the process, which has to end before the block does."""
    tracer = await asyncio.create_subprocess_exec(
        *("strace", *options, "-p", str(process)),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        assert tracer.stderr is not None
        # It says when it has taken hold.
        assert b"attached" in await tracer.stderr.readline()
        yield
        # It ends with the last thread. Told to let go while threads are dying, it can wait for ever.
        async with asyncio.timeout(RUN_SECONDS):
            await tracer.communicate()
    finally:
        with contextlib.suppress(ProcessLookupError):
            tracer.kill()
        await tracer.wait()


def fork_commands() -> None:
    """The warm process: for each line, arguments and environment as JSON, `sealcast` in a fork.

    Writes the fork's number when it has stopped, to be let go by SIGCONT, and its exit code at its end.
    """
    for module in sys.argv[1:]:
        importlib.import_module(module)
    for line in sys.stdin:
        arguments, environment = json.loads(line)
        child = os.fork()
        if child == 0:
            _be_the_command(arguments, environment)
        os.waitpid(child, os.WUNTRACED)
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def _be_the_command(arguments: list[str], environment: dict[str, str]) -> None:
    from sealcast.cli import main

    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1):
        os.dup2(nowhere, stream)
    os.environ.update(environment)
    os.kill(os.getpid(), signal.SIGSTOP)
    sys.exit(main(arguments))
