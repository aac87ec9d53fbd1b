"""The EST server: three operations over HTTPS, and nothing else on that listener.

Transport and form are judged here; who may have a certificate is decided by the `EnrolmentService`.
Spec: spec/side-channel.md section 3 (SC-10 to SC-12), RFC 7030, RFC 8951.
"""

import asyncio
import base64
import binascii
import errno
import hmac
import logging
import ssl
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Protocol

from aiohttp import web

from sealcast.errors import ConfigError, SealcastError
from sealcast.est.messages import (
    CACERTS_TYPE,
    CERTIFICATE_TYPE,
    EST_PATH,
    MAX_BODY_BYTES,
    PROBLEM_TYPE,
    REQUEST_TYPE,
    TRANSFER_ENCODING_HEADER,
    decode_body,
    encode_certificates,
)
from sealcast.est.problems import Problem, RefusedError, problem_of
from sealcast.est.recovery import RecoveryService, add_recovery
from sealcast.pki.csr import CertificateRequest
from sealcast.pki.tls import load_own_certificate, trust

_log = logging.getLogger("sealcast.est")

_CHALLENGE = 'Basic realm="sealcast enrolment", charset="UTF-8"'
_BODY_SECONDS = 20.0
"""A request is one or two segments; a peer that needs longer is broken or means harm."""
_SHUTDOWN_SECONDS = 5.0
"""How long requests under way may still take when the listener ends."""

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class EnrolmentService(Protocol):
    """What stands behind the server: the authority, or a test.

    Both methods raise what `problem_of` maps: TokenError (unknown, used or expired token), CsrError,
    CertificateError (the peer's certificate is revoked, expired, foreign), EnrolmentError with `retry_after`
    (not decided yet), StorageError.
    """

    def ca_certificates(self) -> Sequence[bytes]:
        """Return DER: the current root and every CA certificate between it and what is issued."""

    async def enroll(self, device_name: str, token: str, csr: bytes) -> bytes:
        """Return a DER certificate for the holder of a one-time token. `csr`.

        DER, for this name (checked).
        """

    async def reenroll(self, peer_certificate: bytes, csr: bytes) -> bytes:
        """Return a DER certificate for the holder of a valid one.

        `peer_certificate`: DER, whose key the TLS handshake proved; chain, role and revocation are for the
        service to judge. A wrong yes lets a removed device live on. `csr`: DER, signature checked.
        """


def make_application(service: EnrolmentService, recovery: RecoveryService | None = None) -> web.Application:
    """Return the web application of an EST listener. `recovery`: who renews expired certificates, if any."""
    handlers = _Operations(service)
    application = web.Application(middlewares=[_answer_problems], client_max_size=MAX_BODY_BYTES)
    application.router.add_get(f"{EST_PATH}/cacerts", handlers.cacerts)
    application.router.add_post(f"{EST_PATH}/simpleenroll", handlers.simpleenroll)
    application.router.add_post(f"{EST_PATH}/simplereenroll", handlers.simplereenroll)
    if recovery is not None:
        add_recovery(application, recovery)
    return application


def make_tls_context(chain_file: Path, key_file: Path, authorities: Sequence[bytes]) -> ssl.SSLContext:
    """Return the TLS context of an EST listener: TLS 1.2 or later, client certificate optional.

    `chain_file`: PEM, the server's certificate and the site CA's. `key_file`: PEM. `authorities`: DER, the
    roots under which client certificates may stand, and the site CA certificates, as clients often send
    their own certificate alone. A certificate under no root, or an expired one, ends the handshake.
    Raises: StorageError, CertificateError.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_OPTIONAL
    # A resumed session would skip the checks of the certificate; renegotiation is of no use here.
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION
    context.num_tickets = 0
    trust(context, authorities)
    load_own_certificate(context, chain_file, key_file)
    return context


async def start_listener(
    service: EnrolmentService,
    host: str,
    port: int,
    context: ssl.SSLContext,
    recovery: RecoveryService | None = None,
) -> tuple[web.AppRunner, int]:
    """Serve EST on an address; port 0 picks a free one. `recovery`: as `make_application` takes it.

    Returns: the runner, to be ended by `await runner.cleanup()`, and the port.
    Raises: ConfigError if the address cannot be had.
    """
    runner = web.AppRunner(
        make_application(service, recovery), access_log=None, shutdown_timeout=_SHUTDOWN_SECONDS
    )
    await runner.setup()
    site = web.TCPSite(runner, host, port, ssl_context=context)
    try:
        await site.start()
    except OSError as error:
        await runner.cleanup()
        in_use = error.errno == errno.EADDRINUSE
        raise ConfigError(
            f"cannot listen on {host}:{port}: {'the port is in use' if in_use else error.strerror or error}",
            cure="choose another address with --listen",
        ) from None
    return runner, int(runner.addresses[0][1])


class _Operations:
    """The handlers; each returns a success or raises."""

    def __init__(self, service: EnrolmentService) -> None:
        self._service = service

    async def cacerts(self, request: web.Request) -> web.Response:
        """RFC 7030 section 4.1: no authentication."""
        return _certificates(request, self._service.ca_certificates(), CACERTS_TYPE)

    async def simpleenroll(self, request: web.Request) -> web.Response:
        """RFC 7030 section 4.2.1, with HTTP Basic. Spec: SC-10."""
        name, token = _basic_credentials(request)
        csr = await _read_csr(request)
        csr.request.judge_name(name)
        certificate = await self._service.enroll(name, token, csr.der)
        return _certificates(request, [certificate], CERTIFICATE_TYPE)

    async def simplereenroll(self, request: web.Request) -> web.Response:
        """RFC 7030 section 4.2.2, with the certificate of the TLS session."""
        connection = _tls(request)
        peer = connection.getpeercert(binary_form=True) if connection else None
        if not peer:
            raise RefusedError(Problem.NO_CERTIFICATE)
        csr = await _read_csr(request)
        certificate = await self._service.reenroll(peer, csr.der)
        return _certificates(request, [certificate], CERTIFICATE_TYPE)


class _ReceivedCsr:
    """A request as it came and as it reads."""

    def __init__(self, der: bytes) -> None:
        self.der = der
        self.request = CertificateRequest.parse(der)


@web.middleware
async def _answer_problems(request: web.Request, handler: _Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPNotFound:
        refusal = RefusedError(Problem.UNKNOWN_OPERATION)
    except web.HTTPMethodNotAllowed as error:
        response = _problem_response(RefusedError(Problem.WRONG_METHOD))
        response.headers["Allow"] = ",".join(sorted(error.allowed_methods))
        return response
    except web.HTTPRequestEntityTooLarge:
        refusal = RefusedError(Problem.TOO_LARGE)
    except (SealcastError, RefusedError) as error:
        refusal = problem_of(error)
    except Exception as error:  # noqa: BLE001 - nothing of it may reach the peer; it is logged whole
        refusal = problem_of(error)
        _log.exception("a request to %s failed", request.path)
    return _problem_response(refusal)


def _problem_response(refusal: RefusedError) -> web.Response:
    headers = {"Content-Type": PROBLEM_TYPE}
    if refusal.problem.status == 401:
        headers["WWW-Authenticate"] = _CHALLENGE
    if refusal.retry_after is not None:
        # Seconds, never a date: libest reads nothing else.
        headers["Retry-After"] = str(max(1, refusal.retry_after))
    return web.Response(status=refusal.problem.status, body=refusal.text.encode(), headers=headers)


def _certificates(request: web.Request, ders: Sequence[bytes], content_type: str) -> web.Response:
    # SC-15: strongSwan is the one client that sends no User-Agent, and the one that cannot read lines.
    body = encode_certificates(ders, in_lines="User-Agent" in request.headers)
    # A body of bytes gives Content-Length, never chunks, and goes out in one write with the headers.
    return web.Response(body=body, headers={"Content-Type": content_type, **TRANSFER_ENCODING_HEADER})


async def _read_csr(request: web.Request) -> _ReceivedCsr:
    if request.content_type != REQUEST_TYPE:
        raise RefusedError(Problem.WRONG_TYPE)
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            body = await request.read()
    except TimeoutError:
        raise RefusedError(Problem.TIMEOUT) from None
    received = _ReceivedCsr(decode_body(body))
    if received.request.challenge_password is not None:
        _check_linking(request, received.request.challenge_password)
    return received


def _check_linking(request: web.Request, challenge_password: str) -> None:
    """Compare with tls-unique (RFC 7030 section 3.5); TLS 1.3 has none, so there the attribute is refused."""
    connection = _tls(request)
    if connection is not None and connection.version() == "TLSv1.2":
        unique = connection.get_channel_binding("tls-unique") or b""
        if unique and hmac.compare_digest(base64.b64encode(unique), challenge_password.encode()):
            return
    raise RefusedError(Problem.BAD_LINKING)


def _tls(request: web.Request) -> ssl.SSLObject | None:
    return request.transport.get_extra_info("ssl_object") if request.transport else None


def _basic_credentials(request: web.Request) -> tuple[str, str]:
    scheme, _, encoded = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "basic":
        raise RefusedError(Problem.NO_CREDENTIALS)
    try:
        user, colon, password = base64.b64decode(encoded.strip(), validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        raise RefusedError(Problem.NO_CREDENTIALS) from None
    if not (user and colon and password):
        raise RefusedError(Problem.NO_CREDENTIALS)
    return user, password
