"""Progress of files: bars on a terminal, a line for each file elsewhere."""

from types import TracebackType
from typing import TYPE_CHECKING, Self

import typer

from sealcast.cli import escape
from sealcast.cli.data import is_terminal

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

    from sealcast.endpoint.transfer import Progress


class FileProgress:
    """Draws what `FileSender` and `FileReceiver` tell."""

    def __init__(self, *, quiet: bool) -> None:
        """Tell no progress if `quiet`."""
        self._quiet = quiet
        self._bars: Bars | None = None
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        if not self._quiet and is_terminal():
            from rich.console import Console
            from rich.progress import (
                BarColumn,
                DownloadColumn,
                Progress,
                TextColumn,
                TimeRemainingColumn,
                TransferSpeedColumn,
            )

            self._bars = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                DownloadColumn(),
                TransferSpeedColumn(),
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
        if self._bars is None:
            if progress.done == progress.size and not self._quiet:
                self.say(f"{progress.name}: {progress.size} bytes")
            return
        # Markup in a peer's file name is text.
        name = escape(progress.name).replace("[", r"\[")
        task = self._tasks.get(progress.name)
        if task is None or progress.done == 0:
            task = self._tasks[progress.name] = self._bars.add_task(name, total=progress.size)
        self._bars.update(task, completed=progress.done)

    def say(self, text: str) -> None:
        """Write a line to standard error, beside the bars."""
        if self._bars is not None:
            self._bars.console.print(escape(f"sealcast: {text}"), markup=False, highlight=False)
        else:
            typer.echo(escape(f"sealcast: {text}"), err=True)
