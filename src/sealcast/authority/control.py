"""The management API on this machine: a local socket in the authority's folder, or the folder itself.

The folder is open to its owner only (0700), and so is the socket: whoever can speak here could change the
files as well, so every role is granted. A command that finds no service running does the same work itself,
by the same handlers, under the folder's lock.
"""

import http.client
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlencode

from aiohttp import web

from sealcast import system
from sealcast.authority import audit
from sealcast.authority.api.callers import local_caller
from sealcast.authority.api.handling import Asked, Reply, Running, is_change, prepare, record_refusal
from sealcast.authority.api.listener import make_application
from sealcast.authority.api.problems import Problem, RefusedError, error_from_json, refusal_of
from sealcast.authority.api.table import TABLE
from sealcast.authority.arrangement import settle
from sealcast.authority.service import Authority
from sealcast.authority.site import SOCKET_FILE, Site, exclusive
from sealcast.errors import SealcastError, StorageError
from sealcast.pki.files import storage_errors
from sealcast.pki.policy_source import MAX_SOURCE_BYTES
from sealcast.pki.times import system_time

Json = dict[str, Any]

START_SECONDS = 15.0
"""For how long a command waits for a service that holds the lock but does not listen yet (or no more)."""

ANSWER_SECONDS = 60.0

MAX_COMMAND_BYTES = 4 * MAX_SOURCE_BYTES
"""A policy's source is the longest parameter there is; JSON makes it longer."""


class Management(Protocol):
    """The management API, wherever it is."""

    def call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: Json | None = None,
    ) -> Json:
        """Make a request and return its answer.

        Args:
            method: of the table of requests.
            path: percent-encoded.
            query: parameters; None values are left out.
            body: JSON.

        Raises:
            SealcastError: as the handler raised it, wherever it ran; or it cannot be reached.
        """


class FolderManagement:
    """The API of an authority whose folder is on this machine, whether a service runs on it or not.

    When a change returns it is stored, and in force where a service runs.
    """

    def __init__(self, folder: Path) -> None:
        """Take the folder; nothing is opened before the first request."""
        self._folder = folder
        self._site: Site | None = None

    def call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: Json | None = None,
    ) -> Json:
        """As `Management.call`."""
        asked = make_request(method, path, query, body)
        deadline = time.monotonic() + START_SECONDS
        while True:
            with exclusive(self._folder) as held:
                if held:
                    return self._run_here(asked)
                answer = _ask(self._folder, asked)
            if answer is not None:
                return answer
            if time.monotonic() > deadline:
                raise StorageError(
                    str(self._folder),
                    "another process holds the lock and does not answer",
                    cure="wait for the other command, or restart the service",
                )
            time.sleep(0.05)

    def _run_here(self, asked: Asked) -> Json:
        if is_change(TABLE, asked):
            site = Site.open(self._folder)
        else:
            # No passphrase is asked for where nothing is signed.
            site = self._site = self._site or Site.open_for_reading(self._folder)
        caller, now = local_caller(system.user()), system_time()
        try:
            prepared = prepare(TABLE, asked, caller)
            opened = site.storage.transaction() if prepared.route.changes else site.storage.snapshot()
            with opened as session:
                reply, _ = prepared.run(session, site, now, None)
        except (SealcastError, RefusedError) as error:
            refusal = refusal_of(error)
            if refusal.problem is not Problem.STORAGE and is_change(TABLE, asked):
                with site.storage.transaction() as session:
                    record_refusal(session, now, TABLE, asked, caller, refusal)
            raise refusal.error from None
        if prepared.route.changes:
            settle(site.folder, site.storage, site.issuer)
            with site.storage.snapshot() as session:
                audit.write_head_file(site.folder, session)
        return parse_answer(reply)


class ControlSocket:
    """The service's end of the local socket."""

    def __init__(self, authority: Authority, running: Callable[[], Running]) -> None:
        """Prepare; `start` listens.

        Args:
            authority: the service.
            running: what it knows of itself.
        """
        self._authority = authority
        self._running = running
        self._path = authority.site.folder / SOCKET_FILE
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Listen. The folder's lock is held, so a socket that is there is a leftover.

        Raises:
            StorageError: the socket cannot be made.
        """
        if not system.HAS_LOCAL_SOCKETS:
            return
        application = make_application(self._authority, self._running, local=True)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        with storage_errors(self._path):
            self._path.unlink(missing_ok=True)
            listener = system.local_socket(self._path)
            with system.short_path(self._path) as path:
                listener.bind(path)
            self._path.chmod(0o600)
            await web.SockSite(runner, listener).start()
        self._runner = runner

    async def close(self) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._path.unlink(missing_ok=True)


def make_request(method: str, path: str, query: Mapping[str, Any] | None, body: Json | None) -> Asked:
    """A request as it is sent."""
    given = {name: _text(value) for name, value in (query or {}).items() if value is not None}
    return Asked(
        method=method,
        raw_path=path,
        raw_query=urlencode(given),
        body=b"" if body is None else json.dumps(body).encode("ascii"),
        content_type="" if body is None else "application/json",
    )


def parse_answer(reply: Reply) -> Json:
    """The answer of a request.

    Raises:
        SealcastError: it is a refusal.
        ValueError: it is nothing that this API answers.
    """
    body = json.loads(reply.body)
    if reply.status >= 400:
        raise error_from_json(body)
    if not isinstance(body, dict):
        raise ValueError("no JSON object")
    return body


def _text(value: Any) -> str:
    return json.dumps(value) if isinstance(value, bool) else str(value)


def _ask(folder: Path, asked: Asked) -> Json | None:
    """The running service's answer; None while nobody listens."""
    connection = _LocalConnection(folder / SOCKET_FILE)
    try:
        try:
            connection.connect()
        except OSError:
            return None
        target = f"{asked.raw_path}?{asked.raw_query}" if asked.raw_query else asked.raw_path
        headers = {"Content-Type": asked.content_type} if asked.content_type else {}
        connection.request(asked.method, target, asked.body or None, headers)
        response = connection.getresponse()
        return parse_answer(Reply(status=response.status, body=response.read()))
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise StorageError(
            str(folder),
            f"the running service did not answer: {error}",
            cure="see its log; look with `list` whether the command was done",
        ) from None
    finally:
        connection.close()


class _LocalConnection(http.client.HTTPConnection):
    """HTTP over a socket in the file system."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=ANSWER_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = system.local_socket(self._path)
        self.sock.settimeout(ANSWER_SECONDS)
        with system.short_path(self._path) as path:
            self.sock.connect(path)
