"""The group of edwards25519 by its textbook formulae, to make and to check the odd keys of the vectors."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha512

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P
SQRT_MINUS_ONE = pow(2, (P - 1) // 4, P)

Extended = tuple[int, int, int, int]
"""X, Y, Z and T: x = X/Z, y = Y/Z, xy = T/Z."""


@dataclass(frozen=True, slots=True)
class Point:
    """Affine coordinates."""

    x: int
    y: int

    def __add__(self, other: Point) -> Point:
        product = D * self.x * other.x * self.y * other.y
        x = (self.x * other.y + self.y * other.x) * pow(1 + product, -1, P)
        y = (self.y * other.y + self.x * other.x) * pow(1 - product, -1, P)
        return Point(x % P, y % P)

    def __rmul__(self, scalar: int) -> Point:
        # One division at the end, instead of two for each sum.
        total, power = (0, 1, 1, 0), (self.x, self.y, 1, self.x * self.y % P)
        while scalar:
            if scalar & 1:
                total = _sum(total, power)
            power, scalar = _sum(power, power), scalar >> 1
        x, y, z, _ = total
        inverse = pow(z, -1, P)
        return Point(x * inverse % P, y * inverse % P)

    def encode(self) -> bytes:
        """RFC 8032 section 5.1.2."""
        return (self.y | (self.x & 1) << 255).to_bytes(32, "little")


def _sum(one: Extended, other: Extended) -> Extended:
    """RFC 8032 section 5.1.4; complete, so that it doubles, too."""
    (x1, y1, z1, t1), (x2, y2, z2, t2) = one, other
    a, b = (y1 - x1) * (y2 - x2), (y1 + x1) * (y2 + x2)
    c, d = 2 * D * t1 * t2, 2 * z1 * z2
    e, f, g, h = (b - a) % P, (d - c) % P, (d + c) % P, (b + a) % P
    return e * f % P, g * h % P, f * g % P, e * h % P


IDENTITY = Point(0, 1)


def decode(encoded: bytes) -> Point | None:
    """RFC 8032 section 5.1.3; None for what is not canonical or not on the curve."""
    number = int.from_bytes(encoded, "little")
    y, sign = number & ((1 << 255) - 1), number >> 255
    if y >= P:
        return None
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    if x * x % P != square:
        x = x * SQRT_MINUS_ONE % P
    if x * x % P != square or (x == 0 and sign):
        return None
    return Point(x if x & 1 == sign else P - x, y)


BASE = decode(bytes.fromhex("58" + "66" * 31)) or IDENTITY
TORSION = (
    decode(bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a")) or IDENTITY
)
"""A point of order 8: it generates the points of small order."""


def secret_scalar(seed: bytes) -> tuple[int, bytes]:
    """The scalar and the prefix of a private key (RFC 8032 section 5.1.5)."""
    digest = sha512(seed).digest()
    scalar = int.from_bytes(digest[:32], "little") & ((1 << 254) - 8) | 1 << 254
    return scalar, digest[32:]


def challenge(r: bytes, public_key: bytes, message: bytes) -> int:
    return int.from_bytes(sha512(r + public_key + message).digest(), "little") % L


def verdict(public_key: bytes, message: bytes, signature: bytes) -> bool:
    """DP-11 from the equation alone: S * B = R + k * A, on canonical points that are not of small order."""
    a, r, s = decode(public_key), decode(signature[:32]), int.from_bytes(signature[32:], "little")
    if a is None or r is None or s >= L or len(signature) != 64:
        return False
    if 8 * a == IDENTITY or 8 * r == IDENTITY:
        return False
    return s * BASE == r + challenge(signature[:32], public_key, message) * a
