"""Processes of the command line: their output as it comes, waiting with a deadline, an end for each."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TypeVar

from sealcast import cli
from tests.forks import Forked

SEALCAST = str(Path(sys.executable).with_name("sealcast"))
"""The command as it was installed beside this interpreter."""

DEADLINE_SECONDS = 30.0

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Finished:
    """How a command ended."""

    code: int
    out: str
    err: str


class Process:
    """A running command. `out` and `err` are the lines so far."""

    def __init__(
        self,
        words: Sequence[str],
        *,
        stdin: int = subprocess.DEVNULL,
        stdout: int = subprocess.PIPE,
        environment: Mapping[str, str] | None = None,
        main: Callable[[], int] | None = None,
        inside: int | None = None,
    ) -> None:
        """`main`: what the first word would start, which need not start anew for the others.

        `inside`: of a process whose network the fork is to have.
        """
        self.words = tuple(words)
        self.out: list[str] = []
        self.err: list[str] = []
        self._news = threading.Condition()
        environment = {**os.environ, "COLUMNS": "200", **(environment or {})}
        self._popen = (
            Forked(words[1:], main, stdin=stdin, stdout=stdout, environment=environment, inside=inside)
            if main is not None
            else subprocess.Popen(words, stdin=stdin, stdout=stdout, stderr=subprocess.PIPE, env=environment)
        )
        self._readers = [
            threading.Thread(target=self._read, args=(stream, lines), daemon=True)
            for stream, lines in ((self._popen.stdout, self.out), (self._popen.stderr, self.err))
            if stream is not None
        ]
        for reader in self._readers:
            reader.start()

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def is_running(self) -> bool:
        return self._popen.poll() is None

    def write(self, data: bytes) -> None:
        """Write to its standard input, which has to be a pipe."""
        assert self._popen.stdin is not None
        self._popen.stdin.write(data)
        self._popen.stdin.flush()

    def close_input(self) -> None:
        assert self._popen.stdin is not None
        self._popen.stdin.close()

    def wait_line(self, pattern: str, *, errors: bool = False, seconds: float = DEADLINE_SECONDS) -> str:
        """Wait for a line of output (or of errors) that `pattern` is found in; return it."""
        lines = self.err if errors else self.out

        def found() -> str | None:
            return next((line for line in lines if re.search(pattern, line)), None)

        line = self._wait_for(found, seconds)
        assert line is not None, f"no line {pattern!r} from {self}"
        return line

    def wait_lines(self, count: int, seconds: float = DEADLINE_SECONDS) -> list[str]:
        """Wait for `count` lines of output; return all that there are."""
        self._wait_for(lambda: len(self.out) >= count, seconds)
        assert len(self.out) >= count, f"{len(self.out)} lines instead of {count} from {self}"
        return list(self.out)

    def send_signal(self, number: signal.Signals) -> None:
        self._popen.send_signal(number)

    def wait(self, seconds: float = DEADLINE_SECONDS) -> Finished:
        """Wait for its end."""
        try:
            code = self._popen.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running: {self}") from None
        for reader in self._readers:
            reader.join(seconds)
        return Finished(code, "".join(self.out), "".join(self.err))

    def stop(self, number: signal.Signals = signal.SIGINT, seconds: float = DEADLINE_SECONDS) -> Finished:
        """Send a signal and wait for the end."""
        self.send_signal(number)
        return self.wait(seconds)

    def end(self) -> None:
        """Whatever has happened: this process is gone and reaped, its pipes are closed."""
        self._popen.kill()
        self._popen.wait()
        for reader in self._readers:
            reader.join()
        if self._popen.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._popen.stdin.close()

    def __str__(self) -> str:
        return (
            f"{' '.join(self.words)} (code {self._popen.poll()})\n{''.join(self.err)}{''.join(self.out[-5:])}"
        )

    def _read(self, stream: IO[bytes], lines: list[str]) -> None:
        with stream:
            for line in stream:
                with self._news:
                    lines.append(line.decode(errors="replace"))
                    self._news.notify_all()
        with self._news:
            self._news.notify_all()

    def _wait_for(self, condition: Callable[[], Result], seconds: float) -> Result:
        deadline = time.monotonic() + seconds
        with self._news:
            while not (result := condition()) and (left := deadline - time.monotonic()) > 0:
                if not self.is_running and not any(reader.is_alive() for reader in self._readers):
                    return condition()
                self._news.wait(min(left, 0.5))
            return result


class Processes:
    """Starts commands; `end` ends all that still run, each by its own id.

    `installed`: a command is what a shell would start, and not a fork that does the same.
    """

    def __init__(self, *, installed: bool = False) -> None:
        self._installed = installed
        self._started: list[Process] = []

    def start(
        self,
        *words: str | Path,
        stdin: int = subprocess.DEVNULL,
        stdout: int = subprocess.PIPE,
        environment: Mapping[str, str] | None = None,
        under: Sequence[str] = (),
        inside: int | None = None,
    ) -> Process:
        """Start `sealcast` with these words.

        `under`: the words of a program that is to run it. `inside`: of a process whose network it is to have.
        """
        process = Process(
            [*under, SEALCAST, *map(str, words)],
            stdin=stdin,
            stdout=stdout,
            environment=environment,
            main=None if self._installed or under else cli.main,
            inside=inside,
        )
        return self.started(process)

    def started(self, process: Process) -> Process:
        """Take care of the end of a process that was started otherwise."""
        self._started.append(process)
        return process

    def run(
        self,
        *words: str | Path,
        environment: Mapping[str, str] | None = None,
        seconds: float = DEADLINE_SECONDS,
    ) -> Finished:
        """Run `sealcast` with these words to its end."""
        return self.start(*words, environment=environment).wait(seconds)

    @property
    def all(self) -> list[Process]:
        """Every one that was started."""
        return list(self._started)

    def end(self) -> None:
        for process in reversed(self._started):
            process.end()


def wait_until(condition: Callable[[], bool], what: str, seconds: float = DEADLINE_SECONDS) -> None:
    """Wait for something that can only be asked for, such as a file."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.02)
