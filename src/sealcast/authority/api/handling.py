"""One request, from what was sent to what is answered, inside one transaction.

Nothing here knows HTTP's connections or whether a service is running: the listener and a command that works
on the folder call the same functions.
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

from sqlalchemy import delete
from sqlalchemy.orm import Session

from sealcast.authority import admins, audit
from sealcast.authority.api.callers import Caller, with_role
from sealcast.authority.api.problems import Problem, RefusedError
from sealcast.authority.api.routing import Route, RouteTable, parse_parameter
from sealcast.authority.api.schema import parse_json, validate
from sealcast.authority.models import RequestRow
from sealcast.authority.service import Changes
from sealcast.authority.site import Site
from sealcast.errors import UsageError

KEY_LIFE = 24 * 3600 * 1_000_000
"""For how long an Idempotency-Key is known, in microseconds: a client that retries does so within minutes."""

_KEY = re.compile(r"[!-~]{1,255}")
_MAX_SUBJECT = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request as it came."""

    method: str
    raw_path: str
    """Percent-encoded, without the query."""
    raw_query: str = ""
    body: bytes = b""
    content_type: str = ""
    """Without parameters; empty where none was sent."""
    key: str | None = None
    """Header Idempotency-Key."""
    if_match: str | None = None
    if_none_match: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a handler answers."""

    body: Mapping[str, Any]
    changes: Changes = field(default_factory=Changes)
    """What of it concerns a running service."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What goes back."""

    status: int
    body: bytes
    """JSON; empty for 304."""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """What a running service knows besides the database."""

    started: int
    """Microseconds."""
    listening: Mapping[str, str]
    """URL by the name of the listener."""
    members: Callable[[str], int]
    """How many take part in a channel at present, by its name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A request whose form, and whose caller's role, have been checked: what a handler works with."""

    session: Session
    site: Site
    now: int
    caller: Caller
    path: Mapping[str, str]
    """Parameters of the path."""
    query: Mapping[str, Any]
    """Of the query, with defaults."""
    body: Mapping[str, Any]
    given: Any
    """What the route has made of the body, if it does."""
    if_match: str | None
    running: Running | None
    """None for a command that found no service."""

    def check_match(self, body: Mapping[str, Any]) -> None:
        """Refuse a change of what is no longer as the caller saw it (If-Match).

        Args:
            body: as a GET would answer it now.

        Raises:
            RefusedError: `PRECONDITION`.
        """
        if self.if_match is not None and not _matches(self.if_match, _entity_tag(encode(body))):
            raise RefusedError(Problem.PRECONDITION, f"it is no longer as {self.if_match[:80]} names it")


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A request that may be run."""

    route: Route
    caller: Caller
    asked: Asked
    path: Mapping[str, str]
    query: Mapping[str, Any]
    body: Mapping[str, Any]
    given: Any

    def run(self, session: Session, site: Site, now: int, running: Running | None) -> tuple[Reply, Changes]:
        """Do it inside the caller's transaction, or in a snapshot if it only reads.

        Raises:
            RefusedError, SealcastError: nothing is changed.
        """
        caller = _judged(session, self.caller)
        caller.require(self.route.role)
        audit.act_as(session, caller.label)
        if (done := self._replay(session, site, now)) is not None:
            return done, Changes()
        answer = self.route.handler(
            Call(
                session=session,
                site=site,
                now=now,
                caller=caller,
                path=self.path,
                query=self.query,
                body=self.body,
                given=self.given,
                if_match=self.asked.if_match,
                running=running,
            )
        )
        reply = self._reply(answer)
        if self.route.changes:
            if not audit.entries_written(session):
                audit.record(session, now, self.route.summary, subject_of(self.path), changed=False)
            self._remember(session, site, now, reply)
        return reply, answer.changes

    def _reply(self, answer: Answer) -> Reply:
        body = encode(answer.body)
        if not self.route.tagged:
            return Reply(status=self.route.status, body=body)
        headers = {"ETag": _entity_tag(body)}
        if self.asked.if_none_match is not None and _matches(self.asked.if_none_match, headers["ETag"]):
            return Reply(status=304, body=b"", headers=headers)
        return Reply(status=self.route.status, body=body, headers=headers)

    def _replay(self, session: Session, site: Site, now: int) -> Reply | None:
        """The answer of the first try, if this is another one."""
        if self.asked.key is None or not self.route.takes_key:
            return None
        session.execute(delete(RequestRow).where(RequestRow.time <= now - KEY_LIFE))
        row = session.get(RequestRow, self._key)
        if row is None:
            return None
        if row.digest != self._digest:
            text = f"the Idempotency-Key {self.asked.key[:80]!r} was used for another request"
            raise RefusedError(Problem.KEY_REUSED, text)
        body = site.vault.open_text(row.sealed_answer, self._place)
        return Reply(status=row.status, body=body, headers={"Idempotency-Replayed": "true"})

    def _remember(self, session: Session, site: Site, now: int, reply: Reply) -> None:
        if self.asked.key is not None and self.route.takes_key:
            # Sealed: the answer may hold a one-time token.
            sealed = site.vault.seal_text(reply.body, self._place)
            session.add(
                RequestRow(
                    key=self._key, digest=self._digest, time=now, status=reply.status, sealed_answer=sealed
                )
            )

    @property
    def _key(self) -> bytes:
        return hashlib.sha256(f"{self.caller.label}\x00{self.asked.key}".encode()).digest()

    @property
    def _place(self) -> str:
        return f"requests/{self._key.hex()}"

    @property
    def _digest(self) -> bytes:
        asked = self.asked
        parts = [asked.method, asked.raw_path, asked.raw_query, json.dumps(self.body, sort_keys=True)]
        return hashlib.sha256("\x00".join(parts).encode()).digest()


def prepare(table: RouteTable, asked: Asked, caller: Caller) -> Prepared:
    """Check everything that can be said without the database.

    Raises:
        RefusedError: no such request, a role that does not suffice, or a form that is not the schema's.
        SealcastError: the route can make nothing of the body.
    """
    route, path = table.find(asked.method, asked.raw_path)
    caller.require(route.role)
    if asked.key is not None and route.takes_key and _KEY.fullmatch(asked.key) is None:
        raise RefusedError(Problem.MALFORMED, "the Idempotency-Key has not 1 to 255 visible characters")
    try:
        checked = {name: validate(route.parameters[name], value, name) for name, value in path.items()}
        query, body = _query(route, asked.raw_query), _body(route, asked)
    except UsageError as error:
        raise RefusedError(Problem.MALFORMED, error.problem, cure=error.cure, error=error) from None
    given = None if route.read_body is None else route.read_body(body)
    return Prepared(
        route=route, caller=caller, asked=asked, path=checked, query=query, body=body, given=given
    )


def record_refusal(
    session: Session, now: int, table: RouteTable, asked: Asked, caller: Caller, refusal: RefusedError
) -> None:
    """Write down that a change was asked for and refused; the caller opens a transaction for it."""
    route, path = table.find(asked.method, asked.raw_path)
    audit.act_as(session, caller.label)
    audit.record_refusal(
        session,
        now,
        route.summary,
        subject_of(path),
        status=refusal.problem.status,
        problem=refusal.detail[:_MAX_SUBJECT],
    )


def is_change(table: RouteTable, asked: Asked) -> bool:
    """Whether the request would change something."""
    try:
        return table.find(asked.method, asked.raw_path)[0].changes
    except RefusedError:
        return False


def encode(body: Mapping[str, Any]) -> bytes:
    """JSON as it goes out."""
    return json.dumps(body, separators=(",", ":"), allow_nan=False).encode("ascii")


def subject_of(path: Mapping[str, str]) -> str:
    """What the audit log names as the subject of a request."""
    # Of a refused request the path may hold anything; the log takes text.
    return "/".join(path.values())[:_MAX_SUBJECT].encode("ascii", "backslashreplace").decode("ascii")


def _judged(session: Session, caller: Caller) -> Caller:
    """The caller as the transaction sees it: it may have been revoked since the request began."""
    if caller.admin is None:
        return caller
    return with_role(caller, admins.current_role(session, caller.admin))


def _query(route: Route, raw_query: str) -> dict[str, Any]:
    try:
        pairs = parse_qsl(raw_query, keep_blank_values=True, errors="strict", max_num_fields=32)
    except ValueError:
        raise UsageError("the query is not UTF-8, or too long", cure="encode it") from None
    given = dict(pairs)
    if len(given) < len(pairs):
        raise UsageError("a query parameter stands twice", cure="give each once")
    if unknown := sorted(set(given) - set(route.query)):
        known = ", ".join(route.query) or "none"
        raise UsageError(f"unknown query parameter {unknown[0][:80]!r}", cure=f"known are: {known}")
    found = {
        name: validate(route.query[name], parse_parameter(route.query[name], value), name)
        for name, value in given.items()
    }
    defaults = {name: schema["default"] for name, schema in route.query.items() if "default" in schema}
    return defaults | found


def _body(route: Route, asked: Asked) -> dict[str, Any]:
    if route.body is None:
        if asked.body:
            raise UsageError("this request has no body", cure="send none")
        return {}
    if asked.content_type != "application/json":
        raise RefusedError(Problem.MEDIA_TYPE, f"the body is {asked.content_type[:80]!r}")
    body: dict[str, Any] = validate(route.body.schema, parse_json(asked.body), "")
    return body


def _entity_tag(body: bytes) -> str:
    return f'"{hashlib.sha256(body).hexdigest()[:32]}"'


def _matches(header: str, tag: str) -> bool:
    """Whether If-Match, or If-None-Match, names `tag` (RFC 9110 sections 13.1.1, 13.1.2)."""
    named = [each.strip().removeprefix("W/") for each in header.split(",")]
    return "*" in named or tag in named
