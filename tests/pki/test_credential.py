"""TR-11, TR-12, DP-1: stream credentials and their bundles."""

import hashlib
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519
from hypothesis import given
from hypothesis import strategies as st

from sealcast.ca import KeyKind, KeySigner
from sealcast.errors import CertificateError, UsageError
from sealcast.pki.certificates import spki
from sealcast.pki.credential import (
    MAX_BUNDLE_BYTES,
    CredentialBundle,
    StreamCredential,
    ed25519_spki,
    make_bundle,
    stream_id,
)
from sealcast.pki.signed import decode_cbor, encode_cbor
from tests.pki.test_names import DEVICE_NAMES, SITE_IDS

SIGNER = KeySigner.generate()
CREDENTIALS = st.builds(
    StreamCredential,
    spki=st.binary(min_size=32, max_size=32).map(ed25519_spki),
    channel_id=st.binary(min_size=32, max_size=32),
    suite=st.sampled_from([1, 2, 3]),
    site_id=SITE_IDS,
    device=DEVICE_NAMES,
    certificate_hash=st.binary(min_size=32, max_size=32),
    not_before=st.integers(0, 2**50),
    not_after=st.integers(2**50 + 1, 2**63),
    start_nonce=st.binary(min_size=16, max_size=16),
    instance=st.just("") | DEVICE_NAMES,
    succeeds=st.none() | st.binary(min_size=16, max_size=16),
)


def example() -> StreamCredential:
    return StreamCredential(
        spki=ed25519_spki(bytes(32)),
        channel_id=bytes(32),
        suite=1,
        site_id=bytes(16),
        device="monitor-1",
        certificate_hash=bytes(32),
        not_before=1,
        not_after=2,
        start_nonce=bytes(16),
        instance="",
        succeeds=None,
    )


@given(CREDENTIALS)
def test_encode_and_decode_are_one_pair(credential: StreamCredential) -> None:
    assert StreamCredential.decode(credential.encode()) == credential


def test_the_structure_is_that_of_the_spec() -> None:
    assert decode_cbor(example().encode()) == [
        1, ed25519_spki(bytes(32)), bytes(32), 1, bytes(16), "monitor-1", bytes(32), 1, 2, bytes(16), "",
        None,
    ]  # fmt: skip


def test_the_stream_id_is_the_hash_of_the_key() -> None:
    key = ed25519.Ed25519PrivateKey.generate().public_key()
    raw = key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    assert ed25519_spki(raw) == spki(key)
    assert stream_id(spki(key)) == hashlib.sha3_256(spki(key)).digest()[:16]
    assert replace(example(), spki=spki(key)).stream_id == stream_id(spki(key))


@pytest.mark.parametrize("kind", [KeyKind.P256, KeyKind.ED25519])
def test_the_device_key_vouches(kind: KeyKind) -> None:
    signer = KeySigner.generate(kind)
    signed = example().sign(signer)
    assert StreamCredential.parse(signed, signer.public_key) == example()
    with pytest.raises(CertificateError):
        StreamCredential.parse(signed, SIGNER.public_key)


@pytest.mark.parametrize(
    "change",
    [
        {"spki": bytes(44)},
        {"spki": ed25519_spki(bytes(32))[:-1]},
        {"channel_id": bytes(31)},
        {"suite": 4},
        {"site_id": bytes(17)},
        {"device": ""},
        {"certificate_hash": b""},
        {"not_before": 2},
        {"start_nonce": bytes(15)},
        {"instance": "a b"},
        {"succeeds": bytes(15)},
    ],
)
def test_fields_out_of_range_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        replace(example(), **change)  # type: ignore[arg-type]


@given(st.binary(max_size=200))
def test_any_bytes_are_refused(data: bytes) -> None:
    for parse in (CredentialBundle.parse, lambda signed: StreamCredential.parse(signed, None)):
        with pytest.raises(CertificateError):
            parse(data)


def test_a_bundle_carries_credential_and_chain() -> None:
    data = make_bundle(example(), SIGNER, [b"leaf", b"issuer"])
    bundle = CredentialBundle.parse(data)
    assert bundle.chain == (b"leaf", b"issuer")
    assert bundle.credential() == example()
    assert StreamCredential.parse(bundle.signed_credential, SIGNER.public_key) == example()
    assert bundle.serialize() == data


def test_a_bundle_fits_one_block() -> None:
    overhead = len(make_bundle(example(), SIGNER, [b""])) + 8
    make_bundle(example(), SIGNER, [bytes(MAX_BUNDLE_BYTES - overhead)])
    with pytest.raises(CertificateError):
        make_bundle(example(), SIGNER, [bytes(MAX_BUNDLE_BYTES)])
    with pytest.raises(CertificateError):
        CredentialBundle.parse(encode_cbor([b"", [bytes(MAX_BUNDLE_BYTES)]]))


@pytest.mark.parametrize("value", [[b"", []], [b""], [b"", [""]], [b"", [b"", 1]], [b"", b""], {}])
def test_other_structures_are_no_bundle(value: object) -> None:
    with pytest.raises(CertificateError):
        CredentialBundle.parse(encode_cbor(value))


def test_a_bundle_needs_a_certificate() -> None:
    with pytest.raises(UsageError):
        make_bundle(example(), SIGNER, [])
