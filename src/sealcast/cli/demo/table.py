"""What is shown: a live table while it runs, and the verdict.

On a terminal the table is redrawn in place; elsewhere a line every few seconds says the same.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Protocol, Self

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from sealcast.cli.demo.plan import ECG_CHANNEL, SUBSCRIBERS
from sealcast.cli.demo.verdict import Claim

_LINE_SECONDS = 3.0
_SMOOTHING = 0.3


@dataclass(slots=True, kw_only=True)
class Row:
    """One subscriber, as it last reported."""

    messages: int = 0
    samples: int = 0
    file_bytes: int = 0
    repaired: int = 0
    lost: int = 0
    epoch: tuple[int, int, int] | None = None
    """Slot, generation, step of the last message of the ECG."""
    rate: float = 0.0
    """Payload delivered, bit/s."""
    dropped: int = 0
    """By the switch."""
    forwarded: int = 0
    state: str = "starting"
    _payload: int = 0
    _at: float = 0.0

    def take(self, status: dict[str, Any]) -> None:
        """Take a report."""
        channels = status["channels"]
        self.samples, self.file_bytes = status["samples"], status["file_bytes"]
        if not channels:
            self.rate = 0.0
            return
        for name in ("messages", "repaired", "lost"):
            setattr(self, name, max(getattr(self, name), sum(channel[name] for channel in channels.values())))
        if (ecg := channels.get(ECG_CHANNEL)) and ecg["epoch"]:
            slot, generation, step = ecg["epoch"]
            self.epoch = slot, generation, step
        now, payload = time.monotonic(), sum(channel["bytes"] for channel in channels.values())
        if self._at and payload >= self._payload:
            # Smoothed: the file comes in messages of a quarter of a mebibyte.
            latest = (payload - self._payload) * 8 / (now - self._at)
            self.rate += (latest - self.rate) * (_SMOOTHING if self.rate else 1.0)
        self._payload, self._at = payload, now


@dataclass(slots=True, kw_only=True)
class Board:
    """All that is shown."""

    sample_count: int
    file_size: int
    phase: str = "setting up"
    notes: list[str] = field(default_factory=list)
    """What has happened, in order."""
    members: list[str] = field(default_factory=list)
    rows: dict[str, Row] = field(default_factory=lambda: {name: Row() for name in SUBSCRIBERS})
    started: float = field(default_factory=time.monotonic)

    def take_switch(self, report: dict[str, Any]) -> None:
        """Take the switch's counters."""
        for name, row in self.rows.items():
            links = [link["subscribers"][name] for link in report.values()]
            row.dropped = sum(link["dropped"] for link in links)
            row.forwarded = sum(link["forwarded"] for link in links)


class Display(Protocol):
    """Where a board is shown."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...
    def show(self, board: Board) -> None:
        """Show what has changed."""


class Silence:
    """Shows nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def show(self, board: Board) -> None:
        """Do nothing."""


class LiveTable:
    """A table that is redrawn in place."""

    def __init__(self, console: Console) -> None:
        # Without a thread of its own: the loop redraws, and no fork happens beside a thread.
        self._live = Live(console=console, auto_refresh=False)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def show(self, board: Board) -> None:
        """Redraw."""
        self._live.update(render(board), refresh=True)


class Lines:
    """A line for whatever happens, and one for each subscriber every few seconds."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._said = 0
        self._last = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def show(self, board: Board) -> None:
        """Print what is new."""
        for note in board.notes[self._said :]:
            self._print(note)
        self._said = len(board.notes)
        now = time.monotonic()
        if now - self._last < _LINE_SECONDS or not any(row.messages for row in board.rows.values()):
            return
        self._last = now
        for name, row in board.rows.items():
            self._print(
                f"{_elapsed(board)} {name}: {row.rate / 1e6:.1f} Mbit/s, ECG {row.samples:,}, "
                f"file {_size(row.file_bytes)}, dropped {_dropped(row)}, repaired {row.repaired:,}, "
                f"lost {row.lost}, epoch {_epoch(row)}, members {len(board.members)}, {row.state}"
            )

    def _print(self, text: str) -> None:
        self._console.print(text, soft_wrap=True, markup=False, highlight=False)


def render(board: Board) -> Group:
    """Return the table."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("subscriber", no_wrap=True)
    for heading in ("Mbit/s", "ECG", "file", "dropped", "repaired", "lost", "epoch"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, row in board.rows.items():
        table.add_row(
            Text(name, style="red" if row.state == "removed" else ""),
            f"{row.rate / 1e6:.1f}",
            f"{row.samples / board.sample_count:.0%}",
            f"{row.file_bytes / board.file_size:.0%}",
            _dropped(row),
            f"{row.repaired:,}",
            Text(str(row.lost), style="bold red" if row.lost else ""),
            _epoch(row),
        )
    done = max(row.file_bytes for row in board.rows.values()) / board.file_size
    head = Table.grid(padding=(0, 1))
    head.add_row(Text(f"{_elapsed(board)} {board.phase}", style="bold"), ProgressBar(1.0, done, width=24))
    members = Text(f"members: {', '.join(board.members) or '-'}   epoch: slot/generation/step")
    return Group(head, table, members, *(Text(note, style="dim") for note in board.notes))


def print_verdict(console: Console, claims: Sequence[Claim], seconds: float) -> None:
    """Print every claim with its figure."""
    title = "verdict, from the subscribers' journals and the switch's counters"
    table = Table(title=title, title_justify="left")
    table.add_column("claim")
    table.add_column("figure")
    table.add_column("", no_wrap=True)
    for claim in claims:
        table.add_row(claim.name, claim.figure, "[green]OK[/]" if claim.holds else "[bold red]FAIL[/]")
    console.print(table)
    failed = sum(not claim.holds for claim in claims)
    outcome = f"{failed} of {len(claims)} claims failed" if failed else f"all {len(claims)} claims hold"
    console.print(f"{outcome} ({seconds:.0f} s)", style="bold red" if failed else "bold green")


def _elapsed(board: Board) -> str:
    return f"{time.monotonic() - board.started:4.0f} s"


def _size(count: int) -> str:
    return f"{count / 2**20:.1f} MiB"


def _dropped(row: Row) -> str:
    total = row.dropped + row.forwarded
    return f"{row.dropped:,} {row.dropped / total:.1%}" if total else "0"


def _epoch(row: Row) -> str:
    return "-" if row.epoch is None else "/".join(map(str, row.epoch))
