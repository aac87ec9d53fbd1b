"""Every requirement of spec/ is cited where it is met and where it is tested.

A citation is its id in a comment or docstring, `DP-13`, or a run of them, `SC-10 to SC-12`. What cannot be
cited has an entry in requirement_exceptions.toml.
"""

import re
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
EXCEPTIONS = tomllib.loads(
    (Path(__file__).parent / "requirement_exceptions.toml").read_text(encoding="utf-8")
)["exception"]

# Where a requirement is met, and where that is shown; the rest of a folder of tests is tests, too.
PLACES = {"source": ("src", "rust/*/src"), "test": ("tests", "rust/*/tests")}
# What tells of requirements without meeting or testing one.
NO_PLACE = {Path(__file__).name}


@cache
def requirements() -> dict[str, str]:
    """Each requirement of the specification: id, text up to the next one."""
    found: dict[str, str] = {}
    for path in sorted((ROOT / "spec").glob("*.md")):
        parts = re.split(r"^\* \*\*([A-Z]{2}-\d+)\*\* ", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
        for identifier, text in zip(parts[1::2], parts[2::2], strict=True):
            assert identifier not in found, f"{identifier} stands twice"
            found[identifier] = text
    return found


def cited(text: str) -> Iterator[str]:
    """Ids in a text; a run stands for each of its ids."""
    for family, first, last in re.findall(r"\b([A-Z]{2})-(\d+)(?: to [A-Z]{2}-(\d+))?\b", text):
        for number in range(int(first), int(last or first) + 1):
            yield f"{family}-{number}"


@cache
def citations(place: str) -> dict[str, set[str]]:
    """For each id the files of a place that cite it."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for folder in (folder for pattern in PLACES[place] for folder in ROOT.glob(pattern)):
        for path in folder.rglob("*"):
            if path.suffix in {".py", ".rs"} and path.name not in NO_PLACE:
                for identifier in cited(path.read_text(encoding="utf-8")):
                    found[identifier].add(str(path.relative_to(ROOT)))
    return found


def test_the_specification_is_read() -> None:
    found = requirements()
    families = {identifier.partition("-")[0] for identifier in found}
    assert families == {"DP", "KM", "TR", "SC"}
    numbers = {family: {int(i[3:]) for i in found if i.startswith(family)} for family in families}
    for family, known in numbers.items():
        assert known == set(range(1, max(known) + 1)), f"{family}: a number is missing"
    assert "signs" in found["DP-1"]
    assert "\n* **" not in found["DP-1"]


def test_every_requirement_is_cited_by_source_and_test() -> None:
    excepted = {(entry["id"], entry["missing"]) for entry in EXCEPTIONS}
    uncited = [
        f"{identifier}: no {place} cites it: {text.splitlines()[0][:90]}"
        for place in PLACES
        for identifier, text in requirements().items()
        if identifier not in citations(place) and (identifier, place) not in excepted
    ]
    assert not uncited, "\n".join(uncited)


def test_no_citation_is_of_a_requirement_that_there_is_not() -> None:
    known = requirements()
    wrong = {
        f"{identifier}: {', '.join(sorted(files))}"
        for place in PLACES
        for identifier, files in citations(place).items()
        if identifier[:2] in {"DP", "KM", "TR", "SC"} and identifier not in known
    }
    assert not wrong, "\n".join(sorted(wrong))


def test_exceptions_are_few_true_and_needed() -> None:
    """Each quotes the requirement as it stands, says why, and is removed once there is a citation."""
    known = requirements()
    assert len(EXCEPTIONS) <= 5
    for entry in EXCEPTIONS:
        assert set(entry) == {"id", "missing", "quote", "reason"}, entry
        assert entry["quote"] in known[entry["id"]], f"{entry['id']} does not say: {entry['quote']}"
        assert len(entry["reason"]) > 20, entry
        assert entry["id"] not in citations(entry["missing"]), f"{entry['id']} is cited: drop its exception"
