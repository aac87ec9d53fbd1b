"""The clear part of a datagram, read by hand from the table in spec/wire.md section 2."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from tests.e2e.processes import wait_until
from tests.e2e.site import Channel, listen

DATA, CREDENTIAL = 1, 4


@dataclass(frozen=True, slots=True)
class Datagram:
    """One datagram as anybody on the network can see it."""

    content: bytes

    @property
    def type(self) -> int:
        return self.content[5]

    @property
    def stream_id(self) -> bytes:
        return self.content[6:22]

    @property
    def epoch(self) -> bytes:
        return self.content[22:30]

    @property
    def slot(self) -> int:
        return int.from_bytes(self.content[22:25], "big")

    @property
    def generation(self) -> int:
        return int.from_bytes(self.content[26:30], "big")

    @property
    def block_id(self) -> bytes:
        return self.content[30:46]

    @property
    def index(self) -> int:
        return self.content[54]

    @property
    def body(self) -> bytes:
        """What is sealed: without the path, the signature and the gate tag."""
        index, width, depth = self.content[54], self.content[55], 0
        while width > 1:
            depth += index % 2 or index + 1 < width
            index, width = index // 2, (width + 1) // 2
        return self.content[64 : len(self.content) - 16 * depth - 72]


class Recording:
    """Everything that is sent to a channel's group while the block lasts."""

    def __init__(self, channel: Channel) -> None:
        self.datagrams: list[Datagram] = []
        self._socket = listen(channel)
        self._socket.settimeout(0.1)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._listen)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._socket.close()

    def wait_for(self, count: int, of_type: int = DATA) -> None:
        """Wait for that many more datagrams of a type."""
        before = len(self.datagrams)

        def is_enough() -> bool:
            return sum(datagram.type == of_type for datagram in self.datagrams[before:]) >= count

        wait_until(is_enough, f"{count} more datagrams")

    def take(self, datagram: Datagram) -> None:
        """What becomes of each, in a thread of its own."""
        self.datagrams.append(datagram)

    def _listen(self) -> None:
        while not self._stop.is_set():
            try:
                content = self._socket.recv(65_536)
            except TimeoutError:
                continue
            self.take(Datagram(content))
