"""Parity (FEC) as an operator writes it, for a channel or for one publisher, and back.

Spec: spec/wire.md DP-37; spec/trust.md TR-13.
"""

import re
from typing import Literal

from sealcast.errors import UsageError

MAX_SOURCES, MAX_PARITIES = 64, 16
"""Data and parity packets of an FEC group."""

MAX_PERCENT = 200
"""Beyond it, sending everything once more is as good."""

Fec = tuple[int, int] | Literal["auto", "off"]
"""Data and parity packets of a group; as many as reported losses ask for; or none."""


def parse_fec(text: str) -> Fec:
    """Read `8+2`, `25%`, `auto` or `off`. Raises: UsageError."""
    match text:
        case "auto" | "off":
            return text
    if match := re.fullmatch(r"([0-9]{1,3})\+([0-9]{1,3})", text):
        sources, parities = int(match[1]), int(match[2])
        if is_ratio(sources, parities):
            return sources, parities
    elif (match := re.fullmatch(r"([0-9]{1,3})%", text)) and 1 <= int(match[1]) <= MAX_PERCENT:
        # Large groups stand more losses than small ones of the same ratio.
        sources = min(MAX_SOURCES, MAX_PARITIES * 100 // int(match[1]))
        return sources, -(-sources * int(match[1]) // 100)
    raise UsageError(
        f"fec is {text[:80]!r}",
        cure=f"use K+M with K up to {MAX_SOURCES} and M up to {MAX_PARITIES}, as 8+2; a share of "
        f"1% to {MAX_PERCENT}%; auto; or off",
    )


def format_fec(fec: Fec) -> str:
    """The one text that a channel's settings have for it."""
    return fec if isinstance(fec, str) else f"{fec[0]}+{fec[1]}"


def is_ratio(sources: int, parities: int) -> bool:
    """Whether a group may have so many data and parity packets."""
    return 1 <= sources <= MAX_SOURCES and 1 <= parities <= MAX_PARITIES
