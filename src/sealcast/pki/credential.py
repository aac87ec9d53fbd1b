"""Stream credentials: a device key vouches for a stream key on one channel, and the bundle that carries the
proof.

Made here, judged by the engine. Spec: spec/trust.md TR-11, TR-12, spec/wire.md DP-1.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from sealcast.errors import CertificateError, UsageError
from sealcast.pki.names import CHANNEL_ID_BYTES, check_device_name, check_instance_name, check_site_id
from sealcast.pki.policy import SUITES
from sealcast.pki.signed import Context, PublicKey, SignedObject, Signer, decode_array, encode_cbor, items

CREDENTIAL_FORMAT = 1
SPKI_BYTES = 44
STREAM_ID_BYTES = 16
START_NONCE_BYTES = 16
HASH_BYTES = 32
MAX_BUNDLE_BYTES = 8 * 1204
"""One block of credential packets. Spec: TR-12, DP-29."""

# The fixed part of an Ed25519 SubjectPublicKeyInfo (RFC 8410); 32 bytes of key follow.
_ED25519_SPKI_PREFIX = bytes.fromhex("302a300506032b6570032100")


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamCredential:
    """What a device says about one of its stream keys. Field for field the structure of TR-11."""

    spki: bytes
    """SubjectPublicKeyInfo of the stream key, 44 bytes."""
    channel_id: bytes
    """32 bytes."""
    suite: int
    site_id: bytes
    """16 bytes."""
    device: str
    certificate_hash: bytes
    """SHA-256 of the DER device certificate, 32 bytes."""
    not_before: int
    """Microseconds."""
    not_after: int
    """Microseconds."""
    start_nonce: bytes
    """16 random bytes, new at each start of the sender."""
    instance: str
    succeeds: bytes | None
    """Stream id of the predecessor, 16 bytes."""

    def __post_init__(self) -> None:
        check_site_id(self.site_id)
        check_device_name(self.device)
        check_instance_name(self.instance)
        if len(self.spki) != SPKI_BYTES or not self.spki.startswith(_ED25519_SPKI_PREFIX):
            raise UsageError("the stream key is not an Ed25519 SubjectPublicKeyInfo of 44 bytes")
        lengths = (len(self.channel_id), len(self.certificate_hash), len(self.start_nonce))
        if lengths != (CHANNEL_ID_BYTES, HASH_BYTES, START_NONCE_BYTES):
            raise UsageError(f"fields of a stream credential have wrong lengths: {lengths}")
        if self.succeeds is not None and len(self.succeeds) != STREAM_ID_BYTES:
            raise UsageError(f"a stream id is {STREAM_ID_BYTES} bytes, got {len(self.succeeds)}")
        if self.suite not in SUITES or not 0 <= self.not_before < self.not_after:
            raise UsageError("suite or validity of the stream credential makes no sense")

    @property
    def stream_id(self) -> bytes:
        """16 bytes. Spec: DP-1."""
        return stream_id(self.spki)

    def encode(self) -> bytes:
        """Return the `tbs` of TR-11."""
        return encode_cbor(
            [
                CREDENTIAL_FORMAT,
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

    def sign(self, signer: Signer) -> bytes:
        """Return the signed object; `signer` holds the device key."""
        return SignedObject.sign(Context.STREAM_CREDENTIAL, self.encode(), signer).serialize()

    @classmethod
    def decode(cls, tbs: bytes) -> Self:
        """Read a `tbs`. Raises: CertificateError."""
        match decode_array(tbs):
            case [
                1, bytes(spki), bytes(channel_id), int(suite), bytes(site_id), str(device),
                bytes(certificate_hash), int(not_before), int(not_after), bytes(start_nonce), str(instance),
                bytes() | None as succeeds,
            ]:  # fmt: skip
                pass
            case _:
                raise CertificateError("not a stream credential", reason="malformed")
        try:
            return cls(
                spki=spki,
                channel_id=channel_id,
                suite=suite,
                site_id=site_id,
                device=device,
                certificate_hash=certificate_hash,
                not_before=not_before,
                not_after=not_after,
                start_nonce=start_nonce,
                instance=instance,
                succeeds=succeeds,
            )
        except UsageError as error:
            raise CertificateError(f"not a stream credential: {error}", reason="malformed") from None

    @classmethod
    def parse(cls, signed: bytes, public_key: PublicKey | None) -> Self:
        """Read a signed credential.

        `public_key`: the device's, under which the signature must hold; None where the engine has judged
        these very bytes already and only the fields are wanted. Raises: CertificateError.
        """
        envelope = SignedObject.parse(signed)
        return cls.decode(
            envelope.tbs if public_key is None else envelope.verify(Context.STREAM_CREDENTIAL, public_key)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CredentialBundle:
    """A stream credential and the certificates that vouch for it. Spec: TR-12."""

    signed_credential: bytes
    chain: tuple[bytes, ...]
    """DER: the device's certificate, then its issuers; the root may be left out."""

    def serialize(self) -> bytes:
        """Return the bundle's bytes. Raises.

        CertificateError if it does not fit one block of credential packets.
        """
        if not self.chain:
            raise UsageError("a credential bundle needs the device's certificate")
        data = encode_cbor([self.signed_credential, list(self.chain)])
        if len(data) > MAX_BUNDLE_BYTES:
            raise CertificateError(
                f"the credential bundle has {len(data)} bytes, more than {MAX_BUNDLE_BYTES}",
                reason="size",
                cure="shorten the certificate chain",
            )
        return data

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read a bundle's bytes; nothing is verified. Raises: CertificateError."""
        if len(data) <= MAX_BUNDLE_BYTES:
            match decode_array(data):
                case [bytes(signed_credential), [bytes(), *_] as chain] if items(chain, bytes):
                    return cls(signed_credential=signed_credential, chain=tuple(chain))
        raise CertificateError("not a credential bundle", reason="malformed")

    def credential(self) -> StreamCredential:
        """Return the credential's fields, unverified.

        For display, and after the engine has judged the bundle.
        """
        return StreamCredential.parse(self.signed_credential, None)


def make_bundle(credential: StreamCredential, signer: Signer, chain: Sequence[bytes]) -> bytes:
    """Sign a credential with the device key and pack it with the device's chain (DER, leaf first)."""
    return CredentialBundle(signed_credential=credential.sign(signer), chain=tuple(chain)).serialize()


def stream_id(spki: bytes) -> bytes:
    """Return `SHA3-256(SubjectPublicKeyInfo)[0..16]`. Spec: DP-1."""
    return hashlib.sha3_256(spki).digest()[:STREAM_ID_BYTES]


def ed25519_spki(public_key: bytes) -> bytes:
    """Return the 44-byte SubjectPublicKeyInfo of a raw 32-byte Ed25519 key (RFC 8410)."""
    if len(public_key) != 32:
        raise UsageError(f"an Ed25519 public key is 32 bytes, got {len(public_key)}")
    return _ED25519_SPKI_PREFIX + public_key
