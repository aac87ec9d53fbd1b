"""A multicast network in virtual time: what happens to each datagram on its way to each receiver.

All chance comes from a seed, one generator for each link, so that a change on one link leaves the others as
they are.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from sealcast.testing.chance import chance
from sealcast.testing.clock import Timeline
from sealcast.testing.impairment import NO_FAULTS, Counters, Faults, Impairment


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
    impairment: Impairment


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
        self.counters = Counters()
        """What the network did, all links together."""

    def attach(self, name: str, receive: Receive, faults: Faults = NO_FAULTS) -> None:
        """Let `receive` have what others send; a second call for a name keeps its faults and its chance."""
        if name in self._links:
            self._links[name].receive = receive
        else:
            draw = chance(f"link to {name}", self._seed)
            self._links[name] = _Link(receive, Impairment(draw, faults, self.counters))

    def set_faults(self, faults: Faults, names: Iterable[str] | None = None) -> None:
        """Let the links to `names`, or all of them, behave so from now on."""
        for name in self._links if names is None else names:
            self._links[name].impairment.faults = faults

    def faults(self, name: str) -> Faults:
        """How the link to `name` behaves."""
        return self._links[name].impairment.faults

    def partition(self, names: Iterable[str]) -> Callable[[], None]:
        """Cut `names` off from all others, though not from each other; call what it returns to mend that."""
        cut = _Cut(frozenset(names))
        self._cuts.append(cut)
        return lambda: self._mend(cut)

    def heal(self) -> None:
        """End every partition and every fault; delays stay."""
        self._cuts.clear()
        for link in self._links.values():
            impairment = link.impairment
            impairment.faults = replace(NO_FAULTS, delay=impairment.faults.delay)
            impairment.recover()

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
        now = self._timeline.now
        arrivals: dict[int, list[bytes]] = {}
        for datagram in datagrams:
            for at, arrived in link.impairment.carry(datagram, now):
                arrivals.setdefault(at, []).append(arrived)
        for at, batch in arrivals.items():
            self._arrive(link, at, batch)

    def _arrive(self, link: _Link, at: int, batch: list[bytes]) -> None:
        # The link is looked at on arrival: a host that restarted receives with its new engine.
        self._timeline.at(at, lambda: link.receive(batch))

    def _mend(self, cut: _Cut) -> None:
        if cut in self._cuts:
            self._cuts.remove(cut)
