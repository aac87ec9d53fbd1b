"""Commands to a running service: a local socket in the authority's folder, JSON over HTTP.

The folder is open to its owner only (0700), and so is the socket: whoever can speak here could change the
files as well. A command that finds no service running does the same work itself, under the folder's lock.
"""

import http.client
import json
import socket
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from aiohttp import web

from sealcast import errors
from sealcast.authority import channels, enrolment, issuance, policies
from sealcast.authority.channels import ChannelSettings
from sealcast.authority.service import Authority, revoke
from sealcast.authority.site import SOCKET_FILE, Site, exclusive
from sealcast.ca.remote import short_path
from sealcast.errors import InternalError, SealcastError, StorageError
from sealcast.pki.files import storage_errors
from sealcast.pki.policy_rules import check_roles
from sealcast.pki.policy_source import MAX_SOURCE_BYTES, PolicySource, read_source
from sealcast.pki.times import system_time

Parameters = dict[str, Any]
Answer = dict[str, Any]

START_SECONDS = 15.0
"""For how long a command waits for a service that holds the lock but does not listen yet (or no more)."""

ANSWER_SECONDS = 60.0

MAX_COMMAND_BYTES = 4 * MAX_SOURCE_BYTES
"""A policy's source is the longest parameter there is; JSON makes it longer."""


def run_command(folder: Path, command: str, parameters: Parameters) -> Answer:
    """Run an operator's command: in the running service if there is one, else here.

    When it returns, the command is stored, and in force where a service runs.

    Args:
        folder: of the authority.
        command: one of `_IN_SERVICE`, for example `create-token`.
        parameters: of the command; JSON values.

    Raises:
        SealcastError: as the command itself raises it, wherever it ran.
    """
    deadline = time.monotonic() + START_SECONDS
    site = None
    while True:
        with exclusive(folder) as held:
            if held:
                site = site or Site.open(folder)
                return _run_here(site, command, parameters)
            answer = _ask(folder, command, parameters)
        if answer is not None:
            return answer
        if time.monotonic() > deadline:
            raise StorageError(
                str(folder),
                "another process holds the lock and does not answer",
                cure="wait for the other command, or restart the service",
            )
        time.sleep(0.05)


class ControlSocket:
    """The service's end of the local socket."""

    def __init__(self, authority: Authority) -> None:
        """Prepare; `start` listens."""
        self._authority = authority
        self._path = authority.site.folder / SOCKET_FILE
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Listen. The folder's lock is held, so a socket that is there is a leftover.

        Raises:
            StorageError: the socket cannot be made.
        """
        application = web.Application(client_max_size=MAX_COMMAND_BYTES)
        application.router.add_post("/{command}", self._serve)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        with storage_errors(self._path):
            self._path.unlink(missing_ok=True)
            listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            with short_path(self._path) as path:
                listener.bind(path)
            self._path.chmod(0o600)
            await web.SockSite(runner, listener).start()
        self._runner = runner

    async def close(self) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._path.unlink(missing_ok=True)

    async def _serve(self, request: web.Request) -> web.Response:
        try:
            run = _IN_SERVICE.get(request.match_info["command"])
            if run is None:
                raise InternalError(f"unknown command {request.match_info['command']!r}")
            return web.json_response({"answer": await run(self._authority, await request.json())})
        except SealcastError as error:
            return web.json_response({"error": _error_fields(error)}, status=400)


async def _create_token(authority: Authority, parameters: Parameters) -> Answer:
    token = await authority.create_token(parameters["device"], parameters["ttl"], parameters.get("roles"))
    return {"token": token}


async def _add_channel(authority: Authority, parameters: Parameters) -> Answer:
    await authority.add_channel(_settings(parameters))
    return {}


async def _set_members(authority: Authority, parameters: Parameters) -> Answer:
    await authority.set_members(
        parameters["name"], _globs(parameters, "publish"), _globs(parameters, "subscribe")
    )
    return {}


async def _set_roles(authority: Authority, parameters: Parameters) -> Answer:
    await authority.set_roles(parameters["name"], parameters["roles"])
    return {}


async def _apply_policy(authority: Authority, parameters: Parameters) -> Answer:
    change = await authority.apply_policy(_source(parameters), force=parameters["force"])
    return change.to_json()


async def _revoke_device(authority: Authority, parameters: Parameters) -> Answer:
    return {"changed": await authority.revoke_device(parameters["name"])}


_IN_SERVICE: dict[str, Callable[[Authority, Parameters], Awaitable[Answer]]] = {
    "create-token": _create_token,
    "add-channel": _add_channel,
    "set-members": _set_members,
    "set-roles": _set_roles,
    "apply-policy": _apply_policy,
    "revoke-device": _revoke_device,
}


def _run_here(site: Site, command: str, parameters: Parameters) -> Answer:
    now = system_time()
    with site.storage.transaction() as session:
        match command:
            case "create-token":
                issuance.readmit(session, site.issuer, parameters["device"], now)
                token = enrolment.create_token(
                    session,
                    device=parameters["device"],
                    ttl=parameters["ttl"],
                    now=now,
                    roles=parameters.get("roles"),
                )
                return {"token": token}
            case "add-channel":
                channels.add_channel(session, site, _settings(parameters), now)
                return {}
            case "set-members":
                channels.set_members(
                    session,
                    site,
                    parameters["name"],
                    publish=_globs(parameters, "publish"),
                    subscribe=_globs(parameters, "subscribe"),
                    now=now,
                )
                return {}
            case "set-roles":
                channels.set_roles(session, site, parameters["name"], check_roles(parameters["roles"]), now)
                return {}
            case "apply-policy":
                change, _ = policies.apply(session, site, _source(parameters), now, force=parameters["force"])
                return change.to_json()
            case "revoke-device":
                done, _ = revoke(session, site, parameters["name"], now)
                return {"changed": done}
            case _:
                raise InternalError(f"unknown command {command!r}")


def _settings(parameters: Parameters) -> ChannelSettings:
    rules = {name: tuple(parameters.get(name, ())) for name in ("publish", "subscribe", "deny")}
    return ChannelSettings(**{**parameters, **rules})


def _source(parameters: Parameters) -> PolicySource:
    return read_source(parameters["source"].encode()).accepted(parameters["file"])


def _globs(parameters: Parameters, name: str) -> tuple[str, ...] | None:
    globs = parameters[name]
    return None if globs is None else tuple(globs)


def _ask(folder: Path, command: str, parameters: Parameters) -> Answer | None:
    """The running service's answer; None while nobody listens."""
    connection = _LocalConnection(folder / SOCKET_FILE)
    try:
        try:
            connection.connect()
        except OSError:
            return None
        connection.request(
            "POST", f"/{command}", json.dumps(parameters), {"Content-Type": "application/json"}
        )
        response = connection.getresponse()
        body = json.loads(response.read())
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise StorageError(
            str(folder),
            f"the running service did not answer: {error}",
            cure="see its log; look with `list` whether the command was done",
        ) from None
    finally:
        connection.close()
    if "error" in body:
        raise _raised(body["error"])
    answer: Answer = body["answer"]
    return answer


class _LocalConnection(http.client.HTTPConnection):
    """HTTP over a socket in the file system."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=ANSWER_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(ANSWER_SECONDS)
        with short_path(self._path) as path:
            self.sock.connect(path)


def _error_fields(error: SealcastError) -> dict[str, Any]:
    kind = type(error)
    while kind.__module__ != errors.__name__:
        kind = kind.__mro__[1]
    return {"kind": kind.__name__, "problem": error.problem, "cure": error.cure, "fields": vars(error)}


def _raised(fields: dict[str, Any]) -> SealcastError:
    kind = getattr(errors, str(fields["kind"]), SealcastError)
    error: SealcastError = kind.__new__(kind)
    Exception.__init__(error, fields["problem"])
    vars(error).update(fields["fields"])
    return error
