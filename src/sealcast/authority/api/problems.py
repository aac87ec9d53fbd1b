"""Refusals of the management API: one table, and how both ends carry them (RFC 9457).

A problem has the members of the RFC (`type`, `title`, `status`, `detail`), and: `cure`, what to do about it;
`error`, the class of `sealcast.errors` with its fields, from which a command raises it anew, with the exit
code it would have had on the spot.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from sealcast import errors
from sealcast.authority.api.schema import Component, number, record, text
from sealcast.errors import (
    CertificateError,
    ChannelError,
    ConflictError,
    InternalError,
    RoleError,
    SealcastError,
    StorageError,
    UnknownChannelError,
    UnknownNameError,
    UsageError,
)

CONTENT_TYPE = "application/problem+json"


@dataclass(frozen=True, slots=True)
class _Row:
    status: int
    title: str
    cure: str = ""


class Problem(Enum):
    """Kinds of problems; the name, in lower case with hyphens, ends the type's URI."""

    MALFORMED = _Row(400, "the request is malformed", "see the API's document: /v1/openapi.json")
    NOT_AUTHENTICATED = _Row(401, "an admin's certificate is needed", "enrol: sealcast admin enroll")
    ROLE = _Row(403, "the admin's role does not allow this", "ask a security officer")
    UNKNOWN = _Row(404, "there is no such thing", "see the list")
    NO_ROUTE = _Row(404, "there is no such request", "see the API's document: /v1/openapi.json")
    METHOD = _Row(405, "the method is not for this resource", "see the header Allow")
    TIMEOUT = _Row(408, "the request took too long", "send it at once")
    CONFLICT = _Row(409, "it does not fit what is there", "read it again, then decide")
    PRECONDITION = _Row(412, "it was changed meanwhile", "read it again, then decide")
    TOO_LARGE = _Row(413, "the body is too large", "send less")
    MEDIA_TYPE = _Row(415, "the body must be application/json", "set Content-Type: application/json")
    REFUSED = _Row(422, "a value makes no sense here", "correct the value")
    KEY_REUSED = _Row(422, "the Idempotency-Key was used for another request", "draw a new key")
    INTERNAL = _Row(500, "a fault of the authority", "see its log")
    STORAGE = _Row(503, "the authority cannot store or read anything now", "see its log, then try again")

    @property
    def status(self) -> int:
        """HTTP status."""
        return self.value.status

    @property
    def title(self) -> str:
        """What it means, without particulars."""
        return self.value.title

    @property
    def cure(self) -> str:
        """What to do where the error itself does not say."""
        return self.value.cure

    @property
    def uri(self) -> str:
        """The type of RFC 9457."""
        return f"sealcast:problem:{self.name.lower().replace('_', '-')}"


class RefusedError(Exception):
    """One row of the table, with particulars: what a request gets instead of an answer.

    `detail`: one line for an admin, naming the value; no secret. `error`: what the other end raises.
    """

    def __init__(
        self,
        problem: Problem,
        detail: str,
        *,
        cure: str = "",
        error: SealcastError | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(problem, detail)
        self.problem = problem
        self.detail = detail
        self.cure = cure or problem.cure
        self.error = error or _error_of(problem, detail, self.cure)
        self.headers = dict(headers or {})

    def to_json(self) -> dict[str, Any]:
        """The body of the answer."""
        return {
            "type": self.problem.uri,
            "title": self.problem.title,
            "status": self.problem.status,
            "detail": self.detail,
            "cure": self.cure,
            "error": {"kind": _kind_of(self.error).__name__, "fields": _fields_of(self.error)},
        }


PROBLEM = Component(
    "Problem",
    record(
        "A refusal (RFC 9457).",
        type=text("URI of the kind of problem.", pattern="^sealcast:problem:[a-z-]+$"),
        title=text("What the kind means."),
        status=number("The HTTP status.", minimum=400, maximum=599),
        detail=text("What is wrong with this request, naming the value."),
        cure=text("What to do about it."),
        error={
            "type": "object",
            "description": "The class of sealcast.errors, and what it carries.",
            "properties": {"kind": text("Name of the class."), "fields": {"type": "object"}},
            "required": ["kind", "fields"],
        },
    ),
)


def refusal_of(error: Exception) -> RefusedError:
    """The row for an error of a handler; anything unforeseen says no more than that it happened."""
    match error:
        case RefusedError():
            return error
        case UnknownNameError() | UnknownChannelError():
            problem = Problem.UNKNOWN
        case ConflictError() | ChannelError():
            problem = Problem.CONFLICT
        case RoleError():
            problem = Problem.ROLE
        case StorageError():
            problem = Problem.STORAGE
        case UsageError() | CertificateError():
            problem = Problem.REFUSED
        case SealcastError() if not isinstance(error, InternalError):
            problem = Problem.REFUSED
        case _:
            return RefusedError(Problem.INTERNAL, "the request failed by a fault of the authority")
    return RefusedError(problem, error.problem, cure=error.cure, error=error)


def encode_problem(refusal: RefusedError) -> bytes:
    """The body of the answer."""
    return json.dumps(refusal.to_json(), separators=(",", ":")).encode("ascii")


def error_from_json(body: Any) -> SealcastError:
    """What a problem stands for at the asking end.

    Raises:
        ValueError: the body is no problem of this API.
    """
    try:
        kind = getattr(errors, str(body["error"]["kind"]), None)
        fields = {str(name): value for name, value in body["error"]["fields"].items()}
        problem, cure = str(body["detail"]), str(body["cure"])
    except (KeyError, TypeError, AttributeError):
        raise ValueError("no problem of this API") from None
    if not (isinstance(kind, type) and issubclass(kind, SealcastError)):
        kind = SealcastError
    error: SealcastError = kind.__new__(kind)
    Exception.__init__(error, problem)
    vars(error).update(fields | {"problem": problem, "cure": cure})
    return error


def _error_of(problem: Problem, detail: str, cure: str) -> SealcastError:
    match problem:
        case Problem.NOT_AUTHENTICATED:
            return CertificateError(detail, reason="not-authenticated", cure=cure)
        case Problem.INTERNAL:
            return InternalError(detail, cure=cure)
        case Problem.STORAGE:
            return StorageError("database", detail, cure=cure)
        case Problem.UNKNOWN:
            return UnknownNameError(detail, cure=cure)
        case Problem.CONFLICT | Problem.PRECONDITION | Problem.KEY_REUSED:
            return ConflictError(detail, cure=cure)
        case _:
            return UsageError(detail, cure=cure)


def _kind_of(error: SealcastError) -> type[SealcastError]:
    """The class in `errors` itself; a subclass elsewhere is not known at the other end."""
    kind: type[SealcastError] = type(error)
    while kind.__module__ != errors.__name__:
        kind = kind.__mro__[1]
    return kind


def _fields_of(error: SealcastError) -> dict[str, Any]:
    return {
        name: value
        for name, value in vars(error).items()
        if name not in {"problem", "cure"} and isinstance(value, str | int | None)
    }
