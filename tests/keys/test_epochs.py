"""Slots, generations and steps: spec/keys.md KM-1, KM-3, KM-8 to KM-10."""

import hmac
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealcast.keys import Generation, NumbersExhaustedError, Secret, Slots
from sealcast.keys.epochs import (
    MAX_GENERATION,
    MAX_SLOT,
    MAX_STEP,
    RESTORE_JUMP,
    slot_at,
    start_of,
)
from sealcast.pki.policy import SlotClock
from tests.keys.sealer import Draw

CHANNEL = bytes(range(32))
HOUR = 3_600_000_000
CLOCK = SlotClock(origin_time=10 * HOUR, origin_number=1, length=HOUR)

times = st.integers(0, 1000 * HOUR)


@given(times)
def test_a_slot_lasts_from_its_start_to_the_next(now: int) -> None:
    slot = slot_at(CLOCK, now)
    assert now < start_of(CLOCK, slot + 1)
    assert start_of(CLOCK, slot) <= now or slot == CLOCK.origin_number


def test_b8_the_last_slot_there_is_does_not_turn() -> None:
    """KM-1: 24 bits."""
    assert slot_at(CLOCK, start_of(CLOCK, MAX_SLOT)) == MAX_SLOT
    assert slot_at(CLOCK, start_of(CLOCK, MAX_SLOT + 5)) == MAX_SLOT
    slots = Slots(present=1).turned(CLOCK, start_of(CLOCK, MAX_SLOT + 5), 3, Draw())
    assert sorted(slots.secrets) == [MAX_SLOT - 1, MAX_SLOT]


def test_a_new_channel_holds_the_present_slot_and_those_ahead() -> None:
    slots = Slots(present=1).turned(CLOCK, 10 * HOUR, 3, Draw())
    assert sorted(slots.secrets) == [1, 2, 3, 4]


def test_the_previous_slot_is_kept_and_older_ones_forgotten() -> None:
    draw = Draw()
    slots = Slots(present=1).turned(CLOCK, 10 * HOUR, 3, draw)
    turned = slots.turned(CLOCK, 13 * HOUR, 3, draw)
    assert turned.present == 4
    assert sorted(turned.secrets) == [3, 4, 5, 6, 7]
    assert turned.secrets[4] == slots.secrets[4]


@given(st.lists(times, max_size=30), st.integers(1, 30))
def test_whatever_the_clock_does_slots_only_move_forward(moments: list[int], ahead: int) -> None:
    """No number has two secrets, none is older than the previous slot, and the present one is always held."""
    draw = Draw()
    slots = Slots(present=CLOCK.origin_number)
    seen: dict[int, Secret] = {}
    for now in moments:
        before = slots.present
        slots = slots.turned(CLOCK, now, ahead, draw)
        assert slots.present == max(before, slot_at(CLOCK, now))
        assert slots.present in slots.secrets
        assert min(slots.secrets) >= slots.present - 1
        assert max(slots.secrets) >= slots.present + ahead
        for number, secret in slots.secrets.items():
            assert seen.setdefault(number, secret) == secret
    assert draw.drawn == len(seen)


def test_a_step_is_the_one_way_function_of_the_one_before() -> None:
    """KM-3, computed here once more from the text of the spec."""
    before = Generation(number=7, step=3, secret=Secret(bytes(32)))
    after = before.stepped(CHANNEL, Draw())
    context = CHANNEL + (7).to_bytes(4, "big") + bytes([4])
    message = b"\x00\x00\x00\x01" + b"step" + b"\x00" + context + b"\x00\x00\x01\x00"
    assert after.position == (7, 4)
    assert after.secret.reveal() == hmac.digest(bytes(32), message, "sha256")


def test_after_step_255_comes_a_fresh_generation() -> None:
    draw = Draw()
    last = Generation(number=7, step=MAX_STEP, secret=draw())
    after = last.stepped(CHANNEL, draw)
    assert after.position == (8, 0)
    assert draw.drawn == 2


def test_a_restore_jumps_above_every_number_that_was_used() -> None:
    draw = Draw()
    generation = Generation(number=7, step=3, secret=draw())
    assert generation.restored(draw).position == (7 + RESTORE_JUMP, 0)
    assert generation.restored(draw, reported=10**6).position == (10**6 + 1, 0)


def test_b8_generation_numbers_end_at_32_bits() -> None:
    """KM-22: a membership that cannot change says so, in words for an operator."""
    last = Generation(number=MAX_GENERATION, step=MAX_STEP, secret=Secret(bytes(32)))
    for change in CHANGES.values():
        with pytest.raises(NumbersExhaustedError, match="has no generation left") as refused:
            change(last, Draw())
        assert refused.value.cure.startswith("add a channel of another name")


Change = Callable[[Generation, Draw], Generation]
CHANGES: dict[str, Change] = {
    "step": lambda generation, draw: generation.stepped(CHANNEL, draw),
    "fresh": lambda generation, draw: generation.fresh(draw),
    "restored": lambda generation, draw: generation.restored(draw),
}


@given(st.lists(st.sampled_from(sorted(CHANGES)), max_size=60), st.integers(200, MAX_STEP))
def test_generations_only_move_forward(names: list[str], step: int) -> None:
    """Whatever happens in whatever order: positions rise, and no secret comes twice."""
    draw = Draw()
    generation = Generation(number=1, step=step, secret=draw())
    positions, secrets = [generation.position], [generation.secret.reveal()]
    for name in names:
        generation = CHANGES[name](generation, draw)
        positions.append(generation.position)
        secrets.append(generation.secret.reveal())
    assert positions == sorted(set(positions))
    assert len(set(secrets)) == len(secrets)
