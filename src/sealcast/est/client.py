"""The EST client of a device.

It trusts the given roots and no others: not the system's, not those that the server hands out. What comes
back is checked before anyone stores it. RFC 7030, spec/side-channel.md section 3.
"""

import asyncio
import base64
import http.client
import os
import ssl
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
from cryptography import x509

from sealcast.ca.signer import KeyKind, Signer, public_key_of
from sealcast.errors import (
    CertificateError,
    ConfigError,
    EnrolmentError,
    NetworkError,
    SealcastError,
    TokenError,
    UnreachableError,
)
from sealcast.est.attributes import COMMON_NAME, SECP256R1, SECP384R1, CsrAttributes
from sealcast.est.messages import (
    ATTRIBUTES_TYPE,
    CERTIFICATES_TYPE,
    EST_PATH,
    PARTS_TYPE,
    PRIVATE_KEY_TYPE,
    RENEWAL_TYPE,
    REQUEST_TYPE,
    TRANSFER_ENCODING_HEADER,
    decode_body,
    decode_certificates,
    decode_parts,
    encode_body,
)
from sealcast.est.recovery import PROOF_TYPE, RECOVERY_PATH
from sealcast.est.renewal import MAX_POLL_SECONDS, POLL_SECONDS, CertificateId, RenewalHint, RenewalWindow
from sealcast.est.service import GeneratedKey
from sealcast.est.settings import check_label
from sealcast.pki.certificates import is_self_signed, parse_certificate
from sealcast.pki.csr import RequestExtras
from sealcast.pki.names import Identity, Role
from sealcast.pki.signed import PublicKey
from sealcast.pki.times import system_time, to_datetime
from sealcast.pki.tls import leading, load_own_certificate, trust
from sealcast.pki.validator import Validator

_MAX_ANSWER_BYTES = 1024 * 1024
"""A /cacerts answer with some dozen certificates has 32 KiB."""
_SECONDS = 60
_TIMEOUT = aiohttp.ClientTimeout(total=_SECONDS, sock_connect=10)
_RETRY_SECONDS = 60
"""Between two tries where the server names a date or nothing."""
_MAX_DETAIL = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Enrolled:
    """A certificate that was issued to us, checked against the pinned roots."""

    identity: Identity
    chain: tuple[bytes, ...]
    """DER: our certificate, then its issuer."""
    issuers: tuple[bytes, ...]
    """DER: every CA certificate below a root that the server told."""
    not_after: int
    """Microseconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestPlan:
    """How a request has to look for one server, by its CSR attributes as far as we can follow them."""

    kind: KeyKind = KeyKind.P256
    extras: RequestExtras = field(default_factory=RequestExtras)
    linked: bool = False
    """Whether it must carry tls-unique."""


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    reason: str
    headers: Mapping[str, str]
    """Names as `Retry-After` is written, however they came."""
    body: bytes

    @property
    def media_type(self) -> str:
        return self.headers.get("Content-Type", "").partition(";")[0].strip().lower()


class EstClient:
    """Talks to one EST server, ours or another one.

    It follows no redirect. A request that waits for approval raises EnrolmentError with `retry_after`; it is
    for the caller to repeat it then, with the same key.
    """

    def __init__(
        self,
        authority_url: str,
        roots: Sequence[bytes],
        *,
        own: tuple[Path, Path] | None = None,
        label: str | None = None,
        authorities: Sequence[bytes] = (),
    ) -> None:
        """Take the server's URL and the DER roots to trust.

        `own`: the PEM files of chain and key to show: the present certificate, or at a first enrolment the
        maker's. `label`: which of the server's CAs to ask (RFC 7030 section 3.2.2). `authorities`: CA
        certificates (DER) that help to build a path to a root.
        Raises: ConfigError for a URL that is not https, and if there is no root: nothing is trusted at first
        sight. CertificateError, StorageError, UsageError.
        """
        self._url = check_authority_url(authority_url)
        if not roots:
            raise ConfigError(
                "no root is given to check the authority by", cure="give the root's file with --root FILE"
            )
        self._roots = tuple(roots)
        self._trusted = leading(roots, authorities)
        self._own = own
        self._path = EST_PATH if label is None else f"{EST_PATH}/{check_label(label)}"
        self._context = self._make_context()

    async def cacerts(self) -> list[bytes]:
        """Return the DER CA certificates that the server tells; none is trusted by being among them."""
        return decode_certificates(self._body(await self._exchange("GET", "cacerts"), CERTIFICATES_TYPE))

    async def csrattrs(self) -> CsrAttributes | None:
        """Return what the server wants in requests; None if it says nothing about that."""
        answer = await self._exchange("GET", "csrattrs")
        if answer.status in (204, 404) or (answer.status == 200 and not answer.body.strip()):
            return None
        return CsrAttributes.parse(decode_body(self._body(answer, ATTRIBUTES_TYPE)))

    async def plan(self, name: str) -> RequestPlan:
        """Ask how a request of device `name` has to look.

        Raises: EnrolmentError if the server wants a kind of key that we do not make.
        """
        attributes = await self.csrattrs()
        return RequestPlan() if attributes is None else plan_request(attributes, name)

    async def simpleenroll(self, name: str | None, token: str, csr: bytes) -> bytes:
        """Ask for the first certificate. Returns: DER, unchecked.

        `name` None: by the certificate that TLS shows, not by a token. Raises: TokenError, EnrolmentError
        (with `retry_after` if it waits for approval), NetworkError, CertificateError.
        """
        answer = await self._exchange("POST", "simpleenroll", csr, _credentials(name, token))
        return _one_certificate(self._body(answer, CERTIFICATES_TYPE))

    async def simplereenroll(self, csr: bytes) -> bytes:
        """Ask for a successor of the certificate that TLS shows. Returns: DER, unchecked.

        Raises: as above.
        """
        answer = await self._exchange("POST", "simplereenroll", csr)
        return _one_certificate(self._body(answer, CERTIFICATES_TYPE))

    async def recover(self, proof: bytes) -> bytes:
        """Ask for a successor of an expired certificate by a signed proof (SC-22). Returns: DER, unchecked.

        Raises: as above.
        """
        answer = await self._exchange_at(RECOVERY_PATH, "POST", proof, {"Content-Type": PROOF_TYPE})
        return _one_certificate(self._body(answer, CERTIFICATES_TYPE))

    async def enroll(self, name: str, token: str | None, signer: Signer, plan: RequestPlan) -> bytes:
        """Make a request as planned and ask for the first certificate. Returns: DER, unchecked.

        `token` None: by the certificate that TLS shows. Raises: as `simpleenroll`.
        """
        credentials = _credentials(None if token is None else name, token or "")
        answer = await self._ask(
            "simpleenroll", plan, lambda extras: signer.make_csr(name, extras=extras), credentials
        )
        return _one_certificate(self._body(answer, CERTIFICATES_TYPE))

    async def renew(self, current: bytes, signer: Signer, plan: RequestPlan) -> bytes:
        """Make a request as planned and ask for a successor of `current` (DER), which TLS shows.

        Returns: DER, unchecked. Raises: as `simpleenroll`.
        """
        present = parse_certificate(current)
        answer = await self._ask(
            "simplereenroll", plan, lambda extras: signer.make_csr("", current=present, extras=extras), {}
        )
        return _one_certificate(self._body(answer, CERTIFICATES_TYPE))

    async def serverkeygen(self, name: str | None, token: str, csr: bytes) -> GeneratedKey:
        """Ask for a certificate and a key that the server makes (RFC 7030 section 4.4); both unchecked.

        Raises: as `simpleenroll`.
        """
        answer = await self._exchange("POST", "serverkeygen", csr, _credentials(name, token))
        parts = decode_parts(answer.headers.get("Content-Type", ""), self._body(answer, PARTS_TYPE))
        if set(parts) != {PRIVATE_KEY_TYPE, CERTIFICATES_TYPE}:
            raise CertificateError("the answer is no key and certificate", reason="malformed")
        return GeneratedKey(
            certificate=_one_certificate(encode_body(parts[CERTIFICATES_TYPE])),
            private_key=parts[PRIVATE_KEY_TYPE],
        )

    async def renewal_info(self, certificate: bytes) -> RenewalHint | None:
        """Return when the server would have a DER certificate renewed; None if it gives no such hints."""
        answer = await self._exchange("GET", f"renewal-info/{CertificateId.of(certificate).serialize()}")
        if answer.status in (400, 404, 405, 501):
            return None
        window = RenewalWindow.parse(self._body(answer, RENEWAL_TYPE))
        retry_after = _seconds(answer.headers.get("Retry-After", ""), POLL_SECONDS)
        return RenewalHint(window=window, retry_after=min(retry_after, MAX_POLL_SECONDS))

    def check(
        self,
        certificate: bytes,
        *,
        public_key: PublicKey,
        name: str,
        ca_certificates: Sequence[bytes],
        now: int,
        role: Role = Role.DEVICE,
    ) -> Enrolled:
        """Check that an issued certificate is ours and stands under a pinned root.

        `ca_certificates`: DER, from `cacerts`, in any order. `now`: microseconds. Raises: CertificateError.
        """
        if public_key_of(certificate) != public_key:
            raise CertificateError("the authority sent a certificate for another key", reason="key")
        issuers = [der for der in ca_certificates if not is_self_signed(parse_certificate(der))]
        verified = Validator(self._roots, issuers).verify_peer([certificate], role, now)
        if verified.name != name:
            raise CertificateError(f"the authority sent a certificate for {verified.name!r}, not {name!r}")
        return Enrolled(
            identity=verified.identity,
            chain=(certificate, *_issuers_of(certificate, issuers)),
            issuers=tuple(issuers),
            not_after=verified.not_after,
        )

    def _make_context(self, *, linked: bool = False) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        # A device's certificate has no DNS name; its common name may look like one.
        context.hostname_checks_common_name = False
        if linked:
            # tls-unique exists up to 1.2; Python gives no exporter (RFC 9266) for 1.3.
            context.maximum_version = ssl.TLSVersion.TLSv1_2
        trust(context, self._trusted)
        if self._own is not None:
            load_own_certificate(context, *self._own)
        return context

    async def _ask(
        self,
        operation: str,
        plan: RequestPlan,
        make_csr: Callable[[RequestExtras], bytes],
        headers: Mapping[str, str],
    ) -> _Answer:
        if not plan.linked:
            return await self._exchange("POST", operation, make_csr(plan.extras), headers)
        return await asyncio.to_thread(self._exchange_linked, operation, plan.extras, make_csr, headers)

    async def _exchange(
        self, method: str, path: str, csr: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> _Answer:
        sent = dict(headers or {})
        if csr is not None:
            sent |= {"Content-Type": REQUEST_TYPE, **TRANSFER_ENCODING_HEADER}
        data = None if csr is None else encode_body(csr)
        return await self._exchange_at(f"{self._path}/{path}", method, data, sent)

    async def _exchange_at(
        self, path: str, method: str, data: bytes | None, headers: Mapping[str, str]
    ) -> _Answer:
        try:
            # A connector of its own: a session kept open would go on with the old certificate after renewal.
            async with (
                aiohttp.ClientSession(
                    connector=aiohttp.TCPConnector(ssl=self._context), timeout=_TIMEOUT, trust_env=False
                ) as session,
                session.request(
                    method,
                    f"{self._url}{path}",
                    data=data,
                    headers=headers,
                    allow_redirects=False,
                ) as response,
            ):
                body = await _read_limited(response)
                return _Answer(response.status, response.reason or "", _named(response.headers.items()), body)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise self._failure(error) from error

    def _exchange_linked(
        self,
        operation: str,
        extras: RequestExtras,
        make_csr: Callable[[RequestExtras], bytes],
        headers: Mapping[str, str],
    ) -> _Answer:
        """Make the request after the handshake, whose tls-unique goes into it, and send it there.

        By the standard library and in a thread: aiohttp hands out no connection before its first request.
        """
        parts = urlsplit(self._url)
        connection = http.client.HTTPSConnection(
            parts.hostname or "", parts.port, context=self._make_context(linked=True), timeout=_SECONDS
        )
        try:
            connection.connect()
            unique = connection.sock.get_channel_binding("tls-unique")
            if not unique:
                raise ssl.SSLError("the session has no tls-unique")
            csr = make_csr(replace(extras, challenge_password=base64.b64encode(unique).decode("ascii")))
            connection.request(
                "POST",
                f"{self._path}/{operation}",
                encode_body(csr),
                {**headers, "Content-Type": REQUEST_TYPE, **TRANSFER_ENCODING_HEADER},
            )
            response = connection.getresponse()
            body = response.read(_MAX_ANSWER_BYTES + 1)
            if len(body) > _MAX_ANSWER_BYTES:
                raise _too_long(self._url)
            return _Answer(response.status, response.reason, _named(response.getheaders()), body)
        except (http.client.HTTPException, OSError, ValueError) as error:
            raise self._failure(error) from error
        finally:
            connection.close()

    def _body(self, answer: _Answer, media_type: str) -> bytes:
        if answer.status != 200:
            raise _refusal(answer, self._url)
        if answer.media_type != media_type:
            raise NetworkError(
                f"{self._url} answers with {answer.media_type!r}, not with {media_type!r}",
                cure="check that the URL is that of an EST server",
            )
        return answer.body

    def _failure(self, error: Exception) -> SealcastError:
        return _connection_error(error, self._url, shows_certificate=self._own is not None)


def plan_request(attributes: CsrAttributes, name: str) -> RequestPlan:
    """Return how a request of device `name` follows a server's CSR attributes.

    What the server leaves open and a device knows nothing about is left out. Raises: EnrolmentError if the
    server wants a kind of key that we do not make.
    """
    kinds = {None: KeyKind.P256, SECP256R1: KeyKind.P256, SECP384R1: KeyKind.P384}
    if attributes.curve not in kinds or attributes.wants_other_key:
        raise EnrolmentError(
            "the server wants a kind of key that is not made here", cure="have it admit keys on P-256"
        )
    subject = None
    template = attributes.template
    if template is not None and template.subject is not None:
        subject = template.name({COMMON_NAME: name})
    extensions = tuple(
        x509.Extension(wanted.oid, wanted.critical, x509.UnrecognizedExtension(wanted.oid, wanted.value))
        for wanted in attributes.extensions
        if wanted.value is not None and not wanted.is_open
    )
    return RequestPlan(
        kind=kinds[attributes.curve],
        extras=RequestExtras(subject=subject, extensions=extensions),
        linked=attributes.wants_linking,
    )


def check_authority_url(url: str) -> str:
    """Return `https://host:port` for an authority's URL. Raises: ConfigError."""
    cure = "give it as https://HOST:PORT"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or 443
    except ValueError:
        raise ConfigError(f"not a URL: {url[:200]!r}", cure=cure) from None
    if parts.scheme != "https" or not host or not url.isprintable() or " " in url:
        raise ConfigError(f"not an https URL: {url[:200]!r}", cure=cure)
    if parts.path not in ("", "/") or parts.query or parts.fragment or parts.username is not None:
        raise ConfigError(f"a URL with more than host and port: {url[:200]!r}", cure=cure)
    return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"


def _one_certificate(body: bytes) -> bytes:
    certificates = decode_certificates(body)
    if len(certificates) != 1:
        raise CertificateError(
            f"the authority sent {len(certificates)} certificates, not one (RFC 7030 section 4.2.3)"
        )
    return certificates[0]


def _issuers_of(certificate: bytes, issuers: Sequence[bytes]) -> list[bytes]:
    """Return the certificates above ours, lowest first, for peers that do not know our site CA."""
    chain: list[bytes] = []
    current = parse_certificate(certificate)
    while len(chain) < len(issuers):
        for der in issuers:
            issuer = parse_certificate(der)
            if der not in chain and _has_issued(issuer, current):
                chain.append(der)
                current = issuer
                break
        else:
            break
    return chain


def _has_issued(issuer: object, certificate: object) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)  # type: ignore[attr-defined]
    except Exception:  # noqa: BLE001 - several exceptions by the kind of key, all mean no
        return False
    return True


async def _read_limited(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for part in response.content.iter_chunked(64 * 1024):
        body += part
        if len(body) > _MAX_ANSWER_BYTES:
            raise _too_long(response.host)
    return bytes(body)


def _named(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    return {name.title(): value for name, value in headers}


def _too_long(host: str | None) -> NetworkError:
    return NetworkError(f"the answer of {host} has more than {_MAX_ANSWER_BYTES} bytes")


def _credentials(name: str | None, token: str) -> dict[str, str]:
    if name is None:
        return {}
    return {"Authorization": f"Basic {base64.b64encode(f'{name}:{token}'.encode()).decode()}"}


def _refusal(answer: _Answer, url: str) -> SealcastError:
    start = answer.body[: 4 * _MAX_DETAIL].decode("utf-8", "replace")
    text = "".join(c if c.isprintable() else " " for c in start)
    detail = text.strip()[:_MAX_DETAIL] or answer.reason
    match answer.status:
        case 202:
            return EnrolmentError(
                f"not decided yet: {detail}",
                retry_after=_seconds(answer.headers.get("Retry-After", ""), _RETRY_SECONDS),
                cure="have the operator approve the request, then run it again",
            )
        case 401:
            return TokenError(detail)
        case 404:
            return NetworkError(
                f"{url} is no EST server: {detail}", cure="check the URL, and --label if one is given"
            )
        case 409:
            return CertificateError(
                f"the authority refuses: {detail}", reason="time", cure="set this machine's clock"
            )
        case 400 | 403 | 413 | 415:
            return EnrolmentError(f"the authority refuses: {detail}")
        case status:
            return NetworkError(
                f"{url} answers {status}: {detail}", cure="try again later, or read the authority's log"
            )


def _seconds(text: str, otherwise: int) -> int:
    # Dates are allowed too (RFC 9110), and lag or lead with the clocks: the usual time stands for one.
    return max(1, int(text)) if text.isascii() and text.isdigit() and len(text) < 8 else otherwise


def _connection_error(error: Exception, url: str, *, shows_certificate: bool) -> SealcastError:
    cause = error.__cause__ if isinstance(error.__cause__, ssl.SSLError) else error
    match cause:
        case aiohttp.ClientConnectorCertificateError():
            return _untrusted(url, cause.certificate_error)
        case ssl.SSLCertVerificationError():
            return _untrusted(url, cause)
        case ssl.SSLError() | aiohttp.ClientConnectorSSLError():
            reason = getattr(cause, "reason", None) or str(cause)
            if "ALERT" in str(reason).upper() or "alert" in str(cause):
                return CertificateError(
                    f"{url} does not accept our certificate: {reason}",
                    reason="refused",
                    cure="if it expired or was revoked, enrol anew with a token",
                )
            return NetworkError(
                f"no TLS with {url}: {reason}", cure="check that the URL is that of the authority"
            )
        case TimeoutError():
            return UnreachableError(url, "no answer in time")
        case aiohttp.ClientConnectorError():
            # The library's own words name the address once more; numbers above 0 are the system's.
            number = cause.errno or 0
            return UnreachableError(url, os.strerror(number) if number > 0 else cause.strerror or str(cause))
        case aiohttp.ServerDisconnectedError() | aiohttp.ClientOSError() if shows_certificate:
            # TLS 1.3 clients learn of a refused certificate only after they have begun to talk.
            return UnreachableError(
                url,
                "the connection was closed, as when it does not accept our certificate",
                cure="try again; if it stays so, enrol anew with a token",
            )
        case aiohttp.ServerDisconnectedError() | aiohttp.ClientOSError():
            return UnreachableError(url, "the connection was closed")
        case _:
            return UnreachableError(url, str(cause) or type(cause).__name__)


def _untrusted(url: str, error: Exception) -> CertificateError:
    detail = getattr(error, "verify_message", "") or str(error)
    if getattr(error, "verify_code", 0) in _TIME_FAULTS:
        return CertificateError(
            f"the certificate of {url} is refused: {detail}, by the clock of this machine, which says "
            f"{to_datetime(system_time()):%Y-%m-%d %H:%M} UTC",
            reason="time",
            cure="set the clock if that is wrong; else the authority's certificate has to be renewed",
        )
    return CertificateError(
        f"the certificate of {url} is refused: {detail}",
        reason="unknown-issuer",
        cure="check the URL and give the site's own root with --root FILE",
    )


_TIME_FAULTS = {9, 10}
"""OpenSSL's X509_V_ERR_CERT_NOT_YET_VALID and X509_V_ERR_CERT_HAS_EXPIRED."""


__all__ = ["Enrolled", "EstClient", "RequestPlan", "check_authority_url", "plan_request"]
