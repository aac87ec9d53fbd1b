"""The files of vectors/ as test cases."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

VECTORS = Path(__file__).parents[2] / "vectors"


def load(name: str) -> Any:
    return json.loads((VECTORS / f"{name}.json").read_text())


class Case:
    """A test with the inputs of its group; bytes come out of `octets`."""

    def __init__(self, group: dict[str, Any], test: dict[str, Any]) -> None:
        self.values = {name: value for name, value in group.items() if name != "tests"} | test
        self.is_valid = test["result"] == "valid"
        self.reason = test.get("reason")

    def __getitem__(self, name: str) -> Any:
        return self.values[name]

    def octets(self, name: str) -> bytes:
        return bytes.fromhex(self.values[name])

    def expect(self, **found: Any) -> None:
        """Each of the named values is the file's; bytes may be given as such."""
        assert {name: _plain(value) for name, value in found.items()} == {
            name: self.values[name] for name in found
        }


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def cases(name: str) -> pytest.MarkDecorator:
    found = [
        pytest.param(Case(group, test), id=f"{test['tcId']}-{test['comment']}"[:60])
        for group in load(name)["groups"]
        for test in group["tests"]
    ]
    return pytest.mark.parametrize("case", found)
