"""Who holds the keys of a channel, and what each change of that does to the epoch.

| change | epoch | why |
|---|---|---|
| joins of one moment | step + 1 | a joiner learns nothing older (KM-10); the others derive the step |
| the same device joins again | step + 1 | it may be a copy of that device: it gets no more than a newcomer |
| removals | generation + 1, step 0 | a fresh secret that the removed never see |
| a member leaves | none | it could join again at once, so a fresh secret would keep nothing from it |

One who left still holds the keys it was given. Its row therefore stays, marked as left, until a generation
turns; a removal of its device until then turns the generation as if it had stayed.

Spec: spec/keys.md KM-1, KM-9, KM-10; spec/side-channel.md SC-6.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType


class MemberRole(StrEnum):
    """What a member does on a channel; one device may do both, in one process or in two."""

    PUBLISH = "publish"
    SUBSCRIBE = "subscribe"
    REPAIR = "repair"
    """Keeps packets for others, and is given no key that opens one (KM-21)."""


LISTED_ROLES = (MemberRole.PUBLISH, MemberRole.SUBSCRIBE)
"""What a policy lists devices for; a repair node is one of its subscribers."""


MemberKey = tuple[str, MemberRole]
"""Device as the policy writes it (name, or `<site id>:<name>` of another site), and role."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A device that was given the keys of a channel."""

    device: str
    """As the policy writes it (TR-13)."""

    role: MemberRole

    generation: int
    """Generation at its admission; it is served nothing older."""

    step: int
    """Step at its admission."""

    joined: int
    """Microseconds since the epoch."""

    left: bool = False
    """True once it said that it leaves; it still holds the keys of the generation it left in."""

    @property
    def key(self) -> MemberKey:
        """What tells members apart."""
        return self.device, self.role


@dataclass(frozen=True, slots=True)
class Membership:
    """The members of one channel."""

    members: Mapping[MemberKey, Member] = field(default_factory=lambda: MappingProxyType({}))

    @staticmethod
    def of(members: Iterable[Member]) -> "Membership":
        """The membership that consists of `members`."""
        return Membership(MappingProxyType({member.key: member for member in members}))

    def present(self) -> list[Member]:
        """Those that joined and have not left, in a stable order."""
        return sorted(
            (member for member in self.members.values() if not member.left), key=lambda member: member.key
        )

    def is_present(self, device: str) -> bool:
        """Whether `device` joined, in any role, and has not left."""
        return any(not member.left for member in self._of(device))

    def present_count(self) -> int:
        """How many `present` would list."""
        return sum(not member.left for member in self.members.values())

    def admitted_in(self, device: str) -> int | None:
        """The generation that `device` was last admitted in, in any role; None if it is no member."""
        return max((member.generation for member in self._of(device) if not member.left), default=None)

    def is_repair_node(self, device: str) -> bool:
        """Whether `device` joined as a repair node, and has not left."""
        member = self.members.get((device, MemberRole.REPAIR))
        return member is not None and not member.left

    def admission(self, device: str) -> tuple[int, int, int] | None:
        """Generation and step of the first of a device's admissions, and when it joined; None: no member."""
        present = [member for member in self._of(device) if not member.left]
        first = min(present, key=lambda member: (member.generation, member.step), default=None)
        return None if first is None else (first.generation, first.step, first.joined)

    def admitted_at(self, device: str, role: MemberRole) -> tuple[int, int] | None:
        """Generation and step since which a device has been a member in this role; None: it is none."""
        member = self.members.get((device, role))
        return None if member is None or member.left else (member.generation, member.step)

    def holds_opening_keys(self, device: str) -> bool:
        """Whether `device` knows a secret of the present generation, and not only what follows from one."""
        return any((device, role) in self.members for role in LISTED_ROLES)

    def holds_keys(self, device: str) -> bool:
        """Whether `device` knows a secret of the present generation; True too for one that left meanwhile.

        A false True costs one needless generation. A false False would leave a removed device able to read.
        """
        return bool(self._of(device))

    def admitting(self, joins: Iterable[MemberKey], *, generation: int, step: int, now: int) -> "Membership":
        """This membership with the devices of `joins` admitted at (`generation`, `step`)."""
        admitted: dict[MemberKey, Member] = {}
        for key in joins:
            known = self.members.get(key)
            if known is not None and not known.left:
                # It has held keys all the time: a second join takes nothing from it that it was entitled to.
                admitted[key] = replace(known, joined=now)
            else:
                device, role = key
                admitted[key] = Member(device=device, role=role, generation=generation, step=step, joined=now)
        return Membership(MappingProxyType({**self.members, **admitted}))

    def leaving(self, device: str) -> "Membership":
        """This membership with `device` marked as left, as subscriber or repair node; it may go on
        publishing.
        """
        return self.lapsing([(device, MemberRole.SUBSCRIBE), (device, MemberRole.REPAIR)])

    def lapsing(self, keys: Iterable[MemberKey]) -> "Membership":
        """This membership with `keys` marked as left; their devices may still hold keys in another role."""
        lapsed = {key: replace(self.members[key], left=True) for key in keys if key in self.members}
        return Membership(MappingProxyType({**self.members, **lapsed}))

    def removing(self, devices: Iterable[str]) -> "Membership":
        """This membership at the turn of a generation: without `devices`, and without those that had left."""
        gone = set(devices)
        return Membership.of(
            member for member in self.members.values() if not member.left and member.device not in gone
        )

    def _of(self, device: str) -> list[Member]:
        """What `device` is a member as; asked at each request, among members as many as devices."""
        return [self.members[device, role] for role in MemberRole if (device, role) in self.members]


class JoinBatch:
    """Joins that arrive within a moment and share one step (SC-6).

    Drive it so: `add` each request; at `deadline` call `take` and admit what it returns in one change.
    """

    def __init__(self, moment: int) -> None:
        """Gather for `moment` microseconds after the first request; 0 admits each one at once."""
        self._moment = moment
        self._joins: dict[MemberKey, None] = {}
        self._deadline: int | None = None

    @property
    def deadline(self) -> int | None:
        """When to call `take`, in microseconds; None while nothing waits."""
        return self._deadline

    def add(self, device: str, role: MemberRole, now: int) -> None:
        """Note that `device` asks to join as `role`."""
        self._joins[device, role] = None
        if self._deadline is None:
            self._deadline = now + self._moment

    def take(self) -> tuple[MemberKey, ...]:
        """What waited, in order of arrival; the batch is empty afterwards."""
        joins = tuple(self._joins)
        self._joins.clear()
        self._deadline = None
        return joins
