"""TR-10, DP-10: signed objects and deterministic CBOR."""

from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealcast.ca import KeyKind, KeySigner
from sealcast.errors import CertificateError, InternalError
from sealcast.pki.signed import Context, SignedObject, decode_cbor, encode_cbor, sign_input

LEAVES = st.none() | st.booleans() | st.integers(0, 2**64 - 1) | st.binary(max_size=40) | st.text(max_size=40)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=30), inner, max_size=4),
    max_leaves=20,
)


@given(VALUES)
def test_what_is_encoded_decodes(value: Any) -> None:
    assert decode_cbor(encode_cbor(value)) == value


@given(st.binary(max_size=200))
def test_any_bytes_decode_to_what_encodes_to_them_or_are_refused(data: bytes) -> None:
    try:
        value = decode_cbor(data)
    except CertificateError:
        return
    assert encode_cbor(value) == data


def test_map_keys_are_sorted_by_their_encoding() -> None:
    encoded = encode_cbor({"b": 1, "aa": 2, "a": 3, "a" * 24: 4})
    keys = [cbor2.dumps(key) for key in cbor2.loads(encoded)]
    assert keys == sorted(keys)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ("", "empty"),
        ("0102", "a second structure behind"),
        ("1801", "a long integer"),
        ("9fff", "an indefinite array"),
        ("5f4100ff", "an indefinite string"),
        ("a2616201616101", "keys out of order"),
        ("a2616101616102", "a key twice"),
        ("a10101", "a key that is no text"),
        ("20", "a negative integer"),
        ("f90000", "a float"),
        ("f7", "undefined"),
        ("c24101", "a tag"),
        ("d81c81d81d00", "a shared reference"),
        ("d9010082636161616361616100", "a string reference"),
        ("61ff", "text that is not UTF-8"),
        ("81" * 64 + "00", "a structure too deep"),
        ("9bffffffffffffffff", "an array without end"),
        ("5bffffffffffffffff", "a string without end"),
    ],
)
def test_other_encodings_are_refused(data: str, why: str) -> None:
    with pytest.raises(CertificateError):
        decode_cbor(bytes.fromhex(data))


def test_shared_references_do_not_unfold() -> None:
    """Sixteen levels of a hundred references each would be 10^32 values."""
    bomb: list[Any] = []
    for _ in range(14):
        bomb = [bomb] * 100
    with pytest.raises(CertificateError):
        decode_cbor(cbor2.dumps(bomb, value_sharing=True))


@pytest.mark.parametrize("value", [-1, 2**64, 1.5, {1: 2}, {b"a": 1}, object(), {"a": {1}}])
def test_what_the_spec_does_not_use_is_not_encoded(value: object) -> None:
    with pytest.raises(InternalError):
        encode_cbor(value)


def test_sign_input_is_unambiguous() -> None:
    assert sign_input(b"ab", b"c") == b"\x02abc"
    assert sign_input(b"a", b"bc") == b"\x01abc"


@pytest.mark.parametrize("kind", list(KeyKind))
def test_a_signature_holds_for_its_use_alone(kind: KeyKind) -> None:
    signer = KeySigner.generate(kind)
    signed = SignedObject.parse(SignedObject.sign(Context.POLICY, b"tbs", signer).serialize())
    assert signed.verify(Context.POLICY, signer.public_key) == b"tbs"
    with pytest.raises(CertificateError):
        signed.verify(Context.STREAM_CREDENTIAL, signer.public_key)
    with pytest.raises(CertificateError):
        signed.verify(Context.POLICY, KeySigner.generate(kind).public_key)
    other = SignedObject(tbs=b"tbS", algorithm=signed.algorithm, signature=signed.signature)
    with pytest.raises(CertificateError):
        other.verify(Context.POLICY, signer.public_key)


def test_the_algorithm_must_fit_the_key() -> None:
    signed = SignedObject.sign(Context.POLICY, b"tbs", KeySigner.generate(KeyKind.ED25519))
    with pytest.raises(CertificateError):
        signed.verify(Context.POLICY, KeySigner.generate(KeyKind.P256).public_key)


@pytest.mark.parametrize(
    "value", [[b"", 1], [b"", 4, b""], [b"", 0, b""], ["", 1, b""], [b"", 1, b"", 1], {}, 1, [b"", True, b""]]
)
def test_other_structures_are_no_signed_object(value: object) -> None:
    with pytest.raises(CertificateError):
        SignedObject.parse(encode_cbor(value))
