"""Encryption of secrets at rest: AES-256-GCM under a key-encryption key that lies beside the database.

A copy of the database alone, a backup of it, or a leaked page of it holds no secret in clear. Who can read
the whole folder can read everything: the one-process authority does not claim more (design 3).
"""

import os
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from sealcast.errors import StorageError
from sealcast.keys import Secret

KEY_FILE = "storage.key"

_KEY_BYTES = 32
_NONCE_BYTES = 12


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
    def load(path: Path) -> "Vault":
        """Read the key-encryption key from `path`.

        Raises:
            StorageError: there is no such file, others may read it, or it has not 32 bytes.
        """
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
        if len(key) != _KEY_BYTES:
            raise StorageError(
                str(path),
                f"a key of {_KEY_BYTES} bytes is expected, not {len(key)}",
                cure="restore this file from the backup that the database comes from",
            )
        return Vault(key)

    def seal(self, secret: Secret, place: str) -> bytes:
        """Encrypt `secret` for `place`, the name of its row: `nonce (12) ‖ ciphertext ‖ tag (16)`."""
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._aead.encrypt(nonce, secret.reveal(), place.encode())

    def open(self, sealed: bytes, place: str) -> Secret:
        """Decrypt what `seal` made for the same place.

        Raises:
            StorageError: another key, another place, or a damaged row.
        """
        try:
            return Secret(self._aead.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], place.encode()))
        except InvalidTag:
            raise StorageError(
                place,
                f"this secret does not open with {KEY_FILE}",
                cure="restore the database and its key file from the same backup",
            ) from None
