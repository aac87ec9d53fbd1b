"""Files on their way into a receiver's folder: hidden until they are whole, and taken up again after a kill.

A half-written file is `.NAME.xxxxxxxx.part`, and beside it `.have` lists the pieces that it holds, each with
a checksum: what a crash of the machine has spoilt is not taken for received. Both are in the folder itself,
also if the file is to go below it. The partial file is locked for as long as its writer lives, so that what a
killed writer has left is told from what another one is just writing.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from sealcast import system
from sealcast.endpoint.runs import Runs
from sealcast.endpoint.transfer import PIECE_BYTES, Offer
from sealcast.errors import StorageError
from sealcast.pki.files import storage_errors
from sealcast.pki.signed import encode_cbor
from sealcast.system import parent_of

KEPT_SECONDS = 7 * 24 * 3600
"""A partial file that nothing was added to for so long is removed at the next start."""
MAX_KEPT = 256
"""Partial files of a folder; the latest stay."""
MAX_RUNS = 1024
"""Of pieces in one file: bounds what a publisher that leaves holes makes us keep."""

_PART, _HAVE = ".part", ".have"
_PARTIAL = re.compile(r"\..+\.[0-9a-f]{8}\.(?:part|have)")
_TRIES = 16
_RECORD = 12
_READ_BYTES = 1 << 20


class PartialFile:
    """One file that is being written, and which of its pieces are here."""

    def __init__(self, folder: Path, offer: Offer, publisher: str) -> None:
        """Prepare; nothing is on the disk before `open`."""
        self.have = Runs()
        self._folder = folder
        self._offer = offer
        self._header = _header(offer, publisher)
        self._path = next(self._candidates())
        self._was_open = False
        self._file = self._journal = -1
        # As long as pieces come in order, the hash is ready with the last.
        self._digest = hashlib.sha256()
        self._hashed = 0

    @property
    def is_open(self) -> bool:
        """Whether it holds file descriptors, and the lock."""
        return self._file >= 0

    @property
    def is_whole(self) -> bool:
        """Whether every piece is here."""
        return self.have.count == self._offer.pieces

    @property
    def done(self) -> int:
        """Bytes that are here."""
        last = self._offer.pieces - 1
        short = PIECE_BYTES - self._offer.length(last) if last >= 0 and last in self.have else 0
        return self.have.count * PIECE_BYTES - short

    def find(self) -> bool:
        """Whether a part of the file was left here that can be gone on with; opens it then.

        Raises: StorageError.
        """
        for path in self._candidates():
            if _reads(path.with_suffix(_HAVE), len(self._header)) == self._header:
                self.open()
                return self.have.count > 0
        return False

    def open(self) -> None:
        """Begin it, or go on with what is there, once that is verified. Raises: StorageError."""
        if self._was_open and self._opened_again(self._path):
            return
        for path in self._candidates():
            with storage_errors(path):
                file = _open(path)
                if _lock(file) is False:
                    # Another receiver's, or one that has just started took it for a dead writer's.
                    os.close(file)
                    continue
            self._path, self._file, self._was_open = path, file, True
            self._take_up()
            return
        raise StorageError(
            str(self._folder), "others write what is written there", cure="choose another folder"
        )

    def _opened_again(self, path: Path) -> bool:
        """Open what this object has let go of; what it wrote itself it does not read again."""
        journal = path.with_suffix(_HAVE)
        if _reads(journal, len(self._header)) != self._header:
            return False
        with storage_errors(path):
            self._file = _open(path)
            if _lock(self._file) is False:
                self.close()
                return False
            self._journal = _open(journal)
            os.lseek(self._journal, 0, os.SEEK_END)
        return True

    def _candidates(self) -> Iterator[Path]:
        base = self._offer.name.rpartition("/")[2]
        for number in range(_TRIES):
            tag = hashlib.sha256(bytes([number]) + self._header).hexdigest()[:8]
            yield self._folder / f".{base}.{tag}{_PART}"

    def _take_up(self) -> None:
        """Believe of the pieces that are said to be here those that are."""
        self.have = Runs()
        self._digest, self._hashed = hashlib.sha256(), 0
        if self._offer.pieces <= 1:
            # There is nothing to go on with.
            return
        path = self._path.with_suffix(_HAVE)
        with storage_errors(path):
            self._journal = _open(path)
            said = system.read_at(self._journal, len(self._header), 0)
            if said != self._header:
                os.ftruncate(self._file, 0)
                os.ftruncate(self._journal, 0)
                os.write(self._journal, self._header)
                return
            for piece, checksum in self._records():
                if piece not in self.have and zlib.crc32(self._read(piece)) == checksum:
                    self._note(piece)

    def _records(self) -> Iterator[tuple[int, int]]:
        size = os.fstat(self._journal).st_size
        whole = len(self._header) + (size - len(self._header)) // _RECORD * _RECORD
        # One that was cut off is no record, and must not shift those that follow.
        os.ftruncate(self._journal, whole)
        os.lseek(self._journal, 0, os.SEEK_END)
        at = len(self._header)
        while at < whole:
            records = system.read_at(self._journal, _READ_BYTES // _RECORD * _RECORD, at)
            at += len(records)
            for start in range(0, len(records), _RECORD):
                piece = int.from_bytes(records[start : start + 8])
                if piece < self._offer.pieces:
                    yield piece, int.from_bytes(records[start + 8 : start + _RECORD])

    def _read(self, piece: int) -> bytes:
        return system.read_at(self._file, self._offer.length(piece), piece * PIECE_BYTES)

    def _note(self, piece: int) -> None:
        if len(self.have) < MAX_RUNS:
            self.have.add(piece, piece)

    def write(self, pieces: Sequence[tuple[int, bytes | memoryview]]) -> None:
        """Write pieces that are noted in `have` by the caller. Raises: StorageError."""
        records = bytearray()
        with storage_errors(self._path):
            for piece, data in pieces:
                _write(self._file, data, piece * PIECE_BYTES)
                if piece == self._hashed:
                    self._digest.update(data)
                    self._hashed += 1
                if self._journal >= 0:
                    records += piece.to_bytes(8) + zlib.crc32(data).to_bytes(4)
            if records:
                os.write(self._journal, records)

    def digest(self) -> bytes:
        """SHA-256 of the whole; reads again what did not come in order. Raises: StorageError."""
        with storage_errors(self._path):
            at = self._hashed * PIECE_BYTES
            while at < self._offer.size:
                data = system.read_at(self._file, min(_READ_BYTES, self._offer.size - at), at)
                if not data:
                    break
                self._digest.update(data)
                at += len(data)
        return self._digest.digest()

    def place(self, *, replaces: bool) -> bool:
        """Give the whole file its name, once the disk has it; False if the name is taken and not replaced.

        Raises: StorageError.
        """
        path = self._path
        with storage_errors(self._folder / self._offer.name):
            os.fsync(self._file)
            if not system.CAN_RENAME_OPEN_FILES:
                self.close()
            with parent_of(self._folder, self._offer.name, make=True) as (parent, name):
                if replaces:
                    os.replace(path, name, dst_dir_fd=parent)
                elif not _link(path, name, parent):
                    return False
                if parent is not None:
                    os.fsync(parent)
        # Not before: what is locked is not swept.
        self.close()
        with suppress(OSError):
            path.with_suffix(_HAVE).unlink(missing_ok=True)
        return True

    def close(self) -> None:
        """Let go of it, and keep what is there."""
        for descriptor in (self._file, self._journal):
            if descriptor >= 0:
                os.close(descriptor)
        self._file = self._journal = -1

    def remove(self) -> None:
        """Give it up."""
        if self._was_open:
            for path in (self._path, self._path.with_suffix(_HAVE)):
                with suppress(OSError):
                    path.unlink(missing_ok=True)
        self.close()


def sweep(folder: Path, now: float | None = None) -> int:
    """Remove the partial files that nobody will go on with; return how many. Raises: StorageError."""
    now = time.time() if now is None else now
    removed = 0
    with storage_errors(folder):
        found = [entry for entry in os.scandir(folder) if _PARTIAL.fullmatch(entry.name)]
        entries = {entry.name: entry.stat(follow_symlinks=False).st_mtime for entry in found}
    parts = sorted((name for name in entries if name.endswith(_PART)), key=lambda name: -entries[name])
    for place, name in enumerate(parts):
        is_old = now - entries[name] > KEPT_SECONDS or place >= MAX_KEPT
        if is_old or Path(name).with_suffix(_HAVE).name not in entries:
            # What somebody else removes, or may not be opened, is not ours to care for.
            with suppress(OSError):
                removed += _removed_if_orphaned(folder / name)
    for name in entries.keys() - parts:
        if Path(name).with_suffix(_PART).name not in entries:
            with suppress(OSError):
                (folder / name).unlink()
    return removed


def _removed_if_orphaned(path: Path) -> bool:
    descriptor = system.open_file(path, os.O_RDWR, follows=False)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode) or not _lock(descriptor):
            return False
        path.unlink()
        path.with_suffix(_HAVE).unlink(missing_ok=True)
    finally:
        os.close(descriptor)
    return True


def _header(offer: Offer, publisher: str) -> bytes:
    """What a list of pieces begins with: whose they are, and of what."""
    said = encode_cbor([publisher, offer.name, offer.size, offer.sha256])
    return b"sealcast pieces 1\n" + len(said).to_bytes(2) + said


def _open(path: Path) -> int:
    descriptor = system.open_file(path, os.O_RDWR | os.O_CREAT, follows=False)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(0, "is not a regular file")
    return descriptor


def _reads(path: Path, length: int) -> bytes:
    try:
        descriptor = system.open_file(path, os.O_RDONLY, follows=False)
    except OSError:
        return b""
    try:
        return os.read(descriptor, length)
    except OSError:
        return b""
    finally:
        os.close(descriptor)


def _write(descriptor: int, data: bytes | memoryview, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = system.write_at(descriptor, view, offset)
        view, offset = view[written:], offset + written


def _lock(descriptor: int) -> bool | None:
    """Whether it is locked for us; None: the file system knows no locks."""
    try:
        if not system.lock(descriptor):
            return False
    except OSError:
        return None
    # It may have been locked, removed and let go between our opening and our lock.
    return os.fstat(descriptor).st_nlink > 0


def _link(partial: Path, name: str, parent: int | None) -> bool:
    """Rename unless the name is taken, which two receivers of one folder may both try at once."""
    try:
        os.link(partial, name, dst_dir_fd=parent)
    except FileExistsError:
        return False
    except OSError:
        # A file system without hard links, such as FAT.
        with suppress(FileNotFoundError):
            os.stat(name, dir_fd=parent, follow_symlinks=False)
            return False
        os.replace(partial, name, dst_dir_fd=parent)
    else:
        partial.unlink()
    return True
