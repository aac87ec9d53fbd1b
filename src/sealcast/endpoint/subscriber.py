"""The receiving end of a channel.

Spec: spec/wire.md sections 5 and 10.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import pathlib
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import replace
from itertools import chain, repeat
from types import TracebackType
from typing import Literal, Self, TypedDict

from sealcast import _core
from sealcast.device.identity import DeviceIdentity
from sealcast.endpoint.engine_start import engine_start
from sealcast.endpoint.events import (
    Alarm,
    Event,
    Joined,
    Loss,
    MulticastSilent,
    PolicyChanged,
    Refused,
    parse_event,
)
from sealcast.endpoint.file_receiver import FileReceiver
from sealcast.endpoint.limits import (
    LARGEST_MESSAGE_BYTES,
    MAX_BYTES,
    MAX_MESSAGE_BYTES,
    MIN_BUFFER_BYTES,
    check_delivery,
    check_path,
    check_range,
    check_start,
)
from sealcast.endpoint.routing import Route, RoutingOverrides, network_error
from sealcast.endpoint.session import KEEP_PACKETS, MICROSECONDS, Session
from sealcast.endpoint.site import ChannelSite
from sealcast.endpoint.transfer import OnLoss, OnProgress, ReceivedFile
from sealcast.errors import SealcastError, UsageError
from sealcast.pki.files import storage_errors
from sealcast.pki.names import channel_id, check_channel_name, parse_member
from sealcast.sidechannel.client import PeerClient
from sealcast.sidechannel.peer_messages import FileReport

log = logging.getLogger(__name__)

Delivery = Literal["reliable", "realtime", "unordered"]
Start = Literal["now", "last", "start"]
Path = Literal["multicast", "side-channel"]

_LEAVE_SECONDS = 2.0
_MOVE_SECONDS = 10.0
"""How long the group before is listened to as well, when a policy names another one."""

BUSY_SECONDS = 5.0
"""How often what came by multicast is compared with what came by repair."""
_BUSY_FACTOR = 20
SILENT_SECONDS = 30.0
"""A publisher that lives is heard every second (spec/wire.md DP-28); after so long an operator is told."""
_REPORT_SECONDS = 60.0
_REPORT_WAIT_SECONDS = (0.2, 0.5, 1.0, 2.0, 5.0)
"""Between tries; the last goes on."""


class SubscriberOptions(TypedDict, total=False):
    """The options of `Subscriber`."""

    delivery: Delivery
    deadline: float | None
    start: Start
    path: Path
    site: ChannelSite | None
    routing: RoutingOverrides | None
    max_message_bytes: int
    buffer_bytes: int
    on_event: Callable[[Event], None] | None


class Subscriber:
    """Receives the messages of a channel, each verified, each at most once.

    async with device.subscriber("icu3/vitals") as subscriber:
        async for message in subscriber:
            print(message.publisher, message.data)

    Entering the block joins the channel: what is published after that is delivered, or its loss is told
    (`on_event`, `items`, and a warning in the log when neither is used).
    """

    _keep: tuple[int, int] | None = None
    """Bytes and microseconds for which packets are kept; a subscriber opens them, and keeps none."""

    def __init__(
        self,
        identity: DeviceIdentity,
        channel: str,
        *,
        delivery: Delivery = "reliable",
        deadline: float | None = None,
        start: Start = "now",
        path: Path = "multicast",
        site: ChannelSite | None = None,
        routing: RoutingOverrides | None = None,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
        buffer_bytes: int = 64 << 20,
        on_event: Callable[[Event], None] | None = None,
    ) -> None:
        """Prepare; nothing happens before the block is entered.

        Args:
            identity: the device.
            channel: its name.
            delivery: `reliable` (in order, complete, or a reported gap), `realtime` (in order, what is late
                is passed over and reported) or `unordered` (each when it is whole).
            deadline: of `realtime`, seconds for which a packet that is missed is waited for; 0.001 to 3600.
            start: of streams that run already: `now`; `last` (also the last value of each topic, from
                publishers that keep it); or `start` (also what is retained of what was sealed since the
                admission, which is anew with each join of the device).
            path: how packets come: by `multicast`; or, where there is none, over the `side-channel` from a
                repair node or the publisher, as soon as they are sealed. They are verified alike.
            site: that the channel belongs to; None: the device's own.
            routing: overrides of the policy's addresses.
            max_message_bytes: longer messages are reported as lost; 1 to 1 GiB.
            buffer_bytes: bound on what waits for a gap to be mended, or for the rest of a message, beside the
                longest one; and on what waits for the application; at least 64 KiB.
            on_event: is told what happens besides messages, in its place among them.

        Raises:
            UsageError: a name, a delivery mode, a number that is out of its range, or a route of multicast on
                a path without.
        """
        self.channel = check_channel_name(channel)
        self._identity = identity
        self._site = site or ChannelSite.own(identity)
        self._delivery, self._deadline = delivery, check_delivery(delivery, deadline)
        self._start = check_start(start, delivery)
        self._routing = routing or RoutingOverrides()
        own = self._routing
        self._is_side_channel = check_path(
            path, {"interface": own.interface, "listen": own.listen, "source": own.source}
        )
        self._max_message_bytes = check_range(
            "max_message_bytes", max_message_bytes, 1, LARGEST_MESSAGE_BYTES
        )
        self._buffer_bytes = check_range("buffer_bytes", buffer_bytes, MIN_BUFFER_BYTES, MAX_BYTES)
        self._on_event = on_event
        self._engine: _core.ReceiveEngine | None = None
        self._session: Session | None = None
        self._driver: _core.ReceiveDriver | None = None
        self._presence: _core.Presence | None = None
        self._has_joined = False
        # What the driver was started with.
        self._route: Route | None = None
        # By drivers that have been left.
        self._received = self._dropped = 0
        self._items: deque[_core.Message | Event] = deque()

    # -- life ------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if self._session is not None:
            raise UsageError("the subscriber is open already", cure="make another one")
        self._items.clear()
        try:
            await self._open()
        except BaseException:
            await self._release()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._release()

    async def _open(self) -> None:
        identity = self._identity
        engine = _core.ReceiveEngine(
            **engine_start(identity, self._site, self.channel),
            delivery=self._delivery,
            deadline=self._deadline,
            start=self._start,
            max_message_bytes=self._max_message_bytes,
            buffer_bytes=self._buffer_bytes,
            keep=self._keep,
            side_channel=self._is_side_channel,
        )
        self._engine = engine
        with storage_errors(identity.path):
            channel = channel_id(self._site.site_id, self.channel)
            self._presence = await asyncio.to_thread(_core.Presence, identity.path, channel)
        await self._prepare(engine)
        purpose = "subscribe" if self._keep is None else KEEP_PACKETS
        session = Session(engine, identity, self._site, self.channel, engine.handle_deadline, purpose)
        self._session = session
        session.start()
        policy = await session.joined()
        self._has_joined = True
        if not self._is_side_channel:
            self._drive(engine, session, policy)
            session.spawn(self._watch_multicast(engine))
        session.spawn(self._watch_silence(engine))

    async def _prepare(self, engine: _core.ReceiveEngine) -> None:
        """For those who keep packets: before the first one comes."""

    def _drive(self, engine: _core.ReceiveEngine, session: Session, policy: _core.Policy) -> None:
        """Listen where the policy says; while that stays the same nothing changes."""
        route = Route.of(policy, self._routing.listen, self._routing.interface, self._site.keys_url)
        if route == self._route:
            return
        try:
            driver = _core.ReceiveDriver(
                engine,
                group=route.address,
                port=route.port,
                interface=route.interface,
                notify=session.notify,
                source=self._routing.source,
            )
        except _core.NetworkError as error:
            raise network_error(error, route) from None
        before, self._driver, self._route = self._driver, driver, route
        if before is None:
            session.attach(driver)
        else:
            # Publishers move at their own moment: for a while both groups are listened to.
            session.attach(_Both(driver, before))
            session.spawn(self._leave_route(session, driver, before))
        _, _, granted, capped = driver.statistics()
        if capped:
            log.warning(
                "the system caps the receive buffer at %d bytes: bursts may be lost and come back by repair "
                "(raise net.core.rmem_max)",
                granted,
            )

    async def _leave_route(
        self, session: Session, driver: _core.ReceiveDriver, before: _core.ReceiveDriver
    ) -> None:
        await asyncio.sleep(_MOVE_SECONDS)
        if driver is self._driver:
            session.attach(driver)
        received, dropped, _, _ = before.statistics()
        self._received, self._dropped = self._received + received, self._dropped + dropped
        await asyncio.to_thread(before.stop)

    def _follow(self) -> None:
        """A new policy may be in force: it may name another address."""
        engine, session = self._engine, self._session
        policy = engine.policy() if engine is not None else None
        try:
            if self._driver is not None and engine is not None and session is not None and policy is not None:
                self._drive(engine, session, policy)
        except SealcastError as error:
            log.warning("channel %s: going on as before the new policy: %s", self.channel, error)

    async def _release(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            if self._has_joined:
                await self._leave(session)
            await session.close()
        self._driver = self._route = self._presence = None
        self._has_joined = False

    async def _leave(self, session: Session) -> None:
        """Say good-bye, so that no publisher waits for us; a key server that is away is not waited for.

        While other subscribers of this device go on, it stays a member.
        """
        try:
            if self._presence is not None and not self._presence.is_last():
                return
            async with asyncio.timeout(_LEAVE_SECONDS):
                await session.key_server.leave(self.channel)
        except (TimeoutError, SealcastError) as error:
            log.debug("leaving channel %s: %s", self.channel, error)

    # -- receiving -------------------------------------------------------------------------------------------

    async def recv(self) -> _core.Message:
        """Wait for the next message.

        Raises:
            CertificateError, NotAllowedError, UnknownChannelError: the site refuses this device from now on.
                Whoever calls again waits for it to be admitted anew.
        """
        while True:
            item = await self._next()
            if isinstance(item, _core.Message):
                return item
            self._tell(item)

    async def recv_many(self, limit: int = 512) -> list[_core.Message]:
        """Wait for at least one message and return what is there, at most `limit`."""
        if not self._items and (at_once := self._take_messages(limit)):
            # However fast they come, the loop has other work too.
            await asyncio.sleep(0)
            return at_once
        messages = [await self.recv()]
        while len(messages) < limit:
            if not self._items:
                self._items.extend(self._take())
                if not self._items:
                    break
            if isinstance(self._items[0], Refused):
                break  # for the next call: what is here is not lost by it
            item = self._items.popleft()
            if isinstance(item, _core.Message):
                messages.append(item)
            else:
                self._tell(item)
        return messages

    def __aiter__(self) -> AsyncIterator[_core.Message]:
        return self._messages()

    async def _messages(self) -> AsyncIterator[_core.Message]:
        while True:
            yield await self.recv()

    async def items(self) -> AsyncIterator[_core.Message | Event]:
        """Iterate over messages and events, in order; a refusal is an event, and the iteration goes on."""
        while True:
            yield await self._next()

    def refusal(self, event: Refused) -> SealcastError | None:
        """Return the error that `recv` raises for a refusal; None if that is no final word on this device."""
        return None if self._session is None else self._session.refusal(event.reason)

    async def receive_files(
        self,
        folder: pathlib.Path | str,
        *,
        overwrite: bool = False,
        on_progress: OnProgress | None = None,
        on_loss: OnLoss | None = None,
    ) -> AsyncGenerator[ReceivedFile]:
        """Iterate over the files that come in, each in its place below `folder` once it is whole.

        What was interrupted, here or at the publisher, is gone on with when the file is offered again. Use it
        with `contextlib.aclosing`, so that publishers are told what is here.

        Args:
            folder: to write into; has to be there.
            overwrite: replace whatever file is there.
            on_progress: is told how far each file has come.
            on_loss: is told, in a line, of each file that does not come; by default the log.

        Raises:
            StorageError: the folder cannot be written.
            CertificateError, NotAllowedError, UnknownChannelError: the site refuses this device from now on.
        """
        receiver = FileReceiver(pathlib.Path(folder), on_progress, on_loss, overwrite=overwrite)
        async with contextlib.aclosing(receiver.receive(self)) as files:
            async for file in files:
                yield file

    async def report_files(self, report: FileReport) -> None:
        """Tell the publisher of a stream which of its files are here; tries for a minute.

        The report's channel is set here.
        """
        engine, session = self._engine, self._session
        if engine is None or session is None:
            raise UsageError("the subscriber is not open", cure="use it inside `async with`")
        own_channel = _core.channel_id(self._site.site_id, self.channel)
        report = replace(report, channel=own_channel)
        waits = chain(_REPORT_WAIT_SECONDS, repeat(_REPORT_WAIT_SECONDS[-1]))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_REPORT_SECONDS):
                for wait in waits:
                    if await self._reported(session, engine, report):
                        return
                    await asyncio.sleep(wait)
        log.warning("channel %s: the publisher could not be told which files are here", self.channel)

    async def _reported(self, session: Session, engine: _core.ReceiveEngine, report: FileReport) -> bool:
        try:
            directory = await session.key_server.directory(self.channel)
        except SealcastError as error:
            log.debug("report on files: %s", error)
            return False
        entry = next((entry for entry in directory.streams if entry.stream == report.stream), None)
        if entry is None:
            return False
        if entry.endpoint is not None:
            takers = [(entry.device, entry.endpoint)]
        else:
            # It does not listen, and comes to a repair node for it (SC-50).
            nodes = [node for node in directory.repair_nodes if engine.is_member(node.device)]
            takers = [(node.device, node.endpoint) for node in nodes]
        for device, endpoint in takers:
            if await self._told(session, engine, report, device, endpoint):
                return True
        return False

    async def _told(
        self,
        session: Session,
        engine: _core.ReceiveEngine,
        report: FileReport,
        member: str,
        endpoint: tuple[str, int],
    ) -> bool:
        host, port = endpoint
        site_id, device = parse_member(self._site.site_id, member)
        try:
            async with PeerClient(
                session.identity, host=host, port=port, device=device, site_id=site_id, crl=engine.crl
            ) as peer:
                await peer.report_files(report)
        except SealcastError as error:
            log.debug("report on files: %s", error)
            return False
        return True

    def counters(self) -> dict[str, int]:
        """What has been counted since the start; refusals under their reason."""
        engine = self._running()
        received, dropped, _, _ = (0, 0, 0, False) if self._driver is None else self._driver.statistics()
        return engine.counters() | {
            "datagrams": self._received + received,
            "dropped-by-kernel": self._dropped + dropped,
        }

    def streams(self) -> list[tuple[bytes, str, int, int]]:
        """Id, device as the policy writes it, next sequence to resolve and head of each running stream."""
        return self._running().streams()

    @property
    def epoch(self) -> _core.Epoch | None:
        """Slot, generation and step as far as announced."""
        return self._running().epoch(_core.steady_time())

    # -- inside ----------------------------------------------------------------------------------------------

    async def _next(self) -> _core.Message | Event:
        while not self._items:
            self._items.extend(self._take())
            if not self._items and self._session is not None:
                await self._session.wait()
        return self._items.popleft()

    def _take(self) -> list[_core.Message | Event]:
        if self._session is None:
            raise UsageError("the subscriber is not open", cure="use it inside `async with`")
        items = [
            item if isinstance(item, _core.Message) else parse_event(*item)
            for item in self._session.take_events()
        ]
        if any(isinstance(item, Joined | PolicyChanged) for item in items):
            self._follow()
        return items

    def _take_messages(self, limit: int) -> list[_core.Message]:
        """Take what is there, if it is messages."""
        if self._session is None or self._engine is None:
            raise UsageError("the subscriber is not open", cure="use it inside `async with`")
        self._session.expect_more()
        return self._engine.poll_messages(limit)

    def _tell(self, event: Event) -> None:
        if self._on_event is not None:
            self._on_event(event)
        else:
            level = logging.WARNING if isinstance(event, Loss | Alarm | MulticastSilent) else logging.INFO
            log.log(level, "channel %s: %s", self.channel, event)
        if isinstance(event, Refused) and (refusal := self.refusal(event)) is not None:
            raise refusal

    async def _watch_silence(self, engine: _core.ReceiveEngine) -> None:
        """Tell once of each stream that is heard no more and has not ended; nothing of it is lost so far."""
        silent: set[bytes] = set()
        while True:
            await asyncio.sleep(SILENT_SECONDS / 4)
            limit = _core.steady_time() - int(SILENT_SECONDS * MICROSECONDS)
            quiet = {stream: device for stream, device, heard in engine.last_heard() if heard < limit}
            for stream in sorted(quiet.keys() - silent):
                log.warning(
                    "channel %s: nothing has been heard of %s for %g s; it may be gone",
                    self.channel,
                    quiet[stream],
                    SILENT_SECONDS,
                )
            silent = set(quiet)

    async def _watch_multicast(self, engine: _core.ReceiveEngine) -> None:
        """Tell once when repair does what multicast is for, as with a switch that lost our membership.

        Twice in a row, since who joins late catches up by repair, too.
        """
        heard, repaired, in_a_row = 0, 0, 0
        while True:
            await asyncio.sleep(BUSY_SECONDS)
            counters = engine.counters()
            mended = counters["repaired"] - repaired
            came = counters["accepted"] - counters["repaired"] - heard
            heard, repaired = heard + came, repaired + mended
            in_a_row = in_a_row + 1 if mended > _BUSY_FACTOR * came else 0
            if in_a_row == 2:
                # Told in its turn: behind the messages that are waiting.
                self._items.append(MulticastSilent(repaired=mended, seconds=BUSY_SECONDS))

    def _running(self) -> _core.ReceiveEngine:
        if self._engine is None or not self._has_joined:
            raise UsageError("the subscriber is not open", cure="use it inside `async with`")
        return self._engine


class _Both:
    """Two drivers of one engine, while a subscriber moves."""

    def __init__(self, driver: _core.ReceiveDriver, before: _core.ReceiveDriver) -> None:
        self._drivers = (driver, before)

    def rearm(self) -> None:
        for driver in self._drivers:
            driver.rearm()

    def wake(self) -> None:
        for driver in self._drivers:
            driver.wake()

    def stop(self) -> None:
        for driver in self._drivers:
            driver.stop()
