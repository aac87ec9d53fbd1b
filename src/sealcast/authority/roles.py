"""The roles of an authority, and which of them one process can have.

`est` enrols, `keys` hands out keys, `directory` lists streams and objects, `signer` holds the site CA's key.
The first three write one SQLite database, which has one writer: they are one process. The signer can be
another one.
"""

from enum import StrEnum

from sealcast.errors import ConfigError


class ServeRole(StrEnum):
    """A part of the work of `authority serve`."""

    EST = "est"
    KEYS = "keys"
    DIRECTORY = "directory"
    SIGNER = "signer"


SERVICE = frozenset({ServeRole.EST, ServeRole.KEYS, ServeRole.DIRECTORY})
"""All that opens the database and the network, and no CA key."""
SIGNER = frozenset({ServeRole.SIGNER})
ALL = SERVICE | SIGNER
"""One process for a small site."""


def parse_roles(text: str) -> frozenset[ServeRole]:
    """Read `est,keys,directory`. Raises: ConfigError: not a role, or roles that cannot be apart or alone."""
    words = [word.strip() for word in text.split(",")]
    for word in words:
        if word not in ServeRole.__members__.values():
            raise ConfigError(
                f"unknown role {word[:80]!r}", cure=f"there are: {', '.join(map(str, ServeRole))}"
            )
    roles = frozenset(map(ServeRole, words))
    if roles not in (SERVICE, SIGNER, ALL):
        raise ConfigError(
            f"the roles {','.join(words)} cannot be a process",
            cure="est, keys and directory write one SQLite database, which has one writer: "
            "use est,keys,directory and, apart from them, signer; or all four in one process",
        )
    return roles
