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
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
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


CHANGING = frozenset(CALLS.split(",")) - {"openat", "flock"}


def points(what: str, calls: list[Call]) -> list[Call]:
    """Where to kill: at one call of each kind that changes a file; at all calls under SEALCAST_SOAK=1.

    Says how many there are; `make soak` puts that into its ledger.
    """
    found = calls if SOAK else one_of_each_kind(calls)
    print(f"{what}: killed at {len(found)} of {len(calls)} calls")  # for whoever runs pytest -s
    if path := os.environ.get("SEALCAST_KILLS"):
        with Path(path).open("a", encoding="utf-8") as tally:
            tally.write(json.dumps({"what": what, "points": len(found)}) + "\n")
    return found


def one_of_each_kind(calls: list[Call]) -> list[Call]:
    """Of the calls that change a file: of each name the middle one, and the very last one."""
    changing = [call for call in calls if call.name in CHANGING]
    kinds: dict[str, list[Call]] = {}
    for call in changing:
        kinds.setdefault(call.name, []).append(call)
    return list(dict.fromkeys([*(alike[len(alike) // 2] for alike in kinds.values()), *changing[-1:]]))


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


@dataclass(frozen=True, kw_only=True)
class Transition:
    """A command that takes a folder from one state to another."""

    name: str
    prepare: Callable[[Path], Awaitable[None]]
    """Makes what is there before, in a folder that is not there yet."""
    words: Callable[[Path], Sequence[str]]
    look: Callable[[Path], str]
    """A clean start: `before` or `after`; raises where it is neither."""
    environment: Callable[[], Mapping[str, str]] = dict
    code: int = 0
    """How the command ends that does the work."""
    refused: frozenset[int] = frozenset({0})
    """How the command may end where its work has been done already."""
    again: bool = SOAK
    """Whether the recovery is killed too; at one call, save in a soak."""
    copies: bool = True
    """Whether a copy of the folder may do what the folder does, as a recovery is killed in copies."""
    settle: Callable[[Path], Awaitable[None]] | None = None
    """Looks at the folder once the work has been done at last."""


async def survive(commands: "Warm", step: Transition, scratch: Path) -> Counter[str]:
    """Kill the command at one call after the other, and again the next one, which has to recover.

    Returns: how often the folder was found `before` and `after`.
    """

    async def run(folder: Path, *options: str) -> int:
        trace = tracing(folder.with_suffix(".log"))
        return await commands.run(step.words(folder), [*trace, *options], **step.environment())

    def calls_of(folder: Path) -> list[Call]:
        return calls_that_matter(folder.with_suffix(".log").read_text(), folder)

    async def finish(folder: Path) -> None:
        was = step.look(folder)
        code = await run(folder)
        assert code == step.code if was == "before" else code in step.refused, (step.name, was, code)
        assert step.look(folder) == "after"
        if step.settle is not None:
            await step.settle(folder)
        # A soak makes thousands of them.
        await asyncio.to_thread(shutil.rmtree, folder)

    whole = scratch / "whole"
    await step.prepare(whole)
    assert await run(whole) == step.code
    assert step.look(whole) == "after"
    calls = calls_of(whole)
    places = points(step.name, calls)
    outcomes: Counter[str] = Counter()

    async def kill_at(call: Call) -> None:
        folder = scratch / f"{call.name}-{call.number}"
        await step.prepare(folder)
        code = await run(folder, *call.killing)
        assert code in (step.code, -signal.SIGKILL), (step.name, call, code)
        outcomes["killed"] += code == -signal.SIGKILL
        outcomes[step.look(folder)] += 1
        if call in again and folder.exists():
            await kill_the_next(folder)
        await finish(folder)

    async def kill_the_next(folder: Path) -> None:
        traced = folder.with_name(f"{folder.name}-traced")
        shutil.copytree(folder, traced)
        await run(traced)
        step.look(traced)
        for call in points(f"{step.name}, again", calls_of(traced)):
            copy = folder.with_name(f"{folder.name}-{call.name}-{call.number}")
            shutil.copytree(folder, copy)
            await run(copy, *call.killing)
            outcomes[step.look(copy)] += 1
            await finish(copy)
        await asyncio.to_thread(shutil.rmtree, traced)

    again = one_of_each_kind(calls) if SOAK else places[len(places) // 2 :][:1] if step.again else []
    if not step.copies:
        again = []
    await asyncio.gather(*map(kill_at, places))
    assert outcomes["killed"] >= len(places) - 2, (step.name, outcomes)
    return outcomes


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
