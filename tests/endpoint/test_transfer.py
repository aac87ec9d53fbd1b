"""The messages of files (SC-13, SC-46), and what is none of them."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealcast.endpoint.transfer import (
    MAX_SIZE,
    PIECE_BYTES,
    Ask,
    FileMessage,
    Offer,
    Part,
    Withdrawal,
    parse_message,
)
from sealcast.pki.signed import encode_cbor

FILE = bytes(range(16))
OFFER = Offer(number=2, count=3, name="a/µ", size=PIECE_BYTES + 1, sha256=bytes(32))


@pytest.mark.parametrize(
    "message",
    [
        OFFER,
        Offer(number=0, count=1, name="folder", size=0, sha256=None),
        Ask(round=7, spread_milliseconds=100),
        Withdrawal(file=FILE),
    ],
)
def test_messages_come_back(message: FileMessage) -> None:
    assert parse_message(message.serialize()) == message


@pytest.mark.parametrize("size", [0, 1, 23, 24, 255, 256, 65_535, 65_536, PIECE_BYTES])
@pytest.mark.parametrize("offset", [0, 24, PIECE_BYTES, 2**32 + PIECE_BYTES, MAX_SIZE])
def test_a_part_is_plain_cbor(size: int, offset: int) -> None:
    data = os.urandom(size)
    message = Part(file=FILE, offset=offset, data=memoryview(data)).serialize()
    assert message == encode_cbor(["part", FILE, offset, data])
    part = parse_message(message)
    assert isinstance(part, Part)
    assert (part.file, part.offset, bytes(part.data)) == (FILE, offset, data)


def test_the_id_follows_from_name_and_content_alone() -> None:
    again = Offer(number=0, count=9, name=OFFER.name, size=OFFER.size, sha256=OFFER.sha256)
    assert (again.id, len(again.id)) == (OFFER.id, 16)
    others = [
        Offer(number=2, count=3, name="a/u", size=OFFER.size, sha256=OFFER.sha256),
        Offer(number=2, count=3, name=OFFER.name, size=OFFER.size + 1, sha256=OFFER.sha256),
        Offer(number=2, count=3, name=OFFER.name, size=OFFER.size, sha256=bytes([1] * 32)),
    ]
    assert OFFER.id not in {other.id for other in others}
    assert (OFFER.pieces, OFFER.length(0), OFFER.length(1)) == (2, PIECE_BYTES, 1)


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\x84\x64part\x50",
        encode_cbor(["part", FILE[1:], 0, b""]),
        encode_cbor(["part", FILE, b"", b""]),
        encode_cbor(["part", FILE, 0, b"data"]) + b"x",
        encode_cbor(["part", FILE, 0, b"data"])[:-1],
        b"\x84\x64part\x50" + FILE + b"\x18\x01" + b"\x40",  # an offset that is not in its shortest form
        encode_cbor(["offer", 1, 1, "a", 0, bytes(32)]),
        encode_cbor(["offer", 0, 1, "a", MAX_SIZE + 1, bytes(32)]),
        encode_cbor(["offer", 0, 1, "a", 1, None]),
        encode_cbor(["offer", 0, 1, "a", 1, bytes(31)]),
        encode_cbor(["offer", 0, 1, b"a", 1, bytes(32)]),
        encode_cbor(["ask", -1 & 0xFF]),
        encode_cbor(["begin", FILE, "a", 1]),
    ],
)
def test_what_is_no_message(message: bytes) -> None:
    assert parse_message(message) is None


@given(st.binary(max_size=60))
def test_anything_may_come(data: bytes) -> None:
    parse_message(data)
    parse_message(b"\x84\x64part\x50" + data)
