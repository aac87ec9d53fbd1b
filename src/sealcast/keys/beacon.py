"""What the key server says is current: the status beacon, its counter and its commitments.

Spec: spec/keys.md section 3 (KM-15 to KM-17) and KM-7.
"""

from dataclasses import dataclass
from typing import Protocol

from sealcast import _core
from sealcast.keys.epochs import Generation, Slots
from sealcast.pki.policy import MAX_SLOTS_AHEAD

MAX_SLOT_COMMITMENTS = MAX_SLOTS_AHEAD + 2
"""KM-15: `n` is 1..32, so that a beacon fits one datagram (1,324 bytes at the most)."""

COUNTER_RESERVE = 2**20
"""Beacon counters that one durable reservation covers; at 1,000 replies a second it lasts a quarter of an
hour.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectVersion:
    """Version (or number) and SHA-256 of a signed object that members may have to fetch."""

    version: int = 0
    digest: bytes = bytes(32)
    """Zeros with version 0: there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedVersions:
    """The versions that a beacon names."""

    policy: ObjectVersion
    crl: ObjectVersion
    bundle: ObjectVersion = ObjectVersion()


class BeaconSealer(Protocol):
    """The part of `sealcast._core.ControlStream` that this package needs."""

    @property
    def stream_id(self) -> bytes:
        """16 bytes; names the control stream."""

    def seal_beacon(
        self,
        *,
        slot: int,
        generation: int,
        step: int,
        slot_secret: bytes,
        counter: int,
        policy: tuple[int, bytes],
        crl: tuple[int, bytes],
        bundle: tuple[int, bytes],
        generation_commitment: bytes,
        first_slot: int,
        slot_commitments: list[bytes],
        now: int,
        randomness: bytes,
    ) -> bytes:
        """The signed and gated datagram."""


@dataclass(frozen=True, slots=True)
class SealedBeacon:
    """A beacon datagram, and its counter."""

    counter: int
    datagram: bytes


class BeaconCounter:
    """Counters that only grow, across restarts too, at the price of one stored number in a million.

    The store holds a limit that no beacon has reached. A start begins at that limit, and first stores a
    higher one.
    """

    def __init__(self, first: int, limit: int) -> None:
        """Hand out `first`, `first + 1`, …, below `limit`, which has to be stored already."""
        self._next = first
        self._limit = limit

    @property
    def limit(self) -> int:
        """The stored limit."""
        return self._limit

    @property
    def runs_low(self) -> bool:
        """Whether it is time to store a higher limit and to call `extend`."""
        return self._limit - self._next < COUNTER_RESERVE // 2

    def extend(self, limit: int) -> None:
        """Go on up to `limit`, which has to be stored already."""
        self._limit = max(self._limit, limit)

    def take(self) -> int:
        """The next counter.

        Raises:
            RuntimeError: the reserve is spent; a counter beyond it could be handed out twice after a crash.
        """
        if self._next >= self._limit:
            raise RuntimeError("no beacon counter is reserved")
        counter = self._next
        self._next += 1
        return counter


def seal_beacon(
    sealer: BeaconSealer,
    *,
    channel_id: bytes,
    slots: Slots,
    present: int,
    generation: Generation,
    versions: SignedVersions,
    counter: int,
    now: int,
    randomness: bytes,
) -> SealedBeacon:
    """Seal a beacon that commits to `generation` and to every slot held from the previous one on.

    Args:
        sealer: the control stream of the channel.
        channel_id: 32 bytes.
        slots: what the key server holds; `present` has to be among it.
        present: number of the present slot.
        generation: present generation and step.
        versions: of policy, CRL and trust bundle.
        counter: above that of every earlier beacon.
        now: microseconds since the epoch.
        randomness: 16 fresh bytes, for the block id (DP-12).

    Spec: spec/keys.md KM-15, KM-17.
    """
    numbers = committed_slots(slots, present)
    return SealedBeacon(
        counter,
        sealer.seal_beacon(
            slot=present,
            generation=generation.number,
            step=generation.step,
            slot_secret=slots.secrets[present].reveal(),
            counter=counter,
            policy=(versions.policy.version, versions.policy.digest),
            crl=(versions.crl.version, versions.crl.digest),
            bundle=(versions.bundle.version, versions.bundle.digest),
            generation_commitment=_core.commit_generation(
                generation.secret.reveal(), channel_id, generation.number, generation.step
            ),
            first_slot=numbers.start,
            slot_commitments=[
                _core.commit_slot(slots.secrets[number].reveal(), channel_id, number) for number in numbers
            ],
            now=now,
            randomness=randomness,
        ),
    )


def committed_slots(slots: Slots, present: int) -> range:
    """The slots that a beacon sealed now commits to, and that a keys reply with it may carry (KM-17)."""
    held = [number for number in slots.secrets if number >= present - 1]
    first = min(held)
    return range(first, min(max(held) + 1, first + MAX_SLOT_COMMITMENTS))
