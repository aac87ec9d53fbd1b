"""Slots, generations and steps: the numbers of group keys, which only ever move forward.

Nothing here reads a clock or draws randomness: both are arguments, so that every rule can be tested at any
time.

Spec: spec/keys.md sections 1 and 2.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from sealcast import _core
from sealcast.errors import ConflictError
from sealcast.keys.secret import Secret
from sealcast.pki.policy import SlotClock

MAX_SLOT = 2**24 - 1
"""KM-1: a slot number has 24 bits; hourly slots last 1,900 years."""

MAX_GENERATION = 2**32 - 1
"""KM-1: a generation number has 32 bits."""

MAX_STEP = 255
"""KM-1: a step has 8 bits; KM-9: after step 255 comes a fresh generation."""

RESTORE_JUMP = 2**16
"""Generations skipped after a restore, so that no number the lost history used is used again."""

DrawSecret = Callable[[], Secret]
"""Draws 32 fresh bytes from the operating system (or, in tests, from a seed)."""


class NumbersExhaustedError(ConflictError):
    """A channel ran out of generation numbers (KM-22); it has to be replaced by a new channel."""

    default_cure = "add a channel of another name for its devices, then remove this one"


def slot_at(clock: SlotClock, now: int) -> int:
    """The slot of time `now` (microseconds).

    Before the clock's origin it is the origin's; the last slot there is does not turn (KM-1).
    """
    return min(max(clock.origin_number, clock.slot(now)), MAX_SLOT)


def start_of(clock: SlotClock, slot: int) -> int:
    """The time at which `slot` begins, in microseconds."""
    return clock.origin_time + (slot - clock.origin_number) * clock.length


@dataclass(frozen=True, slots=True, kw_only=True)
class Slots:
    """The slot secrets that the key server holds: the previous slot, the present one, and those prefetched.

    `present` never goes back, whatever the clock does. When the clock of the authority was far ahead for a
    moment, the present slot therefore stands still until real time has caught up with it.
    """

    present: int
    """The highest slot that was ever the present one."""

    secrets: Mapping[int, Secret] = field(default_factory=lambda: MappingProxyType({}))
    """By number; consecutive."""

    def at(self, clock: SlotClock, now: int) -> int:
        """The present slot at `now`: that of the clock, never below one that was present before."""
        return max(self.present, slot_at(clock, now))

    def wanted(self, clock: SlotClock, now: int, ahead: int) -> range:
        """The numbers to hold at `now`: previous, present, and `ahead` more (KM-10)."""
        present = self.at(clock, now)
        first = max(clock.origin_number, present - 1)
        return range(first, min(present + ahead, MAX_SLOT) + 1)

    def turned(self, clock: SlotClock, now: int, ahead: int, draw: DrawSecret) -> "Slots":
        """These slots moved on to `now`: missing secrets drawn, those before the previous slot forgotten.

        A number that had a secret keeps it or loses it, and never gets a second one (KM-8): only numbers
        above the highest one held are drawn.
        """
        wanted = self.wanted(clock, now, ahead)
        highest = max(self.secrets, default=-1)
        secrets = {number: secret for number, secret in self.secrets.items() if number >= wanted.start}
        for number in wanted:
            if number > highest:
                secrets[number] = draw()
        return Slots(present=self.at(clock, now), secrets=MappingProxyType(secrets))


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """The present generation and step, with the secret of that step."""

    number: int
    step: int
    secret: Secret
    """Of this step; the secrets of lower steps are not kept, and cannot be computed from it."""

    def __post_init__(self) -> None:
        if not 0 <= self.number <= MAX_GENERATION or not 0 <= self.step <= MAX_STEP:
            raise ValueError(f"generation {self.number} step {self.step} is out of range")

    @property
    def position(self) -> tuple[int, int]:
        """(generation, step), the order in which they come."""
        return self.number, self.step

    def stepped(self, channel_id: bytes, draw: DrawSecret) -> "Generation":
        """The state after a join: the next step, or a fresh generation after step 255 (KM-9)."""
        if self.step == MAX_STEP:
            return self.fresh(draw)
        step = self.step + 1
        secret = _core.step_secret(self.secret.reveal(), channel_id, self.number, step)
        return Generation(number=self.number, step=step, secret=Secret(secret))

    def fresh(self, draw: DrawSecret) -> "Generation":
        """The state after a removal: the next generation at step 0, under a secret of its own.

        Raises:
            NumbersExhaustedError: there is no higher number.
        """
        return self._at(self.number + 1, draw)

    def restored(self, draw: DrawSecret, reported: int = 0) -> "Generation":
        """The state after a restore from a backup, to be used before anything else is.

        Args:
            draw: draws the fresh secret.
            reported: the highest generation that any member says it has seen.
        """
        return self._at(max(self.number + RESTORE_JUMP, reported + 1), draw)

    @staticmethod
    def first(draw: DrawSecret) -> "Generation":
        """The state of a new channel: generation 1, step 0. Zero means *none yet* to a member."""
        return Generation(number=1, step=0, secret=draw())

    def _at(self, number: int, draw: DrawSecret) -> "Generation":
        if number > MAX_GENERATION:
            raise NumbersExhaustedError(f"the channel has no generation left after {MAX_GENERATION}")
        return Generation(number=number, step=0, secret=draw())
