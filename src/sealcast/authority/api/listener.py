"""HTTP: who asks, bounds on what is asked, answers. The same application on TLS and on the local socket."""

import asyncio
import logging
import ssl
from collections.abc import Callable

from aiohttp import web
from sqlalchemy.orm import Session

from sealcast.authority.api import problems
from sealcast.authority.api.callers import Caller, caller_of_certificate, caller_of_socket
from sealcast.authority.api.handling import (
    Asked,
    Prepared,
    Reply,
    Running,
    is_change,
    prepare,
    record_refusal,
)
from sealcast.authority.api.problems import Problem, RefusedError, refusal_of
from sealcast.authority.api.table import TABLE
from sealcast.authority.service import Authority, Changes
from sealcast.errors import SealcastError
from sealcast.est.connections import start_https
from sealcast.sidechannel.refusals import Handler

_log = logging.getLogger("sealcast.authority")

BODY_SECONDS = 20.0
"""A body is one or two segments; a peer that needs longer is broken or means harm."""

_LONG_BODY_BYTES = 64 * 1024
"""To read a longer one takes long enough to keep the event loop from others."""

_SHUTDOWN_SECONDS = 2.0

_HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
"""Answers may hold a one-time token, and what they say is true at this moment only."""


def make_application(authority: Authority, running: Callable[[], Running], *, local: bool) -> web.Application:
    """The application of a listener.

    Args:
        authority: the service.
        running: what it knows of itself, asked for each request.
        local: whether callers come over the local socket: then they are the machine's owner, not admins.
    """
    requests = _Requests(authority, running, local=local)
    return web.Application(middlewares=[requests.serve])


async def start_listener(
    authority: Authority, running: Callable[[], Running], host: str, port: int, context: ssl.SSLContext
) -> tuple[web.AppRunner, int]:
    """Serve the API over TLS; port 0 picks a free one.

    Returns: the runner, to be ended by `await runner.cleanup()`, and the port.

    Raises:
        ConfigError: the address cannot be had.
    """
    return await start_https(
        make_application(authority, running, local=False),
        host,
        port,
        context,
        shutdown_seconds=_SHUTDOWN_SECONDS,
        cure="choose another address with --manage, or --manage none",
    )


class _Requests:
    """Takes each request through its steps; an error on the way is an answer too."""

    def __init__(self, authority: Authority, running: Callable[[], Running], *, local: bool) -> None:
        self._authority = authority
        self._running = running
        self._local = local

    @web.middleware
    async def serve(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Answer a request.

        In place of the router, whose `handler` is never called: requests are found in the table that the
        document is made from.
        """
        try:
            # Before anything else: a stranger is not even told which requests exist.
            caller = self._caller(request)
        except RefusedError as refusal:
            return _problem(refusal)
        asked = _asked(request)
        try:
            # Role and path are judged on the head alone, so that a body is read for nobody in vain.
            route, _ = TABLE.find(asked.method, asked.raw_path)
            caller.require(route.role)
            asked = _asked(request, await _read(request, route.max_body_bytes))
            if len(asked.body) > _LONG_BODY_BYTES:
                prepared = await asyncio.to_thread(prepare, TABLE, asked, caller)
            else:
                prepared = prepare(TABLE, asked, caller)
            return _answer(await self._run(prepared))
        except Exception as error:  # noqa: BLE001 - nothing of it may reach the peer; it is logged whole
            refused = refusal_of(error)
            if refused.problem is Problem.INTERNAL:
                _log.exception("a request to %s failed", request.path)
        await self._write_down(asked, caller, refused)
        return _problem(refused)

    def _caller(self, request: web.Request) -> Caller:
        return caller_of_socket(request) if self._local else caller_of_certificate(request, self._authority)

    async def _run(self, prepared: Prepared) -> Reply:
        authority, running = self._authority, self._running()
        now = authority.clock()

        def job(session: Session) -> tuple[Reply, Changes]:
            return prepared.run(session, authority.site, now, running)

        if prepared.route.changes:
            return await authority.apply(job)
        reply, _ = await authority.read(job)
        return reply

    async def _write_down(self, asked: Asked, caller: Caller, refusal: RefusedError) -> None:
        if not is_change(TABLE, asked):
            return
        now = self._authority.clock()

        def job(session: Session) -> tuple[None, Changes]:
            record_refusal(session, now, TABLE, asked, caller, refusal)
            return None, Changes()

        try:
            await self._authority.apply(job)
        except SealcastError as error:
            _log.error("a refusal could not be written to the audit log: %s", error)


def _asked(request: web.Request, body: bytes = b"") -> Asked:
    headers = request.headers
    return Asked(
        method=request.method,
        raw_path=request.rel_url.raw_path,
        raw_query=request.rel_url.raw_query_string,
        body=body,
        content_type=request.content_type if "Content-Type" in headers else "",
        key=headers.get("Idempotency-Key"),
        if_match=headers.get("If-Match"),
        if_none_match=headers.get("If-None-Match"),
    )


async def _read(request: web.Request, limit: int) -> bytes:
    """The body; one that is too long ends the request before it is in memory."""
    found = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for part in request.content.iter_any():
                found += part
                if len(found) > limit:
                    raise RefusedError(Problem.TOO_LARGE, f"more than {limit} bytes")
    except TimeoutError:
        raise RefusedError(Problem.TIMEOUT, f"no whole body came within {BODY_SECONDS:.0f} s") from None
    return bytes(found)


def _answer(reply: Reply) -> web.Response:
    headers = {**_HEADERS, **reply.headers}
    if reply.status == 304:
        return web.Response(status=304, headers=headers)
    return web.Response(
        status=reply.status, body=reply.body, headers={**headers, "Content-Type": "application/json"}
    )


def _problem(refusal: RefusedError) -> web.Response:
    return web.Response(
        status=refusal.problem.status,
        body=problems.encode_problem(refusal),
        headers={**_HEADERS, **refusal.headers, "Content-Type": problems.CONTENT_TYPE},
    )
