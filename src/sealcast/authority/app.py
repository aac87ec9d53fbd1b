"""`authority serve`: three listeners, the local socket, upkeep, and a clean end; or the signer alone.

EST must admit clients without a certificate and TLS 1.2; the key server and management must not. So each has
a port and a TLS context of its own (design 6).
"""

import asyncio
import contextlib
import gc
import logging
import ssl
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from sealcast import system
from sealcast.authority.api import listener as management
from sealcast.authority.api.handling import Running
from sealcast.authority.arrangement import settle
from sealcast.authority.at_rest import keys_at_rest
from sealcast.authority.control import ControlSocket
from sealcast.authority.crl_fetch import CrlFetcher
from sealcast.authority.issuance import LEDGER_FILE, ensure_ledger, local_issuer, remote_issuer
from sealcast.authority.maintenance import maintain
from sealcast.authority.quantities import Address
from sealcast.authority.roles import ALL, ServeRole
from sealcast.authority.rotation_state import ensure_key_server
from sealcast.authority.routes_keys import make_application
from sealcast.authority.service import Authority
from sealcast.authority.signer_keys import SignerKeys
from sealcast.authority.signer_process import SIGNER_SOCKET_FILE, SignerSocket
from sealcast.authority.site import Site, check_folder, exclusive
from sealcast.authority.storage import DATABASE_FILE, Storage
from sealcast.ca import Issuer, Limits, PassphraseSource
from sealcast.errors import ConfigError, StorageError
from sealcast.est.connections import slim_connections, start_https
from sealcast.est.server import make_tls_context, require_linking, start_listener
from sealcast.pki.times import system_time
from sealcast.pki.tls import load_own_certificate, server_context, trust
from sealcast.sidechannel.tls import Clock

_log = logging.getLogger("sealcast.authority")

_NEIGHBOUR_TRIES = 20
"""How often free neighbouring ports are looked for, when the system picks the first."""

SIGNER_START_SECONDS = 15.0
"""For how long a service that starts waits for the signer, which may be starting too."""

DEFAULT_LIMITS = Limits()

_KEPT_BYTES = 32 << 20
"""The most that glibc allows for blocks that are not mapped each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listening:
    """What `serve` tells when it is ready."""

    authority: str
    """URL of EST."""
    keys: str
    """URL of the key server."""
    manage: str | None
    """URL of the management API; None: it is on the local socket only."""


def serve(
    folder: Path,
    *,
    listen: Address,
    keys: Address | None,
    manage: Address | None,
    is_managed: bool,
    ready: Callable[[Listening], None],
    roles: frozenset[ServeRole] = ALL,
    passphrases: PassphraseSource | None = None,
) -> None:
    """Serve an authority until SIGTERM or SIGINT.

    Args:
        folder: of the authority.
        listen: for EST.
        keys: for the key server; None: the port after that of EST.
        manage: for the management API; None: the port after that of the key server.
        is_managed: False: the management API is on the local socket only.
        ready: called once all listen.
        roles: `ALL`, or `SERVICE`: then a signer process is asked, and no CA key is opened here.
        passphrases: of keys that are encrypted.

    Raises:
        SealcastError: the folder, the database or an address is no good; nothing is left running.
    """
    passphrases = passphrases or PassphraseSource()
    with exclusive(folder) as held:
        if not held:
            raise StorageError(
                str(folder), "is being served, or changed, by another process", cure="end that one first"
            )
        settle(folder, Storage.open(folder / DATABASE_FILE), None)
        issuer = _issuer(folder, roles, passphrases)
        places = Places(est=listen, keys=keys, manage=manage, is_managed=is_managed)
        system.run(_serve(folder, places, ready, issuer, passphrases))


def serve_signer(
    folder: Path,
    *,
    ready: Callable[[Path], None],
    passphrases: PassphraseSource | None = None,
    limits: Limits = DEFAULT_LIMITS,
    service_user: int | None = None,
) -> None:
    """Serve the site CA's key alone until SIGTERM or SIGINT.

    Args:
        folder: of the authority, or one of its own with ca.pem, ca.key and ledger.db.
        ready: called with the socket once it listens.
        passphrases: of the key, if it is encrypted.
        limits: signatures in an hour.
        service_user: the user that the service runs as, if it is another.

    Raises:
        SealcastError: the folder, the key or the ledger is no good; nothing is left running.
    """

    check_folder(folder)
    if (folder / DATABASE_FILE).exists() and not (folder / LEDGER_FILE).exists():
        ensure_ledger(folder, Storage.open(folder / DATABASE_FILE))
    path = folder / SIGNER_SOCKET_FILE

    async def run() -> None:
        listener = SignerSocket(path, service_user=service_user)
        try:
            # Before the key is in memory.
            system.forbid_inspection()
            keys = SignerKeys(folder, passphrases or PassphraseSource(), limits=limits, clock=system_time)
            stop = _stop_signals()
            await listener.start(keys)
            ready(path)
            await stop.wait()
        finally:
            await listener.close()

    system.run(run())


def _issuer(folder: Path, roles: frozenset[ServeRole], passphrases: PassphraseSource) -> Issuer | None:
    """The issuer that the roles ask for; of a service it is waited for, as both may be starting."""
    if ServeRole.SIGNER not in roles:
        remote = remote_issuer(folder)
        if not remote.is_listening():
            _log.warning(
                "waiting for the signer to listen on %s (sealcast authority serve DIR --roles signer)",
                folder / SIGNER_SOCKET_FILE,
            )
        deadline = time.monotonic() + SIGNER_START_SECONDS
        while not remote.is_listening() and time.monotonic() < deadline:
            time.sleep(0.05)
        remote.last_position()
        return remote
    if remote_issuer(folder).is_listening():
        raise ConfigError(
            f"{folder}: a signer process has the site CA's key",
            cure="serve with --roles est,keys,directory, or end the signer",
        )
    with keys_at_rest(folder):
        return local_issuer(folder, passphrases)


def _stop_signals() -> asyncio.Event:
    stop = asyncio.Event()
    system.on_signals(lambda _number: stop.set(), "SIGTERM", "SIGINT")
    return stop


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where each listener goes; None: the port after the one before."""

    est: Address
    keys: Address | None = None
    manage: Address | None = None
    is_managed: bool = True


async def _serve(
    folder: Path,
    places: Places,
    ready: Callable[[Listening], None],
    issuer: Issuer | None,
    passphrases: PassphraseSource,
) -> None:
    slim_connections()
    async with _running(folder, places, system_time, issuer, passphrases) as (_, listening):
        stop = _stop_signals()
        # What is loaded by now stays; the collector would stop every request for 50 ms to look at it again.
        gc.collect()
        gc.freeze()
        # A policy of 100,000 names is copied ten times when one changes; each copy would be mapped, touched
        # for the first time, and given back.
        system.keep_freed_memory(_KEPT_BYTES)
        ready(listening)
        await stop.wait()


@contextlib.asynccontextmanager
async def running(
    folder: Path,
    *,
    listen: Address,
    keys: Address | None = None,
    clock: Clock = system_time,
    issuer: Issuer | None = None,
    passphrases: PassphraseSource | None = None,
) -> AsyncIterator[tuple[Authority, Listening]]:
    """Serve an authority for the length of the block; the caller holds the folder's lock."""
    async with _running(folder, Places(est=listen, keys=keys), clock, issuer, passphrases) as served:
        yield served


@contextlib.asynccontextmanager
async def _running(
    folder: Path,
    places: Places,
    clock: Clock,
    issuer: Issuer | None,
    passphrases: PassphraseSource | None,
) -> AsyncIterator[tuple[Authority, Listening]]:
    site = Site.open(folder, issuer=issuer, passphrases=passphrases)
    await asyncio.to_thread(ensure_key_server, site, clock())
    authority = Authority(site, clock)
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(authority.stop)
        await authority.start()
        facts = _Facts(authority)
        listening = await _listen(authority, places, facts, stack)
        control = ControlSocket(authority, facts)
        await control.start()
        stack.push_async_callback(control.close)
        for work in (maintain(authority), CrlFetcher(authority).run()):
            task = asyncio.get_running_loop().create_task(work)
            stack.push_async_callback(_cancel, task)
        # Pushed last, so done first: whoever waits gets an answer before the listeners close.
        stack.callback(authority.end_polls)
        yield authority, listening


class _Facts:
    """What the management API tells of the running service."""

    def __init__(self, authority: Authority) -> None:
        self._authority = authority
        self._started = authority.clock()
        self.listening: dict[str, str] = {}

    def __call__(self) -> Running:
        return Running(started=self._started, listening=self.listening, members=self._members)

    def _members(self, name: str) -> int:
        channel = self._authority.channel(name)
        return 0 if channel is None else channel.keys.membership.present_count()


async def _listen(
    authority: Authority, places: Places, facts: _Facts, stack: contextlib.AsyncExitStack
) -> Listening:
    site = authority.site
    file, authorities = site.server_file, authority.tls_authorities()
    est_context = make_tls_context(file, file, authority.est.tls_authorities())
    keys_context, manage_context = (server_context(file, file, authorities) for _ in range(2))

    def reload() -> None:
        for context in (est_context, keys_context, manage_context):
            load_own_certificate(context, file, file)

    def adapt() -> None:
        # It only adds: what a maker that was removed could do is judged at each request.
        trust(est_context, authority.est.tls_authorities())
        require_linking(est_context, authority.est.settings.linking_required)

    def trust_anew(trusted: Sequence[bytes]) -> None:
        # What was trusted before stays in a live context; the validator has the last word on each request.
        adapt()
        trust(keys_context, trusted)

    adapt()
    authority.est.on_change.append(adapt)

    authority.on_certificate.append(reload)
    authority.on_trust.append(trust_anew)
    for attempt in range(1, _NEIGHBOUR_TRIES + 1):
        async with contextlib.AsyncExitStack() as started:
            try:
                runner, est_port = await start_listener(
                    authority.est,
                    places.est.host,
                    places.est.port,
                    est_context,
                    authority,
                    lambda: authority.crl.own,
                )
                started.push_async_callback(runner.cleanup)
                keys = places.keys or _next(places.est, est_port, "the key server", "--keys")
                runner, keys_port = await _start_keys(authority, keys, keys_context)
                started.push_async_callback(runner.cleanup)
                urls = {"authority": places.est.url(est_port), "keys": keys.url(keys_port)}
                if places.is_managed:
                    manage = places.manage or _next(keys, keys_port, "management", "--manage")
                    runner, port = await management.start_listener(
                        authority, facts, manage.host, manage.port, manage_context
                    )
                    started.push_async_callback(runner.cleanup)
                    urls["manage"] = manage.url(port)
            except ConfigError:
                picked = places.est.port == 0 and not (places.keys and places.manage)
                if picked and attempt < _NEIGHBOUR_TRIES:
                    continue
                raise
            stack.push_async_callback(started.pop_all().aclose)
        facts.listening |= urls
        return Listening(authority=urls["authority"], keys=urls["keys"], manage=urls.get("manage"))
    raise AssertionError("not reached")


def _next(place: Address, port: int, what: str, option: str) -> Address:
    if port >= 65535:
        raise ConfigError(f"no port after {port} for {what}", cure=f"give one with {option}")
    return Address(host=place.host, port=port + 1)


async def _start_keys(
    authority: Authority, place: Address, context: ssl.SSLContext
) -> tuple[web.AppRunner, int]:
    return await start_https(
        make_application(authority),
        place.host,
        place.port,
        context,
        shutdown_seconds=2.0,
        cure="choose another address with --keys",
    )


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
