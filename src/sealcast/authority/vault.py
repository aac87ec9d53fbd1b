"""Encryption of secrets at rest: AES-256-GCM under a key-encryption key that lies beside the database.

A copy of the database alone, a backup of it, or a leaked page of it holds no secret in clear. Who can read
the whole folder can read everything, unless the key itself is encrypted under a passphrase.
"""

import os
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from sealcast.ca import Passphrase, PassphraseSource
from sealcast.ca.keyfile import no_passphrase_cure
from sealcast.ca.passphrase import NO_PASSPHRASE, SALT_BYTES
from sealcast.errors import StorageError
from sealcast.keys import Secret

KEY_FILE = "storage.key"

_KEY_BYTES = 32
_NONCE_BYTES = 12
_WRAPPED = b"sealcast storage key, encrypted\n"
"""Before: salt (16), nonce (12), the key under AES-256-GCM and scrypt (ca/passphrase.py), with this line as
associated data. No key in clear is this long."""


class Vault:
    """Seals and opens secrets for one database."""

    def __init__(self, key: bytes) -> None:
        """Use `key`: 32 bytes."""
        self._aead = AESGCM(key)

    @staticmethod
    def new_key() -> bytes:
        """A fresh key-encryption key: 32 random bytes."""
        return os.urandom(_KEY_BYTES)

    @staticmethod
    def load(path: Path, passphrases: PassphraseSource = NO_PASSPHRASE) -> "Vault":
        """Read the key-encryption key from `path`; for one that is wrapped, ask for `storage`'s passphrase.

        Raises:
            StorageError: there is no such file, others may read it, it has not 32 bytes, or it is wrapped
                and the passphrase is missing or wrong.
        """
        return Vault(_read_key(path, passphrases))

    def seal(self, secret: Secret, place: str) -> bytes:
        """Encrypt `secret` for `place`, the name of its row: `nonce (12) ‖ ciphertext ‖ tag (16)`."""
        return self.seal_text(secret.reveal(), place)

    def open(self, sealed: bytes, place: str) -> Secret:
        """Decrypt what `seal` made for the same place.

        Raises:
            StorageError: another key, another place, or a damaged row.
        """
        return Secret(self.open_text(sealed, place))

    def seal_text(self, text: bytes, place: str) -> bytes:
        """Encrypt what is longer than a secret, and may hold one; otherwise as `seal`."""
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._aead.encrypt(nonce, text, place.encode())

    def open_text(self, sealed: bytes, place: str) -> bytes:
        """Decrypt what `seal_text` made for the same place.

        Raises:
            StorageError: another key, another place, or a damaged row.
        """
        try:
            return self._aead.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], place.encode())
        except InvalidTag:
            raise StorageError(
                place,
                f"this secret does not open with {KEY_FILE}",
                cure="restore the database and its key file from the same backup",
            ) from None


def wrapped(key: bytes, passphrase: Passphrase | None) -> bytes:
    """What stands in the file of a key-encryption key: the key, or the key encrypted under a passphrase."""
    if passphrase is None:
        return key
    salt, nonce = os.urandom(SALT_BYTES), os.urandom(_NONCE_BYTES)
    sealed = AESGCM(passphrase.derive(salt)).encrypt(nonce, key, _WRAPPED)
    return _WRAPPED + salt + nonce + sealed


def rewrapped(path: Path, old: PassphraseSource, new: Passphrase | None) -> bytes:
    """The content of a key file under another passphrase. Raises: StorageError."""
    return wrapped(_read_key(path, old), new)


def _read_key(path: Path, passphrases: PassphraseSource) -> bytes:
    try:
        mode = path.stat().st_mode
        key = path.read_bytes()
    except OSError as error:
        raise StorageError(
            str(path),
            f"cannot read the key of the database: {error.strerror}",
            cure="restore this file from the backup that the database comes from",
        ) from None
    if mode & 0o077:
        raise StorageError(str(path), "others may read this key", cure=f"chmod 600 {path}")
    if key.startswith(_WRAPPED):
        passphrase = passphrases.find("storage", what=str(path))
        if passphrase is None:
            raise StorageError(
                str(path),
                "the key of the database is encrypted, and there is no passphrase",
                cure=no_passphrase_cure("storage"),
            )
        key = _unwrapped(key, passphrase, path)
    if len(key) != _KEY_BYTES:
        raise StorageError(
            str(path),
            f"a key of {_KEY_BYTES} bytes is expected, not {len(key)}",
            cure="restore this file from the backup that the database comes from",
        )
    return key


def _unwrapped(content: bytes, passphrase: Passphrase, path: Path) -> bytes:
    salt, nonce, sealed = (
        content[len(_WRAPPED) :][:SALT_BYTES],
        content[len(_WRAPPED) + SALT_BYTES :][:_NONCE_BYTES],
        content[len(_WRAPPED) + SALT_BYTES + _NONCE_BYTES :],
    )
    try:
        return AESGCM(passphrase.derive(salt)).decrypt(nonce, sealed, _WRAPPED)
    except (InvalidTag, ValueError):
        raise StorageError(
            str(path),
            "the passphrase of the key of the database is wrong, or the file is damaged",
            cure="give the passphrase of this key, or restore the file from its backup",
        ) from None
