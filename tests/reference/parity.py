"""Parity packets and their code. Spec: wire.md section 11 (DP-37 to DP-39)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from tests.reference.wire import SEQUENCE_END, MalformedError

MAX_PARITY_COUNT = 16
"""Packets of a block."""
_KNOWN_BYTES = 22
_MIN_SYMBOL_BYTES = 2 + 64 - _KNOWN_BYTES + 1
_POLYNOMIAL = 0x11D


@dataclass(frozen=True, slots=True, kw_only=True)
class Parity:
    """The body of a parity packet."""

    first_sequence: int
    stride: int
    sources: int
    parities: int
    index: int
    delay_ms: int
    symbol: bytes

    def serialize(self) -> bytes:
        description = bytes((self.stride, self.sources, self.parities, self.index))
        return self.first_sequence.to_bytes(8) + description + self.delay_ms.to_bytes(2) + self.symbol

    @classmethod
    def parse(cls, body: bytes) -> Self:
        if len(body) < 14 + _MIN_SYMBOL_BYTES:
            raise MalformedError("a parity packet that is too short")
        first, (stride, sources, parities, index) = int.from_bytes(body[:8]), body[8:12]
        if not (1 <= stride <= 16 and 1 <= sources <= 64 and 1 <= parities <= 16 and index < parities):
            raise MalformedError("a description of no FEC group")
        if first >= SEQUENCE_END - 64 * 16:
            raise MalformedError("a group beyond the end of all sequences")
        return cls(
            first_sequence=first,
            stride=stride,
            sources=sources,
            parities=parities,
            index=index,
            delay_ms=int.from_bytes(body[12:14]),
            symbol=body[14:],
        )


def symbol(header: bytes, body: bytes) -> bytes:
    """DP-38, before it is filled with zeros."""
    part = header[_KNOWN_BYTES:] + body
    return len(part).to_bytes(2) + part


def encode(symbols: Sequence[bytes], parities: int) -> list[bytes]:
    """DP-39: the parity symbols of the symbols of a group."""
    length, count = max(map(len, symbols)), len(symbols)
    made = []
    for index in range(parities):
        total = bytearray(length)
        for place, one in enumerate(symbols):
            weight = _inverse((count + index) ^ place)
            for at, byte in enumerate(one):
                total[at] ^= _multiply(weight, byte)
        made.append(bytes(total))
    return made


def _multiply(one: int, other: int) -> int:
    product = 0
    while other:
        product ^= one * (other & 1)
        one, other = one << 1, other >> 1
        one ^= _POLYNOMIAL * (one >> 8)
    return product


def _inverse(value: int) -> int:
    return next(other for other in range(1, 256) if _multiply(value, other) == 1)
