"""PKITS and x509-limbo through the one validator (TR-6), but for a listed set of cases with reasons."""

import tomllib
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.pki.paths import limbo, pkits
from tests.pki.paths.cases import PathCase

SUITES = {"pkits": list(pkits.cases()), "limbo": list(limbo.cases())}
LISTED = tomllib.loads((Path(__file__).parent / "disagreements.toml").read_text(encoding="utf-8"))[
    "disagreement"
]
ENTRIES = [(entry["suite"], name, entry["ours"]) for entry in LISTED for name in entry["cases"]]
OURS = {(suite, name): ours for suite, name, ours in ENTRIES}

EVERY_CASE = [
    pytest.param(suite, case, id=f"{suite}-{case.name}") for suite, cases in SUITES.items() for case in cases
]


@pytest.mark.parametrize(("suite", "case"), EVERY_CASE)
def test_p14_each_path_is_judged_as_its_authors_say_or_is_listed(suite: str, case: PathCase) -> None:
    refusal = case.refusal()
    listed = OURS.get((suite, case.name))
    if (refusal is None) == case.is_valid:
        assert listed is None, f"{case.name} agrees by now: remove it from disagreements.toml"
        return
    ours = "accepted" if refusal is None else "refused"
    assert listed == ours, f"{case.name} is {ours} ({refusal}), and disagreements.toml does not say why"


def test_p14_none_of_these_end_entities_is_a_peer() -> None:
    """Whatever their paths are worth: an identity of ours is in none of them."""
    assert not [case.name for cases in SUITES.values() for case in cases if case.is_a_peer()]


def test_p14_the_list_names_cases_once_and_gives_reasons(
    record_property: Callable[[str, object], None],
) -> None:
    known = {(suite, case.name) for suite, cases in SUITES.items() for case in cases}
    assert len(ENTRIES) == len(OURS)
    assert set(OURS) <= known
    assert all(len(entry["reason"].split()) > 5 for entry in LISTED)
    assert {suite: len(cases) for suite, cases in SUITES.items()} == {"pkits": 223, "limbo": 208}
    counts = Counter((suite, ours) for suite, _, ours in ENTRIES)
    for suite, cases in SUITES.items():
        accepted, refused = counts[suite, "accepted"], counts[suite, "refused"]
        record_property(
            "figure",
            f"{suite}: {len(cases)} paths, {len(cases) - accepted - refused} as their authors say; "
            f"with a reason each, {refused} refused that they accept, {accepted} accepted that they refuse",
        )


def test_p14_both_verdicts_are_common_among_the_cases() -> None:
    """A validator that always says the same could not pass."""
    for suite, cases in SUITES.items():
        agreed = Counter(case.is_valid for case in cases if (suite, case.name) not in OURS)
        assert min(agreed.values()) > 20
