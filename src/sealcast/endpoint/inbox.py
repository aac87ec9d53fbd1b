"""The messages that peers send to this device: stored before they are acknowledged, taken in order.

Spec: spec/side-channel.md section 5.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Self, TypedDict

from sealcast.device.identity import DeviceIdentity
from sealcast.device.mailbox import Bounds, Mailbox, sole_holder
from sealcast.endpoint.peer_site import PeerSite, back_off
from sealcast.endpoint.routing import address_towards
from sealcast.errors import NetworkError, NotAllowedError, SealcastError, StorageError, UsageError
from sealcast.pki.times import system_time
from sealcast.pki.validator import VerifiedPeer
from sealcast.sidechannel.inbox import InboxServer
from sealcast.sidechannel.peer_messages import InboxRequest

log = logging.getLogger(__name__)

_MOST_SECONDS = 15.0
_REGISTER_AGAIN_SECONDS = 3600.0
"""An authority that was restored may have lost where we are."""

_LEAVE_SECONDS = 2.0


class InboxOptions(TypedDict, total=False):
    """The options of `Inbox`."""

    listen: tuple[str, int] | None
    bounds: Bounds


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerMessage:
    """A message of a peer."""

    sender: str
    """The verified device, as the site's policies write it."""
    id: bytes
    """16 bytes, the sender's."""
    topic: str | None
    time: int
    """When it was sent, by the sender's clock; microseconds."""
    data: bytes


class Inbox:
    """Takes messages of every device that a policy lists together with this one.

    async with device.inbox() as inbox:
        async for message in inbox:
            print(message.sender, message.topic, message.data)

    A message stays on the disk until the next one is asked for, or the block is left without an error: if the
    application dies over it, it comes again, with the same id. Messages of one sender come in its order.
    """

    def __init__(
        self, site: PeerSite, *, listen: tuple[str, int] | None = None, bounds: Bounds | None = None
    ) -> None:
        """Prepare; nothing happens before the block is entered.

        Args:
            site: whose policies say who may send.
            listen: address and port; None: that which the key server is reached from, and a free port.
            bounds: of the inbox. When it is full peers keep what they have, and try again.
        """
        self._site = site
        self._listen = listen
        self._bounds = bounds or Bounds()
        self._stack: AsyncExitStack | None = None
        self._arrived, self._contact = asyncio.Event(), asyncio.Event()
        # Up to where the application has messages, is done with them, and they are off the disk.
        self._handed = self._done = self._dropped = 0
        self.endpoint: tuple[str, int] | None = None

    # -- life ------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if self._stack is not None:
            raise UsageError("the inbox is open already", cure="use it, or close it first")
        async with AsyncExitStack() as stack:
            await self._open(stack)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        stack, self._stack = self._stack, None
        if stack is None:
            return
        async with stack:
            if kind is None:
                self._done = self._handed
            await self._drop_taken()

    async def _open(self, stack: AsyncExitStack) -> None:
        site = self._site
        await site.open()
        stack.push_async_callback(site.close)
        if not stack.enter_context(sole_holder(site.identity.path, "inbox")):
            raise StorageError(
                str(site.identity.path),
                "another process takes the messages of this device",
                cure="end it first",
            )
        self._handed = self._done = self._dropped = 0
        await site.on_disk(Mailbox.forget, system_time())
        server = InboxServer(
            site.identity, store=self._store, is_paired=self._is_paired, crl=site.crl, clock=site.date
        )
        stack.push_async_callback(server.close)
        host, port = self._listen or (address_towards(site.site.keys_url), 0)
        self.endpoint = await server.listen(host, port)

        def renewed(identity: DeviceIdentity) -> None:
            server.reload(identity)

        site.on_renewal.add(renewed)
        # A policy may let it in that did not before.
        for news in (site.on_contact, site.on_change):
            news.add(self._contact.set)
            stack.callback(news.discard, self._contact.set)
        stack.callback(site.on_renewal.discard, renewed)
        # Peers that know where we were find us even if the key server is away.
        is_told = await self._tell(self.endpoint)
        telling = asyncio.create_task(self._keep_told(is_told=is_told))
        stack.push_async_callback(self._leave, telling)

    async def _leave(self, telling: asyncio.Task[None]) -> None:
        telling.cancel()
        await asyncio.gather(telling, return_exceptions=True)
        with suppress(TimeoutError):
            async with asyncio.timeout(_LEAVE_SECONDS):
                await self._tell(None)

    # -- taking ----------------------------------------------------------------------------------------------

    async def recv(self) -> PeerMessage:
        """Wait for the next message; those that were taken before are done with."""
        return (await self._take(1))[0]

    async def recv_many(self, limit: int = 512) -> list[PeerMessage]:
        """Wait for at least one message, and return what is there, at most `limit`."""
        return await self._take(limit)

    async def __aiter__(self) -> AsyncIterator[PeerMessage]:
        while True:
            yield await self.recv()

    # -- inside ----------------------------------------------------------------------------------------------

    async def _take(self, limit: int) -> list[PeerMessage]:
        if self._stack is None:
            raise UsageError("the inbox is not open", cure="enter it with: async with")
        self._done = self._handed
        await self._drop_taken()
        while True:
            self._arrived.clear()
            taken = await self._site.on_disk(Mailbox.received, self._done, limit)
            if taken:
                break
            await self._arrived.wait()
        self._handed = taken[-1].number
        return [
            PeerMessage(
                sender=self._site.short_name(each.peer),
                id=each.id,
                topic=each.topic,
                time=each.time,
                data=each.data,
            )
            for each in taken
        ]

    async def _drop_taken(self) -> None:
        if self._done > self._dropped:
            await self._site.on_disk(Mailbox.taken, self._done)
            self._dropped = self._done

    def _is_paired(self, peer: VerifiedPeer) -> bool:
        return self._site.is_paired(self._site.member(peer))

    async def _store(self, peer: VerifiedPeer, asked: InboxRequest) -> int:
        sender = f"{peer.site_id.hex()}:{peer.name}"
        try:
            stored = await self._site.on_disk(
                Mailbox.store, sender, asked.messages, system_time(), self._bounds
            )
        except StorageError as error:
            # As where there is no room: the sender keeps what it has, and tries again.
            log.warning("messages of %s cannot be stored: %s", peer.identity.uri, error)
            return 0
        self._arrived.set()
        return stored

    async def _tell(self, endpoint: tuple[str, int] | None) -> bool:
        """Tell the directory where we are. Returns: whether that is done."""
        try:
            await self._site.key_server.put_endpoint(endpoint)
        except NetworkError as error:
            log.info("the directory does not know yet where messages are taken: %s", error)
            return False
        except NotAllowedError:
            log.warning("device folder %s: no channel's policy lists this device", self._site.identity.path)
            return False
        except SealcastError as error:
            log.warning("the directory does not take where messages are taken: %s", error)
            return False
        return True

    async def _keep_told(self, *, is_told: bool) -> None:
        failures = 0 if is_told else 1
        while True:
            seconds = back_off(failures, _MOST_SECONDS) if failures else _REGISTER_AGAIN_SECONDS
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._contact.wait()
            self._contact.clear()
            failures = 0 if await self._tell(self.endpoint) else failures + 1
