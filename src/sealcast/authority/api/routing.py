"""The table of requests: what each must say about itself before it can be served, and how one is found."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from sealcast.authority.admins import AdminRole
from sealcast.authority.api.problems import Problem, RefusedError
from sealcast.authority.api.schema import Component, JsonSchema, check_request_schema, number, text

if TYPE_CHECKING:
    from sealcast.authority.api.handling import Answer, Call

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
CHANGING = frozenset(METHODS) - {"GET"}

_SEGMENT = re.compile(r"\{[a-z_]+\}|[a-z0-9.-]+")
_MAX_PAGE = 1000

PAGE: Mapping[str, JsonSchema] = {
    "limit": number("Most entries in one answer.", minimum=1, maximum=_MAX_PAGE, default=100),
    "after": text("Where the page before ended: its `next`.", maxLength=256),
}
"""Query parameters of a list."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One request.

    Raises:
        ValueError: something is missing that a reader of the document, or the listener, has to know.
    """

    method: str
    path: str
    """Template: `/v1/channels/{channel}`; a parameter stands for one segment, percent-encoded."""
    name: str
    """`operationId` of the document: verb and noun."""
    role: AdminRole
    """The least that may ask."""
    summary: str
    """One line."""
    description: str
    """What it does, and what follows from it."""
    answer: Component
    """What is answered."""
    handler: Callable[["Call"], "Answer"] = field(repr=False)
    status: int = 200
    parameters: Mapping[str, JsonSchema] = field(default_factory=dict)
    """Those of the path."""
    query: Mapping[str, JsonSchema] = field(default_factory=dict)
    body: Component | None = None
    tagged: bool = False
    """Whether the answer has an ETag, for If-None-Match, and for If-Match of a change."""
    conditional: bool = False
    """Whether the change obeys If-Match."""
    only_reads: bool = False
    """Whether a POST changes nothing: its question is too long for a query."""
    max_body_bytes: int = 64 * 1024
    """A channel with a thousand rules has half of it."""
    read_body: Callable[[Mapping[str, Any]], Any] | None = field(default=None, repr=False)
    """Makes of the body what the handler works with, where that takes long: before the transaction."""
    problems: tuple[Problem, ...] = ()
    """Which refusals are to be expected besides those that any request may get."""

    def __post_init__(self) -> None:
        place = f"{self.method} {self.path}"
        if self.method not in METHODS:
            raise ValueError(f"{place}: unknown method")
        if not all((self.name, self.summary.strip(), self.description.strip())):
            raise ValueError(f"{place}: name, summary and description must say something")
        if not self.answer.schema or not isinstance(self.role, AdminRole):
            raise ValueError(f"{place}: the answer's schema and the role must be given")
        segments = self.path.removeprefix("/").split("/")
        if not self.path.startswith("/") or not all(_SEGMENT.fullmatch(segment) for segment in segments):
            raise ValueError(f"{place}: not a path")
        named = [segment[1:-1] for segment in segments if segment.startswith("{")]
        if sorted(named) != sorted(self.parameters):
            raise ValueError(f"{place}: every parameter of the path, and no other, must have a schema")
        if self.body is not None and self.method == "GET":
            raise ValueError(f"{place}: a request that reads has no body")
        for schema in (*self.parameters.values(), *self.query.values()):
            _check_parameter(schema, place)
        if self.body is not None:
            check_request_schema(self.body.schema)

    @property
    def changes(self) -> bool:
        """Whether it may change anything, and is therefore audited."""
        return self.method in CHANGING and not self.only_reads

    @property
    def takes_key(self) -> bool:
        """Whether a retry can be told from a second request by an Idempotency-Key.

        The other methods are the same done twice as done once.
        """
        return self.method == "POST" and not self.only_reads


class RouteTable:
    """Every request that is served."""

    def __init__(self, routes: Iterable[Route]) -> None:
        """Take the rows.

        Raises:
            ValueError: two rows have one name, or one method and path, or two components one name.
        """
        self._routes = tuple(routes)
        self._by_shape: dict[tuple[str, ...], dict[str, Route]] = {}
        names = set[str]()
        for route in self._routes:
            methods = self._by_shape.setdefault(_shape(route.path), {})
            if route.method in methods or route.name in names:
                raise ValueError(f"twice in the table: {route.method} {route.path}, {route.name}")
            methods[route.method] = route
            names.add(route.name)

    def __iter__(self) -> Iterator[Route]:
        return iter(self._routes)

    def find(self, method: str, raw_path: str) -> tuple[Route, dict[str, str]]:
        """The route of a request, and the parameters of its path, decoded.

        Raises:
            RefusedError: `NO_ROUTE`, or `METHOD` with the header Allow.
        """
        try:
            segments = tuple(unquote(part, errors="strict") for part in raw_path.split("/")[1:])
        except UnicodeDecodeError:
            segments = ()
        methods = self._methods(segments)
        if not methods:
            raise RefusedError(Problem.NO_ROUTE, f"no such path: {raw_path[:200]!r}")
        wanted = "GET" if method == "HEAD" else method
        if wanted not in methods:
            allowed = sorted({*methods, *(["HEAD"] if "GET" in methods else [])})
            raise RefusedError(
                Problem.METHOD,
                f"{method[:20]!r} is not for {raw_path[:200]!r}",
                cure=f"use {' or '.join(allowed)}",
                headers={"Allow": ", ".join(allowed)},
            )
        route = methods[wanted]
        named = zip(route.path.split("/")[1:], segments, strict=True)
        return route, {part[1:-1]: value for part, value in named if part.startswith("{")}

    def _methods(self, segments: tuple[str, ...]) -> dict[str, Route]:
        # A literal segment goes before a parameter, so the shapes are tried from the most literal one on.
        shapes = sorted(self._by_shape, key=lambda shape: shape.count(_ANY))
        for shape in shapes:
            if len(shape) == len(segments) and all(
                wanted in (_ANY, given) for wanted, given in zip(shape, segments, strict=True)
            ):
                return self._by_shape[shape]
        return {}


_ANY = "{}"


def _shape(path: str) -> tuple[str, ...]:
    return tuple(_ANY if part.startswith("{") else part for part in path.split("/")[1:])


def _check_parameter(schema: JsonSchema, place: str) -> None:
    check_request_schema(schema)
    if schema["type"] not in ("string", "integer", "boolean"):
        raise ValueError(f"{place}: a parameter must be a string, an integer or a boolean")
    if not schema.get("description"):
        raise ValueError(f"{place}: a parameter needs a description")


def parse_parameter(schema: JsonSchema, value: str) -> Any:
    """A parameter as JSON would have it; what does not parse is left for `validate` to refuse."""
    match schema["type"]:
        case "integer" if re.fullmatch(r"-?[0-9]{1,20}", value):
            return int(value)
        case "boolean" if value in ("true", "false"):
            return value == "true"
    return value
