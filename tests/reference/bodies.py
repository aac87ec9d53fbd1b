"""The clear bodies: heartbeat (DP-26) and status beacon (KM-15)."""

from __future__ import annotations

from dataclasses import dataclass

from tests.reference.wire import MalformedError

HEARTBEAT_BYTES = 33
BEACON_FIXED_BYTES = 164
MAX_SLOT_COMMITMENTS = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat:
    counter: int
    next_sequence: int
    ended: bool = False
    successor: bytes | None = None

    def serialize(self) -> bytes:
        flags = int(self.ended) | int(self.successor is not None) << 1
        named = self.successor if self.successor is not None else bytes(16)
        return self.counter.to_bytes(8) + self.next_sequence.to_bytes(8) + flags.to_bytes(1) + named

    @classmethod
    def parse(cls, body: bytes) -> Heartbeat:
        if len(body) != HEARTBEAT_BYTES:
            raise MalformedError("length of a heartbeat")
        return cls(
            counter=int.from_bytes(body[0:8]),
            next_sequence=int.from_bytes(body[8:16]),
            ended=bool(body[16] & 1),
            successor=body[17:33] if body[16] & 2 else None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Beacon:
    counter: int
    policy_version: int
    policy_hash: bytes
    crl_number: int
    crl_hash: bytes
    bundle_version: int
    bundle_hash: bytes
    generation_commitment: bytes
    first_slot: int
    slot_commitments: tuple[bytes, ...]

    def serialize(self) -> bytes:
        return b"".join(
            (
                self.counter.to_bytes(8),
                self.policy_version.to_bytes(8),
                self.policy_hash,
                self.crl_number.to_bytes(8),
                self.crl_hash,
                self.bundle_version.to_bytes(8),
                self.bundle_hash,
                self.generation_commitment,
                self.first_slot.to_bytes(3),
                len(self.slot_commitments).to_bytes(1),
                *self.slot_commitments,
            )
        )

    @classmethod
    def parse(cls, body: bytes) -> Beacon:
        if len(body) < BEACON_FIXED_BYTES:
            raise MalformedError("a beacon is cut short")
        number = body[163]
        if not 1 <= number <= MAX_SLOT_COMMITMENTS or len(body) != BEACON_FIXED_BYTES + 32 * number:
            raise MalformedError("the slot commitments of a beacon")
        return cls(
            counter=int.from_bytes(body[0:8]),
            policy_version=int.from_bytes(body[8:16]),
            policy_hash=body[16:48],
            crl_number=int.from_bytes(body[48:56]),
            crl_hash=body[56:88],
            bundle_version=int.from_bytes(body[88:96]),
            bundle_hash=body[96:128],
            generation_commitment=body[128:160],
            first_slot=int.from_bytes(body[160:163]),
            slot_commitments=tuple(body[at : at + 32] for at in range(164, len(body), 32)),
        )
