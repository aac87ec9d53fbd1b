"""Derivations of keys, commitments and ids."""

from __future__ import annotations

from typing import Any

from tests.reference import schedule
from tests.reference.wire import SEQUENCE_END, Epoch, PacketType
from tests.vectors.cases.writing import Group, VectorFile, fixed

MICROSECONDS_PER_HOUR = 3_600_000_000
START = 1_767_225_600_000_000
"""2026-01-01T00:00:00Z."""
LABELS = (
    "step", "epoch", "stream", "block", "gate", "control gate", "credential", "credential block",
    "commit slot", "commit generation", "block id",
)  # fmt: skip


def kdf() -> VectorFile:
    group = Group("every label of the registry, and contexts of other lengths")
    for label in LABELS:
        key, context = fixed(f"kdf key {label}"), fixed(f"kdf context {label}", 41)
        group.valid(label, key=key, label=label, context=context, output=schedule.kdf(key, label, context))
    for length in (0, 1, 55, 64, 300):
        key, context = fixed("kdf key"), fixed("kdf context", length)
        group.valid(
            f"context of {length} bytes",
            key=key,
            label="block",
            context=context,
            output=schedule.kdf(key, "block", context),
        )
    return VectorFile("kdf", ["KM-2"], {}, [group])


def slot() -> VectorFile:
    group = Group("the slot of a time", {"originTime": START, "originNumber": 7})
    for comment, passed, length in (
        ("at the origin", 0, MICROSECONDS_PER_HOUR),
        ("the last moment of the first slot", MICROSECONDS_PER_HOUR - 1, MICROSECONDS_PER_HOUR),
        ("the first moment of the second slot", MICROSECONDS_PER_HOUR, MICROSECONDS_PER_HOUR),
        ("slots of a second", 86_400_000_000, 1_000_000),
        ("a length that does not divide", 1_000_000_007, 1_000_003),
        ("the highest slot", (2**24 - 1 - 7) * MICROSECONDS_PER_HOUR, MICROSECONDS_PER_HOUR),
    ):
        time = START + passed
        group.valid(comment, time=time, slotLength=length, slot=schedule.slot_at(time, START, 7, length))
    return VectorFile("slot", ["KM-1"], {}, [group])


def key_schedule() -> VectorFile:
    groups = []
    for suite in (1, 2, 3):
        group = Group(f"suite {suite}", {"suite": suite, "channelId": fixed("channel")})
        for comment, epoch in (
            ("the first epoch", Epoch(slot=0, generation=0, step=0)),
            ("a step", Epoch(slot=4711, generation=3, step=1)),
            ("many steps", Epoch(slot=4711, generation=3, step=17)),
            ("each number in its own bytes", Epoch(slot=0x010203, generation=0x05060708, step=4)),
            ("the last epoch", Epoch(slot=2**24 - 1, generation=2**32 - 1, step=255)),
        ):
            group.valid(comment, **_epoch_keys(suite, epoch, comment))
        groups.append(group)
    return VectorFile("key_schedule", ["KM-3", "KM-4", "KM-5", "KM-6"], {}, groups)


def _epoch_keys(suite: int, epoch: Epoch, name: str) -> dict[str, Any]:
    channel, stream, block = fixed("channel"), fixed(f"stream id {name}", 16), fixed(f"block id {name}", 16)
    slot_secret, generation_secret = fixed(f"slot {name}"), fixed(f"generation {name}")
    step_secret = generation_secret
    for step in range(epoch.step):
        step_secret = schedule.next_step(step_secret, channel, epoch.generation, step)
    secret = schedule.epoch_secret(suite, channel, epoch, slot_secret, step_secret)
    credential_key = schedule.credential_key(secret, suite, channel)
    return {
        "slot": epoch.slot,
        "generation": epoch.generation,
        "step": epoch.step,
        "slotSecret": slot_secret,
        "generationSecret": generation_secret,
        "streamId": stream,
        "blockId": block,
        "epoch": epoch.serialize(),
        "stepSecret": step_secret,
        "epochSecret": secret,
        "streamSecret": schedule.stream_secret(secret, suite, channel, stream),
        "blockKey": schedule.block_key(secret, suite, channel, stream, block),
        "gateKey": schedule.gate_key(secret, suite, channel),
        "controlGateKey": schedule.control_gate_key(slot_secret, suite, channel, epoch.slot),
        "credentialKey": credential_key,
        "credentialBlockKey": schedule.credential_block_key(credential_key, stream, block),
    }


def commitments() -> VectorFile:
    channel = fixed("channel")
    slots = Group("of a slot secret", {"channelId": channel, "kind": "slot"})
    for number in (0, 4711, 2**24 - 1):
        secret = fixed(f"committed slot {number}")
        commitment = schedule.slot_commitment(secret, channel, number)
        slots.valid(f"slot {number}", slot=number, secret=secret, commitment=commitment)
    secret = fixed("committed slot 4711")
    for comment, number, made in (
        ("another secret", 4711, schedule.slot_commitment(fixed("another"), channel, 4711)),
        ("of another slot", 4711, schedule.slot_commitment(secret, channel, 4712)),
        ("of another channel", 4711, schedule.slot_commitment(secret, fixed("channel 2"), 4711)),
        ("a bit flipped", 4711, _flip(schedule.slot_commitment(secret, channel, 4711))),
        ("of a generation", 4711, schedule.generation_commitment(secret, channel, 0, 0)),
    ):
        slots.invalid(comment, "commitment", flags=("Mismatch",), slot=number, secret=secret, commitment=made)
    generations = Group("of a step secret", {"channelId": channel, "kind": "generation"})
    for generation, step in ((0, 0), (3, 17), (2**32 - 1, 255)):
        secret = fixed(f"committed generation {generation} {step}")
        generations.valid(
            f"generation {generation} step {step}",
            generation=generation,
            step=step,
            secret=secret,
            commitment=schedule.generation_commitment(secret, channel, generation, step),
        )
    secret = fixed("committed generation 3 17")
    stepped = schedule.next_step(secret, channel, 3, 17)
    for comment, made in (
        ("another secret", schedule.generation_commitment(fixed("another"), channel, 3, 17)),
        ("of another generation", schedule.generation_commitment(secret, channel, 4, 17)),
        ("of another step", schedule.generation_commitment(secret, channel, 3, 18)),
        ("of the next step's secret", schedule.generation_commitment(stepped, channel, 3, 18)),
        ("of another channel", schedule.generation_commitment(secret, fixed("channel 2"), 3, 17)),
        ("of a slot", schedule.slot_commitment(secret, channel, 3)),
    ):
        generations.invalid(
            comment,
            "commitment",
            flags=("Mismatch",),
            generation=3,
            step=17,
            secret=secret,
            commitment=made,
        )
    notes = {"Mismatch": ("MISSING_CHECK", "a secret that the commitment does not bind (KM-8)")}
    return VectorFile("commitments", ["KM-7", "KM-8"], notes, [slots, generations])


def _flip(data: bytes) -> bytes:
    return bytes((data[0] ^ 1,)) + data[1:]


def block_id() -> VectorFile:
    group = Group("unpredictable, and another one at each call", {"seed": fixed("stream 1")})
    for comment, kind, first, time, randomness in (
        ("data", PacketType.DATA, 0, START, fixed("randomness", 16)),
        ("other randomness", PacketType.DATA, 0, START, fixed("randomness 2", 16)),
        ("a clone with the same randomness, later", PacketType.DATA, 0, START + 1, fixed("randomness", 16)),
        ("a high sequence", PacketType.DATA, SEQUENCE_END - 64, START, fixed("randomness", 16)),
        ("heartbeat", PacketType.HEARTBEAT, 0, START, fixed("randomness", 16)),
        ("credential", PacketType.CREDENTIAL, 0, START, fixed("randomness", 16)),
        ("beacon", PacketType.BEACON, 0, 2**64 - 1, bytes(16)),
    ):
        made = schedule.block_id(fixed("stream 1"), randomness, kind, first, time)
        group.valid(
            comment,
            type=int(kind),
            randomness=randomness,
            firstSequence=first,
            time=time,
            blockId=made,
        )
    return VectorFile("block_id", ["DP-12"], {}, [group])
