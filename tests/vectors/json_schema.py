"""As much of JSON Schema as vectors/schemas/ uses, so that the tests need no library for it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

TYPES: dict[str, type | tuple[type, ...]] = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "boolean": bool,
    "null": type(None),
}
UNDERSTOOD = frozenset(
    [
        "$schema",
        "$id",
        "$defs",
        "title",
        "description",
        "$ref",
        "type",
        "const",
        "enum",
        "pattern",
        "minimum",
        "maximum",
        "minItems",
        "items",
        "properties",
        "required",
        "additionalProperties",
        "anyOf",
        "if",
        "then",
        "else",
    ]
)


class Schema:
    """A schema file and its neighbours."""

    def __init__(self, path: Path) -> None:
        self._folder = path.parent
        self._root = json.loads(path.read_text())
        self._documents = {path.name: self._root}

    def errors(self, value: Any) -> list[str]:
        return list(self._check(self._root, value, ""))

    def _check(self, schema: Any, value: Any, at: str) -> Iterator[str]:
        if schema is False:
            yield f"{at}: not allowed here"
            return
        if schema is True:
            return
        unknown = set(schema) - UNDERSTOOD
        if unknown:
            raise ValueError(f"keywords that are not understood: {sorted(unknown)}")
        if "$ref" in schema:
            yield from self._check(self._resolve(schema["$ref"]), value, at)
        kind = schema.get("type")
        if kind is not None and not _is(value, kind):
            yield f"{at}: not of type {kind}"
            return
        if "const" in schema and value != schema["const"]:
            yield f"{at}: not {schema['const']!r}"
        if "enum" in schema and value not in schema["enum"]:
            yield f"{at}: none of {schema['enum']}"
        if "pattern" in schema and not re.search(schema["pattern"], value):
            yield f"{at}: not like {schema['pattern']}"
        if kind == "integer" and not schema.get("minimum", value) <= value <= schema.get("maximum", value):
            yield f"{at}: out of range"
        if isinstance(value, list):
            yield from self._check_array(schema, value, at)
        if isinstance(value, dict):
            yield from self._check_object(schema, value, at)
        if "anyOf" in schema:
            failures = [list(self._check(option, value, at)) for option in schema["anyOf"]]
            if all(failures):
                yield f"{at}: no alternative fits: {failures}"
        if "if" in schema:
            holds = not list(self._check(schema["if"], value, at))
            yield from self._check(schema.get("then" if holds else "else", True), value, at)

    def _check_array(self, schema: dict[str, Any], value: list[Any], at: str) -> Iterator[str]:
        if len(value) < schema.get("minItems", 0):
            yield f"{at}: too few items"
        for index, item in enumerate(value):
            yield from self._check(schema.get("items", True), item, f"{at}[{index}]")

    def _check_object(self, schema: dict[str, Any], value: dict[str, Any], at: str) -> Iterator[str]:
        properties = schema.get("properties", {})
        for name in schema.get("required", ()):
            if name not in value:
                yield f"{at}: {name} is missing"
        for name, item in value.items():
            expected = properties.get(name, schema.get("additionalProperties", True))
            yield from self._check(expected, item, f"{at}.{name}")

    def _resolve(self, reference: str) -> Any:
        name, _, pointer = reference.partition("#/")
        if name not in self._documents:
            self._documents[name] = json.loads((self._folder / name).read_text())
        found = self._documents[name]
        for word in pointer.split("/"):
            found = found[word]
        return found


def _is(value: Any, kind: str) -> bool:
    if kind == "integer" and isinstance(value, bool):
        return False
    return isinstance(value, TYPES[kind])
