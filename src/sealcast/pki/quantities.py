"""Amounts and durations as an operator writes them, and back."""

import re

from sealcast.errors import UsageError

_UNITS_OF_TIME = {
    "us": 1,
    "ms": 1_000,
    "s": 1_000_000,
    "m": 60_000_000,
    "h": 3_600_000_000,
    "d": 86_400_000_000,
}
_PREFIXES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9}
_BINARY = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30}

MAX_DURATION = 3650 * 86_400_000_000
"""Microseconds. Sums of a few of them, and of times, fit the database's and the wire's 63 bits."""

MAX_AMOUNT = 10**15
"""Bytes: more than any machine has."""

MIN_RATE = 64_000
"""Bits a second. A silent publisher's heartbeats and credentials alone are about 13,000."""

MAX_RATE = 100 * 10**9
"""Bits a second: more than any sender here reaches."""

_AMOUNT = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,18})?) ?([a-zA-Z/]*)")
_RATE_UNIT = re.compile(r"([kmg]?)(?:bit/s|bits/s|bps|bit|b)?")
_SIZE_UNIT = re.compile(r"([kmg]?)(?:i?b)?")


def parse_duration(text: str, *, may_be_zero: bool = False) -> int:
    """Microseconds of `90s`, `1h`, `1.5h`, `500ms`, `2d`; a bare number is seconds.

    Raises:
        UsageError: nothing like it, not above zero (unless it may be zero), or more than ten years.
    """
    least = 0 if may_be_zero else 1
    found = _AMOUNT.fullmatch(text.strip())
    if found is not None:
        unit = _UNITS_OF_TIME.get(found[2].lower() or "s")
        if unit is not None and least <= (amount := round(float(found[1]) * unit)) <= MAX_DURATION:
            return amount
    raise UsageError(
        f"not a duration: {text[:40]!r}", cure="write for example 30s, 5m, 1h or 2d; 10 years at most"
    )


def parse_rate(text: str) -> int:
    """Bits a second of `20Mbit/s`, `500k`, `1G`, `250000`; decimal prefixes.

    Raises:
        UsageError: nothing like it, or not from 64 kbit/s to 100 Gbit/s.
    """
    rate = _amount(text, _RATE_UNIT, _PREFIXES, "rate", "write for example 20Mbit/s or 500k")
    if not MIN_RATE <= rate <= MAX_RATE:
        raise UsageError(
            f"the rate {text[:40]!r} is out of range",
            cure=f"use {format_rate(MIN_RATE)} to {format_rate(MAX_RATE)}",
        )
    return rate


def parse_size(text: str) -> int:
    """Bytes of `256M`, `64KiB`, `1G`; binary prefixes.

    Raises:
        UsageError: nothing like it, or not above zero.
    """
    return _amount(text, _SIZE_UNIT, _BINARY, "size", "write for example 256M")


def format_duration(microseconds: int) -> str:
    """The shortest text that `parse_duration` reads as exactly this; for example `90s`, `1h`, `500ms`."""
    return _shortest(microseconds, _UNITS_OF_TIME)


def format_rate(rate: int) -> str:
    """The shortest text that `parse_rate` reads as exactly this; for example `20Mbit/s`."""
    return _shortest(rate, {"": 1, "k": 10**3, "M": 10**6, "G": 10**9}) + "bit/s"


def format_size(size: int) -> str:
    """The shortest text that `parse_size` reads as exactly this; for example `256M`."""
    return _shortest(size, {name.upper(): unit for name, unit in _BINARY.items()})


def _shortest(amount: int, units: dict[str, int]) -> str:
    name, unit = max(
        ((name, unit) for name, unit in units.items() if amount % unit == 0), key=lambda named: named[1]
    )
    return f"{amount // unit}{name}"


def _amount(text: str, units: re.Pattern[str], prefixes: dict[str, int], what: str, cure: str) -> int:
    found = _AMOUNT.fullmatch(text.strip())
    if found is not None:
        unit = units.fullmatch(found[2].lower())
        if unit is not None and 0 < (amount := round(float(found[1]) * prefixes[unit[1]])) <= MAX_AMOUNT:
            return amount
    raise UsageError(f"not a {what}: {text[:40]!r}", cure=cure)
