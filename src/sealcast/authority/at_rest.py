"""Passphrases of the keys in an authority's folder: changing or removing them, all files or none.

The files under their new passphrase are made in a folder beside, which gets its final name when all are on
the disk; from then on they are moved to their places, by whoever opens the folder next if need be. A running
service or signer has its keys in memory and goes on.
"""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sealcast import system
from sealcast.authority.vault import KEY_FILE, rewrapped
from sealcast.ca import FileSigner, Passphrase, PassphraseSource
from sealcast.errors import StorageError, UsageError
from sealcast.pki.files import PRIVATE, storage_errors, write_and_sync
from sealcast.system import sync_folder

KEY_FILES = {"ca": "ca.key", "root": "root.key", "storage": KEY_FILE}
"""What may be encrypted, by the name under which a passphrase is looked for."""

ROTATING_KEYS = "ca-*.key"
"""Keys of the site CA beside `ca.key` while a rotation goes on; they have its passphrase."""

_READY = "keys.ready"
_STAGING = ".keys."


def change_passphrase(
    folder: Path, names: tuple[str, ...], old: PassphraseSource, new: Passphrase | None
) -> list[Path]:
    """Encrypt keys of a folder under another passphrase, or under none.

    Args:
        folder: of an authority, or of a signer.
        names: of `KEY_FILES`; empty: all that lie there.
        old: the present passphrases.
        new: None: the keys are stored in clear.

    Returns:
        The files that were changed: all of them, or, if this raises, none.

    Raises:
        UsageError: not a key. StorageError, CertificateError: there is none, or the present passphrase is
        missing or wrong.
    """
    for name in names:
        if name not in KEY_FILES:
            raise UsageError(f"unknown key {name[:80]!r}", cure=f"there are: {', '.join(KEY_FILES)}")
    chosen = names or tuple(name for name, file in KEY_FILES.items() if (folder / file).exists())
    if not chosen:
        raise StorageError(str(folder), "holds no key", cure="give the folder of an authority or of a signer")
    with _locked(folder):
        _finish(folder)
        contents = {
            path.name: _reencrypted(path, name, old, new)
            for name in chosen
            for path in (folder / KEY_FILES[name], *(folder.glob(ROTATING_KEYS) if name == "ca" else ()))
        }
        with storage_errors(folder):
            staging = folder / f"{_STAGING}{secrets.token_hex(4)}"
            staging.mkdir(mode=0o700)
            for file, content in contents.items():
                write_and_sync(staging / file, content, PRIVATE)
            sync_folder(staging)
            staging.rename(folder / _READY)
            sync_folder(folder)
        _finish(folder)
    return [folder / file for file in contents]


@contextmanager
def keys_at_rest(folder: Path) -> Iterator[None]:
    """Let no passphrase change while keys are read, and finish a change that a crash has interrupted."""
    with _locked(folder, is_shared=True):
        is_whole = not (folder / _READY).exists() and not any(folder.glob(f"{_STAGING}*"))
    if not is_whole:
        with _locked(folder):
            _finish(folder)
    with _locked(folder, is_shared=True):
        yield


def _reencrypted(path: Path, name: str, old: PassphraseSource, new: Passphrase | None) -> bytes:
    if path.name == KEY_FILE:
        return rewrapped(path, old, new)
    return FileSigner.open(path, name=name, passphrases=old).to_pem(new)


def _finish(folder: Path) -> None:
    with storage_errors(folder):
        for leftover in folder.glob(f"{_STAGING}*"):
            shutil.rmtree(leftover)
        ready = folder / _READY
        if ready.is_dir():
            for file in sorted(ready.iterdir()):
                file.replace(folder / file.name)
            sync_folder(folder)
            ready.rmdir()


@contextmanager
def _locked(folder: Path, *, is_shared: bool = False) -> Iterator[None]:
    with storage_errors(folder):
        descriptor = system.open_for_lock(folder)
    try:
        with storage_errors(folder):
            system.lock(descriptor, is_shared=is_shared, waits=True)
        yield
    finally:
        os.close(descriptor)
