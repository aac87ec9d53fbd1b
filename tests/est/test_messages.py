"""Bodies of EST messages: exact when sent, tolerated when received (RFC 8951 section 3.1)."""

import base64
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import pkcs7
from hypothesis import given
from hypothesis import strategies as st

from sealcast.errors import CertificateError, UsageError
from sealcast.est.messages import decode_body, decode_certificates, encode_body, encode_certificates
from tests.est.site import Site


@given(st.binary(min_size=1, max_size=400))
def test_lines_have_64_columns_and_an_end(der: bytes) -> None:
    lines = encode_body(der).split(b"\n")
    assert lines.pop() == b""
    assert all(len(line) == 64 for line in lines[:-1])
    assert 1 <= len(lines[-1]) <= 64
    assert decode_body(encode_body(der)) == der


@given(st.binary(min_size=1, max_size=100), st.lists(st.sampled_from([" ", "\t", "\r", "\n", "\r\n"])))
def test_white_space_may_be_anywhere(der: bytes, spaces: list[str]) -> None:
    text = base64.b64encode(der).decode()
    for position, space in enumerate(spaces):
        cut = (position * 7) % (len(text) + 1)
        text = text[:cut] + space + text[cut:]
    assert decode_body(text.encode()) == der


def test_one_line_has_an_end_too() -> None:
    assert encode_body(bytes(100), in_lines=False) == base64.b64encode(bytes(100)) + b"\n"


def test_armour_is_taken_off() -> None:
    text = b"-----BEGIN CERTIFICATE REQUEST-----\r\nAQID\r\n-----END CERTIFICATE REQUEST-----\r\n"
    assert decode_body(text) == b"\x01\x02\x03"


@pytest.mark.parametrize(
    "body", [b"", b" \r\n", b"A", b"AAA", b"AA=A", b"A*==", b"\xff\xfe", b"\x30\x82\x01\x00"]
)
def test_other_bodies_are_refused(body: bytes) -> None:
    with pytest.raises(UsageError):
        decode_body(body)


def test_certificates_come_as_a_certs_only_message(tmp_path: Path) -> None:
    site = Site(tmp_path)
    body = encode_certificates(site.authorities)
    assert sorted(decode_certificates(body)) == sorted(site.authorities)
    content = decode_body(body)
    assert len(pkcs7.load_der_pkcs7_certificates(content)) == 2
    # SignedData, version 1, no digest algorithms, eContentType id-data without content.
    assert bytes.fromhex("06092a864886f70d010702") in content[:30]
    assert bytes.fromhex("0201013100300b06092a864886f70d010701") in content[:50]


@pytest.mark.parametrize("body", [b"", b"AAAA", b"MAA=", b"no base64!"])
def test_other_answers_are_refused(body: bytes) -> None:
    with pytest.raises(CertificateError):
        decode_certificates(body)
