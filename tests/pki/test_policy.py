"""TR-13: policies."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealcast.ca import KeySigner
from sealcast.errors import CertificateError
from sealcast.pki.names import channel_id
from sealcast.pki.policy import Policy, SlotClock
from sealcast.pki.policy_names import Names
from sealcast.pki.signed import Context, SignedObject, decode_cbor, encode_cbor
from tests.pki.test_names import CHANNEL_NAMES, DEVICE_NAMES, SITE_IDS

SIGNER = KeySigner.generate()
UINTS = st.integers(0, 2**63)
MEMBERS = st.lists(
    DEVICE_NAMES | st.builds(lambda site, name: f"{site.hex()}:{name}", SITE_IDS, DEVICE_NAMES), max_size=5
).map(lambda names: Names.of(sorted(set(names))))
POLICIES = st.builds(
    Policy,
    site_id=SITE_IDS,
    channel=CHANNEL_NAMES,
    version=st.integers(1, 2**63),
    issued=st.integers(0, 2**50),
    next_update=st.integers(2**50 + 1, 2**63),
    suite=st.sampled_from([1, 2, 3]),
    group=st.sampled_from(["239.255.7.1", "ff15::7:1"]),
    port=st.integers(1, 65535),
    interface=st.none() | st.text(min_size=1, max_size=15),
    rate=st.integers(1, 2**40),
    slots=st.builds(
        SlotClock,
        origin_time=st.integers(0, 2**60),
        origin_number=st.integers(0, 2**24 - 1),
        length=st.integers(1, 2**50),
    ),
    retention=UINTS,
    retention_bytes=UINTS,
    publisher_limit=UINTS,
    fec=st.sampled_from(["off", "auto"]) | st.tuples(st.integers(1, 64), st.integers(1, 16)),
    publishers=MEMBERS,
    subscribers=MEMBERS,
)


def example() -> Policy:
    return Policy(
        site_id=bytes(range(16)),
        channel="icu3/vitals",
        version=1,
        issued=1_000_000,
        next_update=2_000_000,
        suite=1,
        group="239.255.7.1",
        port=5007,
        interface=None,
        rate=10_000_000,
        slots=SlotClock(origin_time=1_000_000, origin_number=5, length=3_600_000_000),
        retention=30_000_000,
        retention_bytes=64 << 20,
        publisher_limit=1_000_000,
        fec=(8, 2),
        publishers=Names.of(["monitor-1"]),
        subscribers=Names.of(["central", "monitor-1"]),
    )


@given(POLICIES)
def test_encode_and_decode_are_one_pair(policy: Policy) -> None:
    assert Policy.decode(policy.encode()) == policy


def test_the_structure_is_that_of_the_spec() -> None:
    policy = example()
    assert decode_cbor(policy.encode()) == [
        1, policy.site_id, "icu3/vitals", channel_id(policy.site_id, "icu3/vitals"), 1, 1_000_000, 2_000_000,
        1, "239.255.7.1", 5007, None, 10_000_000, [1_000_000, 5, 3_600_000_000], 30_000_000, 64 << 20,
        1_000_000, [8, 2], ["monitor-1"], ["central", "monitor-1"],
    ]  # fmt: skip


def test_a_signed_policy_is_read_back() -> None:
    signed = example().sign(SIGNER)
    assert Policy.parse(signed, SIGNER.public_key) == example()
    assert Policy.parse(signed, None) == example()
    with pytest.raises(CertificateError):
        Policy.parse(signed, KeySigner.generate().public_key)


def test_a_signature_for_another_use_does_not_pass() -> None:
    signed = SignedObject.sign(Context.TRUST_BUNDLE, example().encode(), SIGNER).serialize()
    with pytest.raises(CertificateError):
        Policy.parse(signed, SIGNER.public_key)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (0, 2),
        (1, bytes(15)),
        (2, "another"),
        (3, bytes(32)),
        (4, 0),
        (6, 1_000_000),
        (7, 4),
        (8, "10.0.0.1"),
        (8, "not an address"),
        (9, 0),
        (9, 65536),
        (10, 5),
        (11, 0),
        (12, [0, 0]),
        (12, [0, 0, 0]),
        (12, [0, 2**24, 1]),
        (16, [8]),
        (16, [8, 2, 1]),
        (16, [0, 1]),
        (16, [65, 1]),
        (16, [64, 17]),
        (16, [8, "2"]),
        (16, "8+2"),
        (17, ["b", "a"]),
        (17, ["a", "a"]),
        (17, ["a*"]),
        (18, [b"a"]),
        (18, [":a"]),
        (18, "a"),
    ],
)
def test_other_structures_are_no_policy(field: int, value: object) -> None:
    fields = decode_cbor(example().encode())
    fields[field] = value
    with pytest.raises(CertificateError):
        Policy.decode(encode_cbor(fields))


@given(st.binary(max_size=200))
def test_any_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(CertificateError):
        Policy.parse(data, None)


def test_slots_follow_the_clock() -> None:
    clock = example().slots
    assert clock.slot(1_000_000) == 5
    assert clock.slot(1_000_000 + 3_600_000_000 - 1) == 5
    assert clock.slot(1_000_000 + 3_600_000_000) == 6
