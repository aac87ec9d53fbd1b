"""What a device has seen, kept across restarts: nothing of it may go back.

    DIR/floors/<channel id>     policy version, CRL number, generation: CBOR
    DIR/floors/time             the latest signed time, microseconds: CBOR
    DIR/floors/crls             issuer id and number of each list that was seen, of every site: CBOR

An older policy or CRL that somebody kept is refused after a restart too (design invariant 8, abuse case B7),
and what has expired is, whatever becomes of the clock (H1).
Spec: spec/keys.md KM-19, spec/trust.md TR-27, TR-29.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from sealcast import _core
from sealcast.device.folder import FLOORS
from sealcast.errors import CertificateError, StorageError
from sealcast.pki.files import PRIVATE, locked, read_file, storage_errors, write_atomically
from sealcast.pki.signed import decode_array, encode_cbor

_LOCK = "lock"
_TIME = "time"
_CRLS = "crls"

_MAX_ISSUERS = 1024
"""Whose numbers are kept; a site hears of a few dozen at the most (TR-9)."""

_MAX_CRLS_BYTES = _MAX_ISSUERS * 64


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
    with locked(path.parent / _LOCK):
        stored = read_floors(folder, channel_id)
        highest = Floors(*map(max, zip(stored, seen, strict=True)))
        if highest != stored:
            write_atomically(path, encode_cbor(list(highest)), PRIVATE)
    return highest


def read_crl_numbers(folder: Path) -> dict[bytes, int]:
    """Return the highest number that was seen of each issuer's lists, by issuer id (TR-29).

    Raises: StorageError if the file is damaged.
    """
    path = folder / FLOORS / _CRLS
    with storage_errors(path):
        if not path.exists():
            return {}
    try:
        numbers = {}
        for entry in decode_array(read_file(path, limit=_MAX_CRLS_BYTES)):
            match entry:
                case [bytes(issuer), int(number)] if len(issuer) == 32:  # SHA-256
                    numbers[issuer] = number
                case _:
                    raise CertificateError("not a number of an issuer", reason="malformed")
    except CertificateError:
        raise StorageError(
            str(path), "damaged", cure="restore the folder, or remove this file to forget what was seen"
        ) from None
    return numbers


def raise_crl_numbers(folder: Path, seen: Mapping[bytes, int]) -> None:
    """Store numbers of lists, durably; one that is stored never gets lower. Raises: StorageError.

    `seen`: of lists that their issuers have signed, by issuer id.
    """
    path = folder / FLOORS / _CRLS
    with storage_errors(path):
        path.parent.mkdir(mode=0o700, exist_ok=True)
    with locked(path.parent / _LOCK):
        stored = read_crl_numbers(folder)
        highest = dict(stored)
        for issuer, number in seen.items():
            if issuer in highest or len(highest) < _MAX_ISSUERS:
                highest[issuer] = max(number, highest.get(issuer, 0))
        if highest != stored:
            entries = [[issuer, number] for issuer, number in sorted(highest.items())]
            write_atomically(path, encode_cbor(entries), PRIVATE)


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
    with locked(path.parent / _LOCK):
        stored = read_signed_time(folder)
        latest = _core.later_signed_time(stored, signed, wall)
        if latest != stored:
            write_atomically(path, encode_cbor([latest]), PRIVATE)
    return latest
