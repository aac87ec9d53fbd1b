"""Bodies of the side channel.

Spec: side-channel.md SC-3 to SC-5, SC-8, SC-33 to SC-36, SC-48 to SC-50, tables of sections 1 and 2.

A body is a map, and comes out as one: byte strings and numbers under the names of the specification. What
this version does not know is left out (SC-17).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from typing import Any

import cbor2

from tests.reference.credential import DEVICE_NAME, INSTANCE, MAX_BUNDLE_BYTES, encode
from tests.reference.wire import MAX_DATAGRAM_BYTES, SEQUENCE_END, MalformedError

MAX_RANGES = 64
MAX_PACKETS = 1024
MAX_EARLIER = 8
MAX_FILES = 1024
MAX_PIECE_RANGES = 1024
MAX_REASON_CHARACTERS = 80
MAX_REPORTS = 64
MAX_REPORT_BYTES = 256 << 10
MAX_MEMBER_CHARACTERS = 255
MAX_MESSAGES = 1024
MAX_TOPIC_BYTES = 255
MAX_INTERVAL_MS = 86_400_000
MAX_SLOTS = 32
"""No beacon commits to more (KM-15, KM-17)."""
ROLES = ("publish", "subscribe")
DEVICE = re.compile(rf"([0-9a-f]{{32}}:)?{DEVICE_NAME.pattern}")

OPTIONAL = ("earlier", "taken", "reports")

Read = Callable[[object], Any]


def parse(kind: str, body: bytes) -> dict[str, Any]:
    """The fields of a body; `kind`: one of `KINDS`. Raises MalformedError."""
    fields = _map(_decode(body), KINDS[kind])
    if kind == "loss report" and fields["lost"] > fields["sent"]:
        raise MalformedError("more lost than sent")
    return fields


def _decode(body: bytes) -> object:
    try:
        value = cbor2.loads(body)
        same = encode(value) == body
    except (cbor2.CBORError, ValueError, TypeError, OverflowError, RecursionError, EOFError) as error:
        raise MalformedError("not CBOR") from error
    if not same:
        raise MalformedError("not in deterministic encoding, or bytes behind it")
    return value


def _map(
    value: object, known: dict[str, Read], *, optional: tuple[str, ...] = ("earlier",)
) -> dict[str, Any]:
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
        raise MalformedError("not a map with text keys")
    if missing := [name for name in known if name not in value and name not in OPTIONAL]:
        raise MalformedError(f"without {missing}")
    return {name: read(value[name]) for name, read in known.items() if name in value}


def _uint(limit: int) -> Read:
    """Below `limit`."""

    def read(value: object) -> int:
        if type(value) is not int or not 0 <= value < limit:
            raise MalformedError("not an unsigned integer of this size")
        return value

    return read


def _octets(length: int | None = None, most: int | None = None) -> Read:
    def read(value: object) -> bytes:
        if not isinstance(value, bytes) or (length is not None and len(value) != length):
            raise MalformedError("not a byte string of this length")
        if most is not None and len(value) > most:
            raise MalformedError("too long a byte string")
        return value

    return read


def _text(*allowed: str, form: re.Pattern[str] | None = None) -> Read:
    def read(value: object) -> str:
        if not isinstance(value, str) or (allowed and value not in allowed):
            raise MalformedError("not a text that may stand here")
        if form is not None and not form.fullmatch(value):
            raise MalformedError("not a text of this form")
        return value

    return read


def _or_null(read: Read) -> Read:
    return lambda value: None if value is None else read(value)


def _array(*reads: Read) -> Read:
    def read(value: object) -> list[Any]:
        if not isinstance(value, list) or len(value) != len(reads):
            raise MalformedError("not an array of this many items")
        return [each(item) for each, item in zip(reads, value, strict=True)]

    return read


def _list(each: Read, most: int) -> Read:
    def read(value: object) -> list[Any]:
        if not isinstance(value, list) or len(value) > most:
            raise MalformedError("not an array of at most so many items")
        return [each(item) for item in value]

    return read


def _range(value: object) -> list[int]:
    first, last = _array(_uint(SEQUENCE_END), _uint(SEQUENCE_END))(value)
    if first > last:
        raise MalformedError("a range that ends before it begins")
    return [first, last]


def _piece_range(value: object) -> list[int]:
    first, last = _array(_uint(2**64), _uint(2**64))(value)
    if first > last:
        raise MalformedError("a range that ends before it begins")
    return [first, last]


def _pieces(value: object) -> list[Any]:
    ranges: list[Any] = _list(_piece_range, MAX_PIECE_RANGES)(value)
    if not ranges:
        raise MalformedError("no range")
    return ranges


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise MalformedError("neither true nor false")
    return value


def _short(value: object) -> str:
    text: str = _text()(value)
    if len(text) > MAX_REASON_CHARACTERS:
        raise MalformedError("too long a text")
    return text


def _member(value: object) -> str:
    text: str = _text()(value)
    if len(text) > MAX_MEMBER_CHARACTERS:
        raise MalformedError("too long a name")
    return text


def _topic(value: object) -> str:
    text: str = _text()(value)
    if len(text.encode()) > MAX_TOPIC_BYTES:
        raise MalformedError("too long a topic")
    return text


def _messages(value: object) -> list[Any]:
    each = _array(_octets(16), _or_null(_topic), _uint(1 << 63), _octets())
    messages: list[Any] = _list(each, MAX_MESSAGES)(value)
    if not messages:
        raise MalformedError("no message")
    return messages


def _stored(value: object) -> int:
    count: int = _uint(MAX_MESSAGES + 1)(value)
    if count == 0:
        raise MalformedError("none stored")
    return count


_HOST_LABEL = "[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOST_NAME = re.compile(rf"{_HOST_LABEL}(\.{_HOST_LABEL})*")


def _endpoint(value: object) -> list[Any]:
    host, port = _array(_text(), _uint(1 << 16))(value)
    if port == 0 or not (_is_address(host) or (len(host) <= 253 and _HOST_NAME.fullmatch(host))):
        raise MalformedError("no host or no port")
    return [host, port]


def _is_address(host: str) -> bool:
    try:
        return "%" not in str(ipaddress.ip_address(host))
    except ValueError:
        return False


_UINT64 = _uint(1 << 64)
_DATAGRAM = _octets(most=MAX_DATAGRAM_BYTES)
_SECRET = _octets(32)
_KEYS: dict[str, Read] = {
    "beacon": _DATAGRAM,
    "slots": _list(_array(_uint(1 << 24), _SECRET), MAX_SLOTS),
    "generation": _array(_uint(1 << 32), _uint(1 << 8), _SECRET),
    "time": _UINT64,
    "earlier": _list(_array(_uint(1 << 32), _SECRET, _DATAGRAM), MAX_EARLIER),
}
_STREAM: dict[str, Read] = {
    "stream": _octets(16),
    "device": _text(form=DEVICE),
    "instance": _text(form=INSTANCE),
    "credential": _octets(most=MAX_BUNDLE_BYTES),
    "head": _or_null(_DATAGRAM),
    "endpoint": _or_null(_endpoint),
}
KINDS: dict[str, dict[str, Read]] = {
    "join request": {"role": _text(*ROLES)},
    "join reply": {
        **_KEYS,
        "policy": _octets(),
        "crl": _octets(),
        "issuers": _list(_octets(), 8),
        "key-server": _octets(most=MAX_BUNDLE_BYTES),
        "streams": _list(lambda value: _map(value, _STREAM), 1 << 12),
    },
    "keys reply": _KEYS,
    "poll request": {"counter": _UINT64},
    "poll reply": {"beacon": _DATAGRAM},
    "repair request": {
        "channel": _octets(32),
        "stream": _octets(16),
        "ranges": _list(_range, MAX_RANGES),
    },
    "follow request": {
        "channel": _octets(32),
        "stream": _octets(16),
        "from": _uint(SEQUENCE_END + 1),
    },
    "repair reply": {
        "packets": _list(_DATAGRAM, MAX_PACKETS),
        "oldest": _uint(SEQUENCE_END + 1),
        "head": _or_null(_DATAGRAM),
    },
    "wanted request": {
        "channel": _octets(32),
        "stream": _octets(16),
        "number": _uint(1 << 63),
        "packets": _list(_DATAGRAM, MAX_PACKETS),
        "oldest": _uint(SEQUENCE_END + 1),
        "head": _or_null(_DATAGRAM),
        "taken": _list(_uint(1 << 63), MAX_REPORTS),
    },
    "wanted reply": {
        "number": _uint(1 << 63),
        "ranges": _list(_range, MAX_RANGES),
        "reports": _list(_array(_uint(1 << 63), _member, _octets(most=MAX_REPORT_BYTES)), MAX_REPORTS),
    },
    "file report": {
        "channel": _octets(32),
        "stream": _octets(16),
        "round": _uint(2**64),
        "busy": _flag,
        "whole": _list(_octets(16), MAX_FILES),
        "refused": _list(_array(_octets(16), _short), MAX_FILES),
        "missing": _list(_array(_octets(16), _pieces), MAX_FILES),
    },
    "loss report": {
        "channel": _octets(32),
        "stream": _octets(16),
        "lost": _uint(SEQUENCE_END + 1),
        "sent": _uint(SEQUENCE_END + 1),
    },
    "loss reply": {"interval": _uint(MAX_INTERVAL_MS + 1)},
    "channels request": {"known": _octets(32)},
    "endpoint": {"endpoint": _or_null(_endpoint)},
    "inbox request": {"messages": _messages},
    "inbox reply": {"stored": _stored},
}
