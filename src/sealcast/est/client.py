"""The EST client of a device.

It trusts the given roots and no others: not the system's, not those that the server hands out. What comes
back is checked before anyone stores it. RFC 7030, spec/side-channel.md section 3.
"""

import base64
import os
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp

from sealcast.ca.signer import public_key_of
from sealcast.errors import (
    CertificateError,
    ConfigError,
    EnrolmentError,
    NetworkError,
    SealcastError,
    TokenError,
    UnreachableError,
)
from sealcast.est.messages import (
    CACERTS_TYPE,
    EST_PATH,
    REQUEST_TYPE,
    TRANSFER_ENCODING_HEADER,
    decode_certificates,
    encode_body,
)
from sealcast.est.recovery import PROOF_TYPE, RECOVERY_PATH
from sealcast.pki.certificates import is_self_signed, parse_certificate
from sealcast.pki.names import Identity, Role
from sealcast.pki.signed import PublicKey
from sealcast.pki.tls import load_own_certificate, trust
from sealcast.pki.validator import Validator

_MAX_ANSWER_BYTES = 1024 * 1024
"""A /cacerts answer with some dozen certificates has 32 KiB."""
_TIMEOUT = aiohttp.ClientTimeout(total=60, sock_connect=10)
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


class EstClient:
    """Talks to one EST server."""

    def __init__(
        self, authority_url: str, roots: Sequence[bytes], *, own: tuple[Path, Path] | None = None
    ) -> None:
        """Take the server's URL and the DER roots to trust.

        `own`: for renewal, the PEM files of the present chain and key.
        Raises: ConfigError for a URL that is not https, and if there is no root: nothing is trusted at first
        sight. CertificateError, StorageError.
        """
        self._url = check_authority_url(authority_url)
        if not roots:
            raise ConfigError(
                "no root is given to check the authority by", cure="give the root's file with --root FILE"
            )
        self._roots = tuple(roots)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._context.minimum_version = ssl.TLSVersion.TLSv1_2
        trust(self._context, self._roots)
        self._shows_certificate = own is not None
        if own is not None:
            load_own_certificate(self._context, *own)

    async def cacerts(self) -> list[bytes]:
        """Return the DER CA certificates that the server tells; none is trusted by being among them."""
        return decode_certificates(await self._exchange("GET", "cacerts"))

    async def simpleenroll(self, name: str, token: str, csr: bytes) -> bytes:
        """Ask for the first certificate. Returns: DER, unchecked.

        Raises: TokenError, EnrolmentError (with `retry_after` if it waits for approval), NetworkError,
        CertificateError.
        """
        credentials = base64.b64encode(f"{name}:{token}".encode()).decode()
        body = await self._exchange("POST", "simpleenroll", csr, {"Authorization": f"Basic {credentials}"})
        return _one_certificate(body)

    async def simplereenroll(self, csr: bytes) -> bytes:
        """Ask for a successor of the certificate that TLS shows. Returns: DER, unchecked. Raises.

        As above.
        """
        return _one_certificate(await self._exchange("POST", "simplereenroll", csr))

    async def recover(self, proof: bytes) -> bytes:
        """Ask for a successor of an expired certificate by a signed proof (SC-22). Returns: DER, unchecked.

        Raises: as above.
        """
        body = await self._exchange_at(RECOVERY_PATH, "POST", proof, {"Content-Type": PROOF_TYPE})
        return _one_certificate(body)

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

    async def _exchange(
        self, method: str, operation: str, csr: bytes | None = None, headers: dict[str, str] | None = None
    ) -> bytes:
        sent = dict(headers or {})
        if csr is not None:
            sent |= {"Content-Type": REQUEST_TYPE, **TRANSFER_ENCODING_HEADER}
        data = None if csr is None else encode_body(csr)
        return await self._exchange_at(f"{EST_PATH}/{operation}", method, data, sent)

    async def _exchange_at(
        self, path: str, method: str, data: bytes | None, headers: dict[str, str]
    ) -> bytes:
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
                if response.status == 200:
                    if response.content_type != CACERTS_TYPE:
                        raise NetworkError(
                            f"{self._url} answers with {response.content_type!r}, not with certificates",
                            cure="check that the URL is that of an EST server",
                        )
                    return body
                raise _refusal(response, body, self._url)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise _connection_error(error, self._url, shows_certificate=self._shows_certificate) from error


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
            raise NetworkError(f"the answer of {response.host} has more than {_MAX_ANSWER_BYTES} bytes")
    return bytes(body)


def _refusal(response: aiohttp.ClientResponse, body: bytes, url: str) -> SealcastError:
    text = "".join(c if c.isprintable() else " " for c in body[: 4 * _MAX_DETAIL].decode("utf-8", "replace"))
    detail = text.strip()[:_MAX_DETAIL] or response.reason or ""
    match response.status:
        case 202:
            return EnrolmentError(
                f"not decided yet: {detail}",
                retry_after=_seconds(response.headers.get("Retry-After", "")),
                cure="have the operator approve the request, then run it again",
            )
        case 401:
            return TokenError(detail)
        case 404:
            return NetworkError(f"{url} is no EST server: {detail}", cure="check the URL")
        case 400 | 403 | 413 | 415:
            return EnrolmentError(f"the authority refuses: {detail}")
        case status:
            return NetworkError(
                f"{url} answers {status}: {detail}", cure="try again later, or read the authority's log"
            )


def _seconds(text: str) -> int:
    # Dates are allowed too (RFC 9110); a minute is a fair guess for one.
    return max(1, int(text)) if text.isascii() and text.isdigit() and len(text) < 8 else 60


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
    return CertificateError(
        f"the certificate of {url} is refused: {detail}",
        reason="unknown-issuer",
        cure="check the URL and give the site's own root with --root FILE",
    )


__all__ = ["Enrolled", "EstClient", "check_authority_url"]
