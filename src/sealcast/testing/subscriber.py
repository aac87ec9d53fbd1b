"""The subscribers of a simulation: what `sealcast.endpoint.Subscriber` does, without I/O."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from sealcast import _core
from sealcast._core import Message
from sealcast.endpoint.events import Joined, parse_event
from sealcast.endpoint.subscriber import Delivery, Path, Start
from sealcast.testing.hosts import TAKE_ALL, Delivered, Engine, Host, Membership, Surroundings
from sealcast.testing.site import SiteCertificate


class SimulatedSubscriber(Host):
    """A subscriber, with everything that its application was given."""

    _keep: tuple[int, int] | None = None
    """Bytes and microseconds for which packets are kept, by a repair node."""

    def __init__(
        self,
        around: Surroundings,
        identity: SiteCertificate,
        *,
        delivery: Delivery = "reliable",
        deadline: int | None = None,
        start: Start = "now",
        skew: int = 0,
        max_message_bytes: int = 16 << 20,
        buffer_bytes: int = 64 << 20,
        window_packets: int = 65_536,
        path: Path = "multicast",
    ) -> None:
        """Prepare; `start` starts. `deadline`: of `realtime`, microseconds."""
        super().__init__(around, identity, f"subscriber {identity.name}", skew)
        self.delivery = delivery
        self.messages: list[Message] = []
        """Of all starts, in order of delivery."""
        self.history: list[Delivered] = []
        """Messages and events of all starts, in order."""
        self.joins: list[tuple[int, int, Membership]] = []
        """Of each admission: the start, the time in microseconds, and generation and step."""
        self.refusals: Counter[str] = Counter()
        """Why datagrams were refused."""
        self.is_reading = True
        """Whether the application takes what comes."""
        self._deadline, self._from = deadline, start
        self.path = path
        self._limits = (max_message_bytes, buffer_bytes, window_packets)
        self._engine: _core.ReceiveEngine | None = None
        self._inbox: list[bytes] = []

    @property
    def is_up(self) -> bool:
        """Whether the process runs."""
        return self._engine is not None

    @property
    def _running(self) -> Engine | None:
        return self._engine

    @property
    def engine(self) -> _core.ReceiveEngine:
        """The engine of this start."""
        if self._engine is None:
            raise RuntimeError(f"subscriber {self.name} is not running")
        return self._engine

    @property
    def is_from_start(self) -> bool:
        """Whether it wants everything since its admission."""
        return self._from == "start"

    @property
    def has_joined(self) -> bool:
        """Whether this start has been admitted."""
        return bool(self.joins) and self.joins[-1][0] == self.starts

    def start(self) -> None:
        """Start the process; it knows nothing of an earlier one."""
        around = self._around
        self.starts += 1
        self._timer = None
        self._inbox.clear()
        max_message_bytes, buffer_bytes, window_packets = self._limits
        self._engine = _core.ReceiveEngine(
            site_id=around.site.site_id,
            channel=around.channel,
            device_site_id=around.site.site_id,
            device=self.name,
            anchors=[around.site.root],
            issuers=[around.site.ca],
            signed_time=self.signed_time,
            now=self.now,
            jitter_seed=self._random.getrandbits(64),
            delivery=self.delivery,
            deadline=self._deadline,
            start=self._from,
            max_message_bytes=max_message_bytes,
            buffer_bytes=buffer_bytes,
            window_packets=window_packets,
            keep=self._keep,
            side_channel=self.path == "side-channel",
        )
        self.touch()

    def crash(self) -> None:
        """Die; what the application has not taken is lost."""
        self._engine = None

    def restart(self) -> None:
        """Crash, if it still runs, and start again."""
        self.crash()
        self.start()

    def receive(self, datagrams: Sequence[bytes]) -> None:
        """Take datagrams from the group."""
        if self._engine is not None:
            self._inbox.extend(datagrams)
            self.touch()

    def _feed(self) -> None:
        engine, now = self.engine, self.now
        inbox, self._inbox = self._inbox, []
        if inbox:
            for reason in engine.receive_datagrams(inbox, now):
                if reason is not None:
                    self.refusals[reason] += 1
        deadline = engine.next_deadline()
        if inbox or (deadline is not None and deadline <= now):
            engine.handle_deadline(now)
        if self.is_reading:
            self.take()

    def take(self) -> None:
        """Take what the engine has for the application."""
        time = self._around.timeline.now
        for taken in self.engine.poll_events(TAKE_ALL):
            item = parse_event(*taken) if isinstance(taken, tuple) else taken
            self.history.append(Delivered(time, self.starts, item))
            if isinstance(item, Message):
                self.messages.append(item)
                self._write(f"message {bytes(item.stream_id).hex()} {item.message_id} at {item.sequence}")
                continue
            if isinstance(item, Joined):
                self.joins.append((self.starts, time, item.epoch[1:]))
            self._tell(item)
