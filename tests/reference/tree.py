"""The Merkle tree over a block. Spec: wire.md section 3 (DP-7, DP-8, DP-9)."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

from blake3 import blake3

from tests.reference.wire import NODE_BYTES, MalformedError

BLAKE3_SUITE = 3
_CONTEXT = "sealcast/1 block tree"
_LEAF_KEY, _NODE_KEY = (
    blake3(bytes((tag, BLAKE3_SUITE)), derive_key_context=_CONTEXT).digest() for tag in (0x00, 0x01)
)
_BLOCK_BYTES = 64


def leaf(suite: int, block_id: bytes, index: int, header: bytes, body: bytes) -> bytes:
    """SHA-256(0x00 | s | B | 0x00 | i | header | body), or keyed BLAKE3 of header and body; 32 bytes."""
    if suite == BLAKE3_SUITE:
        covered = header + body + b"\x80"
        return blake3(covered + bytes(-len(covered) % _BLOCK_BYTES), key=_LEAF_KEY).digest()
    return sha256(bytes((0x00, suite)) + block_id + bytes((0x00, index)) + header + body).digest()


def node(suite: int, block_id: bytes, level: int, place: int, left: bytes, right: bytes) -> bytes:
    """SHA-256(0x01 | s | B | l | j | left | right), of 16 bytes of each child; or keyed BLAKE3."""
    content = bytes((0x01, suite)) + block_id + bytes((level, place)) + left[:NODE_BYTES] + right[:NODE_BYTES]
    if suite == BLAKE3_SUITE:
        return blake3(content + bytes(_BLOCK_BYTES - len(content)), key=_NODE_KEY).digest()
    return sha256(content).digest()


def levels(suite: int, block_id: bytes, leaves: Sequence[bytes]) -> list[list[bytes]]:
    """Every level of the tree, leaves first, the root last; a last node without sibling rises unchanged."""
    tree = [list(leaves)]
    while len(tree[-1]) > 1:
        below = tree[-1]
        tree.append(
            [
                node(suite, block_id, len(tree), at // 2, below[at], below[at + 1])
                if at + 1 < len(below)
                else below[at]
                for at in range(0, len(below), 2)
            ]
        )
    return tree


def path(tree: Sequence[Sequence[bytes]], index: int) -> tuple[bytes, ...]:
    """The truncated siblings of leaf `index`, leaf level first."""
    siblings = []
    for level in tree[:-1]:
        if index ^ 1 < len(level):
            siblings.append(level[index ^ 1][:NODE_BYTES])
        index //= 2
    return tuple(siblings)


def root_of(
    suite: int, block_id: bytes, index: int, count: int, leaf_hash: bytes, siblings: Sequence[bytes]
) -> bytes:
    """The root that a leaf and its path lead to; raises MalformedError if the path has another length."""
    current, width, level, left = leaf_hash, count, 0, list(siblings)
    while width > 1:
        level += 1
        if not (index % 2 == 0 and index == width - 1):
            if not left:
                raise MalformedError("the path is too short")
            sibling = left.pop(0)
            pair = (current, sibling) if index % 2 == 0 else (sibling, current)
            current = node(suite, block_id, level, index // 2, *pair)
        index, width = index // 2, (width + 1) // 2
    if left:
        raise MalformedError("the path is too long")
    return current
