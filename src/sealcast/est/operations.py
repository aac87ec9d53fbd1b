"""The operations of an EST server: each judges the form of a request, asks the service, forms the answer.

Spec: spec/side-channel.md section 3, RFC 7030 section 4, RFC 8951, RFC 9908.
"""

import asyncio
import base64
import binascii
import hmac
import ssl
from collections.abc import Sequence

from aiohttp import web

from sealcast.est.messages import (
    ATTRIBUTES_TYPE,
    CACERTS_TYPE,
    CERTIFICATE_TYPE,
    PRIVATE_KEY_TYPE,
    RENEWAL_TYPE,
    REQUEST_TYPE,
    TRANSFER_ENCODING_HEADER,
    decode_body,
    encode_body,
    encode_certificates,
    encode_parts,
)
from sealcast.est.problems import Problem, RefusedError
from sealcast.est.renewal import POLL_SECONDS, CertificateId
from sealcast.est.service import EnrolmentRequest, EnrolmentService
from sealcast.pki.csr import CertificateRequest

_BODY_SECONDS = 20.0
"""A request is one or two segments; a peer that needs longer is broken or means harm."""


class Operations:
    """The handlers; each returns a success or raises."""

    def __init__(self, service: EnrolmentService) -> None:
        self._service = service

    async def cacerts(self, request: web.Request) -> web.Response:
        """RFC 7030 section 4.1: no authentication."""
        certificates = self._service.ca_certificates(self._label(request))
        return _certificates(request, certificates, CACERTS_TYPE)

    async def csrattrs(self, request: web.Request) -> web.Response:
        """RFC 7030 section 4.5 and RFC 9908: no authentication."""
        attributes = self._service.csr_attributes(self._label(request))
        if attributes is None:
            return web.Response(status=204)
        body = encode_body(attributes.serialize(), in_lines=_reads_lines(request))
        return web.Response(body=body, headers={"Content-Type": ATTRIBUTES_TYPE, **TRANSFER_ENCODING_HEADER})

    async def simpleenroll(self, request: web.Request) -> web.Response:
        """RFC 7030 section 4.2.1: by HTTP Basic, or by a TLS client certificate. Spec: SC-10."""
        certificate = await self._service.enroll(await self._first_request(request))
        return _certificates(request, [certificate], CERTIFICATE_TYPE)

    async def simplereenroll(self, request: web.Request) -> web.Response:
        """RFC 7030 section 4.2.2, with the certificate of the TLS session."""
        label, certificate = self._label(request), _peer_certificate(request)
        if certificate is None:
            raise RefusedError(Problem.NO_CERTIFICATE)
        csr = await self._read_csr(request, certificate)
        issued = await self._service.reenroll(EnrolmentRequest(csr=csr, label=label, certificate=certificate))
        return _certificates(request, [issued], CERTIFICATE_TYPE)

    async def serverkeygen(self, request: web.Request) -> web.Response:
        """RFC 7030 section 4.4: as simpleenroll, with a key made here; only where it is switched on."""
        if not self._service.settings.server_keygen:
            raise RefusedError(Problem.UNKNOWN_OPERATION)
        asked = await self._first_request(request, own_key=False)
        if asked.csr.wants_encrypted_key:
            # Never answered by a key in clear: whoever asks for encryption does not trust this channel.
            raise RefusedError(Problem.NO_ENCRYPTION)
        generated = await self._service.generate(asked)
        content_type, body = encode_parts(
            [
                (PRIVATE_KEY_TYPE, generated.private_key),
                (CERTIFICATE_TYPE, decode_body(encode_certificates([generated.certificate]))),
            ],
            in_lines=_reads_lines(request),
        )
        return web.Response(body=body, headers={"Content-Type": content_type})

    async def renewal_info(self, request: web.Request) -> web.Response:
        """The renewal hint, in clear JSON: no authentication, as a certificate is no secret."""
        self._label(request)
        certificate_id = CertificateId.parse(request.match_info["certificate"])
        window = await self._service.renewal_window(certificate_id)
        if window is None:
            raise RefusedError(Problem.UNKNOWN_CERTIFICATE)
        headers = {"Content-Type": RENEWAL_TYPE, "Retry-After": str(POLL_SECONDS)}
        return web.Response(body=window.serialize(), headers=headers)

    def _label(self, request: web.Request) -> str | None:
        label = request.match_info.get("label")
        if label is not None and label not in self._service.labels():
            raise RefusedError(Problem.UNKNOWN_LABEL)
        return label

    async def _first_request(self, request: web.Request, *, own_key: bool = True) -> EnrolmentRequest:
        label, certificate = self._label(request), _peer_certificate(request)
        name, token = None, ""
        if certificate is None or "Authorization" in request.headers:
            name, token = _basic_credentials(request)
            if not token and not self._service.settings.open_requests:
                raise RefusedError(Problem.NO_CREDENTIALS)
        csr = await self._read_csr(request, certificate, own_key=own_key)
        if name is not None:
            csr.judge_name(name)
        return EnrolmentRequest(csr=csr, label=label, name=name, token=token, certificate=certificate)

    async def _read_csr(
        self, request: web.Request, certificate: bytes | None, *, own_key: bool = True
    ) -> CertificateRequest:
        if request.content_type != REQUEST_TYPE:
            raise RefusedError(Problem.WRONG_TYPE)
        try:
            async with asyncio.timeout(_BODY_SECONDS):
                body = await request.read()
        except TimeoutError:
            raise RefusedError(Problem.TIMEOUT) from None
        settings = self._service.settings
        csr = CertificateRequest.parse(decode_body(body, strict=settings.strict_bodies), own_key=own_key)
        # What a registration authority passes on was linked, if at all, to the session between it and its
        # client (RFC 7030 section 3.7).
        if certificate is None or not self._service.is_registration_authority(certificate):
            _check_linking(request, csr.challenge_password, required=settings.linking_required)
        return csr


def _certificates(request: web.Request, ders: Sequence[bytes], content_type: str) -> web.Response:
    # A body of bytes gives Content-Length, never chunks, and goes out in one write with the headers.
    body = encode_certificates(ders, in_lines=_reads_lines(request))
    return web.Response(body=body, headers={"Content-Type": content_type, **TRANSFER_ENCODING_HEADER})


def _reads_lines(request: web.Request) -> bool:
    # SC-15: strongSwan is the one client that sends no User-Agent, and the one that cannot read lines.
    return "User-Agent" in request.headers


def _peer_certificate(request: web.Request) -> bytes | None:
    connection = _tls(request)
    return connection.getpeercert(binary_form=True) if connection is not None else None


def _check_linking(request: web.Request, challenge_password: str | None, *, required: bool) -> None:
    """Compare with tls-unique (RFC 7030 section 3.5); TLS 1.3 has none, so there the attribute is refused."""
    if challenge_password is None:
        if required:
            raise RefusedError(Problem.NO_LINKING)
        return
    connection = _tls(request)
    if connection is not None and connection.session_reused:
        # Without RFC 7627 the value of a resumed session can be had by a man in the middle.
        raise RefusedError(Problem.BAD_LINKING, "the session was resumed; connect anew")
    if connection is not None and connection.version() == "TLSv1.2":
        unique = connection.get_channel_binding("tls-unique") or b""
        if unique and hmac.compare_digest(base64.b64encode(unique), challenge_password.encode()):
            return
        raise RefusedError(Problem.BAD_LINKING)
    raise RefusedError(Problem.BAD_LINKING, "TLS 1.3 has no tls-unique; leave it out, or connect by TLS 1.2")


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
    if not (user and colon):
        raise RefusedError(Problem.NO_CREDENTIALS)
    return user, password
