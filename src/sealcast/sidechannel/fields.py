"""Reading one decoded CBOR map with a strict schema.

Types, ranges and lengths are checked; a missing field is refused. A field that this version does not know is
ignored, as an unknown packet type is, so that a later version can add one (SC-17).

Spec: spec/README.md (deterministic CBOR), spec/side-channel.md.
"""

from collections.abc import Callable
from typing import Any, TypeVar

from sealcast.errors import CertificateError, NetworkError
from sealcast.pki.signed import decode_cbor

Item = TypeVar("Item")

UINT64 = 2**64 - 1
SEQUENCE_LIMIT = 2**62
"""DP-4: `first sequence + count` is at most this."""


class MalformedMessageError(NetworkError):
    """A body that is not what the spec says; a server answers it with `malformed-request`."""

    default_cure = "use the same version of Sealcast on both sides"


class Fields:
    """One map of a message; each method reads one field."""

    def __init__(self, value: object, what: str) -> None:
        """Read `value`, which came from the peer; `what` names the message in errors."""
        if not isinstance(value, dict):
            raise MalformedMessageError(f"malformed {what}: not a map")
        self._map: dict[str, Any] = value
        self._what = what

    @staticmethod
    def parse(data: bytes, what: str) -> "Fields":
        """Decode `data`, which has to be one map in deterministic CBOR."""
        try:
            return Fields(decode_cbor(data), what)
        except CertificateError as error:
            raise MalformedMessageError(f"malformed {what}: {error}") from None

    def __contains__(self, name: str) -> bool:
        return name in self._map

    def uint(self, name: str, *, most: int = UINT64) -> int:
        """An unsigned integer up to `most`."""
        return self.as_uint(self._get(name), name, most=most)

    def flag(self, name: str) -> bool:
        """True or false."""
        value = self._get(name)
        if not isinstance(value, bool):
            raise self.fault(name, "neither true nor false")
        return value

    def bytes_(self, name: str, *, length: int | None = None, most: int = 2**26) -> bytes:
        """A byte string, of exactly `length` or up to `most` bytes."""
        return self.as_bytes(self._get(name), name, length=length, most=most)

    def bytes_or_none(self, name: str, *, most: int) -> bytes | None:
        """A byte string of up to `most` bytes, or null."""
        value = self._get(name)
        return None if value is None else self.as_bytes(value, name, most=most)

    def text(self, name: str, *, most: int = 255) -> str:
        """A text string of up to `most` characters."""
        return self.as_text(self._get(name), name, most=most)

    def items(self, name: str, read: Callable[[Any], Item], *, most: int) -> tuple[Item, ...]:
        """An array of up to `most` items, each of which `read` accepts."""
        value = self._get(name)
        if not isinstance(value, list):
            raise self.fault(name, "not an array")
        if len(value) > most:
            raise self.fault(name, f"{len(value)} items, at most {most} allowed")
        return tuple(read(item) for item in value)

    def tuple_(self, name: str, size: int) -> list[Any]:
        """An array of exactly `size` items, not yet checked."""
        return self.as_tuple(self._get(name), name, size)

    def tuple_or_none(self, name: str, size: int) -> list[Any] | None:
        """An array of exactly `size` items, not yet checked, or null."""
        value = self._get(name)
        return None if value is None else self.as_tuple(value, name, size)

    def as_uint(self, value: object, name: str, *, most: int = UINT64) -> int:
        """Check one value as `uint` does."""
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
            raise self.fault(name, f"not an integer of 0..{most}")
        return value

    def as_bytes(self, value: object, name: str, *, length: int | None = None, most: int = 2**26) -> bytes:
        """Check one value as `bytes_` does."""
        if not isinstance(value, bytes):
            raise self.fault(name, "not a byte string")
        if (length is not None and len(value) != length) or len(value) > most:
            raise self.fault(name, f"{len(value)} bytes")
        return value

    def as_text(self, value: object, name: str, *, most: int = 255) -> str:
        """Check one value as `text` does."""
        if not isinstance(value, str) or len(value) > most:
            raise self.fault(name, f"not a text of at most {most} characters")
        return value

    def as_tuple(self, value: object, name: str, size: int) -> list[Any]:
        """Check one value as `tuple_` does."""
        if not isinstance(value, list) or len(value) != size:
            raise self.fault(name, f"not an array of {size}")
        return value

    def fault(self, name: str, problem: str) -> MalformedMessageError:
        """The error that names the field."""
        return MalformedMessageError(f"malformed {self._what}: {name}: {problem}")

    def _get(self, name: str) -> Any:
        if name not in self._map:
            raise self.fault(name, "missing")
        return self._map[name]
