"""The key server's logic for one channel: a value, changes to it, and what members are told.

`ChannelKeys` is what is stored. Its methods compute a new value and touch nothing; the caller stores that
value, and only once it is durable gives it to `KeyServer.install`. So nobody is told a number that a crash
could take back.

    keys = stored.admitted(joins, now, draw)     # in the transaction: compute, store, commit
    server.install(keys, versions)               # then: visible, long-polls wake
    reply = server.keys_reply(now, randomness)

Spec: spec/keys.md; spec/side-channel.md SC-3 to SC-6.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from sealcast import _core
from sealcast.keys.beacon import (
    BeaconCounter,
    BeaconSealer,
    SealedBeacon,
    SignedVersions,
    committed_slots,
    seal_beacon,
)
from sealcast.keys.epochs import MAX_SLOT, MAX_STEP, DrawSecret, Generation, Slots, start_of
from sealcast.keys.membership import MemberKey, MemberRole, Membership
from sealcast.keys.secret import Secret
from sealcast.pki.policy import MAX_SLOTS_AHEAD, SlotClock

MAX_ANNOUNCEMENT_AGE = 1_000_000
"""Microseconds; members judge silence by a beacon's time (KM-16), so a late poll is not given an old one."""


@dataclass(frozen=True, slots=True, kw_only=True, weakref_slot=True)
class ChannelKeys:
    """Everything about the keys of one channel that has to survive a restart."""

    channel_id: bytes
    """32 bytes."""

    clock: SlotClock

    slots_ahead: int
    """How many slots beyond the present one members may fetch, 1..30: how long traffic outlives the key
    server.
    """

    slots: Slots
    generation: Generation
    membership: Membership

    def __post_init__(self) -> None:
        if not 1 <= self.slots_ahead <= MAX_SLOTS_AHEAD:
            raise ValueError(f"slots ahead {self.slots_ahead} is outside 1..{MAX_SLOTS_AHEAD}")

    @staticmethod
    def create(
        channel_id: bytes, clock: SlotClock, *, slots_ahead: int, now: int, draw: DrawSecret
    ) -> "ChannelKeys":
        """The keys of a new channel: first generation, slots from the present one on, nobody in it."""
        return ChannelKeys(
            channel_id=channel_id,
            clock=clock,
            slots_ahead=slots_ahead,
            slots=Slots(present=clock.origin_number).turned(clock, now, slots_ahead, draw),
            generation=Generation.first(draw),
            membership=Membership(),
        )

    def turned(self, now: int, draw: DrawSecret) -> "ChannelKeys":
        """Slots moved on to `now`; equal to `self` when there is nothing to do."""
        slots = self.slots.turned(self.clock, now, self.slots_ahead, draw)
        if slots.present == self.slots.present and slots.secrets.keys() == self.slots.secrets.keys():
            return self
        return replace(self, slots=slots)

    def admitted(self, joins: Iterable[MemberKey], now: int, draw: DrawSecret) -> "ChannelKeys":
        """All of `joins` admitted with one step together (SC-6); their devices joined before or not.

        Whoever becomes a repair node loses what it could open with: a fresh generation begins (KM-21).
        """
        joins = tuple(joins)
        if not joins:
            return self
        nodes = {device for device, role in joins if role is MemberRole.REPAIR}
        if turned := [device for device in sorted(nodes) if self.membership.holds_opening_keys(device)]:
            return self.removed(turned, draw).admitted(joins, now, draw)
        generation = self.generation.stepped(self.channel_id, draw)
        membership = self.membership
        if generation.number != self.generation.number:
            membership = membership.removing(())
        # One that may open again is no repair node any more.
        membership = membership.lapsing(
            (device, MemberRole.REPAIR) for device, _ in joins if device not in nodes
        )
        membership = membership.admitting(joins, generation=generation.number, step=generation.step, now=now)
        return replace(self, generation=generation, membership=membership)

    def left(self, device: str) -> "ChannelKeys":
        """`device` marked as left; the epoch stays (module docstring of membership)."""
        if not self.membership.is_present(device):
            return self
        return replace(self, membership=self.membership.leaving(device))

    def removed(self, devices: Iterable[str], draw: DrawSecret) -> "ChannelKeys":
        """`devices` removed under a fresh generation, if any of them holds a key of this one; else `self`."""
        gone = [device for device in devices if self.membership.holds_keys(device)]
        if not gone:
            return self
        return replace(
            self, generation=self.generation.fresh(draw), membership=self.membership.removing(gone)
        )

    def lapsed(self, members: Iterable[MemberKey]) -> "ChannelKeys":
        """Those of `members` that are there marked as left, as their device may only do other things now.

        The epoch stays: such a device is entitled to the keys, and what it must not do any more the policy
        keeps it from. Its row stays too, so that its removal turns the generation.
        """
        known = [key for key in members if key in self.membership.members]
        return replace(self, membership=self.membership.lapsing(known)) if known else self

    def restored(self, draw: DrawSecret, reported: int = 0) -> "ChannelKeys":
        """These keys after a restore from a backup: the generation jumps, and slots held are drawn anew.

        Members refuse a second secret for a slot number that they hold (KM-8). Slots of a backup are
        therefore kept as they are; only the generation, which alone keeps removed devices out, is replaced.
        """
        return replace(
            self,
            generation=self.generation.restored(draw, reported),
            membership=self.membership.removing(()),
        )

    def next_turn(self, now: int) -> int:
        """When `turned` will next have something to do, in microseconds; always later than `now`."""
        present = self.slots.at(self.clock, now)
        return start_of(self.clock, present + 1) if present < MAX_SLOT else now + self.clock.length


MAX_EARLIER = 8
"""Generations whose first secret is handed out after the fact; a member that missed more has gaps."""

EARLIER_LIFE = 300_000_000
"""Microseconds for which they are: as long as publishers may still serve packets of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EarlierGeneration:
    """The first secret of a generation, for whoever was a member all the time since an older one (KM-18)."""

    number: int
    secret: Secret
    """Of step 0."""
    beacon: bytes
    """Datagram that commits to a step of this generation."""
    since: int
    """When the generation turned, microseconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _EarlierStep:
    """A step of the present generation that others have followed, for whoever was a member at it (KM-10)."""

    step: int
    secret: Secret
    until: int
    """When the next one began, microseconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeysReply:
    """What a member is given; `beacon` commits to every secret in it, or to what follows from it (KM-17)."""

    beacon: bytes
    slots: tuple[tuple[int, Secret], ...]
    generation: int
    step: int
    secret: Secret
    time: int
    """Microseconds since the epoch."""
    earlier: tuple[EarlierGeneration, ...] = ()


GATE_STEPS = 4
"""How many steps beyond the present one a repair node is given gates of: those that a publisher may be ahead
(KM-9).
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class GateGrant:
    """Gate key and credential key of one epoch (KM-21)."""

    slot: int
    step: int
    gate: Secret
    credential: Secret


@dataclass(frozen=True, slots=True, kw_only=True)
class GatesReply:
    """What a repair node is given in place of a `KeysReply`: nothing opens by what follows from it."""

    beacon: bytes
    generation: int
    gates: tuple[GateGrant, ...]
    time: int
    """Microseconds since the epoch."""


class KeyServer:
    """What members of one channel are told, from the keys that are stored.

    Holds no authority over who may ask: the caller has authorised each request (SC-1).
    """

    def __init__(
        self,
        keys: ChannelKeys,
        versions: SignedVersions,
        sealer: BeaconSealer,
        counter: BeaconCounter,
        draw_randomness: Callable[[], bytes],
    ) -> None:
        """Serve `keys`, which have to be stored.

        Args:
            keys: what is stored.
            versions: of the signed objects in force.
            sealer: the control stream, made anew at this start.
            counter: beacon counters, reserved in the store.
            draw_randomness: draws 16 fresh bytes.
        """
        self._keys = keys
        self._versions = versions
        self._sealer = sealer
        self._counter = counter
        self._draw_randomness = draw_randomness
        # The counter of the first beacon that told the last change; a poll below it is answered at once.
        self._changed = counter.take()
        self._announcement: SealedBeacon | None = None
        self._announced = 0
        # Only in memory: a first secret is not stored once a step has been taken from it.
        self._turned: list[EarlierGeneration] = []
        self._followed: list[_EarlierStep] = []

    @property
    def keys(self) -> ChannelKeys:
        """What is in force."""
        return self._keys

    @property
    def counter(self) -> BeaconCounter:
        """Of the beacons; the caller extends it when it runs low."""
        return self._counter

    def install(self, keys: ChannelKeys, versions: SignedVersions, now: int) -> bool:
        """Put stored keys and versions in force.

        Returns:
            Whether members have to be told, that is, whether waiting polls are to be answered now.

        Raises:
            ValueError: the numbers would go back; the store has been changed under a running key server.
        """
        old = self._keys
        if keys.generation.position < old.generation.position or keys.slots.present < old.slots.present:
            raise ValueError(
                f"epoch of channel {keys.channel_id.hex()} would go back from {old.generation.position} "
                f"to {keys.generation.position}"
            )
        told = old.generation.position != keys.generation.position or self._versions != versions
        self._keys, self._versions = keys, versions
        self._keep_step(old, now)
        if told:
            self._announce(now)
            self._remember(old.generation.number, now)
        return told

    def beacon(self, now: int) -> SealedBeacon:
        """A fresh beacon."""
        return self._seal(now)

    def keys_reply(self, now: int, device: str | None = None, joining: MemberRole | None = None) -> KeysReply:
        """Generation and step, and the slots from the previous one on, under a fresh beacon (KM-10).

        Args:
            now: microseconds since the epoch.
            device: a member; it is also given the first secrets of the generations that turned since its
                admission (KM-18). None: for nobody that has been one.
            joining: the role in which it joins, perhaps again: it is given the oldest step since its
                admission in that role that is still there. None: the present one.
        """
        keys = self._keys
        admitted_in = None if device is None else keys.membership.admitted_in(device)
        admitted_at = (
            None if device is None or joining is None else keys.membership.admitted_at(device, joining)
        )
        slots = keys.slots.secrets
        numbers = committed_slots(keys.slots, self._present(now))
        beacon = self._seal(now)
        step, secret = self._step_since(admitted_at, now)
        return KeysReply(
            beacon=beacon.datagram,
            slots=tuple((number, slots[number]) for number in numbers),
            generation=keys.generation.number,
            step=step,
            secret=secret,
            time=now,
            earlier=() if admitted_in is None else self._earlier(admitted_in, now),
        )

    def gates_reply(self, now: int, suite: int) -> GatesReply:
        """Gates of the slots that a member would be given, for the present step and some beyond (KM-21)."""
        keys, generation = self._keys, self._keys.generation
        numbers = committed_slots(keys.slots, self._present(now))
        steps = {generation.step: generation.secret}
        for step in range(generation.step + 1, min(generation.step + GATE_STEPS, MAX_STEP) + 1):
            before = steps[step - 1].reveal()
            steps[step] = Secret(_core.step_secret(before, keys.channel_id, generation.number, step))
        gates = []
        for slot in numbers:
            for step, secret in steps.items():
                gate, credential = _core.gate_keys(
                    keys.slots.secrets[slot].reveal(),
                    secret.reveal(),
                    suite=suite,
                    channel_id=keys.channel_id,
                    slot=slot,
                    generation=generation.number,
                    step=step,
                )
                gates.append(
                    GateGrant(slot=slot, step=step, gate=Secret(gate), credential=Secret(credential))
                )
        return GatesReply(
            beacon=self._seal(now).datagram, generation=generation.number, gates=tuple(gates), time=now
        )

    def _keep_step(self, before: ChannelKeys, now: int) -> None:
        """Keep the secret of a step for a while after the next one has begun."""
        old, present = before.generation, self._keys.generation
        if old.number != present.number:
            self._followed = []
        elif old.step != present.step:
            kept = [each for each in self._followed if now - each.until <= EARLIER_LIFE]
            self._followed = [*kept, _EarlierStep(step=old.step, secret=old.secret, until=now)]

    def _step_since(self, admitted_at: tuple[int, int] | None, now: int) -> tuple[int, Secret]:
        generation = self._keys.generation
        if admitted_at is not None:
            for each in self._followed:
                if now - each.until <= EARLIER_LIFE and (generation.number, each.step) >= admitted_at:
                    return each.step, each.secret
        return generation.step, generation.secret

    def _earlier(self, member_since: int, now: int) -> tuple[EarlierGeneration, ...]:
        return tuple(
            turned
            for turned in self._turned
            if turned.number > member_since and now - turned.since <= EARLIER_LIFE
        )

    def _remember(self, before: int, now: int) -> None:
        """Keep the first secret of a generation that has just turned, or a later beacon of it."""
        generation = self._keys.generation
        if self._announcement is None:
            return
        if generation.number != before and generation.step == 0:
            turned = EarlierGeneration(
                number=generation.number,
                secret=generation.secret,
                beacon=self._announcement.datagram,
                since=now,
            )
            self._turned = [*self._turned, turned][-MAX_EARLIER:]
        elif self._turned and self._turned[-1].number == generation.number:
            self._turned[-1] = replace(self._turned[-1], beacon=self._announcement.datagram)

    def poll_answer(self, counter: int, now: int) -> SealedBeacon | None:
        """The beacon for a member whose last one had `counter`, or None while there is nothing new for it.

        All who wait for the same change get the same bytes: one signature, however many they are.
        """
        if counter >= self._changed:
            return None
        if self._announcement is None or now - self._announced > MAX_ANNOUNCEMENT_AGE:
            self._announcement, self._announced = self._seal(now), now
        return self._announcement

    def _present(self, now: int) -> int:
        # Slots are prefetched, so the present one is held unless the turn is overdue by the whole of
        # slots_ahead.
        present = self._keys.slots.at(self._keys.clock, now)
        return min(present, max(self._keys.slots.secrets))

    def _announce(self, now: int) -> None:
        self._announcement, self._announced = self._seal(now), now
        self._changed = self._announcement.counter

    def _seal(self, now: int) -> SealedBeacon:
        return seal_beacon(
            self._sealer,
            channel_id=self._keys.channel_id,
            slots=self._keys.slots,
            present=self._present(now),
            generation=self._keys.generation,
            versions=self._versions,
            counter=self._counter.take(),
            now=now,
            randomness=self._draw_randomness(),
        )
