"""Pieces on their way to the disk: collected for a moment, written off the event loop while more come in."""

from __future__ import annotations

import asyncio
from collections import OrderedDict

from sealcast.endpoint.partial import PartialFile

MAX_OPEN_FILES = 16
"""Partial files that are held open; the others are let go of, and opened again when something comes."""

_FLUSH_BYTES = 2 << 20
_FLUSH_SECONDS = 0.2


class PieceWriter:
    """Writes into the partial files of one folder, one at a time; a few of them stay open."""

    def __init__(self) -> None:
        """Nothing is open."""
        # The one used last stands last.
        self._open: OrderedDict[int, PartialFile] = OrderedDict()
        # Whose pieces wait to be written, or are just being written.
        self._partial: PartialFile | None = None
        self._pieces: list[tuple[int, memoryview]] = []
        self._size = 0
        self._since = 0.0
        self._task: asyncio.Task[None] | None = None

    def hold(self, partial: PartialFile) -> None:
        """Keep a file that was opened; of too many the one used least lately is let go of."""
        self._open[id(partial)] = partial
        self._open.move_to_end(id(partial))
        if len(self._open) > MAX_OPEN_FILES:
            self.let_go(next(each for each in self._open.values() if each is not self._partial))

    def let_go(self, partial: PartialFile) -> None:
        """Close a file, and keep what is there."""
        self._open.pop(id(partial), None)
        partial.close()

    def remove(self, partial: PartialFile) -> None:
        """Give a file up."""
        self._open.pop(id(partial), None)
        partial.remove()

    async def write(self, partial: PartialFile, piece: int, data: memoryview) -> None:
        """Take a piece. Raises: StorageError: this one or one before cannot be written."""
        if self._partial is not partial:
            await self.flush()
            self._partial = partial
        loop = asyncio.get_running_loop()
        if not self._pieces:
            self._since = loop.time()
        self._pieces.append((piece, data))
        self._size += len(data)
        if self._size >= _FLUSH_BYTES or loop.time() - self._since >= _FLUSH_SECONDS:
            await self._begin()

    async def finish(self, partial: PartialFile) -> None:
        """Have on the disk whatever has come of a file. Raises: StorageError."""
        if self._partial is partial:
            await self.flush()
            self._partial = None

    async def flush(self) -> None:
        """Have on the disk whatever has come. Raises: StorageError."""
        await self._begin()
        await self._end()

    async def _begin(self) -> None:
        """Begin to write what waits, once what was begun before is written."""
        await self._end()
        if self._pieces and self._partial is not None:
            pieces, self._pieces, self._size = self._pieces, [], 0
            work = asyncio.to_thread(self._partial.write, pieces)
            self._task = asyncio.get_running_loop().create_task(work)

    async def _end(self) -> None:
        if (task := self._task) is not None:
            self._task = None
            await task
