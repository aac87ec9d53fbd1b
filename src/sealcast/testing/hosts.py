"""A process of a simulation: drives one engine as `sealcast.endpoint.session` does.

After every input a host takes all events and commands, then sleeps until the engine's next deadline.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from sealcast import _core
from sealcast._core import Message
from sealcast.endpoint.events import Event
from sealcast.pki.validator import Anchor
from sealcast.testing.chance import chance
from sealcast.testing.clock import SECOND, START, Timeline
from sealcast.testing.network import Network
from sealcast.testing.side_channel import SideChannel
from sealcast.testing.site import Site, SiteCertificate

Membership = tuple[int, int]
"""Generation and step, in the order in which they come."""

TAKE_ALL = 1_000_000
"""More events or datagrams than an engine ever has."""


@dataclass(slots=True)
class Sent:
    """A message as the application gave it."""

    time: int
    """Microseconds, when it was queued."""
    data: bytes
    topic: str | None


@dataclass(slots=True)
class StreamRecord:
    """What is true of a stream, whatever the network did: the oracles compare with this."""

    publisher: str
    instance: str
    stream_id: bytes
    started: int
    """Microseconds."""
    sent: list[Sent] = field(default_factory=list)
    """The place is the message id."""
    epochs: list[tuple[int, Membership]] = field(default_factory=list)
    """From when on what was sealed under; the first entry is at the join."""
    crashed: int | None = None
    """When the process died without a word, microseconds."""
    sealed: int | None = None
    """After a crash: how many of `sent` had left the queue."""

    @property
    def count(self) -> int:
        """Messages that were handed to the network, or will be."""
        return len(self.sent) if self.sealed is None else self.sealed

    def switched(self, membership: Membership) -> int | None:
        """When the publisher first sealed under `membership` or a later one; None: not yet."""
        return next((time for time, present in self.epochs if present >= membership), None)


@dataclass(frozen=True, slots=True)
class Delivered:
    """What a subscriber was given, and when."""

    time: int
    """Microseconds."""
    start: int
    """Which start of the subscriber, from 1."""
    item: Message | Event


@dataclass(slots=True)
class Surroundings:
    """What hosts share."""

    timeline: Timeline
    network: Network
    side_channel: SideChannel
    site: Site
    channel: str
    channel_id: bytes
    seed: int
    log: list[tuple[int, str, str]] = field(default_factory=list)
    streams: dict[bytes, StreamRecord] = field(default_factory=dict)


class Engine(Protocol):
    """What SendEngine and ReceiveEngine have in common."""

    def poll_events(self, limit: int) -> list[_core.Event]: ...
    def poll_commands(self) -> list[_core.Command]: ...
    def handle_response(self, id: int, status: int | None, body: bytes, now: int) -> None: ...
    def next_deadline(self) -> int | None: ...
    def set_wall(self, now: int, wall: int) -> None: ...
    def signed_time(self) -> int: ...
    def set_trust(self, anchors: Sequence[_core.Anchor], issuers: Sequence[bytes], now: int) -> None: ...


class Host(ABC):
    """One process on one device."""

    def __init__(self, around: Surroundings, identity: SiteCertificate, label: str, skew: int) -> None:
        self.identity = identity
        """The device's present certificate and key."""
        self.skew = skew
        """What the device's clock is ahead of time, in microseconds; negative: behind."""
        self.wall_ahead = 0
        """What the device's wall clock is ahead of its steady one, in microseconds (`set_clock`)."""
        self.drift_ppm = 0
        """By how many microseconds a second the wall clock gains besides."""
        self.signed_time = 0
        """The latest signed time, which the device keeps over restarts (TR-27)."""
        self.starts = 0
        """How often the process has been started."""
        self.events: list[Event] = []
        """Everything but messages, of all starts."""
        self.key_answers: list[bytes] = []
        """Bodies of all join and keys replies: whatever the device could have kept."""
        self._around = around
        self._label = label
        self._random = chance(label, around.seed)
        self._is_scheduled = False
        self._timer: int | None = None

    @property
    def name(self) -> str:
        """Device name."""
        return self.identity.name

    @property
    def now(self) -> int:
        """The device's steady clock, microseconds."""
        return self._around.timeline.now + self.skew

    @property
    def wall(self) -> int:
        """What the device's wall clock says, microseconds; never before 1970."""
        gained = (self._around.timeline.now - START) * self.drift_ppm // SECOND
        return max(self.now + self.wall_ahead + gained, 0)

    def set_clock(self, ahead: int) -> None:
        """Set the wall clock `ahead` microseconds before true time; negative: behind it."""
        self.wall_ahead = ahead
        self.touch()

    def trust(self, anchors: Sequence[Anchor], issuers: Sequence[bytes]) -> None:
        """Go on with the anchors and site CAs (DER) of a new trust bundle, as a process notices it."""
        if self._running is not None:
            self._running.set_trust(anchors, issuers, self.now)
            self.touch()

    def _tell_wall(self, engine: Engine) -> None:
        engine.set_wall(self.now, self.wall)

    @property
    @abstractmethod
    def is_up(self) -> bool:
        """Whether the process runs."""

    @property
    def _running(self) -> Engine | None:
        raise NotImplementedError

    def touch(self) -> None:
        """Let the host look at its engine, in this moment, after what else happens in it."""
        if not self._is_scheduled:
            self._is_scheduled = True
            self._around.timeline.at(self._around.timeline.now, self._work)

    def _work(self) -> None:
        self._is_scheduled = False
        engine = self._running
        if engine is None:
            return
        self._tell_wall(engine)
        self._feed()
        for command in engine.poll_commands():
            self._ask(engine, command)
        deadline = engine.next_deadline()
        if deadline is not None and deadline != self._timer:
            self._timer = deadline
            self._around.timeline.at(deadline - self.skew, lambda: self._due(deadline))

    @abstractmethod
    def _feed(self) -> None:
        """Give the engine what waits, and take its events."""

    def _due(self, deadline: int) -> None:
        if self._timer == deadline:
            self._timer = None
            self.touch()

    def _ask(self, engine: Engine, command: _core.Command) -> None:
        start = self.starts
        self._write(f"asks {command.method} {command.path}")

        def respond(status: int | None, body: bytes) -> None:
            if start != self.starts or self._running is not engine:
                return
            self._write(f"is answered {command.method} {command.path} {status} {len(body)}")
            if status == 200 and command.path.endswith(("/join", "/keys")):
                self.key_answers.append(body)
            self._tell_wall(engine)
            engine.handle_response(command.id, status, body, self.now)
            self.signed_time = max(self.signed_time, engine.signed_time())
            self.touch()

        self._around.side_channel.exchange(self.name, self.identity.certificate, command, respond)

    def _tell(self, event: Event) -> None:
        self.events.append(event)
        self._write(repr(event))

    def _write(self, text: str) -> None:
        self._around.log.append((self._around.timeline.now, self._label, text))
