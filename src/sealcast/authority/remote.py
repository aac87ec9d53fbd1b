"""The management API of an authority on another machine: HTTPS with an admin's certificate.

The authority is known by its identity, not by its host name (TR-8): a key server's certificate of the admin's
own site, judged before the first byte of a request leaves.
"""

import http.client
import secrets
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from sealcast.authority.api.handling import Asked, Reply
from sealcast.authority.control import ANSWER_SECONDS, Json, make_request, parse_answer
from sealcast.device import DeviceIdentity
from sealcast.errors import CertificateError, ConfigError, NetworkError, UnreachableError
from sealcast.pki.names import Role
from sealcast.pki.times import system_time
from sealcast.sidechannel.tls import shown_chain, verdict_of

_MAX_ANSWER_BYTES = 64 * 1024 * 1024
"""A CRL of a million entries has 40 MiB."""
_TRIES = 2


class RemoteManagement:
    """The API at a URL; `Management` over the network."""

    def __init__(self, url: str, folder: Path) -> None:
        """Take where it listens, and the admin's folder.

        Raises:
            ConfigError: not a URL of it.
            StorageError, CertificateError: no admin in the folder.
        """
        parts = urlsplit(url)
        try:
            port = parts.port
        except ValueError:
            port = None
        if parts.scheme != "https" or not parts.hostname or port is None or parts.path not in ("", "/"):
            raise ConfigError(f"not the URL of a management API: {url[:80]!r}", cure="give https://HOST:PORT")
        self._url, self._host, self._port = url, parts.hostname, port
        self._identity = DeviceIdentity.open(folder, Role.ADMIN)
        self._context = self._identity.ssl_context_client()

    def call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: Json | None = None,
    ) -> Json:
        """As `Management.call`. A connection that breaks is tried once more; nothing is done twice."""
        asked = make_request(method, path, query, body)
        key = secrets.token_urlsafe(16)
        for attempt in range(1, _TRIES + 1):
            try:
                return self._ask(asked, key)
            except (OSError, http.client.HTTPException) as error:
                if (verdict := verdict_of(error)) is not None:
                    raise verdict from None
                if attempt == _TRIES or isinstance(error, ConnectionRefusedError):
                    raise UnreachableError(self._url, str(error) or type(error).__name__) from None
            except ValueError:
                raise NetworkError(
                    f"{self._url} answers with something else than a management API",
                    cure="check the URL; `authority serve` prints it",
                ) from None
        raise AssertionError("not reached")

    def _ask(self, asked: Asked, key: str) -> Json:
        connection = http.client.HTTPSConnection(
            self._host, self._port, context=self._context, timeout=ANSWER_SECONDS
        )
        try:
            connection.connect()
            self._judge(connection.sock)
            headers = {"Content-Type": asked.content_type} if asked.content_type else {}
            if asked.method == "POST":
                headers["Idempotency-Key"] = key
            target = f"{asked.raw_path}?{asked.raw_query}" if asked.raw_query else asked.raw_path
            connection.request(asked.method, target, asked.body or None, headers)
            response = connection.getresponse()
            answer = response.read(_MAX_ANSWER_BYTES + 1)
            if len(answer) > _MAX_ANSWER_BYTES:
                raise ValueError("too long")
            return parse_answer(Reply(status=response.status, body=answer))
        finally:
            connection.close()

    def _judge(self, connection: Any) -> None:
        chain = shown_chain(connection) if isinstance(connection, ssl.SSLSocket) else []
        if not chain:
            raise CertificateError(f"{self._url} showed no certificate", reason="not-authenticated")
        # The admin holds no CRL: whether the key server's certificate was revoked is not judged (TR-9).
        peer = self._identity.validator().verify_peer(chain, Role.KEY_SERVER, system_time())
        if peer.site_id != self._identity.site_id:
            raise CertificateError(
                f"{self._url} is an authority of another site", reason="wrong-site", cure="check the URL"
            )
