"""A device's own HTTPS listener."""

import errno
import ssl

from aiohttp import web

from sealcast.errors import ConfigError
from sealcast.sidechannel.tls import TlsIdentity, reload_context


class Listener:
    """Serves one application at one address until it is closed; renewed certificates are taken in service."""

    def __init__(self, identity: TlsIdentity) -> None:
        """Prepare; nothing listens before `listen`."""
        self._context: ssl.SSLContext = identity.ssl_context_server()
        self._runner: web.AppRunner | None = None

    async def listen(self, application: web.Application, host: str, port: int = 0) -> tuple[str, int]:
        """Listen on an address of this machine; port 0 takes a free one.

        Returns: host and port, as a directory is to name them.

        Raises:
            ConfigError: the address cannot be had.
        """
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        try:
            await web.TCPSite(runner, host, port, ssl_context=self._context).start()
        except OSError as error:
            await runner.cleanup()
            reason = "the port is in use" if error.errno == errno.EADDRINUSE else error.strerror or str(error)
            raise ConfigError(
                f"cannot listen on {host}:{port}: {reason}", cure="choose another address"
            ) from None
        self._runner = runner
        return host, int(runner.addresses[0][1])

    def reload(self, identity: TlsIdentity) -> None:
        """Go on with a renewed certificate; no connection is dropped."""
        reload_context(self._context, identity)

    async def close(self) -> None:
        """Stop listening, and end what is open."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()
