"""Many who lost the same ask the same: what is asked for again within a moment is read once (SC-43)."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass

MOMENT_SECONDS = 0.1
"""For so long an answer stands for all who ask the same: what it lacks may come meanwhile."""

WHOLE_SECONDS = 5.0
"""For so long one that lacks nothing does, as packets never change."""

MAX_ANSWERS = 256
MAX_BYTES = 8 << 20
"""Of the answers that are kept for a moment, all together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What is sent, and whom it is for."""

    body: bytes
    since: tuple[int, int] | None
    """Generation and step of the oldest packet in it; None: it has none."""
    is_whole: bool
    """Whether every packet that was asked for is in it."""


@dataclass(slots=True, eq=False)
class _Entry:
    task: asyncio.Future[Answer]
    at: float
    size: int = 0
    stands_for: float = WHOLE_SECONDS


class Coalesced:
    """The answers of the last moment, and those that are being made."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Know none; `clock` counts seconds."""
        self._clock = clock
        self._entries: OrderedDict[Hashable, _Entry] = OrderedDict()
        self._bytes = 0

    async def of(self, key: Hashable, make: Callable[[], Awaitable[Answer]]) -> Answer:
        """The answer for `key`, made by `make` unless it was within the last moment.

        Raises: what `make` raises, to all who wait for it; whoever asks next has it tried again.
        """
        self._forget()
        entry = self._entries.get(key)
        if entry is not None and self._clock() - entry.at >= entry.stands_for:
            self._drop(key, entry)
            entry = None
        if entry is None:
            entry = self._entries[key] = _Entry(asyncio.ensure_future(make()), self._clock())
            entry.task.add_done_callback(lambda _: self._made(key, entry))
        # Shielded: one who hangs up takes nothing from the others.
        return await asyncio.shield(entry.task)

    def _made(self, key: Hashable, entry: _Entry) -> None:
        if entry.task.cancelled() or entry.task.exception() is not None:
            if self._entries.get(key) is entry:
                del self._entries[key]
        elif self._entries.get(key) is entry:
            answer = entry.task.result()
            entry.size = len(answer.body)
            entry.stands_for = WHOLE_SECONDS if answer.is_whole else MOMENT_SECONDS
            self._bytes += entry.size
            self._forget()

    def _forget(self) -> None:
        limit = self._clock() - WHOLE_SECONDS
        while self._entries:
            key, entry = next(iter(self._entries.items()))
            if entry.at > limit and len(self._entries) <= MAX_ANSWERS and self._bytes <= MAX_BYTES:
                return
            self._drop(key, entry)

    def _drop(self, key: Hashable, entry: _Entry) -> None:
        del self._entries[key]
        self._bytes -= entry.size
