"""A publisher process that is given numbered lines all the time, as a monitor sends samples."""

from __future__ import annotations

import subprocess
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.e2e.processes import Process
from tests.e2e.site import Channel, Site


class Feed:
    """Writes 0, 1, 2, … to `sealcast publish` until the block ends; `count` is how many so far."""

    def __init__(
        self,
        site: Site,
        device: Path,
        channel: Channel,
        *options: str,
        each_seconds: float = 0.002,
        debug: bool = False,
    ) -> None:
        self.count = 0
        self.process: Process = site.processes.start(
            *(["--debug"] if debug else []),
            "publish",
            device,
            channel.name,
            "--linger",
            "1s",
            *options,
            stdin=subprocess.PIPE,
        )
        self._each_seconds = each_seconds
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._write)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def finish(self) -> list[str]:
        """End the input, wait for the process, and return every line that was written."""
        self._stop.set()
        self._thread.join()
        self.process.close_input()
        finished = self.process.wait()
        assert finished.code == 0, finished.err
        return [f"{number}\n" for number in range(self.count)]

    def _write(self) -> None:
        while not self._stop.wait(self._each_seconds):
            try:
                self.process.write(f"{self.count}\n".encode())
            except BrokenPipeError:
                return
            self.count += 1
