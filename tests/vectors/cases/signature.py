"""The Ed25519 verdict, and the statement that a block's signature is over."""

from __future__ import annotations

from hashlib import sha512
from typing import Any

from tests.reference import ed25519, edwards, schedule, seal
from tests.reference.edwards import BASE, IDENTITY, TORSION, L, P, Point
from tests.reference.wire import Epoch, PacketType
from tests.vectors.cases.schedule import START
from tests.vectors.cases.writing import Group, VectorFile, fixed

HIGH_BIT = 1 << 255


def little(number: int) -> bytes:
    return number.to_bytes(32, "little")


def small_order_keys() -> list[tuple[str, bytes, Point]]:
    """Every encoding that a lenient decoder takes for a point of small order: 8 canonical ones, 6 others."""
    points = [index * TORSION for index in range(8)]
    named = [(f"canonical, multiple {index}", point.encode(), point) for index, point in enumerate(points)]
    zero = [point for point in points if point.y == 0]
    minus_one = 4 * TORSION
    return [
        *named,
        ("y = 1, sign of x set", little(1 | HIGH_BIT), IDENTITY),
        ("y = p - 1, sign of x set", little((P - 1) | HIGH_BIT), minus_one),
        ("y = p", little(P), next(point for point in zero if point.x % 2 == 0)),
        ("y = p, sign of x set", little(P | HIGH_BIT), next(point for point in zero if point.x % 2 == 1)),
        ("y = p + 1", little(P + 1), IDENTITY),
        ("y = p + 1, sign of x set", little((P + 1) | HIGH_BIT), IDENTITY),
    ]


def forge(key: bytes, point: Point, message: bytes) -> bytes:
    """A signature that a lenient verifier accepts under a key of small order: k * A vanishes, R = S * B."""
    for attempt in range(1, 1000):
        s = int.from_bytes(fixed(f"forged S {attempt}"), "little") % L
        r = (s * BASE).encode()
        if _agreed(r, key, message) is not None and edwards.challenge(r, key, message) * point == IDENTITY:
            return r + little(s)
    raise ValueError("no forgery found")


def _agreed(r: bytes, key: bytes, message: bytes) -> int | None:
    """k modulo 8, where the hash modulo the group order says the same as the whole hash; else None.

    Verifiers that reduce the hash and those that do not differ where a key has a part of small order. The
    vectors keep to ground where they agree.
    """
    whole = int.from_bytes(sha512(r + key + message).digest(), "little")
    return whole % 8 if whole % 8 == whole % L % 8 else None


def mixed(*, key_part: Point, r_part: Point, wanted_zero: bool, name: str) -> tuple[bytes, bytes, bytes]:
    """Key, message and signature whose key and R carry parts of small order.

    With `wanted_zero` these cancel in S * B = R + k * A; without, only a multiplication by 8 removes them.
    """
    a, r = (int.from_bytes(fixed(f"{name} {what}"), "little") % L for what in ("a", "r"))
    key = (a * BASE + key_part).encode()
    commitment = (r * BASE + r_part).encode()
    for attempt in range(1000):
        message = f"{name} {attempt}".encode()
        k = _agreed(commitment, key, message)
        if k is not None and (k * key_part + r_part == IDENTITY) == wanted_zero:
            s = (r + edwards.challenge(commitment, key, message) * a) % L
            return key, message, commitment + little(s)
    raise ValueError("no message found")


def ed25519_verdict() -> VectorFile:
    group = Group("one verdict everywhere: cofactorless, canonical, nothing of small order")
    seed, message = fixed("stream 1"), b"sealcast"
    key, signature = ed25519.public_key_of(seed), ed25519.sign(seed, message)
    for length in (0, 1, 122, 1000):
        said = fixed("message", length)
        group.valid(
            f"message of {length} bytes",
            publicKey=key,
            message=said,
            signature=ed25519.sign(seed, said),
        )
    flags = ("MixedOrder",)
    for comment, key_part, r_part in (
        ("a key with a part of order 8 that vanishes", TORSION, IDENTITY),
        ("parts of order 8 that cancel", TORSION, 3 * TORSION),
    ):
        odd_key, said, odd = mixed(key_part=key_part, r_part=r_part, wanted_zero=True, name=comment)
        group.valid(comment, flags=flags, publicKey=odd_key, message=said, signature=odd)
    flags = ("Cofactored",)
    for comment, key_part, r_part in (
        ("a key with a part of order 8", TORSION, IDENTITY),
        ("a key with a part of order 2", 4 * TORSION, IDENTITY),
        ("R with a part of order 8", IDENTITY, TORSION),
        ("R with a part of order 4", IDENTITY, 2 * TORSION),
        ("key and R with parts of order 8", TORSION, TORSION),
    ):
        odd_key, said, odd = mixed(key_part=key_part, r_part=r_part, wanted_zero=False, name=comment)
        group.invalid(comment, "signature", flags=flags, publicKey=odd_key, message=said, signature=odd)

    def refuse(comment: str, flag: str, made: bytes, of: bytes = key, said: bytes = message) -> None:
        group.invalid(comment, "signature", flags=(flag,), publicKey=of, message=said, signature=made)

    r, s = signature[:32], int.from_bytes(signature[32:], "little")
    scalar, _ = edwards.secret_scalar(seed)
    for times in range(1, 9):
        refuse(f"S + {times} L", "Malleable", r + little(s + times * L))
    refuse("S = L", "Malleable", r + little(L))
    refuse("S with its highest bit set", "Malleable", r + little(s | HIGH_BIT))
    for bit in (0, 7, 100, 255):
        refuse(f"bit {bit} of R flipped", "Changed", little(int.from_bytes(r, "little") ^ 1 << bit) + r)
        refuse(f"bit {bit} of S flipped", "Changed", r + little(s ^ 1 << bit))
    refuse("negated S", "Changed", r + little(L - s))
    refuse("R and S exchanged", "Changed", signature[32:] + r)
    refuse("zeros", "Changed", bytes(64))
    refuse("another message", "Changed", signature, said=b"sealcast.")
    refuse("another key", "Changed", signature, of=ed25519.public_key_of(fixed("stream 2")))
    for name, encoded, point in small_order_keys():
        refuse(f"a key of small order: {name}", "SmallOrderKey", forge(encoded, point, message), of=encoded)
    for name, encoded, _ in small_order_keys():
        s = edwards.challenge(encoded, key, message) * scalar % L
        refuse(f"R of small order: {name}", "SmallOrderR", encoded + little(s))
    for y in range(P + 2, 2**255):
        if edwards.decode(little(y - P)) is not None:
            refuse(f"a key with y = p + {y - P}", "NotCanonical", signature, of=little(y))
            refuse(f"R with y = p + {y - P}", "NotCanonical", little(y) + signature[32:])
    off = next(y for y in range(2, 100) if edwards.decode(little(y)) is None)
    refuse("a key that is not on the curve", "NotCanonical", signature, of=little(off))
    refuse("R that is not on the curve", "NotCanonical", little(off) + signature[32:])
    notes = {
        "MixedOrder": ("EDGE_CASE", "holds without multiplication by the cofactor, so it MUST be accepted"),
        "Cofactored": ("SIGNATURE_MALLEABILITY", "holds only after multiplication by the cofactor"),
        "Malleable": ("SIGNATURE_MALLEABILITY", "S is not below the group order"),
        "Changed": ("MISSING_CHECK", "a changed signature, message or key"),
        "SmallOrderKey": ("KNOWN_BUG", "a forgery that verifies under a key of small order"),
        "SmallOrderR": ("KNOWN_BUG", "R of small order; those of the identity satisfy the equation"),
        "NotCanonical": ("KNOWN_BUG", "an encoding that is not canonical, or of no point"),
    }
    return VectorFile("ed25519", ["DP-11"], notes, [group])


def statement() -> VectorFile:
    seed = fixed("stream 1")
    group = Group(
        "the bytes that a block's signature is over",
        {"seed": seed, "publicKey": ed25519.public_key_of(seed)},
    )
    usual: dict[str, Any] = {
        "type": int(PacketType.DATA),
        "suite": 1,
        "channelId": fixed("channel"),
        "streamId": schedule.stream_id(ed25519.public_key_of(seed)),
        "slot": 0x010203,
        "step": 4,
        "generation": 0x05060708,
        "blockId": fixed("block", 16),
        "firstSequence": 1000,
        "count": 16,
        "time": START,
        "root": fixed("root"),
    }

    def fields(**changed: Any) -> dict[str, Any]:
        stated = usual | changed
        packet_type = PacketType(stated["type"])
        made = _statement(stated)
        return stated | {
            "context": seal.CONTEXTS[packet_type],
            "statement": made,
            "signInput": schedule.sign_input(seal.CONTEXTS[packet_type], made),
        }

    def sign(stated: dict[str, Any]) -> bytes:
        return ed25519.sign(seed, stated["signInput"])

    for kind in PacketType:
        first = 1000 if kind == PacketType.DATA else 0
        stated = fields(type=int(kind), firstSequence=first)
        group.valid(kind.name.lower(), **stated, signature=sign(stated))
    stated = fields(suite=2, firstSequence=2**62 - 64, count=64, time=2**64 - 1)
    group.valid("the highest numbers", **stated, signature=sign(stated))
    genuine = sign(fields())
    for comment, changed in (
        ("another type, so another context", {"type": int(PacketType.PARITY)}),
        ("another suite", {"suite": 2}),
        ("another channel", {"channelId": fixed("channel 2")}),
        ("another stream", {"streamId": fixed("stream id", 16)}),
        ("another slot", {"slot": 0x010204}),
        ("another step", {"step": 5}),
        ("another generation", {"generation": 0x05060709}),
        ("another block id", {"blockId": fixed("block 2", 16)}),
        ("another first sequence", {"firstSequence": 1001}),
        ("another count", {"count": 17}),
        ("another time", {"time": START + 1}),
        ("another root", {"root": fixed("root 2")}),
    ):
        group.invalid(comment, "signature", flags=("Changed",), **fields(**changed), signature=genuine)
    bare = usual | {"context": "", "statement": _statement(usual), "signInput": _statement(usual)}
    expected = fields()
    group.invalid(
        "signed without a context",
        "signature",
        flags=("Context",),
        **expected,
        signature=sign(bare),
    )
    unprefixed = str(expected["context"]).encode() + _statement(usual)
    group.invalid(
        "signed without the length of the context",
        "signature",
        flags=("Context",),
        **expected,
        signature=ed25519.sign(seed, unprefixed),
    )
    notes = {
        "Changed": ("MISSING_CHECK", "a field of the statement is another than what was signed"),
        "Context": ("MISSING_CHECK", "the context and its length are part of what is signed (DP-10)"),
    }
    return VectorFile("statement", ["DP-10"], notes, [group])


def _statement(stated: dict[str, Any]) -> bytes:
    return schedule.statement(
        suite=stated["suite"],
        channel=stated["channelId"],
        stream=stated["streamId"],
        epoch=Epoch(slot=stated["slot"], generation=stated["generation"], step=stated["step"]),
        block=stated["blockId"],
        first_sequence=stated["firstSequence"],
        count=stated["count"],
        time=stated["time"],
        root=stated["root"],
    )
