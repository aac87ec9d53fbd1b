"""The files of vectors/ are well formed, are what the generator writes, and the reference stands alone."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest

from tests.vectors.cases import FILES
from tests.vectors.json_schema import Schema

ROOT = Path(__file__).parents[2]
VECTORS = ROOT / "vectors"
MAX_FILE_BYTES = 1_000_000


def load(name: str) -> Any:
    return json.loads((VECTORS / f"{name}.json").read_text())


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


@pytest.mark.parametrize("folder", ["tests/reference", "tests/vectors/cases"])
def test_the_reference_imports_nothing_of_the_package(folder: str) -> None:
    for path in (ROOT / folder).glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            assert not [name for name in names if name.partition(".")[0] == "sealcast"], path


def test_a_schema_refuses_what_does_not_fit() -> None:
    schema = Schema(VECTORS / "schemas" / "varint.json")
    changes: list[dict[str, Any]] = [{"numberOfTests": 0}, {"concept": "other"}, {"more": 1}, {"groups": []}]
    for change in changes:
        assert schema.errors(load("varint") | change)
    broken = load("varint")
    broken["groups"][0]["tests"][0]["encoding"] = "0G"
    del broken["groups"][0]["tests"][1]["value"]
    assert len(schema.errors(broken)) == 2
