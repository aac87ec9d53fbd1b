"""What is signed besides packets: stream credential, bundle, policy. Spec: trust.md TR-10 to TR-13."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import cbor2
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from tests.reference import ed25519
from tests.reference.schedule import SPKI_PREFIX, sign_input
from tests.reference.wire import MalformedError

CREDENTIAL_CONTEXT = "sealcast/1 stream credential"
POLICY_CONTEXT = "sealcast/1 policy"
ECDSA_P256, ED25519, ECDSA_P384 = 1, 2, 3
MAX_BUNDLE_BYTES = 8 * 1204

DEVICE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
CHANNEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,126}")
INSTANCE = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]{0,62})?")
MEMBER = re.compile(r"([0-9a-f]{32}:)?[A-Za-z0-9][A-Za-z0-9._-]{0,62}")

PublicKey: TypeAlias = Ed25519PublicKey | ec.EllipticCurvePublicKey
PrivateKey: TypeAlias = Ed25519PrivateKey | ec.EllipticCurvePrivateKey


def encode(value: object) -> bytes:
    """CBOR in its core deterministic encoding (RFC 8949 section 4.2.1)."""
    return cbor2.dumps(value, canonical=True)


def decode(data: bytes) -> list[object]:
    """The array that `data` encodes; raises MalformedError if it does so in any other than the one way."""
    try:
        value = cbor2.loads(data)
        same = encode(value) == data
    except (cbor2.CBORError, ValueError, TypeError, OverflowError, RecursionError, EOFError) as error:
        raise MalformedError("not CBOR") from error
    if not same:
        raise MalformedError("not in deterministic encoding, or bytes behind it")
    if not isinstance(value, list):
        raise MalformedError("not an array")
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """TR-10."""

    tbs: bytes
    algorithm: int
    signature: bytes

    def serialize(self) -> bytes:
        return encode([self.tbs, self.algorithm, self.signature])

    @classmethod
    def parse(cls, data: bytes) -> Signed:
        fields = Fields(decode(data), 3)
        return cls(tbs=fields.octets(), algorithm=fields.uint(), signature=fields.octets())

    @classmethod
    def sign(cls, key: PrivateKey, context: str, tbs: bytes) -> Signed:
        """Deterministic: Ed25519 is, and ECDSA takes its nonce from RFC 6979."""
        message = sign_input(context, tbs)
        if isinstance(key, Ed25519PrivateKey):
            return cls(tbs=tbs, algorithm=ED25519, signature=key.sign(message))
        if key.curve.name == "secp256r1":
            algorithm, digest = ECDSA_P256, ec.ECDSA(hashes.SHA256(), deterministic_signing=True)
        else:
            algorithm, digest = ECDSA_P384, ec.ECDSA(hashes.SHA384(), deterministic_signing=True)
        return cls(tbs=tbs, algorithm=algorithm, signature=key.sign(message, digest))

    def holds(self, key: PublicKey, context: str) -> bool:
        """Whether the signature is the key's, under the algorithm that the object names."""
        message = sign_input(context, self.tbs)
        if isinstance(key, Ed25519PublicKey):
            return self.algorithm == ED25519 and ed25519.verify(
                key.public_bytes_raw(), message, self.signature
            )
        of_curve = {
            "secp256r1": (ECDSA_P256, ec.ECDSA(hashes.SHA256())),
            "secp384r1": (ECDSA_P384, ec.ECDSA(hashes.SHA384())),
        }
        algorithm, digest = of_curve[key.curve.name]
        if self.algorithm != algorithm:
            return False
        try:
            key.verify(self.signature, message, digest)
        except InvalidSignature:
            return False
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """TR-11; times in microseconds."""

    spki: bytes
    channel_id: bytes
    suite: int
    site_id: bytes
    device: str
    certificate_hash: bytes
    not_before: int
    not_after: int
    start_nonce: bytes
    instance: str = ""
    succeeds: bytes | None = None

    @property
    def public_key(self) -> bytes:
        return self.spki[len(SPKI_PREFIX) :]

    def serialize(self) -> bytes:
        return encode(
            [
                1,
                self.spki,
                self.channel_id,
                self.suite,
                self.site_id,
                self.device,
                self.certificate_hash,
                self.not_before,
                self.not_after,
                self.start_nonce,
                self.instance,
                self.succeeds,
            ]
        )

    @classmethod
    def parse(cls, tbs: bytes) -> Credential:
        fields = Fields(decode(tbs), 12)
        fields.version()
        credential = cls(
            spki=fields.octets(44),
            channel_id=fields.octets(32),
            suite=fields.uint(),
            site_id=fields.octets(16),
            device=fields.text(DEVICE_NAME),
            certificate_hash=fields.octets(32),
            not_before=fields.uint(),
            not_after=fields.uint(),
            start_nonce=fields.octets(16),
            instance=fields.text(INSTANCE),
            succeeds=fields.optional_octets(16),
        )
        if not credential.spki.startswith(SPKI_PREFIX):
            raise MalformedError("not the key of a stream")
        return credential


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """TR-12: a signed credential and the chain that vouches for it, the device's certificate first."""

    signed: bytes
    chain: tuple[bytes, ...]

    def serialize(self) -> bytes:
        return encode([self.signed, list(self.chain)])

    @classmethod
    def parse(cls, data: bytes) -> Bundle:
        if len(data) > MAX_BUNDLE_BYTES:
            raise MalformedError("a bundle beyond its bound")
        fields = Fields(decode(data), 2)
        signed, chain = fields.octets(), fields.array()
        certificates = Fields(chain, len(chain))
        if not chain:
            raise MalformedError("no certificate")
        return cls(signed=signed, chain=tuple(certificates.octets() for _ in chain))


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """TR-13; times and durations in microseconds."""

    site_id: bytes
    channel: str
    channel_id: bytes
    version: int
    issued: int
    next_update: int
    suite: int
    group: str
    port: int
    interface: str | None
    rate: int
    origin_time: int
    origin_number: int
    slot_length: int
    retention: int
    retention_bytes: int
    publisher_limit: int
    fec: tuple[int, ...] | None
    """Data and parity packets of a group; empty: after reported losses."""
    publishers: tuple[str, ...]
    subscribers: tuple[str, ...]

    def serialize(self) -> bytes:
        return encode(
            [
                1,
                self.site_id,
                self.channel,
                self.channel_id,
                self.version,
                self.issued,
                self.next_update,
                self.suite,
                self.group,
                self.port,
                self.interface,
                self.rate,
                [self.origin_time, self.origin_number, self.slot_length],
                self.retention,
                self.retention_bytes,
                self.publisher_limit,
                None if self.fec is None else list(self.fec),
                list(self.publishers),
                list(self.subscribers),
            ]
        )

    @classmethod
    def parse(cls, tbs: bytes) -> Policy:
        fields = Fields(decode(tbs), 19)
        fields.version()
        head = {
            "site_id": fields.octets(16),
            "channel": fields.text(CHANNEL_NAME),
            "channel_id": fields.octets(32),
            "version": fields.uint(),
            "issued": fields.uint(),
            "next_update": fields.uint(),
            "suite": fields.uint(),
            "group": fields.text(),
            "port": fields.uint(),
            "interface": fields.optional_text(),
            "rate": fields.uint(),
        }
        origin = Fields(fields.array(), 3)
        policy = cls(
            **head,  # type: ignore[arg-type]
            origin_time=origin.uint(),
            origin_number=origin.uint(),
            slot_length=origin.uint(),
            retention=fields.uint(),
            retention_bytes=fields.uint(),
            publisher_limit=fields.uint(),
            fec=_fec(fields.optional_array()),
            publishers=_members(fields.array()),
            subscribers=_members(fields.array()),
        )
        if policy.port > 0xFFFF or policy.origin_number >= 1 << 24 or policy.slot_length == 0:
            raise MalformedError("a number of the policy is out of range")
        return policy


def _fec(listed: Sequence[object] | None) -> tuple[int, ...] | None:
    if listed is None:
        return None
    if not listed:
        return ()
    fields = Fields(listed, 2)
    sources, parities = fields.uint(), fields.uint()
    if not (1 <= sources <= 64 and 1 <= parities <= 16):
        raise MalformedError("a group of no such size")
    return sources, parities


def _members(listed: Sequence[object]) -> tuple[str, ...]:
    fields = Fields(listed, len(listed))
    members = tuple(fields.text(MEMBER) for _ in listed)
    if list(members) != sorted(set(members)):
        raise MalformedError("members that are not sorted, or listed twice")
    return members


class Fields:
    """The items of an array, taken one by one with their type; raises MalformedError."""

    def __init__(self, items: Sequence[object], number: int) -> None:
        if len(items) != number:
            raise MalformedError("the number of fields")
        self._left = list(items)

    def version(self) -> None:
        if self.uint() != 1:
            raise MalformedError("another version")

    def uint(self) -> int:
        value = self._left.pop(0)
        # A bool is an int to Python, a bignum one to the decoder; neither is a `uint`.
        if type(value) is not int or not 0 <= value < 1 << 64:
            raise MalformedError("not an unsigned integer")
        return value

    def octets(self, length: int | None = None) -> bytes:
        value = self._left.pop(0)
        if not isinstance(value, bytes) or (length is not None and len(value) != length):
            raise MalformedError("not a byte string of this length")
        return value

    def optional_octets(self, length: int) -> bytes | None:
        if self._left[0] is None:
            self._left.pop(0)
            return None
        return self.octets(length)

    def text(self, pattern: re.Pattern[str] | None = None) -> str:
        value = self._left.pop(0)
        if not isinstance(value, str) or (pattern is not None and not pattern.fullmatch(value)):
            raise MalformedError("not a text of this form")
        return value

    def optional_text(self) -> str | None:
        if self._left[0] is None:
            self._left.pop(0)
            return None
        return self.text()

    def optional_array(self) -> list[object] | None:
        if self._left[0] is None:
            self._left.pop(0)
            return None
        return self.array()

    def array(self) -> list[object]:
        value = self._left.pop(0)
        if not isinstance(value, list):
            raise MalformedError("not an array")
        return value
