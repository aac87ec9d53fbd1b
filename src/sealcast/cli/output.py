"""Where messages go: a file or standard output."""

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from io import FileIO
from pathlib import Path
from typing import TypeVar

from sealcast.cli import escape
from sealcast.cli.data import unattended
from sealcast.errors import StorageError
from sealcast.pki.files import storage_errors

_AT_ONCE = 512

Item = TypeVar("Item")


async def write_messages(
    take: Callable[[int], Awaitable[Sequence[Item]]],
    line: Callable[[Item], bytes],
    target: FileIO,
    output: Path | None,
    count: int | None,
) -> None:
    """Write what `take` brings, so many or without end; `take` is told how many may come at once.

    Raises: as `write_all`, and what `take` raises.
    """
    left = count
    while left is None or left > 0:
        items = await take(_AT_ONCE if left is None else min(left, _AT_ONCE))
        left = None if left is None else left - len(items)
        await unattended(partial(write_all, target, b"".join(map(line, items)), output))


def data_line(data: bytes, *, raw: bool, escaped: bool) -> bytes:
    """The data of a message as a line, or as it is."""
    if raw:
        return data
    if escaped:
        # A sender's bytes do not get to move this terminal's cursor.
        return escape(data.decode(errors="replace")).encode() + b"\n"
    return data + b"\n"


def open_output(output: Path | None) -> FileIO:
    """Open for writing; a pipe waits for its reader. Unbuffered: a write that never ends holds no lock."""
    if output is None:
        return FileIO(1, "w", closefd=False)
    with storage_errors(output):
        return FileIO(output, "w")


def write_all(target: FileIO, data: bytes, output: Path | None) -> None:
    """Write all of it. Raises: StorageError; BrokenPipeError if the reader of standard output is gone."""
    left = memoryview(data)
    try:
        while left:
            left = left[target.write(left) :]
    except BrokenPipeError:
        raise
    except OSError as error:
        raise StorageError(str(output or "standard output"), error.strerror or type(error).__name__) from None
