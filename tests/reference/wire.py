"""The datagram and the variable-length integer. Spec: wire.md sections 2 and 3 (DP-4, DP-6, DP-9)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

CONNECTION_ID = bytes.fromhex("5345414c")
VERSION = 1
HEADER_BYTES = 64
NODE_BYTES = 16
SIGNATURE_BYTES = 64
GATE_TAG_BYTES = 8
TRAILER_BYTES = SIGNATURE_BYTES + GATE_TAG_BYTES
AEAD_TAG_BYTES = 16
MAX_COUNT = 64
MAX_CREDENTIAL_COUNT = 8
MAX_DATAGRAM_BYTES = 65_507
SEQUENCE_END = 1 << 62
"""One above the largest value that a varint, and so a sequence, can have."""


class MalformedError(Exception):
    """The bytes are not what the specification says they are."""


class PacketType(IntEnum):
    DATA = 1
    PARITY = 2
    HEARTBEAT = 3
    CREDENTIAL = 4
    BEACON = 5
    REKEY = 6
    ROOT = 7


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Epoch:
    """The number of a group key (KM-1)."""

    slot: int
    generation: int
    step: int

    def serialize(self) -> bytes:
        """The 8 bytes in header order: slot 3, step 1, generation 4."""
        return self.slot.to_bytes(3) + self.step.to_bytes(1) + self.generation.to_bytes(4)

    @classmethod
    def parse(cls, data: bytes) -> Epoch:
        return cls(slot=int.from_bytes(data[0:3]), step=data[3], generation=int.from_bytes(data[4:8]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """The first 64 bytes of a datagram; `type` may be a code that nobody knows."""

    type: int
    stream_id: bytes
    epoch: Epoch
    block_id: bytes
    first_sequence: int
    index: int
    count: int
    time: int

    def serialize(self) -> bytes:
        return b"".join(
            (
                CONNECTION_ID,
                VERSION.to_bytes(1),
                self.type.to_bytes(1),
                self.stream_id,
                self.epoch.serialize(),
                self.block_id,
                self.first_sequence.to_bytes(8),
                self.index.to_bytes(1),
                self.count.to_bytes(1),
                self.time.to_bytes(8),
            )
        )

    @classmethod
    def parse(cls, data: bytes) -> Header:
        """Check and read a header of 64 bytes (DP-4)."""
        header = cls(
            type=data[5],
            stream_id=data[6:22],
            epoch=Epoch.parse(data[22:30]),
            block_id=data[30:46],
            first_sequence=int.from_bytes(data[46:54]),
            index=data[54],
            count=data[55],
            time=int.from_bytes(data[56:64]),
        )
        if data[0:4] != CONNECTION_ID or data[4] != VERSION:
            raise MalformedError("another protocol or version")
        if not 1 <= header.count <= MAX_COUNT or header.index >= header.count:
            raise MalformedError("count or index out of range")
        if header.type != PacketType.DATA and header.first_sequence != 0:
            raise MalformedError("a first sequence in a type without sequences")
        if header.first_sequence + header.count > SEQUENCE_END:
            raise MalformedError("sequence out of range")
        # Not in the list of DP-4, but what DP-26, KM-15 and DP-29 call the packets of these types.
        if header.type in (PacketType.HEARTBEAT, PacketType.BEACON) and header.count != 1:
            raise MalformedError("a block of this type is one packet")
        if header.type == PacketType.CREDENTIAL and header.count > MAX_CREDENTIAL_COUNT:
            raise MalformedError("too many packets for a credential")
        return header

    @property
    def sequence(self) -> int:
        """Of a data packet (DP-5)."""
        return self.first_sequence + self.index


@dataclass(frozen=True, slots=True, kw_only=True)
class Datagram:
    header: Header
    body: bytes
    path: tuple[bytes, ...]
    signature: bytes
    gate_tag: bytes

    def serialize(self) -> bytes:
        return b"".join((self.header.serialize(), self.body, *self.path, self.signature, self.gate_tag))

    @classmethod
    def parse(cls, data: bytes) -> Datagram:
        """Check the lengths and split a datagram; raises MalformedError."""
        if not HEADER_BYTES <= len(data) <= MAX_DATAGRAM_BYTES:
            raise MalformedError("length of the datagram")
        header = Header.parse(data[:HEADER_BYTES])
        path_bytes = NODE_BYTES * depth(header.index, header.count)
        body_end = len(data) - path_bytes - TRAILER_BYTES
        if body_end < HEADER_BYTES:
            raise MalformedError("shorter than header, path, signature and gate tag")
        path = data[body_end : body_end + path_bytes]
        return cls(
            header=header,
            body=data[HEADER_BYTES:body_end],
            path=tuple(path[at : at + NODE_BYTES] for at in range(0, path_bytes, NODE_BYTES)),
            signature=data[-TRAILER_BYTES:-GATE_TAG_BYTES],
            gate_tag=data[-GATE_TAG_BYTES:],
        )


def depth(index: int, count: int) -> int:
    """How many siblings the path of leaf `index` of `count` has (DP-9)."""
    siblings, width = 0, count
    while width > 1:
        if not (index % 2 == 0 and index == width - 1):
            siblings += 1
        index, width = index // 2, (width + 1) // 2
    return siblings


def payload_limit(mtu: int = 1500) -> int:
    """The most bytes of frames in a packet of a stream (DP-6)."""
    return (mtu - 48) - HEADER_BYTES - AEAD_TAG_BYTES - NODE_BYTES * 6 - TRAILER_BYTES


def write_varint(value: int) -> bytes:
    """RFC 9000 section 16, shortest form."""
    for prefix, length in ((0, 1), (1, 2), (2, 4), (3, 8)):
        if value < 1 << (8 * length - 2):
            return (value | prefix << (8 * length - 2)).to_bytes(length)
    raise ValueError(f"{value} does not fit a varint")


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """The value at offset `at` and the offset behind it; raises MalformedError."""
    if at >= len(data):
        raise MalformedError("a varint is missing")
    length = 1 << (data[at] >> 6)
    encoded = data[at : at + length]
    if len(encoded) < length:
        raise MalformedError("a varint is cut short")
    value = int.from_bytes(encoded) & ((1 << (8 * length - 2)) - 1)
    if write_varint(value) != encoded:
        raise MalformedError("a varint is not in its shortest form")
    return value, at + length
