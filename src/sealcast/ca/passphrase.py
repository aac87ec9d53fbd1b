"""Passphrases of keys at rest: where they come from, and what is made of them.

A passphrase is never an argument of a command, which every user of the machine could read, and never in a
text. It comes, in this order, from a file, from the environment, from a systemd credential, or from a prompt.
Spec: RFC 7914 (scrypt).
"""

import getpass
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from sealcast import system
from sealcast.errors import StorageError, UsageError
from sealcast.pki.files import read_file, storage_errors

ENVIRONMENT = "SEALCAST_PASSPHRASE"
"""The passphrase itself. `SEALCAST_PASSPHRASE_FILE` names a file; `SEALCAST_STORAGE_PASSPHRASE` and
`SEALCAST_STORAGE_PASSPHRASE_FILE` are for that key alone, and so on for each name of a key."""

CREDENTIALS = "CREDENTIALS_DIRECTORY"
"""Set by systemd for a unit with `LoadCredential=` or `LoadCredentialEncrypted=`."""

MAX_PASSPHRASE_BYTES = 1024

SALT_BYTES = 16

_MOST_BYTES = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class ScryptCost:
    """What a guess costs (RFC 7914); each file says by which it was made."""

    n: int
    """A power of 2. A guess takes 128 · n · r bytes of memory."""
    r: int
    p: int

    def __post_init__(self) -> None:
        """Refuse what no file of ours says: its reader would be kept busy. Raises: UsageError."""
        if not (self.n > 1 and self.n & (self.n - 1) == 0 and self.r > 0 and self.p > 0) or (
            128 * self.n * self.r > _MOST_BYTES or 128 * self.n * self.r * self.p > 4 * _MOST_BYTES
        ):
            raise UsageError(f"not a cost of scrypt: n {self.n}, r {self.r}, p {self.p}")


COST = ScryptCost(n=2**14, r=8, p=8)
"""0.3 s of a core and 16 MiB a guess. The memory stays below what `openssl pkey` agrees to read (32 MiB), the
repetition makes up for it."""


class Passphrase:
    """A passphrase behind a name that has to be asked for; no text shows it."""

    __slots__ = ("_value", "cost")

    def __init__(self, value: bytes, cost: ScryptCost = COST) -> None:
        """Take `value`: 1 to 1,024 bytes. `cost`: of what is encrypted under it. Raises: UsageError."""
        if not 1 <= len(value) <= MAX_PASSPHRASE_BYTES:
            raise UsageError(
                f"a passphrase has 1 to {MAX_PASSPHRASE_BYTES} bytes, not {len(value)}",
                cure="give another passphrase",
            )
        self._value = value
        self.cost = cost

    def derive(self, salt: bytes, cost: ScryptCost) -> bytes:
        """The key-encryption key of 32 bytes: scrypt over the passphrase. `salt`: random, 16 bytes."""
        return Scrypt(salt=salt, length=32, n=cost.n, r=cost.r, p=cost.p).derive(self._value)

    def reveal(self) -> bytes:
        """The passphrase itself, for a library that derives by itself."""
        return self._value

    def __repr__(self) -> str:
        return "Passphrase(…)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a passphrase is not pickled")


def prompt_on_terminal(text: str) -> str | None:
    """Ask whoever sits at the terminal; None where nobody does."""
    return getpass.getpass(text) if sys.stdin is not None and sys.stdin.isatty() else None


@dataclass(frozen=True, slots=True, kw_only=True)
class PassphraseSource:
    """Finds the passphrase of a key, and only when that key turns out to be encrypted."""

    file: Path | None = None
    """A file whose first line it is; comes before everything else."""
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ, repr=False)
    prompt: Callable[[str], str | None] | None = prompt_on_terminal
    """Asks a person with a text; None: nobody is asked."""
    cost: ScryptCost = COST
    """Of what is encrypted under a passphrase from here."""

    def find(self, name: str, *, what: str = "") -> Passphrase | None:
        """Return the passphrase of a key, or None where no source has one.

        `name`: of the key: `ca`, `root` or `storage`. `what`: its file, for the prompt.
        Raises: StorageError if a file that was named cannot be read, or may be read by others.
        """
        own = ENVIRONMENT.replace("_PASSPHRASE", f"_{name.upper()}_PASSPHRASE")
        if self.file is not None:
            return read_passphrase(self.file, self.cost)
        for variable in (own, ENVIRONMENT):
            if path := self.environment.get(f"{variable}_FILE"):
                return read_passphrase(Path(path), self.cost)
            if text := self.environment.get(variable):
                return Passphrase(os.fsencode(text), self.cost)
        if folder := self.environment.get(CREDENTIALS):
            credential = Path(folder) / f"sealcast-{name}"
            if credential.exists():
                # systemd keeps others out by the folder, and by an access list that shows in the mode.
                return _first_line(credential, self.cost)
        text = self.prompt(f"passphrase of {what or name}: ") if self.prompt is not None else None
        return Passphrase(text.encode(), self.cost) if text else None


def read_passphrase(path: Path, cost: ScryptCost = COST) -> Passphrase:
    """Read the first line of a file.

    Raises: StorageError if it cannot be read, is empty, or may be read by others.
    """
    with storage_errors(path):
        mode = path.stat().st_mode
    if mode & system.OTHERS_MAY_READ:
        raise StorageError(
            str(path),
            f"a passphrase that others may read (mode {mode & 0o777:04o})",
            cure=f"chmod 600 {path}, and think about whether it leaked",
        )
    return _first_line(path, cost)


def _first_line(path: Path, cost: ScryptCost) -> Passphrase:
    line = read_file(path, MAX_PASSPHRASE_BYTES + 2).split(b"\n", 1)[0].removesuffix(b"\r")
    if not line:
        raise StorageError(str(path), "holds no passphrase", cure="write it into the first line")
    return Passphrase(line, cost)


NO_PASSPHRASE = PassphraseSource(environment={}, prompt=None)
"""For keys that must not be encrypted: a device's, which starts with nobody at hand."""
