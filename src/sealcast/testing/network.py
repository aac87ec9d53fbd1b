"""A multicast network in virtual time: what happens to each datagram on its way to each receiver.

All chance comes from a seed, one generator for each link, so that a change on one link leaves the others as
they are.
"""

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from sealcast.testing.chance import chance
from sealcast.testing.clock import Timeline

MILLISECOND = 1_000
"""Microseconds."""


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
    duplicate: float = 0.0
    """Chance that a datagram comes twice, the second time up to `reorder_delay` later."""
    corruption: float = 0.0
    """Chance that one to three bits flip."""


NO_FAULTS = Faults()


@dataclass(frozen=True, slots=True)
class Sighting:
    """A datagram as it left its sender, seen by the tap."""

    time: int
    """Microseconds."""
    sender: str
    datagram: bytes


Receive = Callable[[list[bytes]], None]


@dataclass(slots=True)
class _Link:
    receive: Receive
    random: random.Random
    faults: Faults
    is_bad: bool = False


@dataclass(slots=True)
class NetworkCounters:
    """What the network did, all links together."""

    sent: int = 0
    """Datagrams given to the network, once for each link."""
    lost: int = 0
    duplicated: int = 0
    corrupted: int = 0
    held_up: int = 0


class _Cut:
    """A partition; told from another one of the same hosts by its identity."""

    def __init__(self, names: frozenset[str]) -> None:
        self.names = names


class Network:
    """One multicast group: what one sends, all others receive, as their links let it.

    network = Network(timeline, seed=3)
    network.attach("bed12", receive, Faults(loss=0.05))
    network.send("monitor", [datagram])
    """

    def __init__(self, timeline: Timeline, seed: int) -> None:
        """Deliver by `timeline`; draw from `seed`."""
        self._timeline = timeline
        self._seed = seed
        self._links: dict[str, _Link] = {}
        self._cuts: list[_Cut] = []
        self.tap: list[Sighting] = []
        """Every datagram that was sent, for replay and for oracles."""
        self.counters = NetworkCounters()

    def attach(self, name: str, receive: Receive, faults: Faults = NO_FAULTS) -> None:
        """Let `receive` have what others send; a second call for a name keeps its faults and its chance."""
        if name in self._links:
            self._links[name].receive = receive
        else:
            self._links[name] = _Link(receive, chance(f"link to {name}", self._seed), faults)

    def set_faults(self, faults: Faults, names: Iterable[str] | None = None) -> None:
        """Let the links to `names`, or all of them, behave so from now on."""
        for name in self._links if names is None else names:
            self._links[name].faults = faults

    def faults(self, name: str) -> Faults:
        """How the link to `name` behaves."""
        return self._links[name].faults

    def partition(self, names: Iterable[str]) -> Callable[[], None]:
        """Cut `names` off from all others, though not from each other; call what it returns to mend that."""
        cut = _Cut(frozenset(names))
        self._cuts.append(cut)
        return lambda: self._mend(cut)

    def heal(self) -> None:
        """End every partition and every fault; delays stay."""
        self._cuts.clear()
        for link in self._links.values():
            link.faults = replace(NO_FAULTS, delay=link.faults.delay)
            link.is_bad = False

    def is_cut(self, one: str, other: str) -> bool:
        """Whether nothing passes between two hosts."""
        return any((one in cut.names) != (other in cut.names) for cut in self._cuts)

    def send(self, sender: str, datagrams: list[bytes]) -> None:
        """Multicast datagrams, in order."""
        now = self._timeline.now
        self.tap.extend(Sighting(now, sender, datagram) for datagram in datagrams)
        for name, link in self._links.items():
            if name != sender and not self.is_cut(sender, name):
                self._carry(link, datagrams)

    def inject(self, datagrams: list[bytes], to: Iterable[str] | None = None) -> None:
        """Multicast datagrams of an attacker, past faults and partitions, to `to` or to all; not tapped."""
        for name in list(self._links) if to is None else to:
            self._arrive(self._links[name], self._timeline.now, list(datagrams))

    def _carry(self, link: _Link, datagrams: list[bytes]) -> None:
        faults, draw, now = link.faults, link.random, self._timeline.now
        counters = self.counters
        counters.sent += len(datagrams)
        arrivals: dict[int, list[bytes]] = {}
        for datagram in datagrams:
            if self._is_lost(link):
                counters.lost += 1
                continue
            at = now + faults.delay
            if faults.jitter:
                at += draw.randrange(faults.jitter)
            if faults.reorder and draw.random() < faults.reorder:
                counters.held_up += 1
                at += draw.randrange(1, faults.reorder_delay)
            if faults.corruption and draw.random() < faults.corruption:
                counters.corrupted += 1
                arrivals.setdefault(at, []).append(flip_bits(datagram, draw))
            else:
                arrivals.setdefault(at, []).append(datagram)
            if faults.duplicate and draw.random() < faults.duplicate:
                counters.duplicated += 1
                again = at + draw.randrange(faults.reorder_delay)
                arrivals.setdefault(again, []).append(datagram)
        for at, batch in arrivals.items():
            self._arrive(link, at, batch)

    def _arrive(self, link: _Link, at: int, batch: list[bytes]) -> None:
        # The link is looked at on arrival: a host that restarted receives with its new engine.
        self._timeline.at(at, lambda: link.receive(batch))

    @staticmethod
    def _is_lost(link: _Link) -> bool:
        faults, draw = link.faults, link.random
        burst = faults.burst
        if burst is not None:
            if link.is_bad:
                link.is_bad = draw.random() >= 1 / burst.mean_length
            else:
                link.is_bad = draw.random() < burst.begin
            if draw.random() < (burst.loss_when_bad if link.is_bad else burst.loss_when_good):
                return True
        return bool(faults.loss) and draw.random() < faults.loss

    def _mend(self, cut: _Cut) -> None:
        if cut in self._cuts:
            self._cuts.remove(cut)


def flip_bits(datagram: bytes, draw: random.Random) -> bytes:
    """Return `datagram` with one to three different bits flipped."""
    changed = bytearray(datagram)
    for bit in draw.sample(range(8 * len(changed)), draw.randint(1, 3)):
        changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)
