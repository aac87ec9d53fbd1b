"""A switch of real sockets between a group and those who listen: what passes is impaired, from a seed.

It knows no packet format and no key. Publishers send to its entrance, each subscriber listens at an exit of
its own (`RoutingOverrides`: `send_to`, `listen`).
"""

from __future__ import annotations

import heapq
import random
import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Self

from sealcast.testing.chance import chance
from sealcast.testing.impairment import Counters, Faults, Impairment

Address = tuple[str, int]

CLEAN = Faults(delay=0)
"""A line that does nothing; over real sockets the time on the way is real, too."""

_LARGEST_DATAGRAM = 65_535
_RECEIVE_BUFFER_BYTES = 8 << 20
_LOOK_SECONDS = 0.05


class Exit:
    """The line to one receiver."""

    def __init__(self, address: Address, draw: random.Random, faults: Faults) -> None:
        """Lead to `address`."""
        self.address = address
        self.counters = Counters()
        self.impairment = Impairment(draw, faults, self.counters)
        self.is_cut = False


class Switch:
    """Carries what is sent to one group to each exit, while the block lasts.

    with Switch(("239.1.2.3", 7000), {"bed12": ("127.0.0.1", 7001)}, seed=5, faults=Faults(loss=0.1)):
        ...
    """

    def __init__(
        self,
        entrance: Address,
        exits: Mapping[str, Address],
        *,
        seed: int,
        faults: Faults = CLEAN,
        shared: Faults = CLEAN,
        interface: str = "127.0.0.1",
    ) -> None:
        """Prepare; nothing is carried before the block is entered.

        Args:
            entrance: group and port that publishers send to.
            exits: where each receiver listens.
            seed: of all chance, one generator for each line, so that none disturbs another.
            faults: of the line to each receiver.
            shared: of the line to the switch: what is lost there is lost for all.
            interface: address of the interface that the groups are on.
        """
        self.counters = Counters()
        """What happened before the fan-out."""
        self._shared = Impairment(chance("line to the switch", seed), shared, self.counters)
        self.exits = {
            name: Exit(address, chance(f"line to {name}", seed), faults) for name, address in exits.items()
        }
        self._in = _listen(entrance, interface)
        self._out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._out.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(interface))
        self._lock = threading.Lock()
        # What is on its way: when it arrives, a number that keeps the order, what carries it on.
        self._waiting: list[tuple[int, int, Callable[[], None]]] = []
        self._number = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="switch")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._in.close()
        self._out.close()

    def set_faults(self, faults: Faults, names: Iterable[str] | None = None) -> None:
        """Let the lines to `names`, or all of them, behave so from now on."""
        with self._lock:
            for name in self.exits if names is None else names:
                self.exits[name].impairment.faults = faults

    def cut(self, names: Iterable[str] | None = None) -> None:
        """Let nothing through to `names`, or to all, until `heal`."""
        self._set_cut(names, is_cut=True)

    def heal(self, names: Iterable[str] | None = None) -> None:
        """End what `cut` began."""
        self._set_cut(names, is_cut=False)

    def _set_cut(self, names: Iterable[str] | None, *, is_cut: bool) -> None:
        with self._lock:
            for name in self.exits if names is None else names:
                self.exits[name].is_cut = is_cut

    def _run(self) -> None:
        while not self._stop.is_set():
            now = time.monotonic_ns() // 1000
            with self._lock:
                while self._waiting and self._waiting[0][0] <= now:
                    heapq.heappop(self._waiting)[2]()
                wait = (self._waiting[0][0] - now) / 1e6 if self._waiting else _LOOK_SECONDS
            self._in.settimeout(max(min(wait, _LOOK_SECONDS), 1e-5))
            try:
                datagram = self._in.recv(_LARGEST_DATAGRAM)
            except TimeoutError:
                continue
            with self._lock:
                self._take(datagram, time.monotonic_ns() // 1000)

    def _take(self, datagram: bytes, now: int) -> None:
        for at, arrived in self._shared.carry(datagram, now):
            self._at(at, now, lambda at=at, arrived=arrived: self._fan_out(arrived, at))  # type: ignore[misc]

    def _fan_out(self, datagram: bytes, now: int) -> None:
        for line in self.exits.values():
            if line.is_cut:
                line.counters.sent += 1
                line.counters.lost += 1
                continue
            for at, arrived in line.impairment.carry(datagram, now):
                self._at(at, now, lambda line=line, arrived=arrived: self._deliver(line, arrived))  # type: ignore[misc]

    def _deliver(self, line: Exit, datagram: bytes) -> None:
        self._out.sendto(datagram, line.address)

    def _at(self, at: int, now: int, what: Callable[[], None]) -> None:
        if at <= now:
            what()
            return
        self._number += 1
        heapq.heappush(self._waiting, (at, self._number, what))


def _listen(group: Address, interface: str) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER_BYTES)
    listener.bind(group)
    membership = socket.inet_aton(group[0]) + socket.inet_aton(interface)
    listener.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)
    return listener
