"""The device's folder on disk: whole or absent, whatever the moment of a crash.

    DIR/                        0700
    ├── current                 the number of the credentials in force
    ├── bundle                  the trust bundle in force (spec/trust.md section 5), once there is one
    ├── superseded              hash of a trust bundle that an enrolment with other roots has put aside
    ├── renewal.pem             0600, the key of a renewal whose answer has not come yet
    ├── agent.lock              held by the one agent that looks after this folder
    ├── floors/                 what was seen of each channel's numbers (sealcast.device.floors)
    ├── policies/, crls/        what the authority has signed (sealcast.device.documents)
    ├── messages/               of and for peers (sealcast.device.mailbox)
    ├── pending/                key and request of an enrolment that waits (sealcast.device.pending)
    └── credentials/
        ├── 7/                  what one enrolment or renewal brought, never changed after
        │   ├── device.toml     name, site, URLs
        │   ├── key.pem         0600, made here
        │   ├── certificate.pem our certificate, then its issuers
        │   ├── issuers.pem     every site CA certificate that the authority told
        │   └── roots.pem       the roots that were given at enrolment
        └── 8.tmp/              being written; removed by the next writer if it is left over

New credentials are written beside, synchronised and renamed into place; then `current` is replaced by a
rename. That rename is the one moment of change. The credentials before are kept until the next change, for
processes that have read the old number a moment ago.
"""

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from sealcast import system
from sealcast.errors import CertificateError, StorageError
from sealcast.pki.bundle import VerifiedBundle, stored
from sealcast.pki.files import (
    PRIVATE,
    PUBLIC,
    TEMPORARY_SUFFIX,
    read_file,
    storage_errors,
    take_lock,
    write_and_sync,
    write_atomically,
)
from sealcast.system import sync_folder

CURRENT = "current"
CREDENTIALS = "credentials"
BUNDLE = "bundle"
SUPERSEDED = "superseded"
RENEWAL_KEY = "renewal.pem"
AGENT_LOCK = "agent.lock"
FLOORS = "floors"
PENDING = "pending"
POLICIES = "policies"
CRLS = "crls"
MESSAGES = "messages"
KEY_FILE = "key.pem"

Stamp = tuple[Path | None, int, int]
"""Tells one state of a folder from another: the credentials in force, and which file the trust bundle is."""

_REPLACED = (CURRENT, BUNDLE, SUPERSEDED, RENEWAL_KEY)
_WRITTEN = (*_REPLACED, PENDING)
_OWN_NAMES = {
    CREDENTIALS,
    AGENT_LOCK,
    FLOORS,
    POLICIES,
    CRLS,
    MESSAGES,
    *_WRITTEN,
    *(name + TEMPORARY_SUFFIX for name in _WRITTEN),
}
_FOLDER_MODE = 0o700


def current_credentials(folder: Path) -> Path | None:
    """Return the folder of the credentials in force, or None if there is no device here.

    Takes no lock. Raises: StorageError if `current` is damaged or points nowhere.
    """
    pointer = folder / CURRENT
    with storage_errors(pointer):
        if not pointer.exists():
            return None
    text = read_file(pointer, limit=32).decode("ascii", "replace").strip()
    credentials = folder / CREDENTIALS / text
    if not text.isdigit() or not credentials.is_dir():
        raise StorageError(
            str(pointer),
            f"damaged: no credentials {text!r}",
            cure="restore the folder, or enrol into a new one",
        )
    return credentials


def stamp(folder: Path) -> Stamp:
    """Return what changes with each renewal and each new trust bundle; cheap enough for a look every second.

    Takes no lock. Raises: StorageError as `current_credentials`.
    """
    credentials = current_credentials(folder)
    path = folder / BUNDLE
    with storage_errors(path):
        try:
            found = path.stat()
        except FileNotFoundError:
            return credentials, 0, 0
    return credentials, found.st_ino, found.st_mtime_ns


def current_bundle(folder: Path) -> VerifiedBundle | None:
    """Return the trust bundle in force, or None before there is one.

    Takes no lock. Raises: StorageError if the file is damaged.
    """
    bundle = stored_bundle(folder)
    path = folder / SUPERSEDED
    with storage_errors(path):
        if bundle is None or not path.exists():
            return bundle
    return None if read_file(path, limit=32) == bundle.hash else bundle


def stored_bundle(folder: Path) -> VerifiedBundle | None:
    """Return the latest trust bundle that was ever in force, or None: later ones alone may replace it.

    Takes no lock. Raises: StorageError if the file is damaged.
    """
    path = folder / BUNDLE
    with storage_errors(path):
        if not path.exists():
            return None
    try:
        return stored(read_file(path))
    except CertificateError as error:
        raise StorageError(str(path), f"damaged: {error.problem}", cure="restore the folder") from None


def pending_request(folder: Path) -> Path | None:
    """Return the folder of the request that is not decided yet, or None if none waits.

    One whose key is in force has been answered, and a crash has kept it from being removed. Takes no lock.
    Raises: StorageError.
    """
    pending = folder / PENDING
    with storage_errors(pending):
        if not pending.is_dir():
            return None
    credentials = current_credentials(folder)
    if credentials is not None and read_file(credentials / KEY_FILE) == read_file(pending / KEY_FILE):
        return None
    return pending


class DeviceFolder:
    """Write access to a device's folder; one process at a time.

    with DeviceFolder.open_for_writing(path) as folder:
        with folder.stage() as stage:
            stage.write("key.pem", …)
            stage.commit()
    """

    def __init__(self, path: Path, descriptor: int, *, made_here: bool) -> None:
        self._path = path
        self._descriptor = descriptor
        self._made_here = made_here

    @classmethod
    def open_for_writing(cls, path: Path) -> Self:
        """Make the folder if need be, lock it, and remove what a crash has left.

        Raises: StorageError if it is another process's turn, or if the folder holds something else.
        """
        with storage_errors(path):
            made_here = _make_folder(path)
            descriptor = system.open_for_lock(path)
        folder = cls(path, descriptor, made_here=made_here)
        try:
            folder._lock()
            folder._check_contents()
            with storage_errors(path):
                folder._remove_leftovers()
        except BaseException:
            folder._close()
            raise
        return folder

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None:
            # A refused enrolment leaves nothing; rmdir itself refuses a folder that holds something.
            with suppress(OSError):
                (self._path / CREDENTIALS).rmdir()
            with suppress(OSError):
                if self._made_here:
                    self._path.rmdir()
        self._close()

    def write_bundle(self, data: bytes) -> None:
        """Put a trust bundle in force, durably; the caller has believed it. Raises: StorageError."""
        write_atomically(self._path / BUNDLE, data)

    def supersede_bundle(self, roots: Iterable[bytes]) -> None:
        """Put the trust bundle aside if `roots` (DER), given out of band, are not all among its roots.

        Then it is walked to anew from these roots, and to no earlier version. Raises: StorageError.
        """
        held = current_bundle(self._path)
        if held is not None and not {anchor.certificate for anchor in held.bundle.owners()}.issuperset(roots):
            write_atomically(self._path / SUPERSEDED, held.hash)

    def restore_bundle(self) -> None:
        """Put the trust bundle that was put aside in force again: it was walked to. Raises: StorageError."""
        path = self._path / SUPERSEDED
        with storage_errors(path):
            path.unlink(missing_ok=True)
            sync_folder(self._path)

    def renewal_key(self) -> bytes | None:
        """Return the key (PEM) of a renewal whose answer never came, or None. Raises: StorageError."""
        path = self._path / RENEWAL_KEY
        with storage_errors(path):
            if not path.exists():
                return None
        return read_file(path)

    def write_renewal_key(self, pem: bytes) -> None:
        """Keep the key of a renewal that is about to be sent, durably. Raises: StorageError."""
        write_atomically(self._path / RENEWAL_KEY, pem, PRIVATE)

    def remove_renewal_key(self) -> None:
        """Forget the key of a renewal that was refused. Raises: StorageError."""
        path = self._path / RENEWAL_KEY
        with storage_errors(path):
            path.unlink(missing_ok=True)
            sync_folder(self._path)

    def write_pending(self, files: Mapping[str, bytes]) -> None:
        """Keep a request that is about to be sent, whole or not at all. Raises: StorageError."""
        pending = self._path / PENDING
        temporary = pending.with_name(PENDING + TEMPORARY_SUFFIX)
        with storage_errors(pending):
            try:
                temporary.mkdir(mode=_FOLDER_MODE)
                for name, data in files.items():
                    write_and_sync(temporary / name, data, PRIVATE)
                sync_folder(temporary)
                temporary.rename(pending)
                sync_folder(self._path)
            except OSError:
                for place in (temporary, pending):
                    shutil.rmtree(place, ignore_errors=True)
                raise

    def remove_pending(self) -> None:
        """Drop the request, if there is one. Raises: StorageError."""
        pending = self._path / PENDING
        with storage_errors(pending):
            if pending.is_dir():
                # One rename: a half of it must never look like a whole one.
                temporary = pending.with_name(PENDING + TEMPORARY_SUFFIX)
                pending.rename(temporary)
                sync_folder(self._path)
                shutil.rmtree(temporary)

    @contextmanager
    def stage(self) -> Iterator["Stage"]:
        """Open a place for new credentials; what is not committed is removed.

        Raises: StorageError.
        """
        credentials = self._path / CREDENTIALS
        number = max(_numbers(credentials), default=0) + 1
        stage = Stage(self._path, number)
        with storage_errors(stage.path):
            credentials.mkdir(mode=_FOLDER_MODE, exist_ok=True)
            stage.path.mkdir(mode=_FOLDER_MODE)
        try:
            yield stage
        finally:
            stage.clean_up()
        with suppress(OSError):
            self._remove_leftovers()

    def _lock(self) -> None:
        take_lock(
            self._descriptor,
            self._path,
            held="another process is enrolling or renewing it",
            cure="try again when it is done",
        )

    def _check_contents(self) -> None:
        with storage_errors(self._path):
            foreign = sorted({entry.name for entry in self._path.iterdir()} - _OWN_NAMES)
        # Whatever else lies in a device's folder is let be: a renewal must not fail for it.
        if foreign and not any((self._path / name).exists() for name in (CURRENT, PENDING)):
            raise StorageError(
                str(self._path),
                f"not a device's folder: it holds {foreign[0]!r}",
                cure="give a new or empty folder",
            )

    def _remove_leftovers(self) -> None:
        """Remove all but the credentials in force and those before. Raises: OSError."""
        for name in _REPLACED:
            (self._path / (name + TEMPORARY_SUFFIX)).unlink(missing_ok=True)
        temporary = self._path / (PENDING + TEMPORARY_SUFFIX)
        if temporary.exists():
            shutil.rmtree(temporary)
        if pending_request(self._path) is None:
            self.remove_pending()
        credentials = self._path / CREDENTIALS
        if not credentials.exists():
            return
        current = current_credentials(self._path)
        kept = set[str]()
        if current is not None:
            if self.renewal_key() == read_file(current / KEY_FILE):
                (self._path / RENEWAL_KEY).unlink()
            older = [number for number in _numbers(credentials) if number < int(current.name)]
            kept = {current.name, *(str(number) for number in older[-1:])}
        for entry in sorted(credentials.iterdir()):
            if entry.name not in kept:
                shutil.rmtree(entry)

    def _close(self) -> None:
        os.close(self._descriptor)


class Stage:
    """New credentials while they are made."""

    def __init__(self, folder: Path, number: int) -> None:
        self._folder = folder
        self._final = folder / CREDENTIALS / str(number)
        self.path = self._final.with_name(self._final.name + TEMPORARY_SUFFIX)

    def write(self, name: str, data: bytes, mode: int = PUBLIC) -> None:
        """Write one file and wait until the disk has it. Raises: StorageError."""
        with storage_errors(self.path / name):
            write_and_sync(self.path / name, data, mode)

    def commit(self) -> Path:
        """Put the credentials in force, durably. Returns: their folder. Raises: StorageError."""
        with storage_errors(self._final):
            sync_folder(self.path)
            self.path.rename(self._final)
            sync_folder(self._final.parent)
            sync_folder(self._folder)
        write_atomically(self._folder / CURRENT, f"{self._final.name}\n".encode())
        return self._final

    def clean_up(self) -> None:
        """Remove what was made here unless it is in force, as far as the disk lets us."""
        shutil.rmtree(self.path, ignore_errors=True)
        with suppress(StorageError):
            if current_credentials(self._folder) != self._final:
                shutil.rmtree(self._final, ignore_errors=True)


def _make_folder(path: Path) -> bool:
    """Make the folder and its parents, durably. Returns: whether it was not there. Raises: OSError."""
    if path.is_dir():
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    path.mkdir(mode=_FOLDER_MODE)
    sync_folder(path.parent)
    return True


def _numbers(credentials: Path) -> list[int]:
    """Return the numbers of whole credentials, in order."""
    if not credentials.is_dir():
        return []
    return sorted(int(entry.name) for entry in credentials.iterdir() if entry.name.isdigit())
