"""The repair node: what `sealcast repair-node` runs.

It listens on the groups of its channels, verifies every packet as a subscriber does, keeps the ciphertext in
memory or on disk within bytes and seconds, and serves it to members over mutual TLS. The key server gives it
gate keys and credential keys alone: with all that it holds nothing opens.

Spec: spec/keys.md KM-21; spec/side-channel.md SC-39 to SC-42.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from sealcast.device.identity import DeviceIdentity
from sealcast.endpoint.routing import RoutingOverrides, address_towards
from sealcast.endpoint.site import ChannelSite
from sealcast.errors import UsageError
from sealcast.repair.keeper import Keeper
from sealcast.repair.store import open_store
from sealcast.sidechannel.followers import FollowSource
from sealcast.sidechannel.peer_messages import FileReport
from sealcast.sidechannel.quota import Quota
from sealcast.sidechannel.server import Admission, PeerServer, Repaired

KEEP_BYTES = 256 << 20
KEEP_SECONDS = 60.0


class RepairNode:
    """Keeps the packets of channels for their members.

    async with RepairNode(identity, ["icu3/vitals"]) as node:
        await node.run()
    """

    def __init__(
        self,
        identity: DeviceIdentity,
        channels: Sequence[str],
        *,
        keep_bytes: int = KEEP_BYTES,
        keep_seconds: float = KEEP_SECONDS,
        store: Path | None = None,
        site: ChannelSite | None = None,
        routing: RoutingOverrides | None = None,
        listen: tuple[str, int] | None = None,
        quota: Quota | None = None,
    ) -> None:
        """Prepare; nothing happens before the block is entered.

        Args:
            identity: a device that the site has given the role `repair-node`.
            channels: their names; one at least.
            keep_bytes: what is kept of each channel takes at most so much memory, or room on disk.
            keep_seconds: for how long a packet is kept at most.
            store: a folder to keep the packets in, also over a restart; None: in memory. An index of it, a
                tenth of its size where packets are full, stays in memory.
            site: that the channels belong to; None: the device's own.
            routing: overrides of the policies' addresses.
            listen: address and port of the side channel; None: a free port of the address towards the
                key server.
            quota: what one member may take; None: the usual.

        Raises:
            UsageError: a name, or a number that is out of its range.
        """
        if not channels or len(set(channels)) < len(channels):
            raise UsageError("a repair node keeps one channel or more, each once", cure="name the channels")
        self._identity = identity
        self._site = site or ChannelSite.own(identity)
        self._listen = listen
        self._store = store
        self._quota = quota
        self._keepers = [
            Keeper(
                identity,
                channel,
                keep_bytes=keep_bytes,
                keep_seconds=keep_seconds,
                store=store,
                site=self._site,
                routing=routing,
            )
            for channel in channels
        ]
        self._by_id = {keeper.channel_id: keeper for keeper in self._keepers}
        self._stack = AsyncExitStack()
        self._endpoint = ("", 0)

    async def __aenter__(self) -> Self:
        """Join every channel, and listen."""
        try:
            if self._store is not None:
                self._stack.enter_context(open_store(self._store, self._by_id))
            for keeper in self._keepers:
                await self._stack.enter_async_context(keeper)
            await self._open()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            await asyncio.gather(*(keeper.withdraw() for keeper in self._keepers))
        finally:
            await self._stack.aclose()

    async def _open(self) -> None:
        # All channels are of one site: whichever session has the latest word on the CRL, and on our own
        # certificate, has it for all.
        first = self._keepers[0]
        server = PeerServer(
            first.session.identity,
            site_id=self._site.site_id,
            repair=self._repair,
            files=self._take_files,
            is_allowed=self._is_allowed,
            crl=first.engine.crl,
            clock=first.session.date,
            admission=self._admission,
            quota=self._quota,
            follow=FollowSource(reach=self._reach, await_fresh=self._await_fresh),
            outbound=lambda channel: self._by_id[channel].outbound,
        )
        for keeper in self._keepers:
            keeper.session.ask_outbound = keeper.ask_outbound
            self._stack.callback(keeper.outbound.end)
            keeper.session.on_output = partial(server.followers.take_fresh, keeper.engine)
        host, port = self._listen or (address_towards(self._site.keys_url), 0)
        self._endpoint = await server.listen(host, port)
        self._stack.push_async_callback(server.close)
        first.session.on_renewal = server.reload

    @property
    def endpoint(self) -> tuple[str, int]:
        """Host and port of the side channel."""
        return self._endpoint

    def counters(self) -> dict[str, dict[str, int]]:
        """What has been counted since the start, by channel."""
        return {keeper.channel: keeper.counters() for keeper in self._keepers}

    async def run(self) -> None:
        """Go on until cancelled.

        Raises: CertificateError, NotAllowedError, UnknownChannelError: the site refuses this device.
        """
        tasks = [
            asyncio.ensure_future(work)
            for keeper in self._keepers
            for work in (keeper.run(), keeper.announce(self._endpoint), keeper.tend())
        ]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()

    def _repair(
        self,
        channel: bytes,
        stream: bytes,
        ranges: tuple[tuple[int, int], ...],
        admission: Admission | None,
    ) -> Repaired | None:
        return self._by_id[channel].serve(stream, ranges, admission)

    def _reach(self, channel: bytes, stream: bytes) -> tuple[int, bool] | None:
        return self._by_id[channel].engine.reach(stream)

    def _await_fresh(self, channel: bytes) -> None:
        self._by_id[channel].engine.await_fresh()

    def _take_files(self, device: str, report: FileReport) -> bool:
        # What a receiver has of files is for their publisher, which may come for it.
        return self._by_id[report.channel].outbound.report(report.stream, device, report.serialize())

    async def _admission(self, channel: bytes, device: str) -> Admission:
        return await self._by_id[channel].admission(device)

    def _is_allowed(self, channel: bytes, device: str) -> bool | None:
        keeper = self._by_id.get(channel)
        return None if keeper is None else keeper.engine.is_member(device)
