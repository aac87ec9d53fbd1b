"""A member that keeps every secret it is given, and seals with them what it likes."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from sealcast.pki import StreamCredential, make_bundle
from sealcast.pki.signed import Signer
from sealcast.sidechannel.fields import MalformedMessageError
from sealcast.sidechannel.messages import JoinAnswer, KeysAnswer
from sealcast.testing import Simulation
from tests.reference import schedule, tree
from tests.reference.seal import EpochSecrets, Sealer, gate_tag
from tests.reference.wire import Datagram, Epoch, Header


def read_keys(body: bytes) -> KeysAnswer:
    """The secrets in a join or a keys reply."""
    try:
        return JoinAnswer.parse(body).keys
    except MalformedMessageError:
        return KeysAnswer.parse(body)


class Insider:
    """What a member could do that is bound by no rule."""

    def __init__(self, *, suite: int, channel_id: bytes, answers: Iterable[KeysAnswer], seed: int) -> None:
        self.suite, self.channel_id = suite, channel_id
        self._draw = random.Random(f"insider {seed}")
        self._slots: dict[int, bytes] = {}
        self._steps: dict[tuple[int, int], bytes] = {}
        for keys in answers:
            self._slots.update((number, secret.reveal()) for number, secret in keys.slots)
            self._steps[keys.generation, keys.step] = keys.secret.reveal()

    @classmethod
    def of(cls, sim: Simulation, name: str) -> Insider:
        """A subscriber of a simulation."""
        return cls(
            suite=sim.key_server.options.suite,
            channel_id=sim.key_server.channel_id,
            answers=map(read_keys, sim.subscriber(name).key_answers),
            seed=sim.seed,
        )

    def secrets(self, epoch: Epoch) -> EpochSecrets:
        """Those of an epoch that it was given, or can step to (KM-3)."""
        given = max(step for generation, step in self._steps if generation == epoch.generation)
        secret = self._steps[epoch.generation, given]
        for step in range(given, epoch.step):
            secret = schedule.next_step(secret, self.channel_id, epoch.generation, step)
        return EpochSecrets(epoch=epoch, slot_secret=self._slots[epoch.slot], step_secret=secret)

    def sealer(self) -> Sealer:
        """A stream of its own."""
        return Sealer(suite=self.suite, channel_id=self.channel_id, seed=self._draw.randbytes(32))

    def impostor(self, stream_id: bytes) -> Sealer:
        """The stream of another."""
        seed = self._draw.randbytes(32)
        return Impostor(suite=self.suite, channel_id=self.channel_id, seed=seed, claimed=stream_id)

    def block(
        self, sealer: Sealer, like: Header, plaintexts: Sequence[bytes], first_sequence: int
    ) -> list[bytes]:
        """A data block of the epoch and the time of another packet."""
        return sealer.data(
            self.secrets(like.epoch),
            plaintexts,
            first_sequence=first_sequence,
            randomness=self._draw.randbytes(16),
            time=like.time,
        )

    def announcement(
        self,
        sealer: Sealer,
        like: Header,
        credential: StreamCredential,
        signer: Signer,
        chain: Sequence[bytes],
    ) -> list[bytes]:
        """Credential packets of a stream."""
        return sealer.credential(
            self.secrets(like.epoch),
            make_bundle(credential, signer, chain),
            randomness=self._draw.randbytes(16),
            time=like.time,
        )

    def gated_anew(self, packet: Datagram) -> bytes:
        """A packet that was changed, with the gate tag that it now needs."""
        header = packet.header
        leaf = tree.leaf(self.suite, header.block_id, header.index, header.serialize(), packet.body)
        secret = self.secrets(header.epoch).epoch_secret(self.suite, self.channel_id)
        key = schedule.gate_key(secret, self.suite, self.channel_id)
        tag = gate_tag(self.suite, key, leaf, packet.path, packet.signature)
        return replace(packet, gate_tag=tag).serialize()


@dataclass(frozen=True, slots=True, kw_only=True)
class Impostor(Sealer):
    """Seals for the stream of another, and has to sign with a key of its own."""

    claimed: bytes
    """Stream id."""

    @property
    def stream_id(self) -> bytes:
        return self.claimed
