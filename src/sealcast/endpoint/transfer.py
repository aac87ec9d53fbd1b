"""What goes over a channel when files do: offers, parts, questions; and what applications are told of it.

A file is offered by name, size and hash, and cut into pieces. A receiver takes pieces in any order and from
any stream of the publisher, and says over the side channel which it lacks, when it is asked: so it makes no
difference who of both was interrupted.

Spec: spec/side-channel.md section 4.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import cbor2

from sealcast.errors import CertificateError
from sealcast.pki.signed import decode_array, encode_cbor

TOPIC = "sealcast.file"
PIECE_BYTES = 256 << 10
MAX_SIZE = 1 << 44
"""Bytes of a file (SC-13)."""
MAX_OFFERS = 512
"""That are open at a time on a stream (SC-46)."""
MAX_SPREAD_MILLISECONDS = 10_000
MAX_PARTS_A_NAME = 32
MAX_NAME_BYTES = 1024

_ID_BYTES = 16
_MAX_COUNT = 2**32
_PART_HEAD = bytes([0x84, 0x64]) + b"part" + bytes([0x40 + _ID_BYTES])
_BYTE_STRING = 0x40
_UINT_BYTES = {24: 1, 25: 2, 26: 4, 27: 8}


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a file has come."""

    name: str
    size: int
    """Bytes."""
    done: int
    """Bytes sent, or received and written, or there before."""
    number: int = 0
    """Of the files of a run, from 0."""
    count: int = 1
    """Files, and empty folders, of the run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedFile:
    """A whole file: hash checked, in its place."""

    path: Path
    size: int
    sha256: bytes
    publisher: str
    """As the channel's policy writes it: a name, or `<site id>:<name>` of another site."""
    was_there: bool = False
    """It was in its place already, byte for byte."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SentFile:
    """A file that was sent, and who has it."""

    path: Path
    name: str
    """As receivers see it, with `/` between folders."""
    size: int
    sha256: bytes
    receivers: tuple[str, ...]
    """Devices that have said to have it whole, sorted."""


OnProgress = Callable[[Progress], None]
OnLoss = Callable[[str], None]
"""Is told of a loss, in one line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """A file that is to be had, or an empty folder."""

    number: int
    """Among those of the run, from 0."""
    count: int
    """Of the run."""
    name: str
    size: int
    sha256: bytes | None
    """None: an empty folder."""

    @property
    def id(self) -> bytes:
        """16 bytes that follow from name and content: the same file has the same id in every run (SC-13)."""
        return hashlib.sha256(b"sealcast file" + encode_cbor([self.name, self.size, self.sha256])).digest()[
            :_ID_BYTES
        ]

    @property
    def pieces(self) -> int:
        """How many there are."""
        return -(-self.size // PIECE_BYTES)

    def length(self, piece: int) -> int:
        """Bytes of a piece."""
        return min(PIECE_BYTES, self.size - piece * PIECE_BYTES)

    def serialize(self) -> bytes:
        """The message."""
        return encode_cbor(["offer", self.number, self.count, self.name, self.size, self.sha256])


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One piece of a file."""

    file: bytes
    """The offer's id."""
    offset: int
    data: memoryview

    def serialize(self) -> bytes:
        """The message."""
        length = cbor2.dumps(len(self.data))
        head = bytes([length[0] | _BYTE_STRING]) + length[1:]
        return b"".join((_PART_HEAD, self.file, cbor2.dumps(self.offset), head, self.data))

    @classmethod
    def parse(cls, message: bytes) -> Self | None:
        """Read a message without copying its data, as most of what goes over a channel is this."""
        try:
            at = len(_PART_HEAD) + _ID_BYTES
            offset, at = _read_uint(message, at, 0)
            length, at = _read_uint(message, at, _BYTE_STRING)
        except IndexError:
            return None
        if offset < 0 or length != len(message) - at:
            return None
        return cls(
            file=message[len(_PART_HEAD) : len(_PART_HEAD) + _ID_BYTES],
            offset=offset,
            data=memoryview(message)[at:],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """What do you lack of what was offered?"""

    round: int
    spread_milliseconds: int
    """The answers are to come spread over this time."""

    def serialize(self) -> bytes:
        """The message."""
        return encode_cbor(["ask", self.round, self.spread_milliseconds])


@dataclass(frozen=True, slots=True, kw_only=True)
class Withdrawal:
    """The file has changed: what was offered is not to be had any more."""

    file: bytes

    def serialize(self) -> bytes:
        """The message."""
        return encode_cbor(["withdraw", self.file])


FileMessage = Offer | Part | Ask | Withdrawal


def parse_message(message: bytes) -> FileMessage | None:
    """Read a message of the topic; None if it is none of the spec."""
    if message.startswith(_PART_HEAD):
        return Part.parse(message)
    try:
        fields = decode_array(message)
    except CertificateError:
        return None
    match fields:
        case ["offer", int(number), int(count), str(name), int(size), bytes() | None as sha256] if (
            number < count <= _MAX_COUNT
            and size <= (0 if sha256 is None else MAX_SIZE)
            and len(sha256 or bytes(32)) == 32
        ):
            return Offer(number=number, count=count, name=name, size=size, sha256=sha256)
        case ["ask", int(round), int(spread)]:
            return Ask(round=round, spread_milliseconds=min(spread, MAX_SPREAD_MILLISECONDS))
        case ["withdraw", bytes(file)]:
            return Withdrawal(file=file)
    return None


def _read_uint(message: bytes, at: int, major: int) -> tuple[int, int]:
    """Read an integer, or the length of a byte string, in its shortest form; -1 if it is none."""
    short = message[at] - major
    if 0 <= short < 24:
        return short, at + 1
    size = _UINT_BYTES.get(short, 0)
    value = int.from_bytes(message[at + 1 : at + 1 + size])
    if not size or at + 1 + size > len(message) or value < (24 if size == 1 else 1 << (4 * size)):
        return -1, at
    return value, at + 1 + size
