"""What a bad line does to datagrams: drawn from a seed, in virtual time and over real sockets alike."""

import random
from collections.abc import Callable
from dataclasses import dataclass

MILLISECOND = 1_000
"""Microseconds."""
IP_AND_UDP_BYTES = 28
"""Headers that an MTU counts and a datagram does not (IPv4)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BurstLoss:
    """Gilbert-Elliott: a link is in a good or in a bad state, and changes between them at each datagram."""

    begin: float
    """Chance that a bad state begins."""
    mean_length: float
    """Datagrams that a bad state lasts on average; at least 1."""
    loss_when_bad: float = 1.0
    loss_when_good: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """What a link does to datagrams. Chances are 0.0 to 1.0, times microseconds."""

    delay: int = MILLISECOND
    """What every datagram takes."""
    jitter: int = 0
    """What it takes more, at most."""
    loss: float = 0.0
    burst: BurstLoss | None = None
    reorder: float = 0.0
    """Chance that a datagram is held up, and overtaken by others."""
    reorder_delay: int = 50 * MILLISECOND
    """For how long it is held up, at most."""
    inversion: int = 0
    """Of so many in a row that come at once, the last arrives first; 0: none."""
    duplicate: float = 0.0
    """Chance that a datagram comes more than once, the others up to `reorder_delay` later."""
    copies: int = 1
    """How many come more then, at most; one at least."""
    corruption: float = 0.0
    """Chance that one to three bits flip."""
    mtu: int | None = None
    """Bytes of the largest IPv4 packet that passes; larger ones are lost. None: all pass."""
    drops: Callable[[int, bytes], bool] | None = None
    """Says of the n-th datagram of the link, from 1 on, whether it is lost."""


NO_FAULTS = Faults()


@dataclass(slots=True)
class Counters:
    """What was done to datagrams."""

    sent: int = 0
    """Datagrams given to a link, once for each link."""
    lost: int = 0
    duplicated: int = 0
    corrupted: int = 0
    held_up: int = 0


class Impairment:
    """One link: says of each datagram when it arrives, how often and how changed."""

    def __init__(self, draw: random.Random, faults: Faults, counters: Counters) -> None:
        """Take all chance from `draw`; count in `counters`, which links may share."""
        self.faults = faults
        self._draw = draw
        self._counters = counters
        self._number = 0
        self._is_bad = False

    def recover(self) -> None:
        """End what lasts from one datagram to the next."""
        self._is_bad = False

    def carry(self, datagram: bytes, now: int) -> list[tuple[int, bytes]]:
        """Return what arrives of a datagram that is sent now, each with its time; times in microseconds."""
        faults, draw, counters = self.faults, self._draw, self._counters
        self._number += 1
        counters.sent += 1
        if self._is_lost(datagram):
            counters.lost += 1
            return []
        at = now + faults.delay
        if faults.jitter:
            at += draw.randrange(faults.jitter)
        if faults.reorder and draw.random() < faults.reorder:
            counters.held_up += 1
            at += draw.randrange(1, faults.reorder_delay)
        if faults.inversion:
            at += MILLISECOND * (faults.inversion - 1 - (self._number - 1) % faults.inversion)
        if faults.corruption and draw.random() < faults.corruption:
            counters.corrupted += 1
            arrivals = [(at, flip_bits(datagram, draw))]
        else:
            arrivals = [(at, datagram)]
        if faults.duplicate and draw.random() < faults.duplicate:
            counters.duplicated += 1
            more = 1 if faults.copies == 1 else draw.randint(1, faults.copies)
            arrivals += [(at + draw.randrange(faults.reorder_delay), datagram) for _ in range(more)]
        return arrivals

    def _is_lost(self, datagram: bytes) -> bool:
        faults, draw = self.faults, self._draw
        if faults.mtu is not None and len(datagram) + IP_AND_UDP_BYTES > faults.mtu:
            return True
        if faults.drops is not None and faults.drops(self._number, datagram):
            return True
        burst = faults.burst
        if burst is not None:
            if self._is_bad:
                self._is_bad = draw.random() >= 1 / burst.mean_length
            else:
                self._is_bad = draw.random() < burst.begin
            if draw.random() < (burst.loss_when_bad if self._is_bad else burst.loss_when_good):
                return True
        return bool(faults.loss) and draw.random() < faults.loss


def flip_bits(datagram: bytes, draw: random.Random) -> bytes:
    """Return `datagram` with one to three different bits flipped."""
    changed = bytearray(datagram)
    for bit in draw.sample(range(8 * len(changed)), draw.randint(1, 3)):
        changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)
