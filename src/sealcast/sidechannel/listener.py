"""A device's own HTTPS listener."""

import ssl

from aiohttp import web
from aiohttp.typedefs import Handler

from sealcast.est.connections import start_https
from sealcast.sidechannel.tls import TlsIdentity, reload_context

KEPT_OPEN = 16
"""Connections that stay open between requests; each takes a third of a megabyte, whoever it is for."""

_KEEP_ALIVE_SECONDS = 3630.0
"""Of those few: a member that reports once in an hour keeps its own."""


class Listener:
    """Serves one application at one address until it is closed; renewed certificates are taken in service."""

    def __init__(self, identity: TlsIdentity) -> None:
        """Prepare; nothing listens before `listen`."""
        self._context: ssl.SSLContext = identity.ssl_context_server()
        self._runner: web.AppRunner | None = None

    @property
    def open_connections(self) -> int:
        """How many there are at the moment."""
        server = self._runner.server if self._runner is not None else None
        return len(server.connections) if server is not None else 0

    async def listen(self, application: web.Application, host: str, port: int = 0) -> tuple[str, int]:
        """Listen on an address of this machine; port 0 takes a free one.

        Returns: host and port, as a directory is to name them.

        Raises:
            ConfigError: the address cannot be had.
        """
        application.middlewares.insert(0, self._bound_connections)
        self._runner, port = await start_https(
            application,
            host,
            port,
            self._context,
            shutdown_seconds=1.0,
            keep_alive_seconds=_KEEP_ALIVE_SECONDS,
        )
        return host, port

    @web.middleware
    async def _bound_connections(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """End those with their answers that are too many: whoever comes again pays for a handshake."""
        response = await handler(request)
        if self.open_connections > KEPT_OPEN:
            response.force_close()
        return response

    def reload(self, identity: TlsIdentity) -> None:
        """Go on with a renewed certificate; no connection is dropped."""
        reload_context(self._context, identity)

    async def close(self) -> None:
        """Stop listening, and end what is open."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()
