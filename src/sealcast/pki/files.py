"""Files that must be whole or absent: written beside their place, synchronised, then renamed.

Every error of the operating system becomes a StorageError that names the path.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sealcast import system
from sealcast.errors import StorageError
from sealcast.system import sync_folder

PRIVATE = 0o600
PUBLIC = 0o644

TEMPORARY_SUFFIX = ".tmp"
"""What a crash may leave behind; the owner of a folder removes such files at its next start."""

# Certificates, keys, CRLs and policies; a CRL of 100,000 entries has about 4 MiB.
MAX_FILE_BYTES = 16 * 1024 * 1024


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn an OSError about `path` into a StorageError."""
    try:
        yield
    except OSError as error:
        raise StorageError(str(path), error.strerror or type(error).__name__) from error


def write_atomically(path: Path, data: bytes, mode: int = PUBLIC) -> None:
    """Replace `path` by `data` so that a reader, or a start after a crash, sees the old bytes or the new
    ones.

    `mode`: permission bits, in force before the first byte is written. Raises: StorageError; then `path` is
    as it was.
    """
    temporary = path.with_name(path.name + TEMPORARY_SUFFIX)
    with storage_errors(path):
        try:
            write_and_sync(temporary, data, mode)
            temporary.replace(path)
            sync_folder(path.parent)
        except OSError:
            with suppress(OSError):
                temporary.unlink()
            raise


def write_new(path: Path, data: bytes) -> None:
    """Write a file that a person has named for what a command makes; never over another one.

    Where it has these very bytes, as after a command that is given again, it stays. Raises: StorageError.
    """
    with storage_errors(path):
        if path.is_file() and path.stat().st_size == len(data) and path.read_bytes() == data:
            return
    check_absent(path)
    write_atomically(path, data)


def check_absent(path: Path) -> None:
    """Raises: StorageError if there is a file already: it may be a key, and the only copy of it."""
    with storage_errors(path):
        if path.exists() or path.is_symlink():
            raise StorageError(
                str(path), "exists already, and is not overwritten", cure="name another file, or remove it"
            )


def write_and_sync(path: Path, data: bytes, mode: int = PUBLIC) -> None:
    """Write a file anew and wait until the disk has it; not atomic. Raises: OSError."""
    # A leftover may be a link or may be readable by others: never written through, always made afresh.
    path.unlink(missing_ok=True)
    descriptor = system.open_file(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        system.set_mode(descriptor, mode)
        file.write(data)
        file.flush()
        os.fsync(descriptor)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of a file, which is made if need be, and wait for it. Raises: StorageError."""
    with storage_errors(path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, PRIVATE)
        try:
            system.lock(descriptor, waits=True)
            yield
        finally:
            os.close(descriptor)


def take_lock(descriptor: int, path: Path, *, held: str, cure: str) -> None:
    """Lock an open file or folder until it is closed. Raises: StorageError; with `held` if another has it."""
    try:
        is_locked = system.lock(descriptor)
    except OSError as error:
        raise StorageError(str(path), f"cannot be locked: {error.strerror}") from error
    if not is_locked:
        raise StorageError(str(path), held, cure=cure)


def read_file(path: Path, limit: int = MAX_FILE_BYTES) -> bytes:
    """Return a file's bytes. Raises: StorageError, also if it has more than `limit` bytes."""
    with storage_errors(path), path.open("rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise StorageError(str(path), f"has more than {limit} bytes", cure="check that it is the right file")
    return data
