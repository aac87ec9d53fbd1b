"""Who a TLS peer is: judged after the handshake, by the one validator, by role and identity.

The name of the host is no part of the verdict (TR-8). A listener judges for each request, so that it can
answer with a reason and so that a removal takes effect on open connections; whoever opens a connection
judges once, before the first byte of a request leaves.
"""

import ssl
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from aiohttp import ClientError, web

from sealcast.errors import CertificateError
from sealcast.pki import names
from sealcast.pki.names import Role
from sealcast.pki.times import system_time
from sealcast.pki.tls import clock_problem, leading, load_own_certificate, trust
from sealcast.pki.validator import Validator, VerifiedPeer
from sealcast.sidechannel.refusals import Refusal, RefusedError

Clock = Callable[[], int]
"""Microseconds since the epoch."""

CurrentCrl = Callable[[], bytes | None]
"""The DER CRL to judge by at this moment; None where there is none yet (TR-9)."""

Judge = Callable[[Sequence[bytes]], VerifiedPeer]
"""Takes what the peer has shown, DER, its own certificate first; raises CertificateError."""

_MAX_SHOWN = 8
"""Certificates of a peer that a verdict looks at: its own, and site CAs of a rotation."""

_DER = 2
"""`_ssl.ENCODING_DER`."""


class TlsIdentity(Protocol):
    """What the side channel needs to know of a device; `sealcast.device.DeviceIdentity` is one."""

    @property
    def name(self) -> str:
        """Device name."""

    @property
    def site_id(self) -> bytes:
        """16 bytes."""

    @property
    def keys_url(self) -> str:
        """Key server: `https://host:port`."""

    @property
    def certificate_file(self) -> Path:
        """PEM: own chain."""

    @property
    def key_file(self) -> Path:
        """PEM: own key."""

    @property
    def roots(self) -> tuple[bytes, ...]:
        """DER."""

    @property
    def issuers(self) -> tuple[bytes, ...]:
        """DER: site CA certificates."""

    def validator(self) -> Validator:
        """A validator with the device's roots."""

    def ssl_context_client(self) -> ssl.SSLContext:
        """TLS 1.3 for connections."""

    def ssl_context_server(self) -> ssl.SSLContext:
        """TLS 1.3 for a listener, client certificates required."""


def judging_context(context: ssl.SSLContext, judge: Judge) -> ssl.SSLContext:
    """Make `context` judge each server at the end of its handshake; returns `context`.

    A server that `judge` refuses sees the connection end, and not one byte of a request.
    """

    class JudgedConnection(ssl.SSLObject):
        def do_handshake(self) -> None:
            super().do_handshake()
            chain = shown_chain(self)
            try:
                if not chain:
                    raise CertificateError("the peer showed no certificate", reason="not-authenticated")
                judge(chain)
            except CertificateError as error:
                raise _JudgedError(error) from None

    context.sslobject_class = JudgedConnection
    return context


def shown_chain(connection: ssl.SSLObject | ssl.SSLSocket) -> list[bytes]:
    """What a server has shown in the handshake, DER, its own certificate first; empty if it showed none.

    The others help to build a path, as after a rotation that this side has slept through; none is trusted by
    being here.
    """
    own = connection.getpeercert(binary_form=True)
    if not own:
        return []
    # Public on the connection itself from Python 3.13 on; the object inside has it since 3.10.
    inner: Any = getattr(connection, "_sslobj", None)
    shown = inner.get_unverified_chain() if hasattr(inner, "get_unverified_chain") else None
    others = [certificate.public_bytes(_DER) for certificate in (shown or [])[:_MAX_SHOWN]]
    return [own, *(der for der in others if der != own)]


class _JudgedError(ssl.SSLCertVerificationError):
    """Carries the verdict through the TLS machinery, which knows only its own errors."""

    def __init__(self, verdict: CertificateError) -> None:
        super().__init__(1, str(verdict))
        self.verdict = verdict


def verdict_of(error: BaseException) -> CertificateError | None:
    """The verdict behind a failed connection, if it failed by a judge's or by TLS's own check."""
    seen: BaseException | None = error
    depth = 0
    while seen is not None and depth < 8:
        # aiohttp's own errors claim to be ssl's too, and only carry one.
        match None if isinstance(seen, ClientError) else seen:
            case _JudgedError() as judged:
                return judged.verdict
            case ssl.SSLCertVerificationError(verify_message=message):
                cure = clock_problem(message, system_time())
                return CertificateError(
                    f"the peer's certificate is refused: {message}",
                    reason="tls" if cure is None else "time",
                    cure=cure or "",
                )
            case ssl.SSLError(reason=str(reason)) if "ALERT" in reason:
                # In TLS 1.3 a server's no to our certificate comes as an alert after our side is done.
                return CertificateError(
                    f"the peer refuses our certificate: {reason}",
                    reason="not-authenticated",
                    cure="renew it, or enrol again with a token; check that it is the right site",
                )
        wrapped = getattr(seen, "os_error", None) or getattr(seen, "certificate_error", None)
        seen = wrapped if isinstance(wrapped, BaseException) else seen.__cause__ or seen.__context__
        depth += 1
    return None


def reload_context(context: ssl.SSLContext, identity: TlsIdentity) -> None:
    """Show the certificate that `identity` has now from the next handshake on; open connections go on."""
    trust(context, leading(identity.roots, identity.issuers))
    load_own_certificate(context, identity.certificate_file, identity.key_file)


def peer_of(
    request: web.Request, validator: Validator, role: Role, now: int, crl: bytes | None
) -> VerifiedPeer:
    """Who sends `request`, by the certificate that its TLS handshake proved (SC-1).

    A wrong yes lets a stranger or a removed device in; a wrong no costs a member one request.

    Raises:
        RefusedError: `not-authenticated`, or `revoked`.
    """
    try:
        return validator.verify_peer([shown_certificate(request)], role, now, crl)
    except CertificateError as error:
        refusal = Refusal.REVOKED if error.reason == "revoked" else Refusal.NOT_AUTHENTICATED
        raise RefusedError(refusal, str(error)) from None


def shown_certificate(request: web.Request) -> bytes:
    """The certificate (DER) that the client has proven. Raises: RefusedError: `not-authenticated`."""
    connection = request.transport.get_extra_info("ssl_object") if request.transport else None
    certificate = connection.getpeercert(binary_form=True) if connection is not None else None
    if not certificate:
        raise RefusedError(Refusal.NOT_AUTHENTICATED, "a client certificate is needed")
    return bytes(certificate)


def member_name(peer: VerifiedPeer, site_id: bytes) -> str:
    """The peer as a policy of site `site_id` writes it: its name, or `<site id>:<name>` of another
    (TR-13).
    """
    return names.member_name(site_id, peer.site_id, peer.name)
