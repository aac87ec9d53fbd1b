"""SIGKILL at any system call of a command, by strace, at a small price for each run.

A *warm* process imports once what the commands need and forks for each run. The fork waits until strace holds
it. So no start of an interpreter is paid for, and what strace counts are the calls of the command itself,
which each run makes alike; an import would shift their numbers. Nor is its end: tearing the modules down
takes four times as long as the work, and touches no file.

Killed at is every call that changes a file or sends to a peer. A kill at another one finds what a kill at the
next of those finds: one that reads changes nothing, nor does one that fails, and locks end with the process.
"""

import asyncio
import contextlib
import gc
import importlib
import io
import itertools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from sealcast import cli

ROOT = Path(__file__).resolve().parent.parent

CALLS = (
    "openat,write,pwrite64,fsync,fdatasync,rename,renameat,renameat2,unlink,unlinkat,mkdir,mkdirat,rmdir,"
    "symlink,symlinkat,link,linkat,chmod,fchmod,fchmodat,ftruncate,sendto,sendmsg"
)
"""Those by which a process changes a file or tells a peer something."""

SOAK = os.environ.get("SEALCAST_SOAK") == "1"
AT_ONCE = 4
"""Runs beside each other: each waits for the disk as much as it computes."""
RUN_SECONDS = 60


@dataclass(frozen=True)
class Call:
    """A system call, by its name and how many of that name its thread had made, itself included."""

    name: str
    number: int
    path: str = ""
    """Where another thread comes to that number first: of those on this file, from the folder on."""

    def killing(self, folder: Path) -> list[str]:
        """Options of strace: kill the process instead of this call."""
        only = ["-P", str(folder / self.path)] if self.path else []
        return [*only, "-e", f"inject={self.name}:signal=SIGKILL:when={self.number}"]


def batches_of(names: Sequence[str]) -> list[list[str]]:
    """For a test's parameter: all in one test; in a soak each is one, for another process to take."""
    return [[name] for name in names] if SOAK else [[*names]]


def tracing(log: Path) -> list[str]:
    """Options of strace: follow threads, write every call of interest with the files that it is about."""
    return ["-f", "-yy", "-o", str(log), f"--trace={CALLS}"]


_LINE = re.compile(r"^(\d+) +([a-z]\w+)\((.*)$", re.MULTILINE)


def calls_that_matter(log: str, folder: Path) -> list[Call]:
    """The calls that change the folder or what is in it, and those that send to a peer.

    strace counts for each thread and each name apart, and kills at whichever thread comes to a number first.
    A call that cannot be told from one before it is left out (a flush that each of two threads does once).
    """
    inside = re.compile(re.escape(str(folder)) + r"/([^\">]+)")
    counts: Counter[tuple[str, str, str]] = Counter()
    taken: set[Call] = set()
    found = []
    for thread, name, arguments in _LINE.findall(log):
        paths = inside.findall(arguments)
        named = []
        for path in ["", *dict.fromkeys(paths)]:
            counts[thread, name, path] += 1
            call = Call(name, counts[thread, name, path], path)
            if call not in taken:
                named.append(call)
                taken.add(call)
        if named and _changes(name, arguments, str(folder)):
            found.append(named[0])
    return found


def _changes(name: str, arguments: str, folder: str) -> bool:
    if re.search(r"\) += -1 E", arguments):
        return False
    if name in ("sendto", "sendmsg"):
        return "<TCP:" in arguments
    return folder in arguments and (name != "openat" or "O_CREAT" in arguments)


def points(calls: list[Call]) -> list[Call]:
    """Where to kill: at one call of each kind; at all calls under SEALCAST_SOAK=1."""
    return calls if SOAK else one_of_each_kind(calls)


def one_of_each_kind(calls: list[Call]) -> list[Call]:
    """Of each name the middle one, and the very last one."""
    kinds: dict[str, list[Call]] = {}
    for call in calls:
        kinds.setdefault(call.name, []).append(call)
    return list(dict.fromkeys([*(alike[len(alike) // 2] for alike in kinds.values()), *calls[-1:]]))


def chosen(calls: list[Call], sample: int) -> list[Call]:
    """As many calls as `sample` says, the first and the last among them; all under SEALCAST_SOAK=1."""
    if SOAK or len(calls) <= sample:
        return calls
    step = (len(calls) - 1) / (sample - 1)
    return [calls[round(index * step)] for index in range(sample)]


class Warm:
    """Processes that have imported the command line, each good for one run at a time."""

    def __init__(self, workers: Sequence[tuple[asyncio.StreamReader, asyncio.StreamWriter]]) -> None:
        self._idle: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()
        for worker in workers:
            self._idle.put_nowait(worker)

    async def run(
        self,
        arguments: Sequence[str],
        options: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        talk: Callable[[str], Awaitable[None]] | None = None,
    ) -> int:
        """Run `sealcast` under strace. Returns: its exit code; -9 if it was killed.

        `talk`: of a service, that is ended by SIGTERM then; it is given the line that says that all listen.
        """
        reader, writer = worker = await self._idle.get()
        async with asyncio.timeout(RUN_SECONDS):
            writer.write(
                json.dumps([list(arguments), dict(environment or {}), talk is not None]).encode() + b"\n"
            )
            number = int(await reader.readline())
            async with attached(number, options):
                os.kill(number, signal.SIGCONT)
                line = await reader.readline()
                if talk is not None and line.startswith(b"ready: "):
                    await talk(line.decode())
                    # One that was killed is gone by now.
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(number, signal.SIGTERM)
                    line = await reader.readline()
        self._idle.put_nowait(worker)
        return int(line)


@contextlib.asynccontextmanager
async def warm(*modules: str) -> AsyncIterator[Warm]:
    """Warm processes for the length of the block; `modules`: what the commands import when they run."""
    ours, theirs = zip(*(socket.socketpair() for _ in range(AT_ONCE)), strict=True)
    numbers = [end.fileno() for end in theirs]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", "from tests.crash import fork_workers; fork_workers()"),
        *(json.dumps(numbers), "sealcast.cli", *modules),
        cwd=ROOT,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        stdin=subprocess.DEVNULL,
        pass_fds=numbers,
    )
    for end in theirs:
        end.close()
    workers = [await asyncio.open_connection(sock=end) for end in ours]
    try:
        yield Warm(workers)
    finally:
        # Each ends when nobody is there to ask it.
        for _, writer in workers:
            writer.close()
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


Act = Callable[[Warm, Path, Sequence[str]], Awaitable[int]]
"""Does the work in a folder, under these options of strace; returns the exit code, -9 for one killed."""


def command(
    words: Callable[[Path], Sequence[str]], environment: Callable[[], Mapping[str, str]] = dict
) -> Act:
    """The work is one command."""

    async def act(commands: Warm, folder: Path, options: Sequence[str]) -> int:
        return await commands.run(words(folder), options, environment=environment())

    return act


@dataclass(frozen=True, kw_only=True)
class Transition:
    """What takes a folder from one state to another."""

    name: str
    prepare: Callable[[Path], Awaitable[None]]
    """Makes what is there before, in a folder that is not there yet."""
    act: Act
    """The work; and once more, what recovers after a crash."""
    look: Callable[[Path], str]
    """A clean start, in a copy: `before` or `after`; raises where it is neither."""
    recover: Act | None = None
    """What recovers, where that is not the same work once more."""
    code: int = 0
    """How the act ends that does the work."""
    refused: frozenset[int] = frozenset({0})
    """How the act may end where its work has been done already."""
    copies: bool = True
    """Whether a copy of the folder may do what the folder does; else each crash is made anew."""
    settle: Callable[[Path], Awaitable[None]] | None = None
    """Looks at the folder once the work has been done at last."""


async def survive(commands: Warm, step: Transition, scratch: Path) -> Counter[str]:
    """Kill the work at one call after the other, and again what recovers from that; then let it be done.

    A recovery is killed after one kill of each kind: in a soak those share the recovery's calls, so that each
    is a place to die at once; else the middle one is killed in its middle and at its end.

    Returns: how often the folder was found `before` and `after`.
    """
    started = time.monotonic()
    outcomes: Counter[str] = Counter()

    def tell(*, held: bool) -> None:
        tally(step.name, outcomes, time.monotonic() - started, held=held)

    try:
        await _survive(commands, step, scratch, outcomes)
    except Exception:
        tell(held=False)
        raise
    tell(held=True)
    return outcomes


async def _survive(commands: Warm, step: Transition, scratch: Path, outcomes: Counter[str]) -> None:
    limit = asyncio.Semaphore(AT_ONCE)
    numbers = itertools.count()

    async def run(act: Act, folder: Path, call: Call | None = None) -> int:
        options = tracing(folder.with_suffix(".log"))
        return await act(commands, folder, [*options, *(call.killing(folder) if call else ())])

    def calls_of(folder: Path) -> list[Call]:
        return calls_that_matter(folder.with_suffix(".log").read_text(), folder)

    async def see(folder: Path) -> str:
        """A start clears up; what is done next has to find all that the crash has left."""
        copy = await _copied(folder, folder.with_name(f"{folder.name}-seen-{next(numbers)}"))
        seen = step.look(copy)
        await _remove(copy)
        return seen

    async def finish(folder: Path, was: str) -> None:
        code = await run(step.act, folder)
        assert code == step.code if was == "before" else code in step.refused, (step.name, was, code)
        assert await see(folder) == "after"
        if step.settle is not None:
            await step.settle(folder)
        await _remove(folder)

    async def kill_at(index: int, call: Call) -> None:
        folder = scratch / str(index)
        await step.prepare(folder)
        code = await run(step.act, folder, call)
        assert code in (step.code, -signal.SIGKILL), (step.name, call, code)
        outcomes["killed"] += code == -signal.SIGKILL
        found = await see(folder)
        outcomes[found] += 1
        if call in again:
            await kill_what_recovers(folder, call, again.index(call))
        await finish(folder, found)

    async def kill_what_recovers(folder: Path, call: Call, share: int) -> None:
        recover = step.recover or step.act

        async def crashed(name: str) -> Path:
            """Another folder like this one."""
            to = folder.with_name(f"{folder.name}-{name}")
            if step.copies:
                return await _copied(folder, to)
            await step.prepare(to)
            await run(step.act, to, call)
            return to

        recovered = await crashed("recovered")
        assert await run(recover, recovered) in {step.code, *step.refused}, step.name
        await see(recovered)
        calls = calls_of(recovered)
        await _remove(recovered)
        for index, next_call in enumerate(
            calls[share :: len(again)] if SOAK else chosen(calls[len(calls) // 2 :], 2)
        ):
            copy = await crashed(str(index))
            code = await run(recover, copy, next_call)
            outcomes["recoveries killed"] += code == -signal.SIGKILL
            found = await see(copy)
            outcomes[found] += 1
            await finish(copy, found)

    async def one_of_a_few(index: int, call: Call) -> None:
        async with limit:
            await kill_at(index, call)

    whole = scratch / "whole"
    await step.prepare(whole)
    assert await run(step.act, whole) == step.code
    assert await see(whole) == "after"
    calls = calls_of(whole)
    outcomes["calls"] = len(calls)
    places = points(calls)
    again = one_of_each_kind(calls) if SOAK else places[len(places) // 2 :][:1]
    await asyncio.gather(*(one_of_a_few(index, call) for index, call in enumerate(places)))
    # A signature's length varies by a byte or two, and the pages that a row takes may with it.
    assert outcomes["killed"] >= len(places) - 2, (step.name, outcomes)


async def _remove(folder: Path) -> None:
    """A soak makes thousands of them. Whoever has looked at one may close its database only now."""
    await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)


async def _copied(folder: Path, to: Path) -> Path:
    """The copy, where there is a folder: its making may be what a kill came before."""
    if await asyncio.to_thread(folder.exists):
        # A socket that a killed service has left cannot be copied.
        sockets = shutil.ignore_patterns("*.sock")
        await asyncio.to_thread(shutil.copytree, folder, to, symlinks=True, ignore=sockets)
    return to


def tally(name: str, outcomes: Counter[str], seconds: float, *, held: bool) -> None:
    """For whoever runs `pytest -s`, and for the ledger of `make soak`."""
    entry = {
        "what": f"kills: {name}",
        "calls": outcomes["calls"],
        "count": outcomes["killed"],
        "recoveries": outcomes["recoveries killed"],
        "found before": outcomes["before"],
        "found after": outcomes["after"],
        "seconds": round(seconds, 1),
        "held": held,
    }
    print(entry)
    if path := os.environ.get("SEALCAST_KILLS"):
        with Path(path).open("a", encoding="utf-8") as tally:
            tally.write(json.dumps(entry) + "\n")


def fork_workers() -> None:
    """The warm process: imports once, and forks a worker for each socket, whose number is given."""
    numbers, *modules = sys.argv[1:]
    for module in modules:
        importlib.import_module(module)
    # The first look at an application imports more.
    with contextlib.redirect_stdout(io.StringIO()):
        cli.main(["authority", "token", "--help"])
    gc.freeze()
    ends = json.loads(numbers)
    for end in ends:
        if os.fork() == 0:
            for other in ends:
                if other != end:
                    os.close(other)
            _fork_commands(socket.socket(fileno=end))
    for end in ends:
        os.close(end)
    for _ in ends:
        os.wait()


def _fork_commands(end: socket.socket) -> NoReturn:
    """For each line, what to run as JSON, `sealcast` in a fork.

    Writes the fork's number when it has stopped, to be let go by SIGCONT, and its exit code at its end; a
    service writes its own line between.
    """
    # A test that has failed does not wait for an answer.
    with end.makefile("r") as asked, contextlib.suppress(BrokenPipeError):
        for line in asked:
            arguments, environment, talks = json.loads(line)
            child = os.fork()
            if child == 0:
                _be_the_command(arguments, environment, end.fileno() if talks else None)
            os.waitpid(child, os.WUNTRACED)
            end.sendall(b"%d\n" % child)
            end.sendall(b"%d\n" % os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    os._exit(0)


def _be_the_command(arguments: list[str], environment: dict[str, str], output: int | None) -> NoReturn:
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 0)
    os.dup2(nowhere if output is None else output, 1)
    os.environ.update(environment)
    os.kill(os.getpid(), signal.SIGSTOP)
    code = cli.main(arguments)
    sys.stderr.flush()
    os._exit(code)
