"""Files on their way into a receiver's folder: hidden until they are whole, removed when they will not be.

A half-written file is `.NAME.xxxxxxxx.part`, and locked for as long as its writer lives, so that what a
killed writer has left is told from what another one is just writing.
"""

from __future__ import annotations

import fcntl
import os
import re
import stat
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Self

from sealcast.errors import StorageError
from sealcast.pki.files import storage_errors, sync_folder

MAX_NAME_BYTES = 255
"""Of a name in a folder, on every file system in use."""

_ADDED_BYTES = 16
"""What a partial file's name is longer by, and one more."""

_PARTIAL = re.compile(r"\..+\.[0-9a-f]{8}\.part")
_TRIES = 16


def is_file_name(name: str) -> bool:
    """Whether a receiver takes a file of this name: no folder, not hidden, printable, 239 bytes at most."""
    return (
        name.isprintable()
        and 0 < len(name.encode()) <= MAX_NAME_BYTES - _ADDED_BYTES
        and not name.startswith(".")
        and not any(character in "/\\\0" for character in name)
    )


class PartialFile:
    """One file that is being written."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        """Take what `create` has made."""
        self._path = path
        self._file = file

    @classmethod
    def create(cls, folder: Path, name: str) -> Self:
        """Begin a file that is to be `name`. Raises: StorageError."""
        for _ in range(_TRIES):
            path = folder / f".{name}.{os.urandom(4).hex()}.part"
            with storage_errors(path):
                file = path.open("xb")
            if _lock(file.fileno()) is not False:
                return cls(path, file)
            # One that has just started took it for a dead writer's, before the lock was ours.
            file.close()
            path.unlink(missing_ok=True)
        raise StorageError(str(folder), "others remove what is written there", cure="choose another folder")

    def write(self, data: bytes) -> None:
        """Append. Raises: StorageError."""
        with storage_errors(self._path):
            self._file.write(data)

    def place(self, path: Path, *, replaces: bool) -> bool:
        """Give the whole file its name, once the disk has it; False if the name is taken and not replaced.

        Raises: StorageError.
        """
        with storage_errors(path):
            self._file.flush()
            os.fsync(self._file.fileno())
            if replaces:
                self._path.replace(path)
            elif not _link(self._path, path):
                return False
            sync_folder(path.parent)
            # Not before: what is locked is not swept.
            self._file.close()
        return True

    def remove(self) -> None:
        """Give it up."""
        # Closing writes what is buffered, which a full disk refuses; the file has to go all the same.
        with suppress(OSError):
            self._file.close()
        with suppress(OSError):
            self._path.unlink(missing_ok=True)


def sweep(folder: Path) -> int:
    """Remove the half-written files whose writers are gone; return how many. Raises: StorageError."""
    removed = 0
    with storage_errors(folder):
        found = [entry.name for entry in os.scandir(folder) if _PARTIAL.fullmatch(entry.name)]
    for name in found:
        # What somebody else removes, or may not be opened, is not ours to care for.
        with suppress(OSError):
            removed += _removed_if_orphaned(folder / name)
    return removed


def _removed_if_orphaned(path: Path) -> bool:
    descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode) or not _lock(descriptor):
            return False
        path.unlink()
    finally:
        os.close(descriptor)
    return True


def _lock(descriptor: int) -> bool | None:
    """Whether it is locked for us; None: the file system knows no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    # It may have been locked, removed and let go between our opening and our lock.
    return os.fstat(descriptor).st_nlink > 0


def _link(partial: Path, path: Path) -> bool:
    """Rename unless the name is taken, which two receivers of one folder may both try at once."""
    try:
        path.hardlink_to(partial)
    except FileExistsError:
        return False
    except OSError:
        # A file system without hard links, such as FAT.
        if os.path.lexists(path):
            return False
        partial.replace(path)
    else:
        partial.unlink()
    return True
