"""The key server's logic: what changes, and what members are told. spec/keys.md, SC-3 to SC-6."""

from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from sealcast import _core
from sealcast.keys import (
    BeaconCounter,
    ChannelKeys,
    KeyServer,
    MemberRole,
    ObjectVersion,
    Secret,
    SignedVersions,
)
from sealcast.pki.policy import SlotClock
from tests.keys.sealer import Draw, NotingSealer

CHANNEL = bytes(range(32))
SECOND = 1_000_000
CLOCK = SlotClock(origin_time=0, origin_number=1, length=10 * SECOND)
VERSIONS = SignedVersions(
    policy=ObjectVersion(version=1, digest=bytes([1] * 32)),
    crl=ObjectVersion(version=1, digest=bytes([2] * 32)),
)
NEWER = SignedVersions(
    policy=ObjectVersion(version=2, digest=bytes([3] * 32)),
    crl=ObjectVersion(version=1, digest=bytes([2] * 32)),
)
PUBLISH, SUBSCRIBE = MemberRole.PUBLISH, MemberRole.SUBSCRIBE


@dataclass
class World:
    """A key server over keys that a test changes."""

    draw: Draw = field(default_factory=Draw)
    sealer: NotingSealer = field(default_factory=NotingSealer)
    now: int = 0

    def __post_init__(self) -> None:
        keys = ChannelKeys.create(CHANNEL, CLOCK, slots_ahead=3, now=self.now, draw=self.draw)
        counter = BeaconCounter(100, 100_000)
        self.server = KeyServer(keys, VERSIONS, self.sealer, counter, lambda: bytes(16))

    @property
    def keys(self) -> ChannelKeys:
        return self.server.keys

    def install(self, keys: ChannelKeys, versions: SignedVersions = VERSIONS) -> bool:
        return self.server.install(keys, versions, self.now)


class TestChanges:
    """KM-1, KM-9, KM-10."""

    def test_a_channel_begins_at_generation_1_step_0_with_nobody(self) -> None:
        keys = World().keys
        assert keys.generation.position == (1, 0)
        assert keys.membership.present() == []

    def test_joins_of_one_moment_take_one_step(self) -> None:
        world = World()
        keys = world.keys.admitted([("a", PUBLISH), ("b", SUBSCRIBE)], 5, world.draw)
        assert keys.generation.position == (1, 1)
        assert {member.device: (member.generation, member.step) for member in keys.membership.present()} == {
            "a": (1, 1),
            "b": (1, 1),
        }

    def test_joining_again_takes_a_step_too(self) -> None:
        world = World()
        keys = world.keys.admitted([("a", PUBLISH)], 5, world.draw).admitted([("a", PUBLISH)], 6, world.draw)
        assert keys.generation.position == (1, 2)
        # The first admission stands: it has held keys all the time.
        assert [member.step for member in keys.membership.present()] == [1]

    def test_no_joins_change_nothing(self) -> None:
        world = World()
        assert world.keys.admitted([], 5, world.draw) is world.keys

    def test_a_removal_takes_a_fresh_secret_at_once(self) -> None:
        world = World()
        joined = world.keys.admitted([("a", PUBLISH), ("b", SUBSCRIBE)], 5, world.draw)
        drawn = world.draw.drawn
        keys = joined.removed(["b"], world.draw)
        assert keys.generation.position == (2, 0)
        assert world.draw.drawn == drawn + 1
        assert [member.device for member in keys.membership.present()] == ["a"]

    def test_removing_one_that_never_joined_changes_nothing(self) -> None:
        world = World()
        assert world.keys.removed(["b"], world.draw) is world.keys

    def test_removing_one_that_has_left_turns_the_generation(self) -> None:
        """It still holds the keys that it was given."""
        world = World()
        keys = world.keys.admitted([("b", SUBSCRIBE)], 5, world.draw).left("b")
        assert keys.generation.position == (1, 1)
        assert keys.removed(["b"], world.draw).generation.position == (2, 0)

    def test_the_join_after_step_255_is_admitted_into_the_fresh_generation(self) -> None:
        world = World()
        keys = world.keys
        for _ in range(255):
            keys = keys.admitted([("a", PUBLISH)], 5, world.draw)
        assert keys.generation.position == (1, 255)
        keys = keys.admitted([("b", SUBSCRIBE)], 6, world.draw)
        assert keys.generation.position == (2, 0)
        assert {member.device for member in keys.membership.present()} == {"a", "b"}

    def test_a_restore_keeps_slots_and_members_and_replaces_the_generation(self) -> None:
        world = World()
        keys = world.keys.admitted([("a", PUBLISH)], 5, world.draw)
        restored = keys.restored(world.draw)
        assert restored.generation.position == (1 + 2**16, 0)
        assert restored.slots == keys.slots
        assert restored.membership.is_present("a")

    @pytest.mark.parametrize("now", [0, 5 * SECOND, 10 * SECOND, 2**24 * 10 * SECOND, 2**25 * 10 * SECOND])
    def test_the_next_turn_lies_ahead(self, now: int) -> None:
        """Upkeep sleeps until then; a time that has passed would make it spin."""
        world = World()
        assert world.keys.next_turn(now) > now
        assert world.keys.turned(now, world.draw).next_turn(now) > now

    @pytest.mark.parametrize("ahead", [0, 31])
    def test_slots_ahead_have_bounds(self, ahead: int) -> None:
        with pytest.raises(ValueError, match="slots ahead"):
            ChannelKeys.create(CHANNEL, CLOCK, slots_ahead=ahead, now=0, draw=Draw())


class TestReplies:
    """SC-3, KM-15, KM-17."""

    def test_the_beacon_commits_to_every_secret_in_the_reply(self) -> None:
        world = World(now=25 * SECOND)
        world.install(world.keys.turned(world.now, world.draw).admitted([("a", PUBLISH)], 5, world.draw))
        reply = world.server.keys_reply(world.now)
        sealed = world.sealer.sealed[-1]
        assert reply.beacon == f"beacon {sealed['counter']}".encode()
        assert (sealed["generation"], sealed["step"]) == (reply.generation, reply.step) == (1, 1)
        assert sealed["generation_commitment"] == _core.commit_generation(
            reply.secret.reveal(), CHANNEL, reply.generation, reply.step
        )
        assert sealed["first_slot"] == reply.slots[0][0]
        assert sealed["slot_commitments"] == [
            _core.commit_slot(secret.reveal(), CHANNEL, number) for number, secret in reply.slots
        ]

    def test_the_reply_holds_previous_present_and_slots_ahead(self) -> None:
        world = World(now=25 * SECOND)
        world.install(world.keys.turned(world.now, world.draw))
        reply = world.server.keys_reply(world.now)
        assert [number for number, _ in reply.slots] == [2, 3, 4, 5, 6]
        assert world.sealer.sealed[-1]["slot"] == 3

    def test_a_turn_that_is_overdue_does_not_stop_replies(self) -> None:
        """A disk that hangs must not silence the key server: prefetched slots carry it."""
        world = World()
        for now in (20 * SECOND, 39 * SECOND, 500 * SECOND):
            reply = world.server.keys_reply(now)
            assert world.sealer.sealed[-1]["slot"] in dict(reply.slots)

    def test_a_beacon_with_32_slots_is_the_largest(self) -> None:
        keys = ChannelKeys.create(CHANNEL, CLOCK, slots_ahead=30, now=0, draw=Draw()).turned(
            25 * SECOND, Draw()
        )
        sealer = NotingSealer()
        server = KeyServer(keys, VERSIONS, sealer, BeaconCounter(1, 99), lambda: bytes(16))
        assert len(server.keys_reply(25 * SECOND).slots) == 32


class TestPolls:
    """The long-poll of side-channel.md section 1."""

    def test_one_that_knows_the_last_change_waits(self) -> None:
        world = World()
        world.install(world.keys.admitted([("a", PUBLISH)], 5, world.draw))
        world.server.keys_reply(world.now)
        known = world.sealer.sealed[-1]["counter"]
        assert isinstance(known, int)
        assert world.server.poll_answer(known, world.now) is None

    @pytest.mark.parametrize("change", ["join", "removal", "versions"])
    def test_a_change_answers_it(self, change: str) -> None:
        world = World()
        world.install(world.keys.admitted([("a", PUBLISH)], 5, world.draw))
        known = world.server.beacon(world.now).counter
        match change:
            case "join":
                told = world.install(world.keys.admitted([("b", SUBSCRIBE)], 6, world.draw))
            case "removal":
                told = world.install(world.keys.removed(["a"], world.draw))
            case _:
                told = world.install(world.keys, NEWER)
        assert told
        answer = world.server.poll_answer(known, world.now)
        assert answer is not None
        assert answer.counter > known

    def test_a_turn_of_a_slot_is_no_news(self) -> None:
        """Members know the slots by the clock, and hold them."""
        world = World()
        known = world.server.beacon(world.now).counter
        assert not world.install(world.keys.turned(15 * SECOND, world.draw))
        assert world.server.poll_answer(known, 15 * SECOND) is None

    def test_all_who_wait_for_a_change_get_one_beacon(self) -> None:
        world = World()
        world.install(world.keys.admitted([("a", PUBLISH)], 5, world.draw))
        sealed = len(world.sealer.sealed)
        answers = {world.server.poll_answer(0, world.now) for _ in range(100)}
        assert len(answers) == 1
        assert len(world.sealer.sealed) == sealed

    def test_one_that_comes_late_gets_a_fresh_beacon(self) -> None:
        world = World()
        world.install(world.keys.admitted([("a", PUBLISH)], 5, world.draw))
        world.server.poll_answer(0, 60 * SECOND)
        assert world.sealer.sealed[-1]["now"] == 60 * SECOND

    def test_a_member_of_a_start_before_is_answered_at_once(self) -> None:
        """Its beacons came from another control stream."""
        assert World().server.poll_answer(99, 0) is not None


def test_installing_older_keys_is_refused() -> None:
    world = World()
    old = world.keys
    world.install(old.admitted([("a", PUBLISH)], 5, world.draw))
    with pytest.raises(ValueError, match="go back"):
        world.install(old)


class TestCounter:
    """KM-16: a member obeys only a higher counter."""

    def test_it_never_reaches_what_is_not_stored(self) -> None:
        counter = BeaconCounter(5, 7)
        assert [counter.take(), counter.take()] == [5, 6]
        with pytest.raises(RuntimeError):
            counter.take()
        counter.extend(8)
        assert counter.take() == 7

    def test_it_says_when_it_runs_low(self) -> None:
        assert BeaconCounter(0, 2**18).runs_low
        assert not BeaconCounter(0, 2**20).runs_low


DEVICES = ("a", "b", "c", "d")


class KeyServerHistory(RuleBasedStateMachine):
    """Any order of joins, removals, leaves, turns of slots, clocks set back, restores.

    Watches what every device was ever given, and that nobody could compute what it was not given.
    """

    def __init__(self) -> None:
        super().__init__()
        self.draw = Draw()
        self.now = 0
        self.sealer = NotingSealer()
        keys = ChannelKeys.create(CHANNEL, CLOCK, slots_ahead=2, now=0, draw=self.draw)
        self.server = KeyServer(keys, VERSIONS, self.sealer, BeaconCounter(1, 2**20), lambda: bytes(16))
        self.slot_secrets: dict[int, Secret] = {}
        self.step_secrets: dict[tuple[int, int], Secret] = {}
        self.given: dict[str, set[tuple[int, int]]] = {device: set() for device in DEVICES}
        self.removed: dict[str, tuple[int, int]] = {}
        self.positions = [keys.generation.position]

    def _install(self, keys: ChannelKeys) -> None:
        self.server.install(keys, VERSIONS, self.now)
        self.positions.append(keys.generation.position)
        for number, secret in keys.slots.secrets.items():
            assert self.slot_secrets.setdefault(number, secret) == secret
        held = self.step_secrets.setdefault(keys.generation.position, keys.generation.secret)
        assert held == keys.generation.secret

    def _give(self, device: str) -> None:
        reply = self.server.keys_reply(self.now)
        position = (reply.generation, reply.step)
        self.given[device].add(position)
        if device in self.removed:
            assert position > self.removed[device]

    @rule(devices=st.sets(st.sampled_from(DEVICES), min_size=1))
    def join(self, devices: set[str]) -> None:
        before = self.server.keys.generation.position
        joins = [(device, PUBLISH) for device in sorted(devices)]
        self._install(self.server.keys.admitted(joins, self.now, self.draw))
        for device in devices:
            self._give(device)
            # KM-10: what a joiner is given is later than everything that was sealed before it came.
            assert max(self.given[device]) > before

    @rule(device=st.sampled_from(DEVICES))
    def fetch(self, device: str) -> None:
        if self.server.keys.membership.is_present(device):
            self._give(device)

    @rule(device=st.sampled_from(DEVICES))
    def remove(self, device: str) -> None:
        held = self.server.keys.membership.holds_keys(device)
        before = self.server.keys.generation
        self._install(self.server.keys.removed([device], self.draw))
        after = self.server.keys.generation
        self.removed[device] = before.position
        if held:
            assert after.position == (before.number + 1, 0)
        # Whatever it ever held is of an older generation, from which nothing leads to the present one.
        assert all(number < after.number for number, _ in self.given[device])

    @rule(device=st.sampled_from(DEVICES))
    def leave(self, device: str) -> None:
        self._install(self.server.keys.left(device))
        present = self.server.keys.membership.present()
        assert (device, SUBSCRIBE) not in [member.key for member in present]

    @rule(step=st.integers(-30 * SECOND, 60 * SECOND))
    def set_clock(self, step: int) -> None:
        self.now = max(0, self.now + step)
        self._install(self.server.keys.turned(self.now, self.draw))

    @precondition(lambda self: self.server.keys.generation.number < 2**30)
    @rule()
    def restore(self) -> None:
        self._install(self.server.keys.restored(self.draw))

    @invariant()
    def numbers_only_move_forward(self) -> None:
        assert self.positions == sorted(self.positions)
        counters = [sealed["counter"] for sealed in self.sealer.sealed]
        assert counters == sorted(set(counters))  # type: ignore[type-var]

    @invariant()
    def no_secret_serves_two_numbers(self) -> None:
        secrets = [secret.reveal() for secret in (*self.slot_secrets.values(), *self.step_secrets.values())]
        assert len(set(secrets)) == len(secrets)


TestKeyServerHistory = KeyServerHistory.TestCase
TestKeyServerHistory.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
