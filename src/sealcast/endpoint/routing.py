"""Where the packets of a channel go on this machine: group, port, interface.

The policy says it for all; an operator may override it here, for a relay or a switch in between. Address and
port are routing, not identity (spec/wire.md DP-3).
"""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass
from typing import Self
from urllib.parse import urlsplit

from sealcast import _core
from sealcast.endpoint.limits import check_range
from sealcast.errors import ConfigError, UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutingOverrides:
    """What the operator says; None leaves it to the policy."""

    interface: str | None = None
    """Name or address of a network interface."""
    send_to: tuple[str, int] | None = None
    """Address and port that a publisher sends to."""
    listen: tuple[str, int] | None = None
    """Group (or own address) and port that a subscriber receives on."""
    source: str | None = None
    """The only host that a subscriber listens to: source-specific multicast (RFC 4607)."""
    ttl: int = 1
    """Routers that a publisher's packets may pass, plus 1; 1 to 255."""
    dscp: int = 0
    """Differentiated services code point of a publisher's packets, 0 to 63 (RFC 2474)."""

    def __post_init__(self) -> None:
        """Check. Raises: UsageError: a number that is out of its range, or a source that is no address."""
        check_range("ttl", self.ttl, 1, 255)
        check_range("dscp", self.dscp, 0, 63)
        if self.source is not None:
            parse_host(self.source)


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One direction of the data path."""

    address: str
    port: int
    interface: str

    @classmethod
    def of(
        cls,
        policy: _core.Policy,
        override: tuple[str, int] | None,
        interface: str | None,
        keys_url: str,
    ) -> Self:
        """Return the route: the override, else the policy's.

        The interface is the one given; else the channel's; else loopback if the authority is on loopback;
        never the default route in silence.
        Raises: ConfigError.
        """
        address, port = override or (policy["group"], policy["port"])
        chosen = interface or policy["interface"]
        if chosen is None and is_loopback(urlsplit(keys_url).hostname or ""):
            chosen = "lo" if "lo" in _names() else "127.0.0.1"
        if chosen is None:
            raise ConfigError(
                "no network interface is given for the data path",
                cure=f"name one with --interface: {', '.join(_core.list_interfaces())}",
            )
        return cls(address=address, port=port, interface=chosen)


def parse_host(text: str) -> str:
    """Return an address without port as it is written in standard form. Raises: UsageError."""
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise UsageError(f"{text!r} is no address of a host", cure="for example 192.0.2.7") from None


def parse_address(text: str) -> tuple[str, int]:
    """Return (address, port) from `ADDR:PORT` or `[ADDR]:PORT`. Raises: UsageError."""
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    try:
        address = str(ipaddress.ip_address(host))
        number = int(port)
    except ValueError:
        raise UsageError(f"{text!r} is not ADDR:PORT", cure="for example 239.255.10.1:5000") from None
    if not colon or not 0 < number < 65536:
        raise UsageError(f"{text!r} has no port between 1 and 65535", cure="for example 239.255.10.1:5000")
    return address, number


def address_towards(url: str) -> str:
    """Return the address of this machine that the host of `url` is reached from."""
    parts = urlsplit(url)
    host, port = parts.hostname or "localhost", parts.port or 443
    family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind) as probe:
        # Connecting a datagram socket sends nothing; it only chooses a route.
        probe.connect(address)
        return str(probe.getsockname()[0])


def is_loopback(host: str) -> bool:
    """Whether a host of a URL is this machine's loopback."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _names() -> list[str]:
    return [interface.split(" ", 1)[0] for interface in _core.list_interfaces()]


def network_error(error: _core.NetworkError, route: Route) -> ConfigError:
    """Return the engine's word on a socket as an error with a cure."""
    where = f"{route.address}:{route.port} on interface {route.interface}"
    return ConfigError(
        f"cannot use {where}: {error}", cure=_CURES.get(error.reason, "choose another address")
    )


_CURES = {
    "unknown-interface": "name an existing interface with --interface",
    "interface-down": "bring the interface up, or name another with --interface",
    "interface-without-multicast": "name an interface that does multicast with --interface",
    "interface-without-address": "give the interface an address, or name another with --interface",
    "not-a-source": "name the publisher's host by an address of the group's family",
    "mtu-above-interface": "say --mtu with what the interface takes, or raise the interface's",
    "address-in-use": "choose another port, or end the program that holds it",
    "too-many-groups": "leave other groups, or raise net.ipv4.igmp_max_memberships",
    "permission-denied": "ask the administrator of this machine",
}
