"""The shape that all files of vectors share, and fixed values in place of random ones."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

VALID, INVALID = "valid", "invalid"


def fixed(name: str, length: int = 32) -> bytes:
    """Bytes that look random and are the same in every run, one value a name."""
    block, out = 0, b""
    while len(out) < length:
        out += sha256(f"sealcast vectors/{name}/{block}".encode()).digest()
        block += 1
    return out[:length]


@dataclass(slots=True)
class Group:
    """Tests that share inputs."""

    comment: str
    inputs: dict[str, Any] = field(default_factory=dict)
    tests: list[dict[str, Any]] = field(default_factory=list)

    def valid(self, comment: str, *, flags: tuple[str, ...] = (), **fields: Any) -> None:
        self.tests.append({"comment": comment, "flags": list(flags), **_hex(fields), "result": VALID})

    def invalid(self, comment: str, reason: str, *, flags: tuple[str, ...], **fields: Any) -> None:
        """A case to be refused; `flags` name the notes that say why it is there."""
        self.tests.append(
            {
                "comment": comment,
                "flags": list(flags),
                **_hex(fields),
                "result": INVALID,
                "reason": reason,
            }
        )


@dataclass(slots=True)
class VectorFile:
    concept: str
    spec: list[str]
    notes: dict[str, tuple[str, str]]
    """Flag to (bugType, description)."""
    groups: list[Group]

    def serialize(self) -> str:
        used = {flag for group in self.groups for test in group.tests for flag in test["flags"]}
        if used != set(self.notes):
            raise ValueError(f"{self.concept}: flags {sorted(used ^ set(self.notes))} lack a note or a use")
        number = 0
        groups = []
        for group in self.groups:
            tests = []
            for test in group.tests:
                number += 1
                tests.append({"tcId": number, **test})
            groups.append({"comment": group.comment, **_hex(group.inputs), "tests": tests})
        document = {
            "concept": self.concept,
            "generator": "tools/generate_vectors.py",
            "schema": f"schemas/{self.concept}.json",
            "spec": self.spec,
            "notes": {
                flag: {"bugType": kind, "description": text} for flag, (kind, text) in self.notes.items()
            },
            "numberOfTests": number,
            "groups": groups,
        }
        return json.dumps(document, indent=1, ensure_ascii=True) + "\n"


def _hex(value: Any) -> Any:
    """Bytes as lower-case hexadecimal, wherever they stand."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dict):
        return {key: _hex(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_hex(item) for item in value]
    return value
