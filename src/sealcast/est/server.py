"""The EST server: its operations over HTTPS, and nothing else on that listener.

Transport and form are judged here and in `operations`; who may have a certificate is decided by the
`EnrolmentService`. Spec: spec/side-channel.md section 3 (SC-10 to SC-12), RFC 7030, RFC 8951.
"""

import logging
import ssl
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from aiohttp import web

from sealcast.errors import SealcastError
from sealcast.est.connections import start_https
from sealcast.est.messages import EST_PATH, MAX_BODY_BYTES, PROBLEM_TYPE
from sealcast.est.operations import Operations
from sealcast.est.problems import Problem, RefusedError, problem_of
from sealcast.est.recovery import RecoveryService, add_recovery
from sealcast.est.revocation_list import add_revocation_list
from sealcast.est.service import EnrolmentService
from sealcast.pki.tls import load_own_certificate, trust

_log = logging.getLogger("sealcast.est")

_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""Forward secrecy and authenticated encryption; what RFC 9325 recommends."""

_CHALLENGE = 'Basic realm="sealcast enrolment", charset="UTF-8"'
_SHUTDOWN_SECONDS = 5.0
"""How long requests under way may still take when the listener ends."""
_KEEP_ALIVE_SECONDS = 15.0
"""An enrolment is a few requests in a row, and who asks may have shown no certificate."""

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def make_application(
    service: EnrolmentService,
    recovery: RecoveryService | None = None,
    crl: Callable[[], bytes] | None = None,
) -> web.Application:
    """Return the web application of an EST listener.

    `recovery`: who renews expired certificates, if any. `crl`: gives the DER CRL of this moment, if it is to
    be had here.
    """
    handlers = Operations(service)
    application = web.Application(middlewares=[_answer_problems], client_max_size=MAX_BODY_BYTES)
    router = application.router
    # The label is an additional segment, and there is none for the default site CA (RFC 7030 section 3.2.2).
    for path in (EST_PATH, f"{EST_PATH}/{{label}}"):
        router.add_get(f"{path}/cacerts", handlers.cacerts)
        router.add_get(f"{path}/csrattrs", handlers.csrattrs)
        router.add_get(f"{path}/renewal-info/{{certificate}}", handlers.renewal_info)
        router.add_post(f"{path}/simpleenroll", handlers.simpleenroll)
        router.add_post(f"{path}/simplereenroll", handlers.simplereenroll)
        router.add_post(f"{path}/serverkeygen", handlers.serverkeygen)
    if recovery is not None:
        add_recovery(application, recovery)
    if crl is not None:
        add_revocation_list(application, crl)
    return application


def make_tls_context(chain_file: Path, key_file: Path, authorities: Sequence[bytes]) -> ssl.SSLContext:
    """Return the TLS context of an EST listener: TLS 1.2 or later, client certificate optional.

    `chain_file`: PEM, the server's certificate and the site CA's. `key_file`: PEM. `authorities`: DER, the
    roots under which client certificates may stand (a maker's too), and the CA certificates below them, as
    clients often send their own certificate alone. A certificate under no root, or an expired one, ends the
    handshake; what one that passes is good for, the service decides.
    Raises: StorageError, CertificateError.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_OPTIONAL
    # A resumed session shows a certificate that was checked at its first handshake. Python can switch off
    # tickets, not the resumption of TLS 1.2 by session id; so what a certificate is good for is judged anew
    # at each request, and a resumed session links nothing (operations). Renegotiation is of no use here.
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION
    context.num_tickets = 0
    # For TLS 1.2; 1.3 has no others.
    context.set_ciphers(_CIPHERS)
    trust(context, authorities)
    load_own_certificate(context, chain_file, key_file)
    return context


def require_linking(context: ssl.SSLContext, required: bool) -> None:
    """Have the next handshakes give a tls-unique, which TLS 1.3 lacks, or let them be as new as they can."""
    context.maximum_version = ssl.TLSVersion.TLSv1_2 if required else ssl.TLSVersion.MAXIMUM_SUPPORTED


async def start_listener(
    service: EnrolmentService,
    host: str,
    port: int,
    context: ssl.SSLContext,
    recovery: RecoveryService | None = None,
    crl: Callable[[], bytes] | None = None,
) -> tuple[web.AppRunner, int]:
    """Serve EST on an address; port 0 picks a free one. `recovery`, `crl`: as `make_application` takes them.

    Returns: the runner, to be ended by `await runner.cleanup()`, and the port.
    Raises: ConfigError if the address cannot be had.
    """
    return await start_https(
        make_application(service, recovery, crl),
        host,
        port,
        context,
        shutdown_seconds=_SHUTDOWN_SECONDS,
        keep_alive_seconds=_KEEP_ALIVE_SECONDS,
        cure="choose another address with --listen",
    )


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
