"""Progress of files: a bar for each and one for all on a terminal, a line for each file elsewhere."""

from collections import deque
from types import TracebackType
from typing import TYPE_CHECKING, Self

import typer

from sealcast.cli import escape
from sealcast.cli.data import is_terminal

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

    from sealcast.endpoint.transfer import Progress

_COUNTS_FILES = "counts_files"
_SHOWN_DONE = 5
"""Bars of files that are done; a terminal has few lines, and a run may have thousands of files."""


class FileProgress:
    """Draws what senders and receivers of files tell."""

    def __init__(self, *, quiet: bool) -> None:
        """Tell no progress if `quiet`."""
        self.has_begun = False
        """Whether a file has."""
        self._quiet = quiet
        self._bars: Bars | None = None
        self._tasks: dict[str, TaskID] = {}
        self._done: deque[TaskID] = deque()
        # Of the run that is going on: its bar, and the numbers of the files that are done.
        self._whole: TaskID | None = None
        self._numbers: set[int] = set()

    def __enter__(self) -> Self:
        if not self._quiet and is_terminal():
            from rich.console import Console
            from rich.progress import (
                BarColumn,
                DownloadColumn,
                Progress,
                Task,
                TextColumn,
                TimeRemainingColumn,
                TransferSpeedColumn,
            )
            from rich.text import Text

            class Size(DownloadColumn):
                """Bytes; of the bar for all nothing, as it counts files."""

                def render(self, task: Task) -> Text:
                    return Text() if task.fields.get(_COUNTS_FILES) else super().render(task)

            class Speed(TransferSpeedColumn):
                """Bytes a second; of the bar for all nothing."""

                def render(self, task: Task) -> Text:
                    return Text() if task.fields.get(_COUNTS_FILES) else super().render(task)

            self._bars = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                Size(),
                Speed(),
                TimeRemainingColumn(),
                console=Console(stderr=True),
            )
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bars is not None:
            self._bars.stop()

    def update(self, progress: "Progress") -> None:
        """Take how far a file has come."""
        self.has_begun = True
        is_done = progress.done == progress.size
        if self._bars is None:
            if is_done and not self._quiet:
                self.say(f"{progress.name}: {progress.size} bytes")
            return
        # Markup in a peer's file name is text.
        name = escape(progress.name).replace("[", r"\[")
        if (task := self._tasks.get(progress.name)) is None:
            task = self._tasks[progress.name] = self._bars.add_task(name, total=progress.size)
        self._bars.update(task, completed=progress.done)
        if is_done:
            del self._tasks[progress.name]
            self._done.append(task)
            if len(self._done) > _SHOWN_DONE:
                self._bars.remove_task(self._done.popleft())
        if progress.count > 1:
            self._update_whole(self._bars, progress, is_done=is_done)

    def _update_whole(self, bars: "Bars", progress: "Progress", *, is_done: bool) -> None:
        if progress.number == 0 and 0 in self._numbers and not is_done:
            self._numbers.clear()  # Another run.
        if is_done:
            self._numbers.add(progress.number)
        if self._whole is None:
            self._whole = bars.add_task("", total=1, **{_COUNTS_FILES: True})
        done = len(self._numbers)
        bars.update(
            self._whole,
            description=f"{done} of {progress.count} files",
            completed=done,
            total=progress.count,
        )

    def say(self, text: str) -> None:
        """Write a line to standard error, beside the bars."""
        if self._bars is not None:
            self._bars.console.print(escape(f"sealcast: {text}"), markup=False, highlight=False)
        else:
            typer.echo(escape(f"sealcast: {text}"), err=True)
