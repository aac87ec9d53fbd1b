"""Commands as processes of their own that are forked from one which has imported everything.

Starting an interpreter and importing what a command needs takes longer than most tests need for all the rest,
and there are hundreds. What is forked has no key, no socket and no thread yet, and runs what the installed
command runs. Tests of how a process starts and ends, and of its arguments, start the installed one.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from multiprocessing import connection, reduction
from signal import SIGKILL, SIGTERM, Signals
from typing import IO, Any

from sealcast import cli

_context = multiprocessing.get_context("forkserver")
# There is one server for all forks of a test process.
_context.set_forkserver_preload(
    [
        "tests.forks",
        *(cli.module_of(command) for command in cli.COMMANDS),
        "sealcast.authority.app",
        "sealcast.authority.control",
        "sealcast.endpoint",
        "tests.frozen",
    ]
)
_server = threading.Lock()
"""Its word on an end is read once, and each start looks for such words: not two threads at once."""

_DIRECTIONS = ((os.O_RDONLY, "wb"), (os.O_WRONLY, "rb"), (os.O_WRONLY, "rb"))
"""Of a process's three streams: how it uses them, and how a pipe's other end is used."""


class Forked:
    """`sealcast`, or another main function, with these words; with what tests use of `subprocess.Popen`."""

    def __init__(
        self,
        words: Sequence[str],
        main: Callable[[], int] = cli.main,
        *,
        stdin: int = subprocess.DEVNULL,
        stdout: int = subprocess.PIPE,
        stderr: int = subprocess.PIPE,
        environment: Mapping[str, str] | None = None,
        text: bool = False,
        inside: int | None = None,
    ) -> None:
        """`inside`: of a process whose network, and its user namespace, the command is to have."""
        ours: list[IO[Any] | None] = []
        theirs: list[_Descriptor] = []
        opened: list[int] = []
        for stream, (direction, mode) in zip((stdin, stdout, stderr), _DIRECTIONS, strict=True):
            if stream == subprocess.PIPE:
                ends = os.pipe()
                near, far = reversed(ends) if mode == "wb" else ends
                ours.append(os.fdopen(near, mode[0] if text else mode))
                opened.append(far)
                theirs.append(_Descriptor(far))
            else:
                ours.append(None)
                if stream == subprocess.DEVNULL:
                    stream = os.open(os.devnull, direction)
                    opened.append(stream)
                theirs.append(_Descriptor(stream))
        self.stdin, self.stdout, self.stderr = ours
        self._words = tuple(words)
        self._process = _context.Process(
            target=_main,
            args=(main, self._words, theirs, dict(environment or os.environ), inside),
            daemon=True,
        )
        try:
            with _server:
                self._process.start()
        finally:
            for descriptor in opened:
                os.close(descriptor)

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    def poll(self) -> int | None:
        with _server:
            return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        connection.wait([self._process.sentinel], timeout)
        code = self.poll()
        if code is None:
            assert timeout is not None
            raise subprocess.TimeoutExpired(self._words, timeout)
        return code

    def send_signal(self, number: Signals) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(SIGTERM)

    def kill(self) -> None:
        self.send_signal(SIGKILL)


class _Descriptor:
    """One that goes with the arguments to the new process."""

    def __init__(self, number: int) -> None:
        self._number = number

    def __reduce__(self) -> tuple[Any, ...]:
        return _received, (reduction.DupFd(self._number),)


def _received(sent: Any) -> int:
    number: int = sent.detach()
    return number


def _main(
    main: Callable[[], int],
    words: Sequence[str],
    streams: Sequence[int],
    environment: Mapping[str, str],
    inside: int | None,
) -> None:
    if inside is not None:
        _enter(inside)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    # As an interpreter makes them at its start.
    sys.stdin = os.fdopen(0, closefd=False)
    sys.stdout = os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace", closefd=False)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["sealcast", *words]
    sys.exit(main())


def _enter(process: int) -> None:
    """As nsenter does, which would have to start an interpreter."""
    libc = ctypes.CDLL(None, use_errno=True)
    spaces = [os.open(f"/proc/{process}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC) for kind in ("user", "net")]
    for space in spaces:
        if libc.setns(space, 0) != 0:
            raise OSError(ctypes.get_errno(), "setns")
        os.close(space)
