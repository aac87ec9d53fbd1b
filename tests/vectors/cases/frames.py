"""Varints and frames."""

from __future__ import annotations

from typing import Any

from tests.reference import frames as reference
from tests.reference.frames import Frame, RetainedOrigin
from tests.reference.wire import write_varint
from tests.vectors.cases.writing import Group, VectorFile, fixed

ORIGIN = RetainedOrigin(stream_id=fixed("stream id", 16), sequence=41, time=1_767_225_600_000_000)


def varint() -> VectorFile:
    group = Group("RFC 9000 section 16, shortest form; the encoding is all of the bytes")
    for value in (0, 1, 37, 63, 64, 15293, 16383, 16384, 494878333, 2**30 - 1, 2**30, 2**62 - 1):
        group.valid(str(value), encoding=write_varint(value), value=value)
    for comment, encoding, flag in (
        ("37 in two bytes", "4025", "NotShortest"),
        ("0 in two bytes", "4000", "NotShortest"),
        ("63 in four bytes", "8000003f", "NotShortest"),
        ("16383 in four bytes", "80003fff", "NotShortest"),
        ("0 in eight bytes", "c000000000000000", "NotShortest"),
        ("2^30 - 1 in eight bytes", "c00000003fffffff", "NotShortest"),
        ("nothing", "", "Cut"),
        ("one byte of two", "7b", "Cut"),
        ("three bytes of four", "9d7f3e", "Cut"),
        ("seven bytes of eight", "c2197c5eff14e8", "Cut"),
    ):
        group.invalid(comment, "malformed", flags=(flag,), encoding=bytes.fromhex(encoding))
    notes = {
        "NotShortest": ("LEGACY", "RFC 9000 takes longer forms, this protocol does not"),
        "Cut": ("MISSING_CHECK", "fewer bytes than the first one announces"),
    }
    return VectorFile("varint", ["DP-23"], notes, [group])


def described(frame: Frame) -> dict[str, Any]:
    """A frame as the vectors say it; offset and total are null where the message is whole."""
    retained = frame.retained
    return {
        "messageId": frame.message_id,
        "offset": frame.offset if frame.total is not None else None,
        "total": frame.total,
        "topic": frame.topic,
        "retained": None
        if retained is None
        else {"streamId": retained.stream_id, "sequence": retained.sequence, "time": retained.time},
        "data": frame.data,
    }


def frames() -> VectorFile:
    group = Group("the plaintext of a packet; `frames` are those before the first malformed one")

    def valid(comment: str, plaintext: bytes, *flags: str) -> None:
        found, well_formed = reference.parse(plaintext)
        assert well_formed, comment
        group.valid(comment, flags=flags, plaintext=plaintext, frames=[described(f) for f in found])

    def invalid(comment: str, flag: str, plaintext: bytes) -> None:
        found, well_formed = reference.parse(plaintext)
        assert not well_formed, comment
        described_frames = [described(f) for f in found]
        group.invalid(comment, "malformed", flags=(flag,), plaintext=plaintext, frames=described_frames)

    whole = Frame(message_id=7, data=b"36.6")
    first = Frame(message_id=8, data=b"abc", total=10, topic="image")
    valid("nothing", b"")
    valid("padding alone", bytes(5))
    valid("a message", whole.serialize())
    valid("an empty message", Frame(message_id=0, data=b"").serialize())
    valid("a message of 63 bytes", Frame(message_id=0, data=bytes(63)).serialize())
    valid("a message of 64 bytes", Frame(message_id=0, data=bytes(64)).serialize())
    valid("the highest message id", Frame(message_id=2**62 - 1, data=b"x").serialize())
    valid("a topic", Frame(message_id=1, data=b"x", topic="bed/3").serialize())
    valid("an empty topic", Frame(message_id=1, data=b"x", topic="").serialize())
    valid("a topic beyond ASCII", Frame(message_id=1, data=b"x", topic="Ger\u00e4t \u2460").serialize())
    valid("a topic of 255 bytes", Frame(message_id=1, data=b"x", topic="t" * 255).serialize())
    valid("retained", Frame(message_id=1, data=b"x", retained=ORIGIN).serialize())
    valid("retained, with a topic", Frame(message_id=1, data=b"x", topic="t", retained=ORIGIN).serialize())
    valid("the first part", first.serialize())
    valid("a part in the middle", Frame(message_id=8, data=b"def", offset=3, total=10).serialize())
    valid("the last part", Frame(message_id=8, data=b"ghij", offset=6, total=10).serialize())
    valid("one part that is all", Frame(message_id=8, data=b"abc", total=3).serialize())
    valid(
        "the first part with topic and origin",
        Frame(message_id=8, data=b"abc", total=10, topic="t", retained=ORIGIN).serialize(),
    )
    valid("the last byte of the longest message", _part(2**62 - 2, 2**62 - 1, b"x"), "Large")
    valid("an empty part", _part(3, 10, b""), "EmptyPart")
    valid("an empty part at the end", _part(10, 10, b""), "EmptyPart")
    valid("messages and padding", b"\0" + whole.serialize() + b"\0\0" + first.serialize() + b"\0")
    valid("a frame to skip", b"\x80\x03abc" + whole.serialize(), "Skipped")
    valid("an empty frame to skip", b"\xff\x00" + whole.serialize(), "Skipped")
    valid("a frame to skip that looks like another", b"\xc0\x02\x40\x40" + whole.serialize(), "Skipped")

    good = whole.serialize()
    for kind in (0x01, 0x3F, 0x48, 0x50, 0x60, 0x7F):
        invalid(f"type {kind:#04x}", "UnknownType", good + bytes((kind, 0, 0)))
    invalid("a type and no more", "Cut", good + b"\x40")
    for length in range(1, len(good)):
        invalid(f"{length} of {len(good)} bytes", "Cut", good[:length])
    full = Frame(message_id=8, data=b"abc", total=10, topic="t", retained=ORIGIN).serialize()
    for length in (1, 2, 3, 4, 5, 20, 21, 29, 36, 37, 38, 40):
        invalid(f"{length} of {len(full)} bytes of all fields", "Cut", good + full[:length])
    invalid("message id not shortest", "NotShortest", b"\x40\x40\x07\x01x")
    invalid("length not shortest", "NotShortest", b"\x40\x07\x40\x01x")
    invalid("offset not shortest", "NotShortest", b"\x41\x08\x40\x03\x0a\x01x")
    invalid("total not shortest", "NotShortest", b"\x41\x08\x03\x40\x0a\x01x")
    invalid("length of a skipped frame not shortest", "NotShortest", b"\x80\x40\x01x" + good)
    invalid("a part one byte beyond its message", "BeyondTotal", _part(8, 10, b"abc"))
    invalid("a part that begins behind its message", "BeyondTotal", _part(11, 10, b""))
    invalid("a message of no bytes in parts", "BeyondTotal", _part(0, 0, b""))
    invalid("a part of a message of no bytes", "BeyondTotal", _part(0, 0, b"a"))
    invalid("the highest offset and a byte more", "BeyondTotal", _part(2**62 - 1, 2**62 - 1, b"x"))
    invalid("a topic in a later part", "LaterPart", b"\x43\x08\x03\x0a\x01t\x01x")
    invalid("an origin in a later part", "LaterPart", b"\x45\x08\x03\x0a" + bytes(32) + b"\x01x")
    invalid("a topic that is not UTF-8", "Topic", b"\x42\x07\x02\xc3\x28\x01x")
    invalid("a surrogate in a topic", "Topic", b"\x42\x07\x03\xed\xa0\x80\x01x")
    invalid("a topic in an overlong form", "Topic", b"\x42\x07\x02\xc0\x80\x01x")
    invalid("a topic longer than the packet", "Cut", b"\x42\x07\x05abc")
    invalid("a length beyond the packet", "Cut", b"\x40\x07\x05abcd")
    invalid("the highest length", "Cut", b"\x40\x07" + write_varint(2**62 - 1) + b"abcd")
    invalid("the highest length to skip", "Cut", b"\x80" + write_varint(2**62 - 1) + good)
    invalid("what follows a malformed frame is not read", "UnknownType", good + b"\x01" + good)
    notes = {
        "Large": ("EDGE_CASE", "numbers up to 2^62 - 1 are valid; a receiver's limit is its own (DP-24)"),
        "EmptyPart": ("EDGE_CASE", "offset + length <= total holds, so a part without bytes is well formed"),
        "Skipped": ("EDGE_CASE", "types from 0x80 up are skipped by their length"),
        "UnknownType": ("MISSING_CHECK", "a type below 0x80 that is not known is malformed"),
        "Cut": ("MISSING_CHECK", "the packet ends inside the frame"),
        "NotShortest": ("MISSING_CHECK", "a varint longer than needed"),
        "BeyondTotal": ("MISSING_CHECK", "offset + length <= total and total > 0 do not both hold"),
        "LaterPart": ("MISSING_CHECK", "topic and origin stand only with offset 0"),
        "Topic": ("MISSING_CHECK", "a topic is UTF-8"),
    }
    return VectorFile("frames", ["DP-23", "DP-24"], notes, [group])


def _part(offset: int, total: int, data: bytes) -> bytes:
    """Written by hand, since some of these are wrong on purpose."""
    numbers = write_varint(8) + write_varint(offset) + write_varint(total)
    return b"\x41" + numbers + write_varint(len(data)) + data
