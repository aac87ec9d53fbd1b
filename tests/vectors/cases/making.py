"""Who makes the packets of the vectors, for whom, and how they are broken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from tests.reference import ed25519, frames, schedule, seal, tree
from tests.reference.bodies import Beacon, Heartbeat
from tests.reference.seal import EpochSecrets, Sealer
from tests.reference.wire import (
    GATE_TAG_BYTES,
    HEADER_BYTES,
    NODE_BYTES,
    TRAILER_BYTES,
    Datagram,
    Epoch,
    Header,
    MalformedError,
    PacketType,
    depth,
)
from tests.vectors.cases.schedule import START
from tests.vectors.cases.trust import CHANNEL_ID, make_bundle, monitor, site_ca, usual_credential
from tests.vectors.cases.writing import fixed

TIME = START + 1_000_000
OTHER_CHANNEL_ID = fixed("channel 2")
DATA_SEED, CONTROL_SEED, OTHER_SEED = fixed("stream 1"), fixed("control stream"), fixed("stream 2")
EPOCH = Epoch(slot=4711, generation=3, step=2)
KNOWN = (
    EPOCH,
    Epoch(slot=4712, generation=3, step=2),
)
"""What the receiver of the vectors holds: two slots and one step of one generation."""


def secrets(epoch: Epoch = EPOCH) -> EpochSecrets:
    step_secret = fixed(f"generation {epoch.generation}")
    for step in range(epoch.step):
        step_secret = schedule.next_step(step_secret, CHANNEL_ID, epoch.generation, step)
    return EpochSecrets(epoch=epoch, slot_secret=fixed(f"slot {epoch.slot}"), step_secret=step_secret)


def receiver_inputs(suite: int, public_key: bytes, *, control: bool = False) -> dict[str, Any]:
    return {
        "suite": suite,
        "channelId": CHANNEL_ID,
        "streamPublicKey": public_key,
        "streamId": schedule.stream_id(public_key),
        "control": control,
        "slots": [{"slot": e.slot, "secret": secrets(e).slot_secret} for e in KNOWN],
        "generations": [
            {
                "generation": EPOCH.generation,
                "step": EPOCH.step,
                "secret": secrets().step_secret,
            }
        ],
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Maker:
    """A sealer, and the doings of somebody who holds the keys of the group, or even those of the stream."""

    suite: int
    seed: bytes = DATA_SEED
    channel_id: bytes = CHANNEL_ID

    @property
    def sealer(self) -> Sealer:
        return Sealer(suite=self.suite, channel_id=self.channel_id, seed=self.seed)

    def data(self, count: int, *, first: int = 100, epoch: Epoch = EPOCH) -> list[bytes]:
        plaintexts = [
            frames.Frame(message_id=first + index, data=f"message {first + index}".encode()).serialize()
            for index in range(count)
        ]
        return self.sealed(plaintexts, first=first, epoch=epoch)

    def sealed(self, plaintexts: Sequence[bytes], *, first: int = 100, epoch: Epoch = EPOCH) -> list[bytes]:
        name = f"randomness {len(plaintexts)} {first} {epoch}"
        return self.sealer.data(
            secrets(epoch), plaintexts, first_sequence=first, randomness=fixed(name, 16), time=TIME
        )

    def heartbeat(self, body: Heartbeat) -> bytes:
        return self.sealer.heartbeat(secrets(), body, randomness=fixed(f"randomness {body}", 16), time=TIME)

    def credential(self, part_bytes: int | None = None) -> list[bytes]:
        stated = usual_credential(suite=self.suite, spki=schedule.spki(self.sealer.public_key))
        bundle = make_bundle(stated, monitor(), site_ca())
        return self.sealer.credential(
            secrets(), bundle, part_bytes=part_bytes, randomness=fixed("credential", 16), time=TIME
        )

    def beacon(self, body: Beacon, epoch: Epoch = EPOCH) -> bytes:
        return self.sealer.beacon(
            secrets(epoch), body, randomness=fixed(f"randomness {epoch}", 16), time=TIME
        )

    def header(self, kind: int = PacketType.DATA, **changed: Any) -> Header:
        usual = Header(
            type=kind,
            stream_id=self.sealer.stream_id,
            epoch=EPOCH,
            block_id=fixed("block", 16),
            first_sequence=100 if kind == PacketType.DATA else 0,
            index=0,
            count=1,
            time=TIME,
        )
        return replace(usual, **changed)

    def encrypt(self, header: Header, plaintext: bytes = b"\x40\x07\x01x", **changed: Any) -> bytes:
        """The body of a data packet; `changed` says what the stream's owner does otherwise."""
        suite, channel = changed.get("suite", self.suite), changed.get("channel", self.channel_id)
        secret = secrets(changed.get("epoch", header.epoch)).epoch_secret(self.suite, self.channel_id)
        stream, block = changed.get("stream", header.stream_id), changed.get("block", header.block_id)
        key = schedule.block_key(secret, self.suite, self.channel_id, stream, block)
        if changed.get("as_credential"):
            general = schedule.credential_key(secret, self.suite, self.channel_id)
            key = schedule.credential_block_key(general, stream, block)
        bound = changed.get("bound_to", header).serialize() + channel
        nonce = seal.nonce(changed.get("nonce", header.index))
        return seal.aead(suite, key).encrypt(nonce, plaintext, bound)

    def publish(
        self, header: Header, body: bytes, *, path: bytes = b"", context: PacketType | None = None
    ) -> bytes:
        """One packet, signed and gated as it stands, be it well formed or not."""
        leaf = tree.leaf(self.suite, header.block_id, header.index, header.serialize(), body)
        siblings = _nodes(path)
        try:
            root = tree.root_of(self.suite, header.block_id, header.index, header.count, leaf, siblings)
        except MalformedError:
            root = leaf
        named = context or (header.type if header.type in seal.CONTEXTS else PacketType.DATA)
        said = seal.block_sign_input(self.suite, self.channel_id, replace(header, type=named), root)
        signature = ed25519.sign(self.seed, said)
        packet = Datagram(
            header=header, body=body, path=tuple(siblings), signature=signature, gate_tag=bytes(8)
        )
        return self.gate(packet.serialize(), len(path))

    def gate(self, data: bytes, path_bytes: int | None = None, key: bytes | None = None) -> bytes:
        """The datagram with the tag that a member would give it."""
        index, count = data[54], data[55]
        if path_bytes is None:
            path_bytes = NODE_BYTES * depth(index, count)
        end = len(data) - TRAILER_BYTES - path_bytes
        epoch, block_id = Epoch.parse(data[22:30]), data[30:46]
        leaf = tree.leaf(self.suite, block_id, index, data[:HEADER_BYTES], data[HEADER_BYTES:end])
        path, signature = data[end : end + path_bytes], data[-TRAILER_BYTES:-GATE_TAG_BYTES]
        used = key or self.gate_key(data[5], epoch)
        return data[:-GATE_TAG_BYTES] + seal.gate_tag(self.suite, used, leaf, [path], signature)

    def gate_key(self, kind: int, epoch: Epoch) -> bytes:
        held = secrets(epoch)
        if kind == PacketType.BEACON:
            return schedule.control_gate_key(held.slot_secret, self.suite, CHANNEL_ID, epoch.slot)
        return schedule.gate_key(held.epoch_secret(self.suite, CHANNEL_ID), self.suite, CHANNEL_ID)


def _nodes(path: bytes) -> list[bytes]:
    return [path[at : at + NODE_BYTES] for at in range(0, len(path), NODE_BYTES)]


def patch(data: bytes, at: int, new: bytes) -> bytes:
    """`new` over the bytes from offset `at`, counted from the end if negative."""
    start = at if at >= 0 else len(data) + at
    return data[:start] + new + data[start + len(new) :]


def flip(data: bytes, at: int, bit: int = 1) -> bytes:
    start = at if at >= 0 else len(data) + at
    return patch(data, start, bytes((data[start] ^ bit,)))


def usual_beacon(**changed: Any) -> Beacon:
    slots = (EPOCH.slot, EPOCH.slot + 1)
    usual = Beacon(
        counter=9,
        policy_version=3,
        policy_hash=fixed("policy hash"),
        crl_number=5,
        crl_hash=fixed("CRL hash"),
        bundle_version=0,
        bundle_hash=bytes(32),
        generation_commitment=schedule.generation_commitment(
            secrets().step_secret, CHANNEL_ID, EPOCH.generation, EPOCH.step
        ),
        first_slot=EPOCH.slot,
        slot_commitments=tuple(
            schedule.slot_commitment(fixed(f"slot {slot}"), CHANNEL_ID, slot) for slot in slots
        ),
    )
    return replace(usual, **changed)
