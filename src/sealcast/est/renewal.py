"""The renewal hint: when the server would like a certificate to be renewed.

`GET /.well-known/est/renewal-info/<id>` of draft-yusef-lamps-rfc7030-renewal-recommendation, with the id and
the algorithm of RFC 9773 (ACME renewal information). It is how an authority has a whole fleet renew early,
before it switches to another issuer.
"""

import base64
import binascii
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Self

from cryptography import x509

from sealcast.errors import CertificateError, NetworkError, UsageError
from sealcast.pki.certificates import parse_certificate
from sealcast.pki.times import microseconds, to_datetime

POLL_SECONDS = 6 * 3600
"""How often a client asks again (Retry-After), as ACME servers have it."""

MAX_POLL_SECONDS = 24 * 3600
"""A client asks at least once a day, whatever the server says (RFC 9773 section 4.3.2)."""

_MAX_ID = 120


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateId:
    """Which certificate is meant: its issuer's key identifier and its serial number."""

    key_identifier: bytes
    serial: int

    @classmethod
    def of(cls, certificate: bytes) -> Self:
        """Take it from a DER certificate. Raises: CertificateError if that names no issuer's key."""
        parsed = parse_certificate(certificate)
        try:
            identifier = parsed.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier)
        except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
            identifier = None
        if identifier is None or identifier.value.key_identifier is None:
            raise CertificateError("the certificate has no authorityKeyIdentifier", reason="malformed")
        return cls(key_identifier=identifier.value.key_identifier, serial=parsed.serial_number)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the last segment of the path. Raises: UsageError."""
        identifier, dot, serial = text.partition(".")
        try:
            if not dot or len(text) > _MAX_ID:
                raise ValueError
            key_identifier, number = _decode(identifier), _decode(serial)
        except (ValueError, binascii.Error):
            raise UsageError(f"not the id of a certificate: {text[:80]!r}") from None
        return cls(key_identifier=key_identifier, serial=int.from_bytes(number, "big", signed=True))

    def serialize(self) -> str:
        """Return `base64url(key identifier) "." base64url(content octets of the DER serial)`, no padding."""
        octets = self.serial.to_bytes(self.serial.bit_length() // 8 + 1, "big", signed=True)
        return f"{_encode(self.key_identifier)}.{_encode(octets)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RenewalWindow:
    """From when to when to renew; microseconds."""

    start: int
    end: int

    @classmethod
    def by_life(cls, not_before: int, not_after: int) -> Self:
        """The window of a certificate about which nothing else was decided: the last third of its life."""
        return cls(start=not_before + (not_after - not_before) * 2 // 3, end=not_after)

    def serialize(self) -> bytes:
        """Return JSON (RFC 9773 section 4.2)."""
        window = {"start": _rfc3339(self.start), "end": _rfc3339(self.end)}
        return json.dumps({"suggestedWindow": window}).encode()

    @classmethod
    def parse(cls, body: bytes) -> Self:
        """Read what a server sent. Raises: NetworkError."""
        try:
            window = json.loads(body)["suggestedWindow"]
            start, end = (_moment(window[name]) for name in ("start", "end"))
            if end <= start:
                raise ValueError("the window ends before it starts")
        except (ValueError, KeyError, TypeError, OverflowError) as error:
            raise NetworkError(
                f"the renewal information makes no sense: {error}"[:200],
                cure="report it to the server's operator",
            ) from None
        return cls(start=start, end=end)

    def choose(self, fraction: float) -> int:
        """Return the time in the window at which to renew; `fraction`: random, from 0 to 1.

        A time that has passed means: at once.
        """
        return self.start + round((self.end - self.start) * fraction)


@dataclass(frozen=True, slots=True, kw_only=True)
class RenewalHint:
    """What a client was told."""

    window: RenewalWindow
    retry_after: int
    """Seconds after which to ask again."""


def _rfc3339(moment: int) -> str:
    return f"{to_datetime(moment):%Y-%m-%dT%H:%M:%SZ}"


def _moment(text: object) -> int:
    moment = datetime.fromisoformat(str(text))
    if moment.tzinfo is None:
        raise ValueError("a time without its zone")
    return microseconds(moment.astimezone(UTC))


def _encode(octets: bytes) -> str:
    return base64.urlsafe_b64encode(octets).decode("ascii").rstrip("=")


def _decode(text: str) -> bytes:
    if not text or not text.isascii() or "=" in text or "+" in text or "/" in text:
        raise ValueError
    octets = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    if not octets:
        raise ValueError
    return octets
