"""A process: a switch between the publisher's groups and one group for each subscriber, that drops packets.

It knows no key and no packet format: a datagram is bytes of some length. Nothing of Sealcast is imported; it
runs under `python -I -S`, where nothing but the standard library could be. What a subscriber loses is drawn
from a generator of its own, seeded with the run's seed, the link's name and the subscriber's name.

    standard input    one JSON object: {"seed", "loss", "interface", "links": {name: {"from": [group, port],
                      "to": {subscriber: [group, port]}}}}; then a line for each report wanted
    standard output   {"ready": true}, then the counters, one JSON object a line; the last at the end
"""

import json
import os
import random
import select
import signal
import socket
import struct
import sys

LARGEST_DATAGRAM = 65_535
AT_ONCE = 256
"""Datagrams from one link before the others get their turn."""
RECEIVE_BUFFER_BYTES = 4 << 20

_SO_MEMINFO = 55
_MEMINFO_DROPS = 8


class Link:
    """From one group to a group for each subscriber."""

    def __init__(
        self,
        name: str,
        source: tuple[str, int],
        targets: dict[str, tuple[str, int]],
        *,
        interface: str,
        loss: float,
        seed: int,
    ) -> None:
        self.received = 0
        self._loss = loss
        self._in = _listen(source, interface)
        self._out = _sender(interface)
        self._targets = [
            _Target(subscriber, address, random.Random(f"{seed}/{name}/{subscriber}"))  # noqa: S311 - no secret
            for subscriber, address in targets.items()
        ]

    def fileno(self) -> int:
        """For select."""
        return self._in.fileno()

    def forward(self) -> None:
        """Carry what is there."""
        for _ in range(AT_ONCE):
            try:
                datagram = self._in.recv(LARGEST_DATAGRAM)
            except BlockingIOError:
                return
            self.received += 1
            for target in self._targets:
                if target.random.random() < self._loss:
                    target.dropped += 1
                    continue
                self._out.sendto(datagram, target.address)
                target.forwarded += 1

    def report(self) -> dict[str, object]:
        """The counters."""
        return {
            "received": self.received,
            "overrun": _overrun(self._in),
            "subscribers": {
                target.name: {"forwarded": target.forwarded, "dropped": target.dropped}
                for target in self._targets
            },
        }


class _Target:
    def __init__(self, name: str, address: tuple[str, int], generator: random.Random) -> None:
        self.name = name
        self.address = address
        self.random = generator
        self.forwarded = 0
        self.dropped = 0


def _listen(group: tuple[str, int], interface: str) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
    listener.bind(group)
    membership = socket.inet_aton(group[0]) + socket.inet_aton(interface)
    listener.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)
    listener.setblocking(False)
    return listener


def _sender(interface: str) -> socket.socket:
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(interface))
    sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 1)
    return sender


def _overrun(listener: socket.socket) -> int | None:
    """What the system dropped before the switch saw it; None where it does not tell."""
    if not sys.platform.startswith("linux"):
        return None
    counters = listener.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, 4 * (_MEMINFO_DROPS + 1))
    return int(struct.unpack_from("=I", counters, 4 * _MEMINFO_DROPS)[0])


def main() -> None:
    """Forward until standard input ends, or SIGTERM."""
    control = sys.stdin.fileno()
    settings = json.loads(_first_line(control))
    links = {
        name: Link(
            name,
            (link["from"][0], link["from"][1]),
            {subscriber: (address[0], address[1]) for subscriber, address in link["to"].items()},
            interface=settings["interface"],
            loss=settings["loss"],
            seed=settings["seed"],
        )
        for name, link in settings["links"].items()
    }
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(0))
    say({"ready": True})
    running = True
    while running:
        readable, _, _ = select.select([control, *links.values()], [], [])
        for source in readable:
            if isinstance(source, Link):
                source.forward()
            else:
                running = bool(os.read(control, 4096))
                say({name: link.report() for name, link in links.items()})


def _first_line(descriptor: int) -> bytes:
    """Read a line, and nothing of what comes after it, which select has to see."""
    line = b""
    while not line.endswith(b"\n") and (byte := os.read(descriptor, 1)):
        line += byte
    return line


def say(value: dict[str, object]) -> None:
    """Write one line of JSON."""
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
