"""The folder in which a repair node keeps packets, so that they take no memory and outlive a restart.

    STORE/lock                         held by the one process that keeps packets here
    STORE/<channel id>/<n>.packets     segment files (rust/net/src/shelf.rs)

What lies there is ciphertext as it came, with its publisher's signatures: whoever is served verifies it, and
the folder's owner can open none of it. A record that is not whole is passed over.
"""

import os
import re
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from sealcast.errors import StorageError
from sealcast.pki.files import PRIVATE, storage_errors, take_lock

_LOCK = "lock"
_CHANNEL = re.compile("[0-9a-f]{64}")
_SEGMENTS = 16
"""What is kept lies in so many files, or more: the oldest is dropped whole."""

_LEAST_SEGMENT, _MOST_SEGMENT = 16 << 10, 64 << 20


@contextmanager
def open_store(store: Path, channels: Collection[bytes]) -> Iterator[None]:
    """Hold the folder, made if need be, with a folder for each of the channels and for no other.

    Args:
        store: the folder.
        channels: their ids. What an earlier node has kept of others is removed: nobody would bound it.

    Raises: StorageError, also while another process holds it, or where it is somebody else's folder.
    """
    with storage_errors(store):
        store.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = {entry.name for entry in store.iterdir()} - {_LOCK}
    if foreign := sorted(name for name in found if not _CHANNEL.fullmatch(name)):
        raise StorageError(
            str(store),
            f"not a repair node's folder: it holds {foreign[0][:80]!r}",
            cure="give a new or empty folder",
        )
    path = store / _LOCK
    with storage_errors(path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, PRIVATE)
    try:
        take_lock(
            descriptor,
            store,
            held="another repair node keeps packets in it",
            cure="stop that one, or give each a folder of its own",
        )
        wanted = {channel.hex() for channel in channels}
        with storage_errors(store):
            for name in found - wanted:
                shutil.rmtree(store / name)
            for name in wanted:
                (store / name).mkdir(mode=0o700, exist_ok=True)
        yield
    finally:
        os.close(descriptor)


def segment_bytes(keep_bytes: int) -> int:
    """How long a file of packets is at most, where so much is kept."""
    return min(max(keep_bytes // _SEGMENTS, _LEAST_SEGMENT), _MOST_SEGMENT)
