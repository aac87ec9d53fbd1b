"""Every derivation. Spec: keys.md sections 1 (KM-1 to KM-7), wire.md DP-1, DP-3, DP-12."""

from __future__ import annotations

import hmac
from hashlib import sha3_256, sha256

from tests.reference.wire import Epoch

SPKI_PREFIX = bytes.fromhex("302a300506032b6570032100")
"""What stands before the 32 bytes of an Ed25519 key in its SubjectPublicKeyInfo (RFC 8410)."""


def kdf(key: bytes, label: str, context: bytes) -> bytes:
    """KM-2: NIST SP 800-108 in counter mode, one block of 256 bits."""
    message = (1).to_bytes(4) + label.encode() + b"\x00" + context + (256).to_bytes(4)
    return hmac.digest(key, message, "sha256")


def channel_id(site_id: bytes, name: str) -> bytes:
    """DP-3; site_id: 16 bytes."""
    return sha256(b"sealcast/1 channel\x00" + site_id + name.encode()).digest()


def spki(public_key: bytes) -> bytes:
    return SPKI_PREFIX + public_key


def stream_id(public_key: bytes) -> bytes:
    """DP-1; public_key: the 32 bytes of an Ed25519 key."""
    return sha3_256(spki(public_key)).digest()[:16]


def block_id(seed: bytes, randomness: bytes, packet_type: int, first_sequence: int, time: int) -> bytes:
    """DP-12; seed: the 32 bytes of the stream's private key, randomness: 16 bytes."""
    message = randomness + packet_type.to_bytes(1) + first_sequence.to_bytes(8) + time.to_bytes(8)
    return hmac.digest(kdf(seed, "block id", b""), message, "sha256")[:16]


def slot_at(time: int, origin_time: int, origin_number: int, slot_length: int) -> int:
    """KM-1; times in microseconds."""
    return origin_number + (time - origin_time) // slot_length


def next_step(step_secret: bytes, channel: bytes, generation: int, step: int) -> bytes:
    """KM-3: the secret of `step` + 1 from the one of `step`."""
    return kdf(step_secret, "step", channel + generation.to_bytes(4) + (step + 1).to_bytes(1))


def epoch_secret(suite: int, channel: bytes, epoch: Epoch, slot_secret: bytes, step_secret: bytes) -> bytes:
    return kdf(slot_secret, "epoch", bytes((suite,)) + channel + epoch.serialize() + step_secret)


def block_key(secret: bytes, suite: int, channel: bytes, stream: bytes, block: bytes) -> bytes:
    """KM-4; secret: the epoch's."""
    return kdf(stream_secret(secret, suite, channel, stream), "block", block)


def stream_secret(secret: bytes, suite: int, channel: bytes, stream: bytes) -> bytes:
    return kdf(secret, "stream", bytes((suite,)) + channel + stream)


def gate_key(secret: bytes, suite: int, channel: bytes) -> bytes:
    """KM-5; secret: the epoch's."""
    return kdf(secret, "gate", bytes((suite,)) + channel)


def control_gate_key(slot_secret: bytes, suite: int, channel: bytes, slot: int) -> bytes:
    return kdf(slot_secret, "control gate", bytes((suite,)) + channel + slot.to_bytes(3))


def credential_key(secret: bytes, suite: int, channel: bytes) -> bytes:
    """KM-6; secret: the epoch's."""
    return kdf(secret, "credential", bytes((suite,)) + channel)


def credential_block_key(key: bytes, stream: bytes, block: bytes) -> bytes:
    return kdf(key, "credential block", stream + block)


def slot_commitment(slot_secret: bytes, channel: bytes, slot: int) -> bytes:
    """KM-7."""
    return kdf(slot_secret, "commit slot", channel + slot.to_bytes(3))


def generation_commitment(step_secret: bytes, channel: bytes, generation: int, step: int) -> bytes:
    return kdf(step_secret, "commit generation", channel + generation.to_bytes(4) + step.to_bytes(1))


def sign_input(context: str, message: bytes) -> bytes:
    """DP-10: what every signature of the protocol is made over."""
    return len(context.encode()).to_bytes(1) + context.encode() + message


def statement(
    *,
    suite: int,
    channel: bytes,
    stream: bytes,
    epoch: Epoch,
    block: bytes,
    first_sequence: int,
    count: int,
    time: int,
    root: bytes,
) -> bytes:
    """DP-10: the 122 bytes that a block's signature vouches for."""
    return b"".join(
        (
            suite.to_bytes(1),
            channel,
            stream,
            epoch.serialize(),
            block,
            first_sequence.to_bytes(8),
            count.to_bytes(1),
            time.to_bytes(8),
            root,
        )
    )
