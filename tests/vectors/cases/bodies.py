"""The clear bodies: heartbeat and status beacon."""

from __future__ import annotations

from typing import Any

from tests.reference.bodies import Heartbeat
from tests.vectors.cases.making import (
    patch,
    usual_beacon,
)
from tests.vectors.cases.writing import Group, VectorFile, fixed


def heartbeat() -> VectorFile:
    group = Group("the body of a heartbeat")
    for comment, beat in (
        ("the first", Heartbeat(counter=0, next_sequence=0)),
        ("usual", Heartbeat(counter=7, next_sequence=164)),
        ("the end", Heartbeat(counter=8, next_sequence=164, ended=True)),
        (
            "the end, with a successor",
            Heartbeat(counter=9, next_sequence=164, ended=True, successor=fixed("s", 16)),
        ),
        ("a successor before the end", Heartbeat(counter=9, next_sequence=164, successor=fixed("s", 16))),
        ("the highest numbers", Heartbeat(counter=2**64 - 1, next_sequence=2**62)),
    ):
        group.valid(comment, body=beat.serialize(), **_heartbeat_fields(beat))
    usual = Heartbeat(counter=7, next_sequence=164)
    odd = patch(usual.serialize(), 16, b"\xfc")
    group.valid("unknown flags", flags=("UnknownFlags",), body=odd, **_heartbeat_fields(usual))
    body = usual.serialize()
    for length in (0, 1, 16, 17, 32):
        group.invalid(f"{length} bytes", "malformed", flags=("Length",), body=body[:length])
    for more in (1, 16):
        wrong = body + bytes(more)
        group.invalid(f"{33 + more} bytes", "malformed", flags=("Length",), body=wrong)
    notes = {
        "UnknownFlags": ("EDGE_CASE", "flags that are not known are ignored (DP-26)"),
        "Length": ("MISSING_CHECK", "not the 33 bytes of a heartbeat"),
    }
    return VectorFile("heartbeat", ["DP-26"], notes, [group])


def _heartbeat_fields(body: Heartbeat) -> dict[str, Any]:
    return {
        "counter": body.counter,
        "nextSequence": body.next_sequence,
        "ended": body.ended,
        "successor": body.successor,
    }


def beacon() -> VectorFile:
    group = Group("the body of a status beacon")
    for comment, body in (
        ("usual", usual_beacon()),
        ("a trust bundle", usual_beacon(bundle_version=2, bundle_hash=fixed("bundle hash"))),
        ("one slot", usual_beacon(slot_commitments=(fixed("commitment"),))),
        ("32 slots", usual_beacon(slot_commitments=tuple(fixed(f"commitment {n}") for n in range(32)))),
        (
            "the highest numbers",
            usual_beacon(
                counter=2**64 - 1, policy_version=2**64 - 1, crl_number=2**64 - 1, first_slot=2**24 - 2
            ),
        ),
    ):
        group.valid(
            comment,
            body=body.serialize(),
            counter=body.counter,
            policyVersion=body.policy_version,
            policyHash=body.policy_hash,
            crlNumber=body.crl_number,
            crlHash=body.crl_hash,
            bundleVersion=body.bundle_version,
            bundleHash=body.bundle_hash,
            generationCommitment=body.generation_commitment,
            firstSlot=body.first_slot,
            slotCommitments=list(body.slot_commitments),
        )
    good = usual_beacon().serialize()
    for comment, wrong in (
        ("nothing", b""),
        ("a byte less than the fixed part", good[:163]),
        ("the fixed part alone", good[:164]),
        ("no slots", patch(good[:164], 163, b"\x00")),
        ("no slots, two commitments", patch(good, 163, b"\x00")),
        ("33 slots", patch(good[:164], 163, b"\x21") + bytes(33 * 32)),
        ("255 slots", patch(good[:164], 163, b"\xff") + bytes(255 * 32)),
        ("a commitment too few", good[:-32]),
        ("a commitment too many", good + bytes(32)),
        ("a byte too few", good[:-1]),
        ("a byte too many", good + b"\0"),
    ):
        group.invalid(comment, "malformed", flags=("Length",), body=wrong)
    notes = {"Length": ("MISSING_CHECK", "a number of slots outside of 1..32, or not that of the bytes")}
    return VectorFile("beacon", ["KM-15"], notes, [group])
