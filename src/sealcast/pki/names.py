"""Names of sites, devices and channels, and the URIs that carry them in certificates.

Spec: spec/trust.md section 1 (TR-1 to TR-3), spec/wire.md DP-3.
"""

import hashlib
import ipaddress
import re
import secrets
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

from sealcast.errors import CertificateError, UsageError

SITE_ID_BYTES = 16
CHANNEL_ID_BYTES = 32

DEVICE_NAME = "[A-Za-z0-9][A-Za-z0-9._-]{0,62}"
"""Regular expression of TR-2."""

_DEVICE_NAME = re.compile(DEVICE_NAME)
_CHANNEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,126}")
_HOST_LABEL = "[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOST_NAME = re.compile(rf"{_HOST_LABEL}(?:\.{_HOST_LABEL})*")
_HOST_NAME_CHARACTERS = 253
_SITE_ID = re.compile(r"[0-9a-f]{32}")
# X.520 allows 64 characters in an organization name; the common names of our CA certificates add " root" and
# " CA".
_SITE_NAME_CHARACTERS = 58


class Role(StrEnum):
    """Role of a certificate: the second word of its URI."""

    SITE = "site"
    DEVICE = "device"
    KEY_SERVER = "key-server"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who a certificate speaks for."""

    role: Role
    site_id: bytes
    """16 bytes."""
    name: str
    """Name of a device, a key server or an administrator; empty for a site CA."""

    def __post_init__(self) -> None:
        check_site_id(self.site_id)
        if self.role is Role.SITE:
            if self.name:
                raise UsageError(f"a site CA has no name of its own, got {self.name!r}")
        else:
            check_device_name(self.name)

    @property
    def uri(self) -> str:
        """The URI of subjectAltName. Spec: TR-3."""
        site = self.site_id.hex()
        return (
            f"sealcast:{self.role}:{site}"
            if self.role is Role.SITE
            else f"sealcast:{self.role}:{site}:{self.name}"
        )

    @classmethod
    def from_uri(cls, uri: str) -> Self:
        """Parse the URI of subjectAltName.

        Raises: CertificateError if it is not exactly one of the forms of TR-3.
        """
        scheme, *words = uri.split(":")
        try:
            if scheme != "sealcast" or len(words) not in (2, 3):
                raise ValueError
            role = Role(words[0])
            if (role is Role.SITE) != (len(words) == 2):
                raise ValueError
            return cls(role=role, site_id=parse_site_id(words[1]), name="" if role is Role.SITE else words[2])
        except (ValueError, UsageError):
            raise CertificateError(f"not an identity URI: {uri[:200]!r}", reason="name") from None


def new_site_id() -> bytes:
    """Return a fresh site id: 16 random bytes. Spec: TR-1."""
    return secrets.token_bytes(SITE_ID_BYTES)


def check_site_id(site_id: bytes) -> bytes:
    """Return `site_id` if it is 16 bytes; raise UsageError otherwise."""
    if len(site_id) != SITE_ID_BYTES:
        raise UsageError(f"a site id is {SITE_ID_BYTES} bytes, got {len(site_id)}")
    return site_id


def parse_site_id(text: str) -> bytes:
    """Return the 16 bytes that 32 lower-case hexadecimal digits stand for. Raises: UsageError."""
    if _SITE_ID.fullmatch(text) is None:
        raise UsageError(
            f"not a site id: {text[:80]!r}", cure="a site id is 32 lower-case hexadecimal digits"
        )
    return bytes.fromhex(text)


def check_device_name(name: str) -> str:
    """Return `name` if it is a device name of TR-2; raise UsageError otherwise."""
    if _DEVICE_NAME.fullmatch(name) is None:
        raise UsageError(
            f"not a device name: {name[:80]!r}",
            cure="use 1 to 63 letters, digits, dots, underscores and hyphens, a letter or digit first",
        )
    return name


def member_name(site_id: bytes, of: bytes, name: str) -> str:
    """Return how what belongs to a channel of site `site_id` writes device `name` of site `of`.

    By its name alone, or `<site id>:<name>` of another site. Spec: TR-13.
    """
    return name if of == site_id else f"{of.hex()}:{name}"


def parse_member(site_id: bytes, member: str) -> tuple[bytes, str]:
    """Return site id and name of a device as `member_name` writes it, which is one way for each.

    Raises: UsageError.
    """
    site, colon, name = member.rpartition(":")
    of = parse_site_id(site) if colon else site_id
    if member_name(site_id, of, check_device_name(name)) != member:
        raise UsageError(f"{member} is a device of this very site", cure=f"write {name}")
    return of, name


def check_channel_name(name: str) -> str:
    """Return `name` if it is a channel name of TR-2; raise UsageError otherwise."""
    if _CHANNEL_NAME.fullmatch(name) is None:
        raise UsageError(
            f"not a channel name: {name[:160]!r}",
            cure="use 1 to 127 letters, digits, dots, slashes, underscores, hyphens; a letter or digit first",
        )
    return name


def check_instance_name(name: str) -> str:
    """Return `name` if it is an instance name of TR-2 (may be empty); raise UsageError otherwise."""
    if name and _DEVICE_NAME.fullmatch(name) is None:
        raise UsageError(
            f"not an instance name: {name[:80]!r}",
            cure="use none, or 1 to 63 letters, digits, dots, underscores, hyphens; a letter or digit first",
        )
    return name


def check_host_name(name: str) -> str:
    """Return `name` if it is an IP address or a DNS name (RFC 1123 section 2.1; of other scripts by IDNA).

    Raises: UsageError.
    """
    try:
        ipaddress.ip_address(name)
    except ValueError:
        try:
            ascii_name = name.encode("idna").decode("ascii")
        except UnicodeError:
            ascii_name = ""
        if len(ascii_name) > _HOST_NAME_CHARACTERS or _HOST_NAME.fullmatch(ascii_name) is None:
            raise UsageError(
                f"not a host name or an IP address: {name[:80]!r}",
                cure="use for example keys.ward.example or 192.0.2.7",
            ) from None
    return name


def is_ascii_host(name: str) -> bool:
    """Whether `name` is an IP address or a DNS name as it stands in a URL. Spec: side-channel.md SC-5."""
    try:
        return name.isascii() and "%" not in check_host_name(name)
    except UsageError:
        return False


def check_site_name(name: str) -> str:
    """Return `name` if it can stand as organization in a certificate; raise UsageError otherwise."""
    if not 1 <= len(name) <= _SITE_NAME_CHARACTERS or not name.isprintable() or name != name.strip():
        raise UsageError(
            f"not a site name: {name[:80]!r}",
            cure=f"use 1 to {_SITE_NAME_CHARACTERS} printable characters, no space at the ends",
        )
    return name


def channel_id(site_id: bytes, channel: str) -> bytes:
    """Return the 32 bytes that name a channel on the wire.

    `SHA-256("sealcast/1 channel" ‖ 0x00 ‖ site id ‖ channel name)`. Spec: DP-3.
    """
    check_site_id(site_id)
    return hashlib.sha256(b"sealcast/1 channel\x00" + site_id + check_channel_name(channel).encode()).digest()
