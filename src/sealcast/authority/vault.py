"""Encryption of secrets at rest: AES-256-GCM under a key-encryption key that lies beside the database.

A copy of the database alone, a backup of it, or a leaked page of it holds no secret in clear. Who can read
the whole folder can read everything, unless the key itself is encrypted under a passphrase.
"""

import os
import re
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from sealcast import system
from sealcast.ca import Passphrase, PassphraseSource, ScryptCost
from sealcast.ca.keyfile import no_passphrase_cure
from sealcast.ca.passphrase import NO_PASSPHRASE, SALT_BYTES
from sealcast.errors import StorageError, UsageError
from sealcast.keys import Secret

KEY_FILE = "storage.key"

_KEY_BYTES = 32
_NONCE_BYTES = 12
_WRAPPED = re.compile(rb"sealcast storage key, (?:encrypted|scrypt (\d{1,9}) (\d{1,9}) (\d{1,9}))\n")
"""A line before: salt (16), nonce (12), the key under AES-256-GCM and scrypt, the line as associated data.
It says what a guess costs; "encrypted", in older files: what it cost then. No key in clear is this long.
"""
_OLD_COST = ScryptCost(n=2**14, r=8, p=8)


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
    salt, nonce, cost = os.urandom(SALT_BYTES), os.urandom(_NONCE_BYTES), passphrase.cost
    line = f"sealcast storage key, scrypt {cost.n} {cost.r} {cost.p}\n".encode()
    return line + salt + nonce + AESGCM(passphrase.derive(salt, cost)).encrypt(nonce, key, line)


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
    if mode & system.OTHERS_MAY_READ:
        raise StorageError(str(path), "others may read this key", cure=f"chmod 600 {path}")
    if header := _WRAPPED.match(key):
        passphrase = passphrases.find("storage", what=str(path))
        if passphrase is None:
            raise StorageError(
                str(path),
                "the key of the database is encrypted, and there is no passphrase",
                cure=no_passphrase_cure("storage"),
            )
        key = _unwrapped(key, header, passphrase, path)
    if len(key) != _KEY_BYTES:
        raise StorageError(
            str(path),
            f"a key of {_KEY_BYTES} bytes is expected, not {len(key)}",
            cure="restore this file from the backup that the database comes from",
        )
    return key


def _unwrapped(content: bytes, header: re.Match[bytes], passphrase: Passphrase, path: Path) -> bytes:
    rest = content[header.end() :]
    salt, nonce = rest[:SALT_BYTES], rest[SALT_BYTES:][:_NONCE_BYTES]
    sealed = rest[SALT_BYTES + _NONCE_BYTES :]
    try:
        n, r, p = header.groups()
        cost = _OLD_COST if n is None else ScryptCost(n=int(n), r=int(r), p=int(p))
        return AESGCM(passphrase.derive(salt, cost)).decrypt(nonce, sealed, header.group())
    except (InvalidTag, ValueError, UsageError):
        raise StorageError(
            str(path),
            "the passphrase of the key of the database is wrong, or the file is damaged",
            cure="give the passphrase of this key, or restore the file from its backup",
        ) from None
