"""Frames: what stands in the plaintext of a data packet. Spec: wire.md section 6."""

from __future__ import annotations

from dataclasses import dataclass

from tests.reference.wire import MalformedError, read_varint, write_varint

PADDING = 0x00
MESSAGE = 0x40
PART, TOPIC, RETAINED = 1, 2, 4
FIRST_SKIPPED_TYPE = 0x80


@dataclass(frozen=True, slots=True, kw_only=True)
class RetainedOrigin:
    stream_id: bytes
    sequence: int
    time: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """A message, or with `total` a part of one."""

    message_id: int
    data: bytes
    offset: int = 0
    total: int | None = None
    topic: str | None = None
    retained: RetainedOrigin | None = None

    def serialize(self) -> bytes:
        kind = MESSAGE
        fields = [write_varint(self.message_id)]
        if self.total is not None:
            kind |= PART
            fields += [write_varint(self.offset), write_varint(self.total)]
        if self.topic is not None:
            kind |= TOPIC
            fields += [len(self.topic.encode()).to_bytes(1), self.topic.encode()]
        if self.retained is not None:
            kind |= RETAINED
            origin = self.retained
            fields += [origin.stream_id, origin.sequence.to_bytes(8), origin.time.to_bytes(8)]
        return b"".join((kind.to_bytes(1), *fields, write_varint(len(self.data)), self.data))


def parse(plaintext: bytes) -> tuple[list[Frame], bool]:
    """The frames up to the end or the first malformed one; whether all were well formed (DP-24)."""
    found: list[Frame] = []
    at = 0
    while at < len(plaintext):
        try:
            frame, at = _parse_one(plaintext, at)
        except MalformedError:
            return found, False
        if frame is not None:
            found.append(frame)
    return found, True


def _parse_one(plaintext: bytes, at: int) -> tuple[Frame | None, int]:
    kind = plaintext[at]
    at += 1
    if kind == PADDING:
        return None, at
    if kind >= FIRST_SKIPPED_TYPE:
        length, at = read_varint(plaintext, at)
        _, at = _take(plaintext, at, length)
        return None, at
    if kind & ~(PART | TOPIC | RETAINED) != MESSAGE:
        raise MalformedError("an unknown type of frame")
    message_id, at = read_varint(plaintext, at)
    offset, total, topic, retained = 0, None, None, None
    if kind & PART:
        offset, at = read_varint(plaintext, at)
        total, at = read_varint(plaintext, at)
    if kind & (TOPIC | RETAINED) and offset != 0:
        raise MalformedError("topic and origin belong to the first part")
    if kind & TOPIC:
        topic_length, at = _take(plaintext, at, 1)
        encoded, at = _take(plaintext, at, topic_length[0])
        try:
            topic = encoded.decode()
        except UnicodeDecodeError as error:
            raise MalformedError("a topic that is not UTF-8") from error
    if kind & RETAINED:
        origin, at = _take(plaintext, at, 32)
        retained = RetainedOrigin(
            stream_id=origin[:16],
            sequence=int.from_bytes(origin[16:24]),
            time=int.from_bytes(origin[24:32]),
        )
    data_length, at = read_varint(plaintext, at)
    data, at = _take(plaintext, at, data_length)
    if total is not None and not (total > 0 and offset + len(data) <= total):
        raise MalformedError("a part beyond its message")
    frame = Frame(
        message_id=message_id, data=data, offset=offset, total=total, topic=topic, retained=retained
    )
    return frame, at


def _take(data: bytes, at: int, length: int) -> tuple[bytes, int]:
    if len(data) - at < length:
        raise MalformedError("a frame that does not fit")
    return data[at : at + length], at + length
