"""The sending end of a channel.

Spec: spec/wire.md; what is signed by the device: spec/trust.md TR-11.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self, TypedDict

from sealcast import _core
from sealcast.device.identity import DeviceIdentity
from sealcast.endpoint.certification import Certification
from sealcast.endpoint.engine_start import engine_start
from sealcast.endpoint.events import Blocked, Event, Joined, PolicyChanged, Refused, parse_event
from sealcast.endpoint.file_sender import FileSender
from sealcast.endpoint.limits import (
    LARGEST_MESSAGE_BYTES,
    MAX_BLOCK,
    MAX_BYTES,
    MAX_FEC_MILLISECONDS,
    MAX_MESSAGE_BYTES,
    MAX_MTU,
    MAX_RETAIN_TOPICS,
    MIN_FEC_MILLISECONDS,
    MIN_MTU,
    check_messages,
    check_range,
    check_seconds,
    check_topic,
)
from sealcast.endpoint.listing import Listing
from sealcast.endpoint.refused_sends import tell_of_refusals
from sealcast.endpoint.routing import RoutingOverrides, address_towards
from sealcast.endpoint.send_path import SendPath
from sealcast.endpoint.session import Session
from sealcast.endpoint.site import ChannelSite
from sealcast.endpoint.stream_server import stream_server
from sealcast.endpoint.transfer import OnProgress, SentFile
from sealcast.errors import (
    ConfigError,
    IncompleteError,
    NetworkError,
    SealcastError,
    UsageError,
)
from sealcast.pki.fec import format_fec, parse_fec
from sealcast.pki.names import channel_id, check_channel_name, check_instance_name
from sealcast.sidechannel.fields import MalformedMessageError
from sealcast.sidechannel.peer_messages import FileReport
from sealcast.sidechannel.server import PeerServer

log = logging.getLogger(__name__)

_AT_ONCE = 4096
_REGISTER_SECONDS = 10.0
_BLOCKED_SECONDS = 2.0
_STALLED_SECONDS = 10.0
_HASTY_DRAIN_SECONDS = 0.5
_HASTY_END_SECONDS = 1.0
"""How long a stream that is left by an error goes on with its queue, and may then take to say its end."""


class PublisherOptions(TypedDict, total=False):
    """The options of `Publisher`."""

    instance: str
    site: ChannelSite | None
    routing: RoutingOverrides | None
    linger: float
    mtu: int
    max_block: int
    fec: str | None
    fec_delay_ms: int
    max_message_bytes: int
    queue_bytes: int
    retain_topics: int
    retain_bytes: int
    adaptive_rate: bool
    listens: bool
    on_event: Callable[[Event], None] | None


class Publisher:
    """Sends messages to everyone that the channel's policy allows.

    async with device.publisher("icu3/vitals") as publisher:
        await publisher.send(b"...")

    Leaving the block signs the end of the stream and serves repairs for `linger` seconds more. Left by an
    error or by cancellation, it drops what is still queued after a moment (`counters`: `abandoned`), and
    signs the end behind what has gone out.
    """

    def __init__(
        self,
        identity: DeviceIdentity,
        channel: str,
        *,
        instance: str = "",
        site: ChannelSite | None = None,
        routing: RoutingOverrides | None = None,
        linger: float = 2.0,
        mtu: int = 1500,
        max_block: int = 64,
        fec: str | None = None,
        fec_delay_ms: int = 100,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
        queue_bytes: int = 64 << 20,
        retain_topics: int = 0,
        retain_bytes: int = 1 << 20,
        adaptive_rate: bool = True,
        listens: bool = True,
        on_event: Callable[[Event], None] | None = None,
    ) -> None:
        """Prepare; nothing happens before the block is entered.

        Args:
            identity: the device.
            channel: its name.
            instance: one of several publishers of this device on the channel; empty for the only one.
            site: that the channel belongs to; None: the device's own.
            routing: overrides of the policy's addresses.
            linger: seconds for which repairs are served after the end; 0: not at all.
            mtu: bytes of the path's MTU, 576 to 9000.
            max_block: packets that one signature covers at most, 1 to 64.
            fec: parity, from which subscribers mend losses without asking: "8+2" for two packets after
                eight, "25%" for that share in groups as large as may be, "auto" for as much as the losses
                that subscribers report ask for, "off" for none; None: what the channel's policy says, also
                when it changes (a stream that began without parity stays so).
            fec_delay_ms: milliseconds from a packet to its parity at most, when little is sent; 1 to 2000.
            max_message_bytes: 1 to 1 GiB. Subscribers take more than 16 MiB only if they are told, too.
            queue_bytes: what may wait for the rate; `send` waits for room beyond it. As much again may
                wait of messages longer than 64 KiB, which do not hold up the others.
            retain_topics: of how many topics the last value is kept, and sent again when somebody joins;
                0: of none. Who joins gets values from before its admission by that: it is yours to allow.
            retain_bytes: what these values may hold; a longer one is not kept.
            adaptive_rate: whether less than the policy's rate is sent where a quarter of a sample of the
                subscribers lose more than a tenth; an eighth of it at least, and more again as they do.
            listens: whether subscribers may connect, for repair and with reports. One that does not listen
                serves the channel's repair nodes by requests of its own, and subscribers ask those.
            on_event: is told what happens besides sending.

        Raises:
            UsageError: a name, or a number that is out of its range.
        """
        self.channel = check_channel_name(channel)
        self.linger = check_seconds("linger", linger)
        self._identity = identity
        self._site = site or ChannelSite.own(identity)
        self._routing = routing or RoutingOverrides()
        self._on_event = on_event
        self._files: FileSender | None = None
        self._instance = check_instance_name(instance)
        self._mtu = check_range("mtu", mtu, MIN_MTU, MAX_MTU)
        self._max_block = check_range("max_block", max_block, 1, MAX_BLOCK)
        self._fec = None if fec is None else parse_fec(fec)
        self._fec_delay_ms = check_range(
            "fec_delay_ms", fec_delay_ms, MIN_FEC_MILLISECONDS, MAX_FEC_MILLISECONDS
        )
        self._max_message_bytes = check_range(
            "max_message_bytes", max_message_bytes, 1, LARGEST_MESSAGE_BYTES
        )
        self._queue_bytes = check_range("queue_bytes", queue_bytes, 1, MAX_BYTES)
        self._retain_topics = check_range("retain_topics", retain_topics, 0, MAX_RETAIN_TOPICS)
        self._retain_bytes = check_range("retain_bytes", retain_bytes, 0, MAX_BYTES)
        self._adaptive_rate = adaptive_rate
        self._listens = listens
        self._engine: _core.SendEngine | None = None
        self._session: Session | None = None
        self._path: SendPath | None = None
        self._server: PeerServer | None = None
        self._refusal: SealcastError | None = None
        # What kept packets from being sealed when it was last tried.
        self._obstacle: str | None = None
        self._room = asyncio.Event()

    # -- life ------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if self._session is not None:
            raise UsageError("the publisher is open already", cure="make another, with an instance name")
        self._refusal = self._obstacle = None
        try:
            await self._open()
        except BaseException:
            await self._release()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                await self._finish()
            elif self._path is not None and self._refusal is None:
                # Ctrl-C, or an error of the application: the stream ends here all the same, and says so.
                await self._say_end_soon()
        finally:
            await self._release()

    async def _open(self) -> None:
        identity = self._identity
        engine = _core.SendEngine(
            **engine_start(identity, self._site, self.channel),
            # DP-2: made at this start, never stored.
            seed=os.urandom(32),
            start_nonce=os.urandom(16),
            instance=self._instance,
            mtu=self._mtu,
            max_block=self._max_block,
            fec=self._fec,
            fec_delay=self._fec_delay_ms * 1000,
            max_message_bytes=self._max_message_bytes,
            queue_bytes=self._queue_bytes,
            retain_topics=self._retain_topics,
            retain_bytes=self._retain_bytes,
            adaptive_rate=self._adaptive_rate,
        )
        self._engine = engine
        if not self._listens:
            engine.serve_outbound()
        session = Session(
            engine,
            identity,
            self._site,
            self.channel,
            lambda at: engine.handle_deadline(at, os.urandom(32)),
            "publish",
        )
        self._session = session
        session.start()
        policy = await session.joined()
        if self._listens:
            self._server = stream_server(engine, session, self.channel, partial(self._take_report, engine))
            engine.set_endpoint(*await self._server.listen(address_towards(self._site.keys_url)))
        certification = Certification(engine, session)
        certification.certify()
        session.on_renewal = lambda renewed: self._renewed(certification, renewed)
        path = self._path = SendPath(engine, session, self._routing, policy)
        session.spawn(self._watch(engine, session, path))
        session.spawn(certification.keep())
        session.spawn(tell_of_refusals(self.channel, path.sends))
        deadline = asyncio.get_running_loop().time() + _REGISTER_SECONDS
        # Who joins after this loop is told of the stream.
        while not engine.is_registered:
            if asyncio.get_running_loop().time() > deadline:
                raise NetworkError(
                    f"the key server at {self._site.keys_url} has not taken the stream within "
                    f"{_REGISTER_SECONDS:g} s",
                    cure="see its log; try again",
                )
            await self._changed()

    def _follow(self, engine: _core.SendEngine, path: SendPath) -> None:
        """A new policy is in force: it may name another address or rate."""
        policy = engine.policy()
        try:
            if policy is not None:
                path.follow(policy)
        except SealcastError as error:
            log.warning("channel %s: going on as before the new policy: %s", self.channel, error)
        if policy is not None and self._fec is None and policy["fec"] != engine.fec:
            # DP-6: its packets leave no room for it.
            wanted = format_fec(policy["fec"])
            log.warning(
                "channel %s: fec %s of the new policy begins with the next stream; start the publisher anew",
                self.channel,
                wanted,
            )

    def _renewed(self, certification: Certification, identity: DeviceIdentity) -> None:
        if self._server is not None:
            self._server.reload(identity)
        certification.certify()

    def _take_report(self, engine: _core.SendEngine, device: str, report: FileReport) -> bool:
        if report.stream != engine.stream_id:
            return False
        if self._files is not None:
            self._files.report(device, report)
        return True

    def _take_passed_report(self, engine: _core.SendEngine, device: str, body: bytes) -> None:
        """A report on files that a repair node passes on: its word is all there is for whose it is."""
        with contextlib.suppress(MalformedMessageError):
            report = FileReport.parse(body)
            if report.channel == channel_id(self._site.site_id, self.channel):
                self._take_report(engine, device, report)

    async def _finish(self) -> None:
        """Say the end, and serve repairs for a while. Raises: NetworkError: not one packet could be sent."""
        await self._say_end()
        await asyncio.sleep(self.linger)
        if self._path is not None:
            self._path.sends().check_any(self.channel)

    async def _say_end(self) -> None:
        """Seal what is queued, at the rate, and sign the end.

        Raises: IncompleteError: nothing can be sealed, as without a key for the present epoch.
        """
        engine, driver = self._running()
        engine.finish(_core.steady_time())
        driver.wake()
        loop = asyncio.get_running_loop()
        sealed, since = -1, loop.time()
        while not engine.is_finished:
            self._allowed()
            if (packets := self.counters()["packets"]) != sealed:
                if sealed >= 0:
                    self._obstacle = None
                sealed, since = packets, loop.time()
            elif self._obstacle is not None and loop.time() - since > _STALLED_SECONDS:
                raise IncompleteError(
                    f"the stream on channel {self.channel!r} could not be ended: {self._obstacle}",
                    cure="see why, for example whether the authority is running, then send again",
                )
            await self._changed()

    async def _say_end_soon(self) -> None:
        """End where the stream stands after a moment, so that nobody waits for what will not come."""
        engine, _ = self._running()
        with contextlib.suppress(TimeoutError, SealcastError):
            async with asyncio.timeout(_HASTY_DRAIN_SECONDS):
                await self._say_end()
            return
        engine.abandon()
        with contextlib.suppress(TimeoutError, SealcastError):
            async with asyncio.timeout(_HASTY_END_SECONDS):
                await self._say_end()

    async def _release(self) -> None:
        if self._session is not None:
            await self._session.close()
        if self._server is not None:
            await self._server.close()
        self._session = self._server = self._path = None

    # -- sending ---------------------------------------------------------------------------------------------

    async def send(self, message: bytes, *, topic: str | None = None) -> int:
        """Queue one message, waiting for room if the rate is slower than the caller; return its id.

        Args:
            message: up to `max_message_bytes`. One of more than 64 KiB is overtaken by what is sent after it,
                but for messages of its own topic, and without one by those that have one.
            topic: up to 255 bytes of UTF-8.

        Raises:
            UsageError: the message or topic is too long, the topic is no UTF-8, or the stream has ended.
            IncompleteError: the stream has no number left; what was sent before goes out (DP-47).
            CertificateError, NotAllowedError: the site does not let this device publish any more.
        """
        check_topic(topic)
        engine, driver = self._allowed()
        while True:
            try:
                message_id = engine.send(message, topic)
            except _core.SendError as error:
                if error.reason != "queue-full":
                    raise _not_taken(error) from None
                await self._wait_for_room(driver)
                continue
            driver.wake()
            return message_id

    async def send_many(self, messages: Iterable[bytes], *, topic: str | None = None) -> None:
        """Queue many messages at once, in order; see `send`.

        Raises: as `send`; of one message that is too long before any is queued.
        """
        waiting = list(messages)
        check_messages(waiting, self._max_message_bytes)
        check_topic(topic)
        engine, driver = self._allowed()
        start = 0
        while start < len(waiting):
            part = waiting[start : start + _AT_ONCE]
            try:
                taken = engine.send_many(part, topic)
            except _core.SendError as error:
                raise _not_taken(error) from None
            driver.wake()
            start += taken
            if taken < len(part):
                await self._wait_for_room(driver)

    async def send_files(
        self,
        paths: Sequence[Path | str] | Listing,
        *,
        linger: float = 30.0,
        on_progress: OnProgress | None = None,
    ) -> tuple[SentFile, ...]:
        """Send files, and folders with what is below them, and stay until every subscriber has them.

        Waited for are those who had joined when it began; who comes later is served along with them. What a
        receiver has already, also from a run that was interrupted, is not sent anew to it.

        Args:
            paths: files and folders, or what `listing.list_files` has made of them.
            linger: seconds for which one that says nothing is waited for, after the last byte.
            on_progress: is told how far each file has come.

        Returns: the files, and who has each of them.

        Raises:
            UsageError: files are being sent already, or as `listing.list_files`, before the first byte.
            ConfigError: the publisher does not listen, and no repair node tells it who has what.
            StorageError: a file cannot be read, or changes while it is being sent.
            IncompleteError: nobody has joined, or names those who have not everything.
            CertificateError, NotAllowedError: the site does not let this device publish any more.
        """
        if not self._listens:
            await self._require_repair_node()
        if self._files is not None:
            raise UsageError("files are being sent already", cure="name all in one call, or wait")
        self._files = FileSender(self, on_progress)
        try:
            return await self._files.send(paths, linger=check_seconds("linger", linger))
        finally:
            self._files = None

    async def _require_repair_node(self) -> None:
        session = self._session
        if session is None:
            raise UsageError("the publisher is not open", cure="use it inside `async with`")
        nodes = (await session.key_server.directory(self.channel)).repair_nodes
        if not any(self.is_listed(node.device) for node in nodes):
            raise ConfigError(
                f"channel {self.channel!r} has no repair node, and without one nobody can tell a publisher "
                "that does not listen which files have come",
                cure="start a repair node (sealcast repair-node), or let the publisher listen",
            )

    async def drained(self) -> None:
        """Wait until everything that was queued has been handed to the network.

        Raises: CertificateError, NotAllowedError: it will not be, since the site refuses this device.
        """
        engine, _ = self._running()
        while engine.has_queued:
            self._allowed()
            await self._changed()

    @property
    def stream_id(self) -> bytes:
        """16 bytes."""
        return self._running()[0].stream_id

    @property
    def epoch(self) -> _core.Epoch | None:
        """Slot, generation and step that would be sealed under now."""
        return self._running()[0].epoch(_core.steady_time())

    def counters(self) -> dict[str, int]:
        """What has been counted since the start, also after the end.

        messages (taken), abandoned (of these, dropped by a hasty end), packets, parity (of these), blocks,
        bytes, repairs_served; and pace, the thousandths of the policy's rate that are used now.
        """
        if self._engine is None:
            raise UsageError("the publisher has not been opened", cure="use it inside `async with`")
        return self._engine.counters()

    def set_loss(self, permille: int) -> None:
        """Tell what share of the packets, in thousandths, the worse of the subscribers lose.

        From the next group on, parity that is "auto" is made for it, until they report another. Raises:
        UsageError.
        """
        self._running()[0].set_loss(check_range("permille", permille, 0, 1000))

    async def members(self) -> list[str]:
        """Names of the devices that have joined the channel as subscribers."""
        session = self._session
        if session is None:
            raise UsageError("the publisher is not open", cure="use it inside `async with`")
        return [
            entry.device
            for entry in await session.key_server.members(self.channel)
            if entry.role == "subscribe"
        ]

    def is_listed(self, device: str) -> bool:
        """Whether the policy in force still lists a device (as TR-13 writes it).

        Raises: CertificateError, NotAllowedError: the site refuses this device; it hears of no new policy.
        """
        return self._allowed()[0].is_member(device)

    # -- inside ----------------------------------------------------------------------------------------------

    def _running(self) -> tuple[_core.SendEngine, _core.SendDriver]:
        if self._engine is None or self._path is None:
            raise UsageError("the publisher is not open", cure="use it inside `async with`")
        return self._engine, self._path.driver

    def _allowed(self) -> tuple[_core.SendEngine, _core.SendDriver]:
        """Nothing must wait for a network that will not have it."""
        if self._refusal is not None:
            raise self._refusal
        return self._running()

    async def _wait_for_room(self, driver: _core.SendDriver) -> None:
        self._allowed()
        self._room.clear()
        driver.want_room()
        await self._changed()

    async def _changed(self) -> None:
        """Wait for a sign of life of the engine, or a moment."""
        try:
            async with asyncio.timeout(0.05):
                await self._room.wait()
        except TimeoutError:
            return
        self._room.clear()

    async def _watch(self, engine: _core.SendEngine, session: Session, path: SendPath) -> None:
        while True:
            await session.wait()
            for item in session.take_events():
                match item:
                    case ("file-report", {"device": str(device), "report": bytes(report)}):
                        self._take_passed_report(engine, device, report)
                        continue
                    case tuple():
                        event = parse_event(*item)
                    case _:
                        continue
                match event:
                    case Blocked(reason=reason):
                        self._obstacle = reason
                        session.spawn(self._warn_if_blocked(event, self.counters()["packets"]))
                    case Refused(reason=reason):
                        self._refusal = session.refusal(reason)
                        log.warning("channel %s: %s", self.channel, event)
                    case Joined():
                        self._refusal = None
                        self._follow(engine, path)
                    case PolicyChanged():
                        self._follow(engine, path)
                if self._on_event is not None:
                    self._on_event(event)
            self._room.set()

    async def _warn_if_blocked(self, event: Blocked, packets: int) -> None:
        """Waiting a moment for the key of a new generation is no news for an operator."""
        await asyncio.sleep(_BLOCKED_SECONDS)
        if self.counters()["packets"] == packets:
            log.warning("channel %s: %s", self.channel, event)


def _not_taken(error: _core.SendError) -> SealcastError:
    if error.reason == "exhausted":
        return IncompleteError(str(error), cure="leave the publisher and open it anew: it has another stream")
    return UsageError(str(error), cure="send less at a time")
