"""The OpenAPI 3.1 document, made from the table of requests."""

from collections.abc import Mapping
from typing import Any

from sealcast.authority.api.problems import CONTENT_TYPE, PROBLEM, Problem
from sealcast.authority.api.routing import Route, RouteTable
from sealcast.authority.api.schema import Component, JsonSchema, text

_OVERVIEW = """Management of a site's authority.

Every request needs a client certificate of an admin (TLS 1.3); the role is looked up for each request.
Every request that changes something is written to the audit log, also when it is refused.

Times are RFC 3339 in UTC; members whose names end in `_us` are microseconds. Lists come in pages: give `next`
of one as `after` of the next. A refusal is a problem (RFC 9457) that names the value and the cure."""

_ANYWHERE = (Problem.MALFORMED, Problem.NOT_AUTHENTICATED, Problem.ROLE, Problem.INTERNAL, Problem.STORAGE)

_TAG = text("Tag of this state of the resource.", pattern='^"[0-9a-f]{32}"$')


def make_document(table: RouteTable) -> dict[str, Any]:
    """The document of every request in the table."""
    components: dict[str, JsonSchema] = {}
    paths: dict[str, dict[str, Any]] = {}
    for route in table:
        paths.setdefault(route.path, {})[route.method.lower()] = _resolved(_operation(route), components)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Sealcast management", "version": "1", "description": _OVERVIEW},
        "paths": dict(sorted(paths.items())),
        "components": {
            "schemas": dict(sorted(components.items())),
            "securitySchemes": {
                "admin": {"type": "mutualTLS", "description": "A certificate of role `admin` of this site."}
            },
        },
        "security": [{"admin": []}],
    }


def _operation(route: Route) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": route.name,
        "summary": route.summary,
        "description": f"{route.description}\n\nRole: {route.role}.",
        "x-role": str(route.role),
        "parameters": _parameters(route),
        "responses": _responses(route),
    }
    if route.body is not None:
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": route.body}},
        }
    return operation


def _parameters(route: Route) -> list[dict[str, Any]]:
    found = [_parameter(name, "path", schema, required=True) for name, schema in route.parameters.items()]
    found += [_parameter(name, "query", schema) for name, schema in route.query.items()]
    if route.takes_key:
        key = text(
            "Drawn by the client for each request: a retry with the same one gets the first try's answer, "
            "for 24 hours.",
            pattern="^[!-~]{1,255}$",
        )
        found.append(_parameter("Idempotency-Key", "header", key))
    if route.conditional:
        found.append(_parameter("If-Match", "header", text("Do it only if the resource has this tag.")))
    if route.tagged and not route.changes:
        found.append(_parameter("If-None-Match", "header", text("Answer only if the tag is another.")))
    return found


def _parameter(name: str, place: str, schema: JsonSchema, *, required: bool = False) -> dict[str, Any]:
    inner = {word: value for word, value in schema.items() if word != "description"}
    return {
        "name": name,
        "in": place,
        "required": required,
        "description": schema["description"],
        "schema": inner,
    }


def _responses(route: Route) -> dict[str, Any]:
    headers: dict[str, Any] = {}
    if route.tagged:
        headers["ETag"] = {"description": _TAG["description"], "schema": {"type": "string"}}
    answer: dict[str, Any] = {
        "description": route.answer.schema["description"],
        "content": {"application/json": {"schema": route.answer}},
    }
    responses: dict[str, Any] = {str(route.status): answer | ({"headers": headers} if headers else {})}
    if route.tagged and not route.changes:
        responses["304"] = {"description": "It has the tag of If-None-Match."}
    by_status: dict[int, list[str]] = {}
    for problem in _problems(route):
        by_status.setdefault(problem.status, []).append(f"{problem.title} (`{problem.uri}`)")
    for status, titles in sorted(by_status.items()):
        responses[str(status)] = {
            "description": "; ".join(titles),
            "content": {CONTENT_TYPE: {"schema": PROBLEM}},
        }
    return responses


def _problems(route: Route) -> list[Problem]:
    expected = [*_ANYWHERE, *route.problems]
    if route.body is not None:
        expected += [Problem.MEDIA_TYPE, Problem.TOO_LARGE, Problem.TIMEOUT]
    if route.takes_key:
        expected.append(Problem.KEY_REUSED)
    if route.conditional:
        expected.append(Problem.PRECONDITION)
    return list(dict.fromkeys(expected))


def _resolved(value: Any, components: dict[str, JsonSchema]) -> Any:
    """The same with references in place of components, which go into `components`."""
    match value:
        case Component(name=name, schema=schema):
            resolved = _resolved(schema, components)
            if components.setdefault(name, resolved) != resolved:
                raise ValueError(f"two components of the name {name}")
            return {"$ref": f"#/components/schemas/{name}"}
        case Mapping():
            return {key: _resolved(inner, components) for key, inner in value.items()}
        case list() | tuple():
            return [_resolved(inner, components) for inner in value]
    return value
