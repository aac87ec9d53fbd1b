"""The sending end: from bodies to datagrams. Spec: wire.md sections 3, 4, 7, 8; keys.md KM-15.

Everything comes in as arguments, randomness and time too; nothing is kept between calls but the key.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from dataclasses import dataclass, replace

from blake3 import blake3
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from tests.reference import ed25519, schedule, tree
from tests.reference.bodies import Beacon, Heartbeat
from tests.reference.wire import GATE_TAG_BYTES, Datagram, Epoch, Header, PacketType, payload_limit

_GATED_BYTES = 192
CONTEXTS = {kind: f"sealcast/1 block {kind.name.lower()}" for kind in PacketType}


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochSecrets:
    """What a member holds of one epoch; 32 bytes each."""

    epoch: Epoch
    slot_secret: bytes
    step_secret: bytes

    def epoch_secret(self, suite: int, channel: bytes) -> bytes:
        return schedule.epoch_secret(suite, channel, self.epoch, self.slot_secret, self.step_secret)


def aead(suite: int, key: bytes) -> AESGCM | ChaCha20Poly1305:
    return ChaCha20Poly1305(key) if suite == 2 else AESGCM(key)


def nonce(index: int) -> bytes:
    """DP-15."""
    return bytes(11) + index.to_bytes(1)


def gate_tag(suite: int, key: bytes, leaf: bytes, path: Sequence[bytes], signature: bytes) -> bytes:
    """DP-16."""
    if suite == tree.BLAKE3_SUITE:
        gated = leaf + signature + b"".join(path)
        return blake3(gated + bytes(max(0, _GATED_BYTES - len(gated))), key=key).digest()[:GATE_TAG_BYTES]
    return hmac.digest(key, leaf + b"".join(path) + signature, "sha256")[:GATE_TAG_BYTES]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealer:
    """One stream on one channel."""

    suite: int
    channel_id: bytes
    seed: bytes
    """The stream's private key, 32 bytes."""
    mtu: int = 1500

    @property
    def public_key(self) -> bytes:
        return ed25519.public_key_of(self.seed)

    @property
    def stream_id(self) -> bytes:
        return schedule.stream_id(self.public_key)

    def data(
        self,
        secrets: EpochSecrets,
        plaintexts: Sequence[bytes],
        *,
        first_sequence: int,
        randomness: bytes,
        time: int,
    ) -> list[bytes]:
        """A block of data packets, one for each plaintext (a run of frames)."""
        if any(len(plaintext) > payload_limit(self.mtu) for plaintext in plaintexts):
            raise ValueError("more than a packet may hold (DP-6)")
        header = self._header(
            PacketType.DATA, secrets.epoch, len(plaintexts), randomness, time, first_sequence
        )
        secret = secrets.epoch_secret(self.suite, self.channel_id)
        key = schedule.block_key(secret, self.suite, self.channel_id, self.stream_id, header.block_id)
        return self.sign(header, self._encrypt(key, header, plaintexts), self._gate_key(secrets))

    def heartbeat(self, secrets: EpochSecrets, body: Heartbeat, *, randomness: bytes, time: int) -> bytes:
        header = self._header(PacketType.HEARTBEAT, secrets.epoch, 1, randomness, time)
        return self.sign(header, [body.serialize()], self._gate_key(secrets))[0]

    def credential(
        self,
        secrets: EpochSecrets,
        bundle: bytes,
        *,
        part_bytes: int | None = None,
        randomness: bytes,
        time: int,
    ) -> list[bytes]:
        """The bundle (TR-12) cut into parts of at most `part_bytes`."""
        size = part_bytes or payload_limit(self.mtu)
        parts = [bundle[at : at + size] for at in range(0, len(bundle), size)]
        header = self._header(PacketType.CREDENTIAL, secrets.epoch, len(parts), randomness, time)
        general = schedule.credential_key(
            secrets.epoch_secret(self.suite, self.channel_id), self.suite, self.channel_id
        )
        key = schedule.credential_block_key(general, self.stream_id, header.block_id)
        return self.sign(header, self._encrypt(key, header, parts), self._gate_key(secrets))

    def beacon(self, secrets: EpochSecrets, body: Beacon, *, randomness: bytes, time: int) -> bytes:
        """Gated so that a member that lags a generation behind can read it (DP-16)."""
        header = self._header(PacketType.BEACON, secrets.epoch, 1, randomness, time)
        key = schedule.control_gate_key(secrets.slot_secret, self.suite, self.channel_id, secrets.epoch.slot)
        return self.sign(header, [body.serialize()], key)[0]

    def sign(self, header: Header, bodies: Sequence[bytes], gate_key: bytes) -> list[bytes]:
        """Tree, signature and gate tags over finished bodies; `header` is that of index 0."""
        headers = [replace(header, index=index) for index in range(len(bodies))]
        leaves = [
            tree.leaf(self.suite, h.block_id, h.index, h.serialize(), body)
            for h, body in zip(headers, bodies, strict=True)
        ]
        nodes = tree.levels(self.suite, header.block_id, leaves)
        signature = ed25519.sign(self.seed, self.sign_input(header, nodes[-1][0]))
        datagrams = []
        for h, body, leaf in zip(headers, bodies, leaves, strict=True):
            path = tree.path(nodes, h.index)
            tag = gate_tag(self.suite, gate_key, leaf, path, signature)
            packet = Datagram(header=h, body=body, path=path, signature=signature, gate_tag=tag)
            datagrams.append(packet.serialize())
        return datagrams

    def sign_input(self, header: Header, root: bytes) -> bytes:
        return block_sign_input(self.suite, self.channel_id, header, root)

    def _header(
        self,
        kind: PacketType,
        epoch: Epoch,
        count: int,
        randomness: bytes,
        time: int,
        first_sequence: int = 0,
    ) -> Header:
        return Header(
            type=kind,
            stream_id=self.stream_id,
            epoch=epoch,
            block_id=schedule.block_id(self.seed, randomness, kind, first_sequence, time),
            first_sequence=first_sequence,
            index=0,
            count=count,
            time=time,
        )

    def _gate_key(self, secrets: EpochSecrets) -> bytes:
        secret = secrets.epoch_secret(self.suite, self.channel_id)
        return schedule.gate_key(secret, self.suite, self.channel_id)

    def _encrypt(self, key: bytes, header: Header, plaintexts: Sequence[bytes]) -> list[bytes]:
        return [
            aead(self.suite, key).encrypt(
                nonce(index), plaintext, replace(header, index=index).serialize() + self.channel_id
            )
            for index, plaintext in enumerate(plaintexts)
        ]


def block_sign_input(suite: int, channel_id: bytes, header: Header, root: bytes) -> bytes:
    """What the signature of a block is over (DP-10)."""
    stated = schedule.statement(
        suite=suite,
        channel=channel_id,
        stream=header.stream_id,
        epoch=header.epoch,
        block=header.block_id,
        first_sequence=header.first_sequence,
        count=header.count,
        time=header.time,
        root=root,
    )
    return schedule.sign_input(CONTEXTS[PacketType(header.type)], stated)
