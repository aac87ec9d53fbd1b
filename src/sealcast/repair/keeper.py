"""One channel of a repair node: a subscriber that verifies, keeps what it verified, and opens nothing.

Spec: spec/keys.md KM-21; spec/side-channel.md SC-42.
"""

from __future__ import annotations

import asyncio
import logging
import time
from pathlib import Path

from sealcast import _core
from sealcast.device.identity import DeviceIdentity
from sealcast.endpoint.events import Alarm, Loss, Refused
from sealcast.endpoint.limits import MAX_BYTES, check_range
from sealcast.endpoint.routing import RoutingOverrides
from sealcast.endpoint.session import MICROSECONDS, Session
from sealcast.endpoint.site import ChannelSite
from sealcast.endpoint.subscriber import Subscriber
from sealcast.errors import InternalError, SealcastError, UnreachableError, UsageError
from sealcast.pki.files import storage_errors
from sealcast.repair.admissions import Admissions
from sealcast.repair.store import segment_bytes
from sealcast.sidechannel.messages import RepairRequest
from sealcast.sidechannel.node_messages import RepairNodeUpdate
from sealcast.sidechannel.outbound import Outbound
from sealcast.sidechannel.server import Admission, Repaired

_log = logging.getLogger(__name__)

_REGISTER_SECONDS = 10.0
_LEAVE_SECONDS = 2.0
_TEND_SECONDS = 1.0
_EVERYTHING = 0, 0, 0
_REPAIR_PATH = "/v1/repair"
_MIN_BYTES = 64 * 1024
_MAX_SECONDS = 24 * 3600


class Keeper(Subscriber):
    """Keeps the packets of a channel for its members."""

    def __init__(
        self,
        identity: DeviceIdentity,
        channel: str,
        *,
        keep_bytes: int,
        keep_seconds: float,
        store: Path | None = None,
        site: ChannelSite | None = None,
        routing: RoutingOverrides | None = None,
    ) -> None:
        """Prepare; nothing happens before the block is entered.

        Args:
            identity: the device.
            channel: its name.
            keep_bytes: what is kept takes at most so much memory, or room on disk; at least 64 KiB.
            keep_seconds: for how long at most.
            store: the folder in which the packets of channels are kept; None: in memory.
            site: that the channel belongs to; None: the device's own.
            routing: overrides of the policy's addresses.

        Raises:
            UsageError: a name, or a number that is out of its range.
        """
        super().__init__(identity, channel, site=site, routing=routing)
        check_range("keep_bytes", keep_bytes, _MIN_BYTES, MAX_BYTES)
        microseconds = round(keep_seconds * MICROSECONDS)
        check_range("keep_seconds, in microseconds", microseconds, MICROSECONDS, _MAX_SECONDS * MICROSECONDS)
        self.channel_id = _core.channel_id(self._site.site_id, self.channel)
        self._store = None if store is None else store / self.channel_id.hex()
        self._segment_bytes = segment_bytes(keep_bytes)
        # On disk the oldest file is dropped whole, after the last of its packets.
        spared = 0 if store is None else self._segment_bytes
        self._keep = keep_bytes - spared, microseconds
        self._admissions = Admissions(self.channel)
        self.outbound = Outbound(self._publisher_of)
        """What is wanted of publishers that do not listen."""

    async def _prepare(self, engine: _core.ReceiveEngine) -> None:
        if self._store is not None:
            wall = time.time_ns() // 1000
            with storage_errors(self._store):
                await asyncio.to_thread(
                    engine.use_shelf, str(self._store), self._segment_bytes, _core.steady_time(), wall
                )

    async def _release(self) -> None:
        await super()._release()
        if self._store is not None and self._engine is not None:
            await asyncio.to_thread(self._engine.leave_shelf)

    @property
    def session(self) -> Session:
        """Of the open keeper. Raises: UsageError: it is not open."""
        if self._session is None:
            raise UsageError("the repair node is not open", cure="use it inside `async with`")
        return self._session

    @property
    def engine(self) -> _core.ReceiveEngine:
        """Of the open keeper. Raises: UsageError: it is not open."""
        return self._running()

    def counters(self) -> dict[str, int]:
        """As those of a subscriber; packets and bytes that are kept; packets that the disk did not take."""
        packets, size = self.engine.kept()
        _, unkept = self.engine.shelf_trouble()
        kept = {"kept-packets": packets, "kept-bytes": size, "unkept-packets": unkept}
        return {**super().counters(), **kept}

    async def admission(self, device: str) -> Admission:
        """From when on a device is served, which is written as the policy does.

        Raises: RefusedError: it is no member.
        """
        return await self._admissions.of(device, self.session.key_server)

    def serve(
        self, stream: bytes, ranges: tuple[tuple[int, int], ...], admission: Admission | None
    ) -> Repaired | None:
        """What is kept, from an admission on; None: nothing is known of the stream."""
        return self.engine.served(stream, ranges, admission or _EVERYTHING, self.session.now())

    async def ask_outbound(self, path: str, body: bytes) -> bytes:
        """Ask a publisher that does not listen for packets; return the body of its answer.

        Raises: UnreachableError: it does not ask here what is wanted.
        """
        if path != _REPAIR_PATH:
            raise UnreachableError(path, "a publisher that does not listen answers no such request")
        return (await self.outbound.ask(RepairRequest.parse(body))).serialize()

    def _publisher_of(self, stream: bytes) -> str | None:
        listed = self.engine.streams()
        return next((device for known, device, _, _ in listed if known == stream), None)

    async def announce(self, endpoint: tuple[str, int]) -> None:
        """Keep the directory told of where this node listens, until cancelled."""
        while True:
            try:
                await self.session.key_server.put_repair_node(
                    self.channel, RepairNodeUpdate(endpoint=endpoint)
                )
            except SealcastError as error:
                _log.info("channel %s: the directory could not be told: %s", self.channel, error)
            await asyncio.sleep(_REGISTER_SECONDS)

    async def withdraw(self) -> None:
        """Let nobody ask here any more; a key server that is away forgets this node by itself."""
        try:
            async with asyncio.timeout(_LEAVE_SECONDS):
                await self.session.key_server.put_repair_node(self.channel, RepairNodeUpdate(endpoint=None))
        except (TimeoutError, SealcastError) as error:
            _log.debug("leaving channel %s: %s", self.channel, error)

    async def tend(self) -> None:
        """Drop what is too old though nothing comes, and say when the disk takes nothing, until cancelled."""
        engine, is_told, missed = self.engine, False, 0
        while True:
            engine.expire_kept(self.session.now())
            trouble, unkept = engine.shelf_trouble()
            is_wanting = trouble is not None or unkept > missed
            if is_wanting and not is_told:
                why = trouble or "the disk is too slow"
                _log.warning("channel %s: packets are not kept: %s: %s", self.channel, self._store, why)
            elif is_told and not is_wanting:
                _log.warning("channel %s: packets are kept again", self.channel)
            is_told, missed = is_wanting, unkept
            await asyncio.sleep(_TEND_SECONDS)

    async def run(self) -> None:
        """Go on until cancelled.

        Raises: CertificateError, NotAllowedError, UnknownChannelError: the site refuses this device.
        """
        async for item in self.items():
            if isinstance(item, _core.Message):
                raise InternalError("a repair node has opened a packet")
            level = logging.WARNING if isinstance(item, Loss | Alarm) else logging.INFO
            _log.log(level, "channel %s: %s", self.channel, item)
            if isinstance(item, Refused) and (refusal := self.refusal(item)) is not None:
                raise refusal
