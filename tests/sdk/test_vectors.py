"""Every language gives the known answers: each case of vectors/ goes through the library by its SDK."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import cbor2
import pytest

from tests.sdk.languages import LANGUAGES, ROOT, peer_command
from tests.vectors.reading import VECTORS, load

QUESTIONS: dict[str, Any] = json.loads((ROOT / "rust/vectors/questions.json").read_text())
"""What of a case is asked, and what the engine does not tell; the tests of rust/vectors go by it too."""
PATIENCE = 300

every_language = pytest.mark.parametrize("language", LANGUAGES)


@dataclass(frozen=True, slots=True)
class Question:
    """A case, divided into what is asked and what has to come back."""

    concept: str
    name: str
    asked: dict[str, Any]
    wanted: dict[str, Any]
    is_unknown: bool = False
    """Of what the engine has no part in: the library says so."""
    may_pass: bool = False
    """The engine takes what the file refuses, and harms nobody by it."""

    def is_answered_by(self, status: str, answer: str) -> bool:
        if self.is_unknown or status != "ok":
            return self.is_unknown and status == "invalid-argument"
        found = cbor2.loads(bytes.fromhex(answer))
        return bool(found == self.wanted or (self.may_pass and found["result"] == "valid"))


@cache
def questions() -> list[Question]:
    return [
        question
        for concept in QUESTIONS["inputs"]
        for group in load(concept)["groups"]
        for question in of_group(concept, group)
    ]


def of_group(concept: str, group: dict[str, Any]) -> Iterator[Question]:
    exceptions = QUESTIONS["sideChannel"] if concept == "side_channel" else {}
    kind = group.get("kind")
    is_written = kind in exceptions.get("written", ())
    inputs = {"fields"} if is_written else set(QUESTIONS["inputs"][concept])
    for test in group["tests"]:
        is_valid = test["result"] == "valid"
        if is_written and (not is_valid or test["flags"]):
            # Nobody writes what is malformed, or of a later version.
            continue
        asked = {name: value for name, value in group.items() if name != "tests"}
        asked |= {name: value for name, value in test.items() if name in inputs}
        results = wanted(concept, test, inputs)
        if "steps" in asked:
            # The reason of each is not given, and comes back.
            results["steps"] = [of(step, "reason") for step in asked["steps"]]
            asked["steps"] = [of(step, *(step.keys() - {"reason"})) for step in asked["steps"]]
        yield Question(
            concept=concept,
            name=f"{concept} {test['tcId']} {test['comment']}",
            asked=asked,
            wanted=results,
            is_unknown=kind in exceptions.get("unknown", ()),
            may_pass=not is_valid and test["comment"] in exceptions.get("passed", ()),
        )


def of(step: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in step.items() if name in names}


def wanted(concept: str, test: dict[str, Any], inputs: set[str]) -> dict[str, Any]:
    """All that a case says and that is no input; the reason as the engine tells it."""
    returned = QUESTIONS["returned"].get(concept, ()) if test["result"] == "valid" else ()
    left_out = {"tcId", "comment", "flags", *QUESTIONS["untold"].get(concept, ()), *(inputs - {*returned})}
    results = {name: value for name, value in test.items() if name not in left_out}
    if "fields" in results:
        # An empty list of earlier generations says what none says.
        results["fields"] = {
            name: value
            for name, value in results["fields"].items()
            if name not in left_out and (name != "earlier" or value)
        }
    if "reason" in results:
        told = QUESTIONS["toldAs"].get(concept, {})
        results["reason"] = told.get(results["reason"], results["reason"])
    return results


def ask(language: str, lines: list[str]) -> list[tuple[str, str]]:
    """Give a language's peer all questions at once: status and answer of each."""
    done = subprocess.run(
        [*peer_command(language), "vectors"],
        input="".join(f"{line}\n" for line in lines),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answers = [line.partition(" ") for line in done.stdout.splitlines()]
    return [(status, answer) for status, _, answer in answers]


def test_every_file_is_asked() -> None:
    assert set(QUESTIONS["inputs"]) == {path.stem for path in VECTORS.glob("*.json")}
    assert {question.concept for question in questions()} == set(QUESTIONS["inputs"])


@every_language
def test_known_answers(language: str) -> None:
    asked = questions()
    answers = ask(language, [f"{one.concept} {cbor2.dumps(one.asked).hex()}" for one in asked])
    wrong = [
        f"{question.name}: {status} {answer}, not {question.wanted}"
        for question, (status, answer) in zip(asked, answers, strict=True)
        if not question.is_answered_by(status, answer)
    ]
    assert not wrong, f"{len(wrong)} of {len(asked)} differ:\n" + "\n".join(wrong)


@every_language
def test_what_is_no_question_is_refused_by_name(language: str) -> None:
    refused = {
        "varints a0": "no concept 'varints', but beacon, block_id",
        "varint a0": "a case of varint: 'encoding' is missing",
        f"varint {cbor2.dumps({'encoding': 'zz'}).hex()}": "'encoding': no bytes in hexadecimal",
        f"varint {cbor2.dumps({'encoding': b'00'}).hex()}": "which no case has",
        "varint a1": "no CBOR at byte 0: end of input",
        "varint ": "no CBOR at byte 0",
        "varint a000": "1 bytes are left behind its CBOR",
    }
    answers = ask(language, list(refused))
    assert [status for status, _ in answers] == ["invalid-argument"] * len(refused)
    for (_, text), words in zip(answers, refused.values(), strict=True):
        assert words in text
