"""The code of parity."""

from __future__ import annotations

import hashlib

from tests.reference.parity import encode, symbol
from tests.reference.wire import HEADER_BYTES
from tests.vectors.cases.writing import Group, VectorFile

NOTES = {
    "Lengths": ("EDGE_CASE", "packets of several lengths; symbols are filled with zeros"),
    "Count": ("EDGE_CASE", "the smallest and the largest groups"),
}


def parity() -> VectorFile:
    group = Group("header and body of the packets of a group, in order, and the symbols of its parity")
    for sources, parities, lengths, flag in (
        (1, 1, (80,), "Count"),
        (1, 16, (65,), "Count"),
        (2, 1, (100, 100), None),
        (3, 2, (81, 90, 1242), "Lengths"),
        (8, 2, (96,) * 8, None),
        (8, 3, tuple(range(80, 88)), "Lengths"),
        (64, 16, (66,) * 64, "Count"),
    ):
        covered = [_bytes(f"{sources}+{parities} {place}", length) for place, length in enumerate(lengths)]
        symbols = [symbol(one[:HEADER_BYTES], one[HEADER_BYTES:]) for one in covered]
        group.valid(
            f"{sources}+{parities}",
            flags=(flag,) if flag else (),
            packets=covered,
            parities=parities,
            symbols=encode(symbols, parities),
        )
    return VectorFile("parity", ["DP-38", "DP-39"], NOTES, [group])


def _bytes(name: str, length: int) -> bytes:
    return hashlib.shake_128(name.encode()).digest(length)
