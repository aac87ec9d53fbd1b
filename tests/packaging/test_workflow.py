"""The workflow that builds the packages calls what there is, for every platform."""

from __future__ import annotations

import re
import shlex
from typing import Any

import pytest
import yaml

from tests.sdk.languages import ROOT
from tools import package

WORKFLOW = ROOT / ".github/workflows/packages.yml"
TEXT = WORKFLOW.read_text()
JOBS: dict[str, Any] = yaml.safe_load(TEXT)["jobs"]
STEPS = [step for job in JOBS.values() for step in job["steps"]]
CALLS = re.findall(r"python tools/package\.py +(.*)", TEXT + (ROOT / "Makefile").read_text())


def test_each_platform_builds_and_loads() -> None:
    for job in ("platform", "loads"):
        entries = JOBS[job]["strategy"]["matrix"]["include"]
        assert [entry["platform"] for entry in entries] == list(package.PLATFORMS)
        assert len({entry["runner"] for entry in entries}) == len(entries)
        assert JOBS[job]["runs-on"] == "${{ matrix.runner }}"


@pytest.mark.parametrize("words", CALLS)
def test_each_call_is_one_of_the_tool(words: str) -> None:
    package.arguments().parse_args(shlex.split(words))


def test_every_package_is_made_by_it() -> None:
    made = {
        word
        for step in STEPS
        for line in re.findall(r"package\.py (.*)", step.get("run", ""))
        for word in line.split()
    }
    assert made - {"--built"} == set(package.WHAT)


def test_each_file_that_is_named_is_there() -> None:
    named = re.findall(r"\b(?:requirements|tests|tools)/[\w./-]+\w", TEXT)
    assert len(named) >= 8
    assert [name for name in named if not (ROOT / name).is_file()] == []


def test_it_may_read_alone_and_runs_known_actions() -> None:
    assert yaml.safe_load(TEXT)["permissions"] == {"contents": "read"}
    assert "secrets." not in TEXT
    uses = [step["uses"] for step in STEPS if "uses" in step]
    assert [name for name in uses if not re.fullmatch(r"actions/[a-z-]+@(v\d+|[0-9a-f]{40})", name)] == []
