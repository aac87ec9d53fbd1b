"""What an operator says about a channel: where its packets go, its limits, and the rules of its policy.

Each value has one check, here; the command line, the TOML form and the service all come through it.
"""

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sealcast.errors import UsageError
from sealcast.pki.fec import format_fec, parse_fec
from sealcast.pki.names import check_channel_name
from sealcast.pki.policy import MAX_SLOTS_AHEAD, SUITES
from sealcast.pki.policy_rules import MAX_RULES, ChannelRules, Rule
from sealcast.pki.quantities import MAX_RATE, MIN_RATE, format_rate

SECOND = 1_000_000
"""Microseconds."""

_SHORTEST = SECOND // 10
_GROUP_CURE = "use one of 239.192.0.0/14 or ff15::/16"
_LOCAL_CONTROL = ipaddress.ip_network("224.0.0.0/24")
_ADMINISTRATIVE = ipaddress.ip_network("239.0.0.0/8")
_MAX_INTERFACE = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelSettings:
    """What an operator says about a channel; checked when made.

    Raises:
        UsageError: a value makes no sense; the text names it.
    """

    name: str
    group: str
    """IPv4 or IPv6 multicast address."""
    port: int
    """UDP port."""
    publish: tuple[str, ...]
    """Rules (`policy_rules`): who may publish."""
    subscribe: tuple[str, ...]
    """Rules: who may subscribe."""
    deny: tuple[str, ...] = ()
    """Rules: who may do neither, whatever the others say."""
    interface: str | None = None
    rate: int = 20_000_000
    """Most bits a second of one publisher. 20 Mbit/s does not hurt a network of 100 Mbit/s."""
    suite: int = 3
    slot: int = 3600 * SECOND
    """Slot length in microseconds."""
    slots_ahead: int = 24
    """Slots that members may prefetch: traffic outlives an absent authority for a day of hourly slots."""
    retention: int = 60 * SECOND
    """For how long a publisher keeps packets for repair, in microseconds."""
    retention_bytes: int = 256 * 1024 * 1024
    """How much it keeps, in bytes: 60 s at 20 Mbit/s are 150 MB."""
    publisher_limit: int = 30 * SECOND
    """How long after a removal packets of the old generation may still be sealed, in microseconds."""
    fec: str = "off"
    """Parity of publishers that say nothing themselves: `8+2`, `auto` or `off`, as `format_fec` has it."""

    def __post_init__(self) -> None:
        check_channel_name(self.name)
        for field in FIELDS:
            check_setting(field, getattr(self, field))
        for rules in (self.publish, self.subscribe, self.deny):
            check_rule_count(len(rules))
            for rule in rules:
                Rule.parse(rule)

    def rules(self) -> ChannelRules:
        """The rules, in their one way to be written."""
        return ChannelRules(
            publish=tuple(map(Rule.parse, self.publish)),
            subscribe=tuple(map(Rule.parse, self.subscribe)),
            deny=tuple(map(Rule.parse, self.deny)),
        )


def check_setting(field: str, value: Any) -> None:
    """Check one value of a channel that has the type of its field.

    Raises:
        UsageError: it makes no sense; the text names it.
    """
    FIELDS[field](value)


def doubts_about_group(group: str) -> list[tuple[str, str]]:
    """Say what is allowed about a group's address and seldom meant: problem and cure."""
    address = ipaddress.ip_address(group)
    if isinstance(address, ipaddress.IPv6Address):
        if address.packed[1] & 0x10 == 0:
            # RFC 4291 section 2.7: without the T flag the address is one that IANA has assigned for good.
            return [(f"{group} is in the range that IANA assigns", "use one of ff15::/16")]
        return []
    doubts = []
    if address not in _ADMINISTRATIVE:
        doubts.append((f"{group} is outside 239.0.0.0/8: other programs may use it", _GROUP_CURE))
    if int(address) & 0x7FFFFF < 256:
        # RFC 1112 section 6.4: 23 bits of the group make the Ethernet address.
        doubts.append(
            (
                f"{group} shares its Ethernet address with one of 224.0.0.0/24: switches flood it",
                "choose another group, for example 239.192.1.1",
            )
        )
    return doubts


def link_address(group: str) -> tuple[int, int]:
    """What tells groups apart on an Ethernet: IP version, and its 23 (RFC 1112) or 32 (RFC 2464) bits."""
    address = ipaddress.ip_address(group)
    return address.version, int(address) & (0x7FFFFF if address.version == 4 else 0xFFFFFFFF)


def check_rule_count(count: int) -> None:
    """Check the length of one list of rules. Raises: UsageError."""
    if count > MAX_RULES:
        raise UsageError(
            f"{count} rules in one list", cure=f"use at most {MAX_RULES}; a role or a glob says more"
        )


def _check_group(group: str) -> None:
    try:
        address = ipaddress.ip_address(group)
    except ValueError:
        raise UsageError(f"not an IP address: {group[:80]!r}", cure=_GROUP_CURE) from None
    if "%" in group:
        raise UsageError(
            f"not an IP address alone: {group[:80]!r}",
            cure="name the interface as interface, not in the group",
        )
    if not address.is_multicast:
        raise UsageError(f"not a multicast address: {group!r}", cure=_GROUP_CURE)
    if address in _LOCAL_CONTROL:
        # RFC 5771 section 4: for routing protocols; switches flood it whoever has joined.
        raise UsageError(f"{group} is reserved for the network itself", cure=_GROUP_CURE)
    if isinstance(address, ipaddress.IPv6Address) and address.packed[1] & 0x0F in (0, 0xF):
        raise UsageError(f"{group} has a reserved scope (RFC 4291 section 2.7)", cure=_GROUP_CURE)


def _check_port(port: int) -> None:
    if not 1 <= port <= 65535:
        raise UsageError(f"not a UDP port: {port}", cure="use one of 1 to 65535")


def _check_interface(interface: str | None) -> None:
    if interface is None:
        return
    if not 0 < len(interface) <= _MAX_INTERFACE or not interface.isprintable() or " " in interface:
        raise UsageError(
            f"not the name of a network interface: {interface[:80]!r}",
            cure="write for example eth0, or leave it out: each device decides",
        )


def _check_suite(suite: int) -> None:
    if suite not in SUITES:
        raise UsageError(
            f"unknown suite {suite}", cure="use 1 (AES, SHA-256), 2 (ChaCha20) or 3 (AES, BLAKE3)"
        )


def _check_rate(rate: int) -> None:
    if not MIN_RATE <= rate <= MAX_RATE:
        raise UsageError(
            f"a rate of {rate} bit/s is out of range",
            cure=f"use {format_rate(MIN_RATE)} to {format_rate(MAX_RATE)}",
        )


def _check_slots_ahead(slots: int) -> None:
    if not 1 <= slots <= MAX_SLOTS_AHEAD:
        raise UsageError(f"slots ahead: {slots}", cure=f"use 1 to {MAX_SLOTS_AHEAD}")


def _check_fec(fec: str) -> None:
    if fec != (usual := format_fec(parse_fec(fec))):
        raise UsageError(f"fec is {fec[:80]!r}", cure=f"write {usual}")


def _at_least(what: str, least: int, unit: str, text: str) -> Callable[[int], None]:
    def check(value: int) -> None:
        if value < least:
            raise UsageError(f"{what} of {value} {unit} is too short", cure=f"use at least {text}")

    return check


FIELDS: dict[str, Callable[[Any], None]] = {
    "group": _check_group,
    "port": _check_port,
    "suite": _check_suite,
    "interface": _check_interface,
    "rate": _check_rate,
    "slots_ahead": _check_slots_ahead,
    "slot": _at_least("slot", _SHORTEST, "µs", "100ms"),
    "retention": _at_least("retention", _SHORTEST, "µs", "100ms"),
    "retention_bytes": _at_least("retention", 1, "bytes", "1 byte, for example 256M"),
    "publisher_limit": _at_least("publisher limit", 1, "µs", "1us, for example 30s"),
    "fec": _check_fec,
}
"""The check of each field, but for the name and the rules."""
