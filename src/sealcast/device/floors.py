"""What a device has seen, kept across restarts: nothing of it may go back.

    DIR/floors/<channel id>     policy version, CRL number, generation: CBOR
    DIR/floors/time             the latest signed time, microseconds: CBOR

An older policy or CRL that somebody kept is refused after a restart too (design invariant 8, abuse case B7),
and what has expired is, whatever becomes of the clock (H1).
Spec: spec/keys.md KM-19, spec/trust.md TR-27.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from sealcast import _core
from sealcast.device.folder import FLOORS
from sealcast.errors import CertificateError, StorageError
from sealcast.pki.files import PRIVATE, read_file, storage_errors, write_atomically
from sealcast.pki.signed import decode_array, encode_cbor

_LOCK = "lock"
_TIME = "time"


class Floors(NamedTuple):
    """The highest numbers that were seen."""

    policy_version: int = 0
    crl_number: int = 0
    generation: int = 0


def read_floors(folder: Path, channel_id: bytes) -> Floors:
    """Return what was seen of a channel; zeros if nothing was.

    `folder`: of the device. `channel_id`: 32 bytes. Raises: StorageError if the file is damaged.
    """
    path = folder / FLOORS / channel_id.hex()
    with storage_errors(path):
        if not path.exists():
            return Floors()
    try:
        match decode_array(read_file(path, limit=64)):
            case [int(policy_version), int(crl_number), int(generation)]:
                return Floors(policy_version, crl_number, generation)
    except CertificateError:
        pass
    raise StorageError(
        str(path), "damaged", cure="restore the folder, or remove this file to forget what was seen"
    )


def raise_floors(folder: Path, channel_id: bytes, seen: Floors) -> Floors:
    """Store what was seen, durably; a number that is stored never gets lower. Returns: what is stored now.

    Raises: StorageError.
    """
    path = folder / FLOORS / channel_id.hex()
    with storage_errors(path):
        path.parent.mkdir(mode=0o700, exist_ok=True)
    with _locked(path.parent / _LOCK):
        stored = read_floors(folder, channel_id)
        highest = Floors(*map(max, zip(stored, seen, strict=True)))
        if highest != stored:
            write_atomically(path, encode_cbor(list(highest)), PRIVATE)
    return highest


def read_signed_time(folder: Path) -> int:
    """Return the latest signed time that the device has seen, in microseconds; 0 if none was.

    Raises: StorageError if the file is damaged.
    """
    path = folder / FLOORS / _TIME
    with storage_errors(path):
        if not path.exists():
            return 0
    try:
        match decode_array(read_file(path, limit=32)):
            case [int(time)] if time >= 0:
                return time
    except CertificateError:
        pass
    raise StorageError(
        str(path), "damaged", cure="restore the folder, or remove this file to forget what was seen"
    )


def take_signed_time(folder: Path, signed: int, wall: int) -> int:
    """Note the time of an object that the site's authority signed, and that was verified (TR-27).

    `signed`: its time. `wall`: what this machine's clock says. Returns: the latest signed time now.
    Raises: StorageError.
    """
    path = folder / FLOORS / _TIME
    with storage_errors(path):
        path.parent.mkdir(mode=0o700, exist_ok=True)
    with _locked(path.parent / _LOCK):
        stored = read_signed_time(folder)
        latest = _core.later_signed_time(stored, signed, wall)
        if latest != stored:
            write_atomically(path, encode_cbor([latest]), PRIVATE)
    return latest


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Publishers and subscribers of one device may store at one moment."""
    with storage_errors(path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)
