"""JSON Schema, as much of it as this API needs: what is written in the document is what is enforced.

Schemas of requests may use the words in `_CHECKS` and the like and no others; a word that nobody enforces
cannot get in. Those of answers are checked by the tests.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sealcast.errors import UsageError

JsonSchema = Mapping[str, Any]

REQUEST_WORDS = frozenset(
    {
        "type",
        "enum",
        "pattern",
        "minLength",
        "maxLength",
        "minimum",
        "maximum",
        "items",
        "minItems",
        "maxItems",
        "properties",
        "required",
        "additionalProperties",
        "minProperties",
        "default",
        "description",
        "examples",
    }
)
"""What `validate` enforces, and words that only explain."""

_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
    "null": (type(None),),
}
_SHOWN_CHARACTERS = 80


@dataclass(frozen=True, slots=True)
class Component:
    """A schema with a name of its own in the document; in an answer's schema it stands for a reference."""

    name: str
    schema: JsonSchema


def record(
    description: str, required: Sequence[str] | None = None, /, **properties: JsonSchema
) -> JsonSchema:
    """An object with these members and no others; all are required unless `required` says which."""
    return {
        "type": "object",
        "description": description,
        "properties": properties,
        "required": list(properties) if required is None else list(required),
        "additionalProperties": False,
    }


def text(description: str, **words: Any) -> JsonSchema:
    """A string."""
    return {"type": "string", "description": description, **words}


def number(description: str, **words: Any) -> JsonSchema:
    """An integer."""
    return {"type": "integer", "description": description, **words}


def flag(description: str) -> JsonSchema:
    """A boolean."""
    return {"type": "boolean", "description": description}


def moment(description: str) -> JsonSchema:
    """A time in an answer: RFC 3339, UTC."""
    return {"type": "string", "format": "date-time", "description": description}


def nullable(schema: JsonSchema) -> JsonSchema:
    """The same, or null."""
    return {**schema, "type": [schema["type"], "null"]}


def listed(items: JsonSchema | Component, description: str, **words: Any) -> JsonSchema:
    """An array."""
    return {"type": "array", "items": items, "description": description, **words}


def check_request_schema(schema: JsonSchema) -> None:
    """Refuse a schema that says something which `validate` would not enforce; a fault of ours.

    Raises:
        ValueError: it does.
    """
    if unknown := set(schema) - REQUEST_WORDS:
        raise ValueError(f"a request's schema may not say {sorted(unknown)}")
    if pattern := schema.get("pattern"):
        if not (pattern.startswith("^") and pattern.endswith("$")):
            raise ValueError(f"a pattern must fit the whole: {pattern}")
        re.compile(pattern)
    if _kinds(schema) & {"object"} and schema.get("additionalProperties") is not False:
        raise ValueError("an object of a request must name all its members")
    for inner in (*schema.get("properties", {}).values(), *([schema["items"]] if "items" in schema else [])):
        check_request_schema(inner)


def parse_json(body: bytes) -> Any:
    """Read JSON as I-JSON wants it (RFC 7493): UTF-8, no double names, no lone surrogates, no NaN.

    Raises:
        UsageError: it is not that.
    """
    try:
        return json.loads(body.decode("utf-8"), object_pairs_hook=_members, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        # The message may hold any part of the body, on several lines.
        told = re.sub(r"[^ -~]+", " ", str(error))[:_SHOWN_CHARACTERS]
        raise UsageError(f"the body is not JSON: {told}", cure="send one JSON object in UTF-8") from None


def validate(schema: JsonSchema, value: Any, place: str) -> Any:
    """Return `value` with the defaults that the schema gives.

    Args:
        schema: of a request.
        value: as JSON gives it.
        place: what it is called in an error, for example `publish[0]`.

    Raises:
        UsageError: it does not fit; the text names place and value.
    """
    kinds = _kinds(schema)
    kind = next((name for name in kinds if _is_of(value, name)), None)
    if kind is None:
        raise _misfit(place, value, f"it must be of type {' or '.join(sorted(kinds))}")
    if "enum" in schema and value not in schema["enum"]:
        raise _misfit(place, value, f"use one of {', '.join(map(str, schema['enum']))}")
    match kind:
        case "string":
            _check_text(schema, value, place)
        case "integer":
            _check_bounds(schema, int(value), value, place, "minimum", "maximum", "")
            return int(value)
        case "array":
            _check_bounds(schema, len(value), value, place, "minItems", "maxItems", "items ")
            return [validate(schema["items"], item, f"{place}[{index}]") for index, item in enumerate(value)]
        case "object":
            return _members_of(schema, value, place)
    return value


def _kinds(schema: JsonSchema) -> set[str]:
    kinds = schema["type"]
    return {kinds} if isinstance(kinds, str) else set(kinds)


def _is_of(value: Any, kind: str) -> bool:
    if kind == "integer" and isinstance(value, float):
        # JSON knows one kind of number: 1.0 is an integer too.
        return value.is_integer()
    return isinstance(value, _TYPES[kind]) and (kind == "boolean" or not isinstance(value, bool))


def _check_text(schema: JsonSchema, value: str, place: str) -> None:
    _check_bounds(schema, len(value), value, place, "minLength", "maxLength", "characters ")
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise _misfit(place, value, "it must be Unicode text")
    # fullmatch, as `$` would let a newline pass at the end.
    if (pattern := schema.get("pattern")) and re.fullmatch(pattern[1:-1], value, re.ASCII) is None:
        raise _misfit(place, value, _wanted(schema, pattern))


def _wanted(schema: JsonSchema, pattern: str) -> str:
    """What to give instead: a value that would do, else the pattern; and what it is for."""
    examples = schema.get("examples")
    use = f"give one such as {examples[0]}" if examples else f"give one that matches {pattern}"
    meaning = schema.get("description", "")
    return f"{use}: {meaning[:1].lower()}{meaning[1:].rstrip('.')}" if meaning else use


def _check_bounds(
    schema: JsonSchema, amount: int, value: Any, place: str, least: str, most: str, unit: str
) -> None:
    if amount < schema.get(least, amount):
        raise _misfit(place, value, f"{unit}must be {schema[least]} at least".strip())
    if amount > schema.get(most, amount):
        raise _misfit(place, value, f"{unit}must be {schema[most]} at most".strip())


def _members_of(schema: JsonSchema, value: Mapping[str, Any], place: str) -> dict[str, Any]:
    known: Mapping[str, JsonSchema] = schema["properties"]
    where = f"{place}." if place else ""
    if unknown := sorted(set(value) - set(known)):
        raise _misfit(where + unknown[0], value[unknown[0]], f"known are: {', '.join(known)}")
    if missing := [name for name in schema.get("required", ()) if name not in value]:
        meaning = known[missing[0]].get("description", "see the API's document: /v1/openapi.json")
        raise UsageError(f"{where}{missing[0]} is missing", cure=f"give it: {meaning.rstrip('.')}")
    if len(value) < schema.get("minProperties", 0):
        raise UsageError(f"{place or 'the body'} says nothing", cure=f"give one of: {', '.join(known)}")
    found = {name: validate(known[name], given, where + name) for name, given in value.items()}
    defaults = {name: inner["default"] for name, inner in known.items() if "default" in inner}
    return defaults | found


def _misfit(place: str, value: Any, cure: str) -> UsageError:
    # Shown as ASCII: both may be anything of the caller's own making.
    return UsageError(f"{_shown(place) or 'the body'} {_shown(repr(value))}", cure=cure)


def _shown(given: str) -> str:
    """The start of it, without what would move a terminal's cursor."""
    return given.encode("unicode_escape").decode("ascii")[:_SHOWN_CHARACTERS]


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError("a name stands twice in one object")
    return members


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")
