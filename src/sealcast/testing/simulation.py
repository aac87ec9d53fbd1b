"""A whole channel in virtual time: key server, publishers, subscribers, network, all from one seed.

    sim = Simulation(seed=7, publishers=["monitor"], subscribers=["bed12", "desk"])
    sim.network.set_faults(Faults(loss=0.05))
    sim.publisher("monitor").send_every(10 * MILLISECOND, count=500)
    sim.run(6)
    sim.calm()
    verify(sim)

The same seed gives the same simulation, datagram for datagram: nothing sleeps, nothing reads a clock or the
random source of the system, nothing opens a socket.
"""

import hashlib
from collections.abc import Callable, Iterable

from sealcast.endpoint.subscriber import Delivery, Path, Start
from sealcast.errors import UsageError
from sealcast.keys import MemberRole
from sealcast.pki.fec import Fec
from sealcast.testing.clock import SECOND, START, ManualClock, Timeline
from sealcast.testing.hosts import Host, StreamRecord, Surroundings
from sealcast.testing.impairment import NO_FAULTS, Faults
from sealcast.testing.key_server import ChannelOptions, SimulatedKeyServer
from sealcast.testing.network import Network
from sealcast.testing.publisher import SimulatedPublisher
from sealcast.testing.repair_node import SimulatedRepairNode
from sealcast.testing.side_channel import KEY_SERVER, SideChannel, SideChannelFaults
from sealcast.testing.site import Site, SiteCertificate
from sealcast.testing.subscriber import SimulatedSubscriber

JOIN_SECONDS = 10.0
"""Everything that is up has joined well before this, on a network that works."""


class Simulation:
    """One channel of one site. Times of its methods are seconds, those of its parts microseconds."""

    def __init__(
        self,
        seed: int,
        *,
        publishers: Iterable[str] = (),
        subscribers: Iterable[str] = (),
        options: ChannelOptions | None = None,
        faults: Faults = NO_FAULTS,
    ) -> None:
        """Make the site and the channel, start everyone, and wait until they have joined.

        Args:
            seed: what everything follows from.
            publishers: device names.
            subscribers: device names.
            options: of the channel.
            faults: of each link, from the beginning; with them the join may take longer.
        """
        self.seed = seed
        self.clock = ManualClock()
        self.timeline = Timeline(self.clock)
        self.network = Network(self.timeline, seed)
        self.side_channel = SideChannel(self.timeline, self.network, seed)
        self.site = Site(seed, START)
        self.key_server = SimulatedKeyServer(self.site, self.timeline, seed, options or ChannelOptions())
        self.side_channel.serve_keys(self.key_server.handle)
        self.publishers: dict[str, SimulatedPublisher] = {}
        """By device name; with an instance, by `name/instance`."""
        self.subscribers: dict[str, SimulatedSubscriber] = {}
        self.repair_nodes: dict[str, SimulatedRepairNode] = {}
        self.removed: dict[str, int] = {}
        """Devices that were removed, and the generation that shut them out."""
        self._faults = faults
        self._certificates: dict[str, list[SiteCertificate]] = {}
        self._around = Surroundings(
            timeline=self.timeline,
            network=self.network,
            side_channel=self.side_channel,
            site=self.site,
            channel=self.key_server.options.name,
            channel_id=self.key_server.channel_id,
            seed=seed,
        )
        for name in publishers:
            self.add_publisher(name)
        for name in subscribers:
            self.add_subscriber(name)
        if self.publishers or self.subscribers:
            self.settle()

    # -- who takes part --------------------------------------------------------------------------------------

    def add_publisher(
        self, name: str, *, instance: str = "", fec: Fec | None = None, **options: int
    ) -> SimulatedPublisher:
        """Enrol a device if it is new, let the policy list it as publisher, and start it.

        Options are those of SimulatedPublisher: `skew`, `mtu`, `max_block`.
        """
        key = f"{name}/{instance}" if instance else name
        if key in self.publishers:
            raise UsageError(f"there is a publisher {key!r} already")
        identity = self._enrol(name)
        self.key_server.allow(name, MemberRole.PUBLISH)
        publisher = SimulatedPublisher(self._around, identity, instance=instance, fec=fec, **options)
        self.publishers[key] = publisher
        publisher.start()
        return publisher

    def add_subscriber(
        self,
        name: str,
        *,
        delivery: Delivery = "reliable",
        start: Start = "now",
        path: Path = "multicast",
        faults: Faults | None = None,
        **options: int,
    ) -> SimulatedSubscriber:
        """Enrol a device if it is new, let the policy list it as subscriber, and start it.

        Options are those of SimulatedSubscriber: `deadline`, `skew`, `max_message_bytes`, `buffer_bytes`,
        `window_packets`.
        """
        if name in self.subscribers:
            raise UsageError(f"there is a subscriber {name!r} already")
        identity = self._enrol(name)
        self.key_server.allow(name, MemberRole.SUBSCRIBE)
        subscriber = SimulatedSubscriber(
            self._around, identity, delivery=delivery, start=start, path=path, **options
        )
        self.subscribers[name] = subscriber
        if path == "multicast":
            self.network.attach(name, subscriber.receive, self._faults if faults is None else faults)
        subscriber.start()
        return subscriber

    def add_repair_node(self, name: str, **options: tuple[int, int]) -> SimulatedRepairNode:
        """Enrol a device if it is new, let the policy list it, and start it as a repair node.

        Options are those of SimulatedRepairNode: `keep`.
        """
        identity = self._enrol(name)
        self.key_server.allow(name, MemberRole.REPAIR)
        node = SimulatedRepairNode(
            self._around,
            identity,
            lambda device: self.key_server.keys.membership.admission(device),
            **options,
        )
        self.repair_nodes[name] = node
        self.network.attach(name, node.receive, self._faults)
        node.start()
        self.key_server.put_repair_node(name, node.endpoint)
        return node

    def publisher(self, name: str) -> SimulatedPublisher:
        """The publisher of that name, or of `name/instance`."""
        return self.publishers[name]

    def subscriber(self, name: str) -> SimulatedSubscriber:
        """The subscriber of that name."""
        return self.subscribers[name]

    @property
    def streams(self) -> dict[bytes, StreamRecord]:
        """What was sent, by stream id."""
        return self._around.streams

    def _enrol(self, name: str) -> SiteCertificate:
        known = self._certificates.get(name)
        if known:
            return known[-1]
        self._certificates[name] = [self.site.issue_device(name, self.timeline.now)]
        return self._certificates[name][-1]

    # -- time ------------------------------------------------------------------------------------------------

    @property
    def now(self) -> int:
        """Microseconds since 1970."""
        return self.timeline.now

    @property
    def elapsed(self) -> float:
        """Seconds since the simulation began."""
        return (self.timeline.now - START) / SECOND

    def run(self, seconds: float) -> None:
        """Let time pass."""
        limit = self.timeline.now + round(seconds * SECOND)
        while self.timeline.advance(limit):
            pass

    def run_until(self, predicate: Callable[[], bool], seconds: float) -> bool:
        """Let time pass until `predicate` holds; return whether it did within `seconds`."""
        limit = self.timeline.now + round(seconds * SECOND)
        while not predicate():
            if not self.timeline.advance(limit):
                return predicate()
        return True

    def settle(self, seconds: float = JOIN_SECONDS) -> None:
        """Run until everyone who is up has joined and every stream is in the directory.

        Raises: AssertionError after `seconds`.
        """

        def is_settled() -> bool:
            return all(host.is_ready for host in self.publishers.values() if host.is_up) and all(
                host.has_joined
                for host in (*self.subscribers.values(), *self.repair_nodes.values())
                if host.is_up
            )

        if not self.run_until(is_settled, seconds):
            raise AssertionError(f"seed {self.seed}: not everyone has joined within {seconds} s")

    def calm(self) -> None:
        """End every fault: links, partitions, side channel, key server."""
        self.network.heal()
        self.side_channel.faults = SideChannelFaults()
        if not self.key_server.is_up:
            self.key_server.start()

    # -- what happens to them --------------------------------------------------------------------------------

    def remove(self, name: str) -> int:
        """Take a device out of policy and group; return the generation that shuts it out."""
        self.key_server.remove([name])
        self.removed[name] = self.key_server.keys.generation.number
        return self.removed[name]

    def revoke(self, name: str) -> int:
        """Revoke every certificate of a device and remove it; return the generation that shuts it out."""
        self.key_server.revoke(name, self._certificates[name])
        self.removed[name] = self.key_server.keys.generation.number
        return self.removed[name]

    def renew(self, name: str, *, revoke_old: bool = False) -> None:
        """Renew the certificate of a publisher's device, as its processes notice it."""
        for publisher in self.publishers.values():
            if publisher.name == name and publisher.is_up:
                old = publisher.renew()
                self._certificates[name].append(publisher.identity)
                if revoke_old:
                    self.key_server.revoke_certificate(old)

    def partition(self, *names: str, seconds: float | None = None) -> Callable[[], None]:
        """Cut devices off from all others, on the group and on the side channel.

        Args:
            names: devices; `keys` is the key server.
            seconds: for how long; None until it is mended.

        Returns:
            What mends it.
        """
        unknown = set(names) - {KEY_SERVER} - set(self._certificates)
        if unknown:
            raise UsageError(f"no such devices: {sorted(unknown)}")
        mend = self.network.partition(names)
        if seconds is not None:
            self.timeline.after(round(seconds * SECOND), mend)
        return mend

    def outage(self, seconds: float) -> None:
        """Stop the key server and start it again after `seconds`."""
        self.key_server.stop()
        self.timeline.after(
            round(seconds * SECOND), lambda: None if self.key_server.is_up else self.key_server.start()
        )

    # -- looking back ----------------------------------------------------------------------------------------

    @property
    def log(self) -> list[tuple[int, str, str]]:
        """Time, host and words for everything that a host asked, was told or delivered."""
        return self._around.log

    @property
    def hosts(self) -> list[Host]:
        """Publishers, subscribers and repair nodes."""
        return [*self.publishers.values(), *self.subscribers.values(), *self.repair_nodes.values()]

    def digest(self) -> str:
        """SHA-256, in hexadecimal, of the log and of every datagram sent: equal for equal runs."""
        digest = hashlib.sha256()
        for time, host, words in self.log:
            digest.update(f"{time} {host} {words}\n".encode())
        for sighting in self.network.tap:
            digest.update(f"{sighting.time} {sighting.sender} ".encode() + sighting.datagram)
        return digest.hexdigest()
