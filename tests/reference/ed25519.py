"""The one verdict on an Ed25519 signature. Spec: wire.md DP-11."""

from __future__ import annotations

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

P = 2**255 - 19
GROUP_ORDER = 2**252 + 27742317777372353535851937790883648493
ORDER_8_Y = int.from_bytes(
    bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"), "little"
)
SMALL_ORDER_Y = frozenset({0, 1, P - 1, ORDER_8_Y, P - ORDER_8_Y})
"""The y coordinates of the eight points whose order divides the cofactor, whatever the sign of x."""


def public_key_of(seed: bytes) -> bytes:
    return Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()


def sign(seed: bytes, message: bytes) -> bytes:
    return Ed25519PrivateKey.from_private_bytes(seed).sign(message)


def verify(public_key: bytes, message: bytes, signature: bytes) -> bool:
    """Whether the signature holds: cofactorless, canonical, nothing of small order."""
    if len(signature) != 64 or int.from_bytes(signature[32:], "little") >= GROUP_ORDER:
        return False
    if not _is_proper(public_key) or not _is_proper(signature[:32]):
        return False
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def _is_proper(point: bytes) -> bool:
    """Canonical and not of small order. x = 0, whose sign must be clear, occurs at small order only."""
    y = int.from_bytes(point, "little") & ((1 << 255) - 1)
    return len(point) == 32 and y < P and y not in SMALL_ORDER_Y
