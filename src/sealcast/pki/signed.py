"""Signed objects: `[tbs, algorithm, signature]` in deterministic CBOR.

The signature is over `length(context) ‖ context ‖ tbs`, so that a signature made for one use never passes in
another.
Spec: spec/trust.md section 4 (TR-10), spec/wire.md DP-10, spec/registry.md.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import Any, NoReturn, Protocol, Self

import cbor2
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from sealcast.errors import CertificateError, InternalError

PublicKey = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey

_MAX_UINT = 2**64 - 1
# Deepest structure of the spec: a join reply, five levels.
_MAX_DEPTH = 16


class Context(Enum):
    """What a signature is for. Spec: registry.md, signature contexts."""

    STREAM_CREDENTIAL = b"sealcast/1 stream credential"
    POLICY = b"sealcast/1 policy"
    TRUST_BUNDLE = b"sealcast/1 trust bundle"
    RENEWAL_PROOF = b"sealcast/1 renewal proof"


class Algorithm(IntEnum):
    """Signature algorithms of signed objects. Spec: registry.md."""

    ECDSA_P256 = 1
    ED25519 = 2
    ECDSA_P384 = 3


class Signer(Protocol):
    """Something that signs with one private key: a file, a PKCS#11 token, a test."""

    @property
    def algorithm(self) -> Algorithm:
        """The algorithm of every signature that `sign` returns."""

    def sign(self, data: bytes) -> bytes:
        """Return a signature over `data` (unhashed), in the form that registry.md gives for the algorithm."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedObject:
    """A signed object as it came or goes; nothing is verified before `verify`."""

    tbs: bytes
    algorithm: Algorithm
    signature: bytes

    @classmethod
    def sign(cls, context: Context, tbs: bytes, signer: Signer) -> Self:
        """Sign the encoded structure `tbs` for one use."""
        return cls(tbs=tbs, algorithm=signer.algorithm, signature=signer.sign(sign_input(context.value, tbs)))

    def serialize(self) -> bytes:
        """Return the object's bytes."""
        return encode_cbor([self.tbs, int(self.algorithm), self.signature])

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read an object's bytes. Raises: CertificateError."""
        match decode_array(data):
            case [bytes(tbs), int(code), bytes(signature)] if code in Algorithm.__members__.values():
                return cls(tbs=tbs, algorithm=Algorithm(code), signature=signature)
            case _:
                raise CertificateError("not a signed object", reason="malformed")

    def verify(self, context: Context, public_key: PublicKey) -> bytes:
        """Return `tbs` once the signature holds under `public_key`, whose kind must fit the algorithm.

        For objects of one's own site, on its own machine. What peers send is judged by the engine.
        Raises: CertificateError.
        """
        if algorithm_of(public_key) is not self.algorithm:
            raise CertificateError("the signature's algorithm does not fit the key", reason="signature")
        verify_signature(public_key, self.signature, sign_input(context.value, self.tbs))
        return self.tbs


def verify_signature(public_key: PublicKey, signature: bytes, message: bytes) -> None:
    """Check a signature by the algorithm that goes with the key. Raises: CertificateError."""
    try:
        if isinstance(public_key, ed25519.Ed25519PublicKey):
            public_key.verify(signature, message)
        else:
            public_key.verify(signature, message, ec.ECDSA(signature_hash(algorithm_of(public_key))))
    except InvalidSignature:
        raise CertificateError("the signature does not hold", reason="signature") from None


def sign_input(context: bytes, message: bytes) -> bytes:
    """Return what a signature covers: `length(context) (1 byte) ‖ context ‖ message`. Spec: DP-10."""
    return len(context).to_bytes(1, "big") + context + message


def algorithm_of(public_key: object) -> Algorithm:
    """Return the one algorithm that a public key signs with. Raises.

    CertificateError for keys out of the registry.
    """
    match public_key:
        case ed25519.Ed25519PublicKey():
            return Algorithm.ED25519
        case ec.EllipticCurvePublicKey(curve=ec.SECP256R1()):
            return Algorithm.ECDSA_P256
        case ec.EllipticCurvePublicKey(curve=ec.SECP384R1()):
            return Algorithm.ECDSA_P384
        case _:
            raise CertificateError(
                "the key is neither P-256, P-384 nor Ed25519",
                reason="key",
                cure="use a key of one of these kinds",
            )


def signature_hash(algorithm: Algorithm) -> hashes.HashAlgorithm:
    """Return the hash that goes with an ECDSA algorithm."""
    match algorithm:
        case Algorithm.ECDSA_P256:
            return hashes.SHA256()
        case Algorithm.ECDSA_P384:
            return hashes.SHA384()
        case Algorithm.ED25519:
            raise InternalError("Ed25519 hashes by itself")


def encode_cbor(value: object) -> bytes:
    """Encode in core deterministic form (RFC 8949 section 4.2.1).

    Only what the spec uses: unsigned integers of 64 bits, byte and text strings, sequences, maps with text
    keys, booleans, null. Raises: InternalError for anything else.
    """
    problem = _outside_profile(value)
    if problem:
        raise InternalError(f"cannot encode {problem}")
    # With text keys alone, cbor2's "canonical" order (shorter first, RFC 7049) is the bytewise order of RFC
    # 8949.
    return cbor2.dumps(value, canonical=True)


def array_head(count: int) -> bytes:
    """Return what an array of `count` items begins with; their encodings follow."""
    empty = cbor2.dumps(count)
    # The length of an array is written as an unsigned integer is, under major type 4.
    return bytes([empty[0] | 0x80]) + empty[1:]


def encode_texts(texts: Sequence[str]) -> bytes:
    """Return the encodings of text strings one after the other, as an array holds them."""
    return cbor2.dumps(list(texts))[len(array_head(len(texts))) :]


def decode_texts(data: bytes, count: int) -> tuple[str, ...]:
    """Read `count` text strings that `encode_texts` has written."""
    return tuple(cbor2.loads(array_head(count) + data))


def decode_cbor(data: bytes) -> Any:
    """Decode one structure and refuse every encoding of it but the deterministic one.

    Returns: int, bytes, str, list, dict, bool or None. Raises: CertificateError.
    """
    try:
        value = cbor2.loads(
            data,
            semantic_decoders=_NO_TAGS,
            max_depth=_MAX_DEPTH,
            allow_indefinite=False,
            allow_duplicate_keys=False,
            strict_hashable_types=True,
        )
    except (cbor2.CBORError, ValueError) as error:
        raise CertificateError(f"not CBOR: {type(error).__name__}", reason="malformed") from None
    # Trailing bytes, long integers and unsorted maps all show as a difference.
    if _outside_profile(value) or cbor2.dumps(value, canonical=True) != data:
        raise CertificateError("not deterministic CBOR", reason="malformed")
    return value


def decode_array(data: bytes) -> list[Any]:
    """Decode one array that holds no booleans, which Python would take for the integers 0 and 1.

    Raises: CertificateError.
    """
    value = decode_cbor(data)
    if not isinstance(value, list) or _has_boolean(value):
        raise CertificateError("not an array of the spec", reason="malformed")
    return value


def _has_boolean(value: object) -> bool:
    return isinstance(value, bool) or (isinstance(value, list) and any(_has_boolean(item) for item in value))


class _NoTags(Mapping[int, Any]):
    """Decoders of tags that refuse every tag.

    The built-in ones make shared references, with which a few bytes unfold to a structure without end.
    """

    def __getitem__(self, tag: int) -> Any:
        return self._refuse

    def __iter__(self) -> Iterator[int]:
        return iter(())

    def __len__(self) -> int:
        return 1

    @staticmethod
    def _refuse(_value: object, _immutable: bool) -> NoReturn:
        raise ValueError("tags are not used")


_NO_TAGS = _NoTags()


def _outside_profile(value: object, depth: int = 0) -> str:
    """Name what the spec's structures do not use; empty if all is well."""
    match value:
        case _ if depth > _MAX_DEPTH:
            return "a structure this deep"
        case None | bool() | bytes() | str():
            return ""
        case int():
            return "" if 0 <= value <= _MAX_UINT else f"the integer {value}"
        case Mapping():
            for key, item in value.items():
                if not isinstance(key, str):
                    return f"a key of type {type(key).__name__}"
                if problem := _outside_profile(item, depth + 1):
                    return problem
            return ""
        case list() | tuple():
            return next((p for p in (_outside_profile(item, depth + 1) for item in value) if p), "")
        case _:
            return f"a value of type {type(value).__name__}"


def items(value: Sequence[Any], kind: type) -> bool:
    """Tell whether every item of a decoded array is of one type."""
    return all(isinstance(item, kind) for item in value)
