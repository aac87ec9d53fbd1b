"""A secret of 32 bytes that no log, message or traceback can show by accident."""

from hmac import compare_digest
from typing import NoReturn

SECRET_BYTES = 32
"""Length of a slot, generation or step secret (KM-3)."""


class Secret:
    """32 secret bytes behind a name that has to be asked for.

    `repr` and `str` are redacted, comparison takes constant time, and the value can be neither hashed nor
    pickled. CPython keeps no promise about wiping memory, so this protects from disclosure by text, not
    from a core dump (the command line switches core dumps off).
    """

    __slots__ = ("_value",)

    def __init__(self, value: bytes) -> None:
        """Take `value`: exactly 32 bytes.

        Raises:
            ValueError: the length is another one.
        """
        if len(value) != SECRET_BYTES:
            raise ValueError(f"a secret has {SECRET_BYTES} bytes, not {len(value)}")
        self._value = bytes(value)

    def reveal(self) -> bytes:
        """The 32 bytes, for a derivation, for encryption at rest, or for a reply to an authorised member."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(…)"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and compare_digest(self._value, other._value)

    __hash__ = None  # type: ignore[assignment]  # a dict of secrets would compare them in variable time

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not pickled")
