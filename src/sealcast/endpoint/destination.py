"""The folder that files are received into: what is there already, and which names may be had in it.

Everything here reads or writes the disk, and so runs off the event loop.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path

from sealcast import system
from sealcast.endpoint.partial import PartialFile
from sealcast.endpoint.transfer import Offer
from sealcast.errors import StorageError
from sealcast.system import parent_of

BAD_NAME_ERRORS = (errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL)

_REMEMBERED = 4096
_KEPT = "another file has its name, and is kept (see --overwrite)"
_WAY_ERRORS = (errno.ENOTDIR, errno.ELOOP, errno.EISDIR, errno.EXDEV, *BAD_NAME_ERRORS)
"""What is in the way of a name: the fault of the name, not of the disk."""


class Destination:
    """Keeps what is there, unless it was received here from the same publisher before, or is to be replaced.

    Its methods return what is in the way of a file in words; they raise StorageError where the disk is at
    fault.
    """

    def __init__(self, folder: Path, *, overwrite: bool) -> None:
        """Take the folder, which has to be there; `overwrite`: replace whatever file is there."""
        self.path = folder
        self._overwrite = overwrite
        # From whom a name was received here. What is forgotten is not replaced.
        self._owners: OrderedDict[str, str] = OrderedDict()

    def make_folder(self, name: str) -> str | None:
        """Make an empty folder that is offered; say what is in its way."""
        try:
            with parent_of(self.path, f"{name}/x", make=True):
                return None
        except OSError as error:
            if error.errno not in _WAY_ERRORS:
                raise self._fault(error, name) from error
            return "a file or a link has its name, or that of a folder above it"

    def obstacle(self, offer: Offer, publisher: str) -> str | None:
        """Say why a file cannot have its name, if so."""
        try:
            with parent_of(self.path, offer.name, make=False) as (parent, name):
                status = os.stat(name, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno not in _WAY_ERRORS:
                raise self._fault(error, offer.name) from error
            return "a file or a link has the name of a folder above it"
        if stat.S_ISDIR(status.st_mode):
            return "a folder has its name"
        return None if self._replaces(offer, publisher) else _KEPT

    def holds(self, offer: Offer) -> bool:
        """Whether a file is there already, byte for byte."""
        with suppress(OSError), parent_of(self.path, offer.name, make=False) as (parent, name):
            descriptor = system.open_file(name, os.O_RDONLY, follows=False, dir_fd=parent)
            with os.fdopen(descriptor, "rb") as file:
                status = os.fstat(file.fileno())
                if stat.S_ISREG(status.st_mode) and status.st_size == offer.size:
                    return hashlib.file_digest(file, "sha256").digest() == offer.sha256
        return False

    def lack_of_room(self, offer: Offer, done: int) -> str | None:
        """Say that a disk has no room for a file of which `done` bytes are here, if so."""
        try:
            free = shutil.disk_usage(self.path).free
        except OSError as error:
            raise self._fault(error) from error
        if offer.size - done <= free:
            return None
        return f"no room: {offer.size - done} bytes are to come, {free} are free"

    def place(self, partial: PartialFile, offer: Offer, publisher: str) -> tuple[bool, str | None]:
        """Give a whole file its name; say whether it has it now, and if not, what is in its way.

        Nothing is where the very same file was there first.
        """
        try:
            is_placed = partial.place(replaces=self._replaces(offer, publisher))
        except StorageError as error:
            if isinstance(error.__cause__, OSError) and error.__cause__.errno in _WAY_ERRORS:
                return False, f"its name cannot be had: {error.detail}"
            raise
        if not is_placed and not self.holds(offer):
            return False, _KEPT
        self._owners[offer.name] = publisher
        if len(self._owners) > _REMEMBERED:
            self._owners.popitem(last=False)
        return is_placed, None

    def _replaces(self, offer: Offer, publisher: str) -> bool:
        return self._overwrite or self._owners.get(offer.name) == publisher

    def _fault(self, error: OSError, name: str = "") -> StorageError:
        return StorageError(str(self.path / name), error.strerror or type(error).__name__)
