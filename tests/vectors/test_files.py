"""The files of vectors/ are well formed, and are what the generator writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.vectors.cases import FILES
from tests.vectors.json_schema import Schema
from tests.vectors.reading import VECTORS, load

ROOT = Path(__file__).parents[2]
MAX_FILE_BYTES = 2_000_000


@pytest.mark.parametrize("name", FILES)
class TestFile:
    def test_the_generator_would_write_the_same(self, name: str) -> None:
        assert FILES[name]().serialize() == (VECTORS / f"{name}.json").read_text()

    def test_follows_its_schema(self, name: str) -> None:
        assert Schema(VECTORS / "schemas" / f"{name}.json").errors(load(name)) == []

    def test_tests_are_numbered_and_flags_explained(self, name: str) -> None:
        document = load(name)
        tests = [test for group in document["groups"] for test in group["tests"]]
        assert [test["tcId"] for test in tests] == list(range(1, document["numberOfTests"] + 1))
        assert {flag for test in tests for flag in test["flags"]} == set(document["notes"])

    def test_cites_requirements_that_exist(self, name: str) -> None:
        stated = "".join(path.read_text() for path in (ROOT / "spec").glob("*.md"))
        assert [cited for cited in load(name)["spec"] if f"**{cited}**" not in stated] == []

    def test_is_small_enough_to_be_read_everywhere(self, name: str) -> None:
        assert (VECTORS / f"{name}.json").stat().st_size < MAX_FILE_BYTES


def test_nothing_else_is_in_the_folder() -> None:
    assert {path.stem for path in VECTORS.glob("*.json")} == set(FILES)
    assert {path.stem for path in (VECTORS / "schemas").glob("*.json")} == {"common", *FILES}


def test_a_schema_refuses_what_does_not_fit() -> None:
    schema = Schema(VECTORS / "schemas" / "varint.json")
    changes: list[dict[str, Any]] = [{"numberOfTests": 0}, {"concept": "other"}, {"more": 1}, {"groups": []}]
    for change in changes:
        assert schema.errors(load("varint") | change)
    broken = load("varint")
    broken["groups"][0]["tests"][0]["encoding"] = "0G"
    del broken["groups"][0]["tests"][1]["value"]
    assert len(schema.errors(broken)) == 2
