"""HTTPS listeners: how a connection comes in, before anybody has said who it is.

A connection that asks for nothing costs a listener memory and a descriptor. So each has to come to its first
request in time, and of those of one address that have not come so far only some are taken at once: the others
wait, before TLS has cost anything. Whoever has shown a certificate that TLS accepts is not counted any more,
however many of them come from one address.

Used here, by the authority, and by the side channel. Spec: spec/side-channel.md SC-51.
"""

from __future__ import annotations

import asyncio
import asyncio.sslproto
import errno
import socket
import ssl
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field

from aiohttp import web

from sealcast.errors import ConfigError

HALF_OPEN = 64
"""Connections of one address whose TLS is under way: more than a core gets through in a tenth of a second."""
WAITING = 1024
"""Of one address that wait for their turn; beyond that the oldest is ended. A thousand devices behind one
address may all come in the same moment.
"""
HANDSHAKE_SECONDS = 10.0
"""For the handshake, over the slowest of links; with the first request for whoever shows no certificate."""
HASTY_SECONDS = 3.0
"""The same while others of that address wait."""
FIRST_REQUEST_SECONDS = 10.0
"""Whoever opens a connection does it for a request."""

_BACKLOG = 128
_NO_DESCRIPTOR_SECONDS = 1.0
_KEEP_ALIVE_SECONDS = 75.0
"""Longer than clients keep a connection, so that they close it and no request meets a closed one."""

_RECORD_BYTES = 16 << 10
"""Of TLS, at most."""

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def slim_connections() -> None:
    """Have each TLS connection of this process hold 42 KiB instead of 282: most of them only wait.

    By itself asyncio reads 256 KiB at a time, into memory that each connection keeps. For our own programs;
    of an application it is the application's.
    """
    asyncio.sslproto.SSLProtocol.max_size = _RECORD_BYTES


async def start_https(
    application: web.Application,
    host: str,
    port: int,
    context: ssl.SSLContext,
    *,
    shutdown_seconds: float,
    keep_alive_seconds: float = _KEEP_ALIVE_SECONDS,
    cure: str = "choose another address",
) -> tuple[web.AppRunner, int]:
    """Serve an application on an address; port 0 picks a free one.

    Args:
        application: what is served.
        host: of this machine.
        port: of it.
        context: TLS. With one that asks for certificates, those who show none are counted longer.
        shutdown_seconds: how long requests under way may still take when the listener ends.
        keep_alive_seconds: how long a connection stays open between two requests.
        cure: what to do where the address cannot be had.

    Returns: the runner, to be ended by `await runner.cleanup()`, and the port.

    Raises:
        ConfigError: the address cannot be had.
    """
    runner = web.AppRunner(
        application,
        access_log=None,
        shutdown_timeout=shutdown_seconds,
        keepalive_timeout=keep_alive_seconds,
    )
    threshold = _Threshold(runner, context)
    application.middlewares.insert(0, threshold.note_request)
    application.on_shutdown.append(threshold.close)
    await runner.setup()
    try:
        return runner, await threshold.listen(host, port)
    except OSError as error:
        await runner.cleanup()
        reason = "the port is in use" if error.errno == errno.EADDRINUSE else error.strerror or str(error)
        raise ConfigError(f"cannot listen on {host}:{port}: {reason}", cure=cure) from None


@dataclass(slots=True, eq=False)
class _Address:
    """What has come from one address, and has not said yet who it is."""

    count: int = 0
    """Of those that have begun."""
    limits: dict[asyncio.Timeout, float] = field(default_factory=dict)
    """Of each of these, and when it began."""
    waiting: deque[socket.socket] = field(default_factory=deque)
    is_hasty: bool = False

    def hasten(self) -> None:
        """Others wait: none may take its time any more."""
        self.is_hasty = True
        for limit, began in self.limits.items():
            if not limit.expired():
                limit.reschedule(began + HASTY_SECONDS)


class _Threshold:
    """Takes connections, and leads them through TLS to their first request."""

    def __init__(self, runner: web.AppRunner, context: ssl.SSLContext) -> None:
        self._runner = runner
        self._context = context
        self._listening: list[socket.socket] = []
        self._addresses: dict[str | bytes, _Address] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        # Connections without a request so far, and what to do at the first one.
        self._unheard: dict[web.RequestHandler, Callable[[], object]] = {}

    async def listen(self, host: str, port: int) -> int:
        """Begin; returns the port. Raises: OSError."""
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        try:
            for family, address in dict.fromkeys((family, address) for family, _, _, _, address in found):
                listening = socket.socket(family, socket.SOCK_STREAM)
                self._listening.append(listening)
                listening.setblocking(False)
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                listening.bind(address)
                listening.listen(_BACKLOG)
        except OSError:
            await self.close()
            raise
        for listening in self._listening:
            loop.add_reader(listening, self._accept, listening)
        return int(self._listening[0].getsockname()[1])

    async def close(self, _: web.Application | None = None) -> None:
        """Take no more, and end those that have not come to a request."""
        loop = asyncio.get_running_loop()
        while self._listening:
            listening = self._listening.pop()
            loop.remove_reader(listening)
            listening.close()
        for address in self._addresses.values():
            while address.waiting:
                address.waiting.pop().close()
        # What has just been accepted has a transport after one turn of the loop, and can be ended after two.
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @web.middleware
    async def note_request(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        """A connection has come to its first request."""
        if (heard := self._unheard.pop(request.protocol, None)) is not None:
            heard()
        return await handler(request)

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(_BACKLOG):
            try:
                connection, address = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}:
                    raise
                # Those who wait at the system are taken when others have gone.
                loop = asyncio.get_running_loop()
                loop.remove_reader(listening)
                loop.call_later(_NO_DESCRIPTOR_SECONDS, self._go_on_accepting, listening)
                return
            connection.setblocking(False)
            self._take(connection, _whence(listening.family, address[0]))

    def _go_on_accepting(self, listening: socket.socket) -> None:
        if listening in self._listening:
            asyncio.get_running_loop().add_reader(listening, self._accept, listening)

    def _take(self, connection: socket.socket, whence: str | bytes) -> None:
        address = self._addresses.setdefault(whence, _Address())
        address.waiting.append(connection)
        if len(address.waiting) > WAITING:
            address.waiting.popleft().close()
        self._let_in(whence, address)

    def _let_in(self, whence: str | bytes, address: _Address) -> None:
        while address.waiting and address.count < HALF_OPEN:
            address.count += 1
            # The latest first: an attacker's that stand there do not hold it up, and who has waited long may
            # be gone.
            task = asyncio.ensure_future(self._begin(address.waiting.pop(), whence, address))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        if not address.waiting:
            address.is_hasty = False
            if not address.count:
                self._addresses.pop(whence, None)
        elif not address.is_hasty:
            address.hasten()

    async def _begin(self, connection: socket.socket, whence: str | bytes, address: _Address) -> None:
        limit = asyncio.timeout(HASTY_SECONDS if address.is_hasty else HANDSHAKE_SECONDS)
        try:
            # Whatever goes wrong with a connection is its own end, and nobody's news.
            with suppress(OSError):
                async with limit:
                    address.limits[limit] = asyncio.get_running_loop().time()
                    await self._lead_in(connection)
        finally:
            address.limits.pop(limit, None)
            address.count -= 1
            self._let_in(whence, address)

    async def _lead_in(self, connection: socket.socket) -> None:
        loop, server = asyncio.get_running_loop(), self._runner.server
        if server is None:
            return connection.close()
        protocol, heard = server(), asyncio.Event()
        self._unheard[protocol] = heard.set
        transport: asyncio.Transport | None = None
        try:
            transport, _ = await loop.connect_accepted_socket(lambda: protocol, connection, ssl=self._context)
            if not transport.get_extra_info("ssl_object").getpeercert(binary_form=True):
                await heard.wait()
            elif not heard.is_set():
                timer = loop.call_later(FIRST_REQUEST_SECONDS, self._end_unheard, protocol, transport)
                self._unheard[protocol] = timer.cancel
        except BaseException:
            self._unheard.pop(protocol, None)
            if transport is not None:
                transport.abort()
            raise

    def _end_unheard(self, protocol: web.RequestHandler, transport: asyncio.Transport) -> None:
        if self._unheard.pop(protocol, None) is not None:
            transport.abort()


def _whence(family: int, host: str) -> str | bytes:
    """What counts as one address: of IPv6 all that one customer is given at least."""
    if family != socket.AF_INET6:
        return host
    return socket.inet_pton(socket.AF_INET6, host.partition("%")[0])[:8]
