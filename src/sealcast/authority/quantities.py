"""Amounts, durations and addresses as an operator writes them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sealcast.ca import Limits
from sealcast.errors import UsageError
from sealcast.pki.quantities import parse_duration, parse_rate, parse_size

__all__ = ["parse_address", "parse_duration", "parse_limits", "parse_rate", "parse_size"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where to listen."""

    host: str
    port: int
    """0: the system picks one."""

    def url(self, port: int) -> str:
        """The URL of a listener here."""
        return f"https://[{self.host}]:{port}" if ":" in self.host else f"https://{self.host}:{port}"


def parse_address(text: str) -> Address:
    """`HOST:PORT`, an IPv6 address in brackets.

    Raises:
        UsageError: nothing like it.
    """
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        host = ""
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise UsageError(
            f"not HOST:PORT: {text[:80]!r}", cure="write for example 192.0.2.7:8443 or [2001:db8::7]:8443"
        )
    return Address(host=host, port=int(port))


def parse_limits(words: Sequence[str]) -> Limits:
    """Limits of signatures in an hour from `device=5000` and the like; the others are the built-in ones.

    Raises:
        UsageError: not a kind, or not a number above zero.
    """
    limits = Limits()
    kinds = limits.by_kind()
    for word in words:
        kind, _, number = word.partition("=")
        if kind not in kinds or not (number.isascii() and number.isdigit() and 0 < int(number[:12]) < 10**9):
            raise UsageError(
                f"not a limit: {word[:80]!r}", cure=f"write KIND=N, with a kind of: {', '.join(kinds)}"
            )
        limits = replace(limits, **{kind.replace("-", "_"): int(number)})
    return limits
