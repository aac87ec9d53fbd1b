"""Each claim of the demo can fail, and does so alone."""

from dataclasses import replace
from typing import Any

import pytest

from sealcast.cli.demo.evidence import Attempted, Evidence, Link, Observed
from sealcast.cli.demo.plan import (
    CHANNELS,
    ECG_CHANNEL,
    FILE_CHANNEL,
    MEMBERS,
    REMOVED,
    SUBSCRIBERS,
)
from sealcast.cli.demo.verdict import judge

MEMBER = MEMBERS[0]
REMOVED_AT = 1_000_000_000
HASH = "ab" * 32

SAMPLES, FILE, LOST, LOSS, SLOTS, RENEWAL, GENERATION, REFUSED, OPENED, TRIED, CONTROL, SPAN = range(12)
"""The claims, in the order of `judge`."""


def subscriber(name: str) -> Observed:
    is_member = name != REMOVED
    old, new = (500, REMOVED_AT - 1), (400, REMOVED_AT + 9_000_000)
    return Observed(
        name=name,
        samples=900,
        samples_equal=is_member,
        file_sha256=HASH,
        sha256_noted=HASH,
        lost=0,
        ended=frozenset(CHANNELS),
        repaired=10,
        messages={channel: dict.fromkeys(range(4, 10), 20) for channel in CHANNELS},
        generations={channel: {1: old, 2: new} if is_member else {1: old} for channel in CHANNELS},
        serials=dict.fromkeys(CHANNELS, ("a1", "b2") if name == MEMBER else ()),
        refused_keys=frozenset() if is_member else frozenset(CHANNELS),
    )


@pytest.fixture
def evidence() -> Evidence:
    return Evidence(
        sample_count=900,
        file_sha256=HASH,
        loss=0.05,
        observed={name: subscriber(name) for name in SUBSCRIBERS},
        links={
            name: {channel: Link(forwarded=9_500, dropped=500) for channel in CHANNELS}
            for name in SUBSCRIBERS
        },
        overrun=0,
        folder_serials=("a1", "b2"),
        removed_at=REMOVED_AT,
        attempted=Attempted(
            heard=18_998,
            packets=12_000,
            clear=98,
            old=6_900,
            opened=0,
            attempts=12_000 * 40 + 400 * 250,
            keys=40,
            blocks=400,
            steps=250,
            control_packets=100,
            control_opened=100,
            old_packets=3,
            old_span=900_000,
        ),
    )


def failed(evidence: Evidence) -> list[int]:
    return [number for number, claim in enumerate(judge(evidence)) if not claim.holds]


def with_observed(evidence: Evidence, name: str, **changes: Any) -> Evidence:
    changed = replace(evidence.observed[name], **changes)
    return replace(evidence, observed={**evidence.observed, name: changed})


def test_all_claims_hold_on_good_evidence(evidence: Evidence) -> None:
    assert failed(evidence) == []
    assert len(judge(evidence)) == 12


@pytest.mark.parametrize(
    ("changes", "claim"),
    [
        ({"samples": 899}, SAMPLES),
        ({"samples_equal": False}, SAMPLES),
        ({"file_sha256": None}, FILE),
        ({"file_sha256": "cd" * 32}, FILE),
        ({"sha256_noted": "cd" * 32}, FILE),
        ({"lost": 1}, LOST),
        ({"loss_events": ("Gap",)}, LOST),
        ({"ended": frozenset({ECG_CHANNEL})}, LOST),
        ({"messages": {ECG_CHANNEL: dict.fromkeys(range(4, 10), 1), FILE_CHANNEL: {4: 9}}}, SLOTS),
        ({"messages": {channel: dict.fromkeys((4, 5, 6, 8, 9, 10), 1) for channel in CHANNELS}}, SLOTS),
        ({"messages": {}}, SLOTS),
        ({"serials": dict.fromkeys(CHANNELS, ("a1",))}, RENEWAL),
        ({"serials": {ECG_CHANNEL: ("a1", "b2"), FILE_CHANNEL: ("a1", "c3")}}, RENEWAL),
        ({"serials": {}}, RENEWAL),
        ({"generations": {channel: {1: (9, REMOVED_AT)} for channel in CHANNELS}}, GENERATION),
    ],
)
def test_a_member_short_of_something(evidence: Evidence, changes: dict[str, Any], claim: int) -> None:
    assert failed(with_observed(evidence, MEMBER, **changes)) == [claim]


@pytest.mark.parametrize("dropped", [0, 39, 61])
def test_loss_outside_the_bounds(evidence: Evidence, dropped: int) -> None:
    link = Link(forwarded=1000 - dropped, dropped=dropped)
    links = {**evidence.links, MEMBER: dict.fromkeys(CHANNELS, link)}
    assert failed(replace(evidence, links=links)) == [LOSS]


def test_a_switch_that_saw_nothing(evidence: Evidence) -> None:
    links = {**evidence.links, MEMBER: {channel: Link(forwarded=0, dropped=0) for channel in CHANNELS}}
    assert failed(replace(evidence, links=links)) == [LOSS]


def test_loss_before_the_switch_counts(evidence: Evidence) -> None:
    assert failed(replace(evidence, overrun=100)) == []
    assert failed(replace(evidence, overrun=250)) == [LOSS]
    assert failed(replace(evidence, overrun=None)) == []


def test_a_certificate_that_stayed(evidence: Evidence) -> None:
    assert failed(replace(evidence, folder_serials=("a1", "a1"))) == [RENEWAL]


def test_the_removed_one_is_still_given_keys(evidence: Evidence) -> None:
    assert failed(with_observed(evidence, REMOVED, refused_keys=frozenset({ECG_CHANNEL}))) == [REFUSED]


@pytest.mark.parametrize(
    "changes",
    [
        {"opened": 1},
        {"packets": 9_999, "old": 8_901},
        {"attempts": 12_000 * 40 + 400 * 250 - 1},
        {"keys": 0},
        {"steps": 0},
        {"blocks": 187},
        {"blocks": 12_001, "attempts": 10**9},
    ],
)
def test_the_attempt_opens_something_or_is_none(evidence: Evidence, changes: dict[str, int]) -> None:
    attempted = replace(evidence.attempted, **changes)
    assert failed(replace(evidence, attempted=attempted)) == [OPENED]


@pytest.mark.parametrize(
    "changes",
    [
        # The tap has dropped some; or the numbers do not add up.
        {"heard": 18_979, "old": 6_881},
        {"heard": 19_001, "old": 6_903},
        {"heard": 18_999},
        {"clear": 97},
    ],
)
def test_the_attempt_was_not_made_on_all_there_was(evidence: Evidence, changes: dict[str, int]) -> None:
    attempted = replace(evidence.attempted, **changes)
    assert failed(replace(evidence, attempted=attempted)) == [TRIED]


def test_the_removed_engine_delivers_a_message_of_the_new_generation(evidence: Evidence) -> None:
    generations = {channel: {1: (9, REMOVED_AT - 1), 2: (1, REMOVED_AT + 1)} for channel in CHANNELS}
    assert failed(with_observed(evidence, REMOVED, generations=generations)) == [OPENED]


def test_an_attempt_that_could_not_have_succeeded(evidence: Evidence) -> None:
    attempted = replace(evidence.attempted, control_opened=0)
    assert failed(replace(evidence, attempted=attempted)) == [CONTROL]


def test_the_old_generation_goes_on_for_the_one_who_was_removed(evidence: Evidence) -> None:
    attempted = replace(evidence.attempted, old_span=1_000_001)
    assert failed(replace(evidence, attempted=attempted)) == [SPAN]


def test_the_old_generation_goes_on_for_a_member(evidence: Evidence) -> None:
    late = {1: (500, REMOVED_AT + 1_000_001), 2: (400, REMOVED_AT + 9_000_000)}
    assert failed(with_observed(evidence, MEMBER, generations=dict.fromkeys(CHANNELS, late))) == [SPAN]
