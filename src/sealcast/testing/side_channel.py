"""The side channel in virtual time: requests take time, fail, and stop at partitions.

It carries bodies; who answers decides what is in them. Connections behave like TCP: what a partition holds
up is tried again until the request's own time-out, and arrives after the partition has ended.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sealcast import _core
from sealcast.testing.chance import chance
from sealcast.testing.clock import SECOND, Timeline
from sealcast.testing.impairment import MILLISECOND
from sealcast.testing.network import Network

Respond = Callable[[int | None, bytes], None]
"""Takes status and body; no status: nobody could be reached."""

Serve = Callable[[str, bytes, str, str, bytes, Respond], None]
"""Takes device, its certificate (DER), method, path, body, and whom to answer."""

KEY_SERVER = "keys"
"""The name that the key server has in partitions."""

_FIRST_RETRY = SECOND // 5
_LAST_RETRY = 3 * SECOND


@dataclass(frozen=True, slots=True, kw_only=True)
class SideChannelFaults:
    """How requests fare. Chances are 0.0 to 1.0, times microseconds."""

    delay: int = 5 * MILLISECOND
    """One way."""
    jitter: int = 0
    """What one way takes more, at most."""
    failure: float = 0.0
    """Chance that a connection breaks before the request is served."""
    lost_answer: float = 0.0
    """Chance that it breaks after that: what was asked has been done, and the asker does not know."""


@dataclass(slots=True)
class _Request:
    device: str
    certificate: bytes
    command: _core.Command
    respond: Respond
    is_over: bool = False

    def finish(self, status: int | None, body: bytes) -> None:
        if not self.is_over:
            self.is_over = True
            self.respond(status, body)


class SideChannel:
    """Carries the engines' commands to the key server and to peers."""

    def __init__(self, timeline: Timeline, network: Network, seed: int) -> None:
        """Stop at the partitions of `network`; draw from `seed`."""
        self.faults = SideChannelFaults()
        self._timeline = timeline
        self._network = network
        self._random = chance("side channel", seed)
        self._key_server: Serve | None = None
        self._peers: dict[tuple[str, int], tuple[str, Serve]] = {}

    def serve_keys(self, serve: Serve) -> None:
        """Let `serve` answer what is asked of the key server."""
        self._key_server = serve

    def listen(self, host: str, port: int, device: str, serve: Serve) -> None:
        """Let `serve` of `device` answer at an address."""
        self._peers[host, port] = (device, serve)

    def close(self, host: str, port: int) -> None:
        """Nobody listens at an address any more."""
        self._peers.pop((host, port), None)

    def exchange(self, device: str, certificate: bytes, command: _core.Command, respond: Respond) -> None:
        """Carry out a command of `device`; `respond` is called once, at the latest at its time-out."""
        request = _Request(device, certificate, command, respond)
        self._timeline.after(command.timeout, lambda: request.finish(None, b""))
        self._try(request, 0, _FIRST_RETRY)

    def _try(self, request: _Request, index: int, retry: int) -> None:
        """Ask the peer with this index, then those after it; the key server is the only one of its list."""
        if request.is_over:
            return
        peers = request.command.peers
        if index >= (1 if peers is None else len(peers)):
            request.finish(None, b"")
            return
        target = KEY_SERVER if peers is None else peers[index][1]
        if self._network.is_cut(request.device, target):
            self._timeline.after(retry, lambda: self._try(request, index, min(2 * retry, _LAST_RETRY)))
            return
        self._timeline.after(self._delay(), lambda: self._arrive(request, index))

    def _arrive(self, request: _Request, index: int) -> None:
        command = request.command
        serve = self._server_of(command, index)
        if request.is_over:
            return
        if serve is None or self._happens(self.faults.failure):
            self._timeline.after(self._delay(), lambda: self._try(request, index + 1, _FIRST_RETRY))
            return

        def reply(status: int | None, body: bytes) -> None:
            lost = self._happens(self.faults.lost_answer)
            self._answer(request, index, None if lost else status, body, _FIRST_RETRY)

        serve(request.device, request.certificate, command.method, command.path, command.body, reply)

    def _answer(self, request: _Request, index: int, status: int | None, body: bytes, retry: int) -> None:
        peers = request.command.peers
        target = KEY_SERVER if peers is None else peers[index][1]
        if request.is_over:
            return
        if self._network.is_cut(request.device, target):
            self._timeline.after(
                retry, lambda: self._answer(request, index, status, body, min(2 * retry, _LAST_RETRY))
            )
            return

        def arrive() -> None:
            is_last = peers is None or index + 1 == len(peers)
            if status is None or (status != 200 and not is_last):
                self._try(request, index + 1, _FIRST_RETRY)
            else:
                request.finish(status, body)

        self._timeline.after(self._delay(), arrive)

    def _server_of(self, command: _core.Command, index: int) -> Serve | None:
        if command.peers is None:
            return self._key_server
        _, device, host, port = command.peers[index]
        found = self._peers.get((host, port))
        # TLS proves the device; another one at that address is no peer to ask.
        return found[1] if found is not None and found[0] == device else None

    def _delay(self) -> int:
        jitter = self.faults.jitter
        return self.faults.delay + (self._random.randrange(jitter) if jitter else 0)

    def _happens(self, chance: float) -> bool:
        return bool(chance) and self._random.random() < chance
