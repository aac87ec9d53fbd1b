"""The names that a policy lists: sorted by their bytes, none twice, with their encoding at hand.

A list may hold every device of a large site, and changes by one name at a time. So it is kept in blocks that
hold their part of the encoding: what comes of a change shares every other block with what was before, and no
name is looked at again. Spec: spec/trust.md TR-13.
"""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from operator import lt
from typing import overload

from sealcast.errors import UsageError
from sealcast.pki.names import DEVICE_NAME, check_device_name, parse_site_id
from sealcast.pki.signed import array_head, decode_texts, encode_texts

BLOCK_NAMES = 128
"""In a fresh block: some 2 KB, which is what a change writes."""

_MOST = 2 * BLOCK_NAMES
_FEWEST = BLOCK_NAMES // 4
_MEMBER = f"(?:[0-9a-f]{{32}}:)?{DEVICE_NAME}+"
# Possessive: a name that does not fit is not tried in pieces.
_MEMBERS = re.compile(f"{_MEMBER}(?:\n{_MEMBER})*+")


class NameBlock:
    """A run of names; never changed. `names` are read from the encoding when they are first asked for."""

    __slots__ = ("_names", "count", "encoded", "first")

    def __init__(self, first: str, count: int, encoded: bytes, names: tuple[str, ...] | None = None) -> None:
        """Take what is known to fit each other."""
        self.first = first
        self.count = count
        self.encoded = encoded
        self._names = names

    @classmethod
    def of(cls, names: tuple[str, ...]) -> "NameBlock":
        """Make a block of sorted names, at least one."""
        return cls(names[0], len(names), encode_texts(names), names)

    @property
    def names(self) -> tuple[str, ...]:
        """In their order."""
        if self._names is None:
            self._names = decode_texts(self.encoded, self.count)
        return self._names


class Names(Sequence[str]):
    """A list of names; never changed. Equal to every sequence of the same names in the same order."""

    __slots__ = ("_count", "_firsts", "blocks")

    def __init__(self, blocks: Iterable[NameBlock] = ()) -> None:
        """Take blocks in their order; for names use `of`."""
        self.blocks = tuple(blocks)
        self._firsts = [block.first for block in self.blocks]
        self._count = sum(block.count for block in self.blocks)

    @classmethod
    def of(cls, names: Iterable[str]) -> "Names":
        """Take names. Raises: UsageError: not sorted, one twice, or one that no policy may list."""
        listed = tuple(names)
        if not all(map(lt, listed, islice(listed, 1, None))):
            raise UsageError("the members of a policy must be sorted, none twice")
        _check(listed)
        return cls(NameBlock.of(part) for part in _parts(listed))

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[str]:
        for block in self.blocks:
            yield from block.names

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[str, ...]: ...
    def __getitem__(self, index: int | slice) -> str | tuple[str, ...]:
        if isinstance(index, slice):
            start, stop, step = index.indices(self._count)
            return tuple(islice(self, start, stop, step)) if step > 0 else tuple(self)[index]
        place = index + self._count if index < 0 else index
        if not 0 <= place < self._count:
            raise IndexError(index)
        return next(islice(self, place, None))

    def __contains__(self, name: object) -> bool:
        if not isinstance(name, str):
            return False
        at = bisect_right(self._firsts, name) - 1
        if at < 0:
            return False
        names = self.blocks[at].names
        place = bisect_left(names, name)
        return place < len(names) and names[place] == name

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Names):
            if self is other or self._count != other._count:
                return self is other
            # Of lists that come from each other, mostly the same blocks.
            mine = [block.encoded for block in self.blocks]
            return mine == [block.encoded for block in other.blocks] or self.encode() == other.encode()
        if isinstance(other, Sequence) and not isinstance(other, str | bytes):
            return self._count == len(other) and tuple(self) == tuple(other)
        return NotImplemented

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __repr__(self) -> str:
        more = ", …" if self._count > 3 else ""
        return f"Names({', '.join(map(repr, islice(self, 3)))}{more})"

    def encode(self) -> bytes:
        """The deterministic encoding of the whole list."""
        return array_head(self._count) + b"".join([block.encoded for block in self.blocks])

    def adding(self, name: str) -> "Names":
        """This list with one more name. Raises: UsageError: no policy may list it."""
        _check((name,))
        if name in self:
            return self
        if not self.blocks:
            return Names([NameBlock.of((name,))])
        at = max(0, bisect_right(self._firsts, name) - 1)
        names = self.blocks[at].names
        place = bisect_left(names, name)
        return self._replacing(at, (*names[:place], name, *names[place:]))

    def removing(self, name: str) -> "Names":
        """This list without a name."""
        if name not in self:
            return self
        at = bisect_right(self._firsts, name) - 1
        return self._replacing(at, tuple(known for known in self.blocks[at].names if known != name))

    def beyond(self, other: "Names") -> list[str]:
        """Those names that `other` does not have, in order; blocks that both have are passed over."""
        mine = {block.encoded for block in self.blocks}
        theirs = {block.encoded for block in other.blocks}
        known = {name for block in other.blocks if block.encoded not in mine for name in block.names}
        return [
            name
            for block in self.blocks
            if block.encoded not in theirs
            for name in block.names
            if name not in known
        ]

    def _replacing(self, at: int, names: tuple[str, ...]) -> "Names":
        """This list with other names in a block, which is divided or joined with the next as they need."""
        end = at + 1
        if len(names) < _FEWEST and end < len(self.blocks) and len(names) + self.blocks[end].count <= _MOST:
            names += self.blocks[end].names
            end += 1
        parts = _parts(names) if len(names) > _MOST else ((names,) if names else ())
        return Names((*self.blocks[:at], *map(NameBlock.of, parts), *self.blocks[end:]))


def check_member(member: str) -> str:
    """Return `member` if it is a device name, or `<site id>:<name>`; raise UsageError otherwise. Spec.

    TR-13.
    """
    site, colon, name = member.rpartition(":")
    if colon:
        parse_site_id(site)
    check_device_name(name)
    return member


def _check(names: Sequence[str]) -> None:
    """Check all at once, and name the one that is bad."""
    text = "\n".join(names)
    if names and (text.count("\n") != len(names) - 1 or _MEMBERS.fullmatch(text) is None):
        for name in names:
            check_member(name)


def _parts(names: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    return (names[start : start + BLOCK_NAMES] for start in range(0, len(names), BLOCK_NAMES))
