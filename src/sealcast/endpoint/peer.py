"""A peer that messages are sent to: queued on the disk, delivered in order, acknowledged once stored there.

Spec: spec/side-channel.md section 5, above all SC-38.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from types import TracebackType
from typing import Self, TypedDict

from sealcast.device.identity import DeviceIdentity
from sealcast.device.mailbox import Bounds, Mailbox, sole_holder
from sealcast.endpoint.limits import check_seconds, check_topic
from sealcast.endpoint.peer_site import PeerSite, back_off
from sealcast.endpoint.site import ChannelSite
from sealcast.errors import (
    CertificateError,
    IncompleteError,
    PeerError,
    SealcastError,
    UnreachableError,
    UsageError,
)
from sealcast.pki.names import parse_member
from sealcast.pki.times import system_time
from sealcast.sidechannel.client import PeerClient
from sealcast.sidechannel.peer_messages import MAX_MESSAGE_DATA, PostedMessage

log = logging.getLogger(__name__)

_MOST_SECONDS = 15.0
"""Between two tries at a peer that is away."""

_LOOK_SECONDS = 1.0
"""How often the outbox is looked at for what another process of this device has put there."""

_PATIENCE_SECONDS = 5.0
"""How long a peer may refuse us before we say so: it may be about to hear of a policy that we have."""


class PeerOptions(TypedDict, total=False):
    """The options of `Peer`."""

    linger: float
    bounds: Bounds


class Peer:
    """Another device, as the addressee of messages.

    async with device.peer("station-3") as peer:
        await peer.send(b"...", topic="alarm")

    A message is on this device's disk when `send` returns, and is delivered as long as some process has the
    peer open, in the order of sending; it goes when the peer has it on its disk. Leaving the block waits for
    that, `linger` seconds at the most; what is left is delivered when the peer is opened next. Without a
    block, `await device.peer("station-3").send(...)` opens it until the device is closed.
    """

    def __init__(
        self,
        site: PeerSite,
        name: str,
        *,
        linger: float = 5.0,
        bounds: Bounds | None = None,
        standing: Callable[[], Awaitable[Peer]] | None = None,
    ) -> None:
        """Prepare; nothing happens before the block is entered.

        Args:
            site: whose policies have to list both devices.
            name: of the peer, as these policies write it.
            linger: seconds to wait at the end for what is not delivered.
            bounds: of the outbox.
            standing: gives the one that stays open, for who sends outside of a block.

        Raises:
            UsageError: a name, or a number that is out of its range.
        """
        self.linger = check_seconds("linger", linger)
        self.name = name
        site_id, self._device = parse_member(site.site.site_id, name)
        self._site_id = site_id
        self._key = f"{site_id.hex()}:{self._device}"
        if self._key == f"{site.identity.site_id.hex()}:{site.identity.name}":
            raise UsageError(f"{name!r} is this very device", cure="name another one")
        self._site = site
        self._bounds = bounds or Bounds()
        self._standing = standing
        self._is_open = False
        self._task: asyncio.Task[None] | None = None
        self._client: PeerClient | None = None
        # Something is queued; what we go by has changed; something was delivered, or has failed.
        self._queued, self._changed, self._news = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._failure: SealcastError | None = None
        self._refused_since = 0.0
        self._dropped = 0

    # -- life ------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if self._is_open:
            raise UsageError(f"the peer {self.name!r} is open already", cure="use it, or close it first")
        await self._site.open()
        self._is_open, self._failure, self._dropped = True, None, 0
        self._site.on_change.add(self._changed_what_we_go_by)
        self._site.on_renewal.add(self._renewed)
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                await self._linger()
        finally:
            self._is_open = False
            self._site.on_change.discard(self._changed_what_we_go_by)
            self._site.on_renewal.discard(self._renewed)
            if self._task is not None:
                self._task.cancel()
                await asyncio.gather(self._task, return_exceptions=True)
            await self._disconnect()
            await self._site.close()

    async def _linger(self) -> None:
        if not self.linger:
            return
        try:
            async with asyncio.timeout(self.linger):
                await self.delivered()
        except TimeoutError:
            if waiting := await self.waiting():
                reason = f": {self._failure}" if self._failure is not None else ""
                log.warning("%d messages for %s wait in the outbox%s", waiting, self.name, reason)

    # -- sending ---------------------------------------------------------------------------------------------

    async def send(self, message: bytes, *, topic: str | None = None) -> bytes:
        """Queue one message; it is on the disk when this returns.

        Returns: its id, 16 bytes.

        Raises: UsageError: too long; PeerError: no policy lists both devices; OutboxFullError; StorageError.
        """
        [id] = await self.send_many([message], topic=topic)
        return id

    async def send_many(self, messages: Iterable[bytes], *, topic: str | None = None) -> list[bytes]:
        """Queue many messages at once, in order: all of them, or none. Returns, raises: as `send`."""
        check_topic(topic)
        now = system_time()
        posted = [
            PostedMessage(id=os.urandom(16), topic=topic, time=now, data=bytes(memoryview(message)))
            for message in messages
        ]
        for at, message in enumerate(posted):
            if len(message.data) > MAX_MESSAGE_DATA:
                raise UsageError(
                    f"message {at} of {len(posted)} has {len(message.data)} bytes: none was sent",
                    cure=f"send at most {MAX_MESSAGE_DATA} bytes at a time",
                )
        if not self._is_open:
            return await (await self._opened())._queue(posted)
        return await self._queue(posted)

    async def _queue(self, posted: list[PostedMessage]) -> list[bytes]:
        if not self._site.is_paired(self.name):
            raise PeerError(self.name)
        if posted:
            await self._site.on_disk(Mailbox.queue, self._key, posted, self._bounds)
            self._queued.set()
        return [message.id for message in posted]

    async def delivered(self) -> None:
        """Wait until the peer has acknowledged everything that was sent to it.

        Raises: PeerError, CertificateError: the site or the peer refuses it, and messages wait; they stay in
        the outbox. IncompleteError: some have waited for too long, and were dropped.
        """
        if not self._is_open:
            await (await self._opened()).delivered()
            return
        while True:
            self._news.clear()
            if not await self.waiting():
                break
            if (refusal := self._refusal()) is not None:
                raise refusal
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_SECONDS):
                    await self._news.wait()
        if self._dropped:
            dropped, self._dropped = self._dropped, 0
            raise IncompleteError(
                f"{dropped} messages for {self.name!r} were dropped: they had waited for too long",
                cure="see whether the peer listens: sealcast peer inbox; then send them again",
            )

    async def waiting(self) -> int:
        """How many messages the peer has not acknowledged yet."""
        if not self._is_open:
            return await (await self._opened()).waiting()
        return await self._site.on_disk(Mailbox.waiting, self._key)

    @property
    def site(self) -> ChannelSite:
        """Whose policies list both devices."""
        return self._site.site

    @property
    def failure(self) -> SealcastError | None:
        """Why the last try at the peer failed; None if it did not."""
        return self._failure

    # -- inside ----------------------------------------------------------------------------------------------

    async def _opened(self) -> Peer:
        """The one that stays open for the device."""
        if self._standing is None:
            raise UsageError(f"the peer {self.name!r} is not open", cure="enter it with: async with")
        return await self._standing()

    def _refusal(self) -> SealcastError | None:
        """What no waiting changes, as far as we can tell."""
        if not self._site.is_paired(self.name):
            return PeerError(self.name)
        reason = self._failure.reason if isinstance(self._failure, CertificateError) else ""
        if reason in _FINAL:
            return self._failure
        if not isinstance(self._failure, PeerError) and reason != _NOT_AUTHENTICATED:
            return None
        since = asyncio.get_running_loop().time() - self._refused_since
        return self._failure if since >= _PATIENCE_SECONDS else None

    async def _run(self) -> None:
        """Deliver, as long as no other process does."""
        name = f"to-{self._key.replace(':', '-')}"
        while True:
            try:
                with sole_holder(self._site.identity.path, name) as is_held:
                    if is_held:
                        await self._deliver()
            except SealcastError as error:
                self._note(error)
            except Exception:  # what is queued is still there: it is tried again
                log.exception("delivery to peer %s has failed", self.name)
            await asyncio.sleep(_LOOK_SECONDS)
            self._news.set()

    async def _deliver(self) -> None:
        failures = 0
        while True:
            await self._drop_expired()
            batch = await self._site.on_disk(Mailbox.next_batch, self._key)
            if not batch:
                await _wait(self._queued, _LOOK_SECONDS)
                continue
            try:
                stored = await self._post(batch)
                await self._site.on_disk(Mailbox.delivered, self._key, batch[:stored])
            except SealcastError as error:
                failures += 1
                await self._disconnect()
                self._note(error)
                await _wait(self._changed, back_off(failures, _MOST_SECONDS))
            else:
                failures, self._failure = 0, None
                self._news.set()

    async def _post(self, batch: list[PostedMessage]) -> int:
        if not self._site.is_paired(self.name):
            raise PeerError(self.name)
        if self._client is None:
            place = await self._site.find(self.name)
            if place is None:
                raise UnreachableError(
                    self.name, "it takes no messages now", cure="start there: sealcast peer inbox"
                )
            self._client = PeerClient(
                self._site.identity,
                host=place[0],
                port=place[1],
                device=self._device,
                site_id=self._site_id,
                crl=self._site.crl,
                clock=self._site.date,
            )
        return await self._client.post(batch)

    async def _drop_expired(self) -> None:
        dropped = await self._site.on_disk(Mailbox.expired, self._key, system_time(), self._bounds)
        if dropped:
            self._dropped += len(dropped)
            log.warning("peer %s: %d messages have waited for too long: dropped", self.name, len(dropped))
            self._news.set()

    def _note(self, error: SealcastError) -> None:
        log.debug("peer %s: %s", self.name, error)
        if type(error) is not type(self._failure):
            self._refused_since = asyncio.get_running_loop().time()
        self._failure = error
        self._news.set()

    def _changed_what_we_go_by(self) -> None:
        self._changed.set()
        if self._client is not None:
            # Whoever was let in by an older CRL is judged again.
            self._client.reload(self._site.identity)

    def _renewed(self, identity: DeviceIdentity) -> None:
        self._changed.set()
        if self._client is not None:
            self._client.reload(identity)

    async def _disconnect(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.close()


_FINAL = frozenset({"revoked", "peer-revoked", "expired"})
_NOT_AUTHENTICATED = "not-authenticated"
"""May pass, as in the midst of a rotation."""


async def _wait(event: asyncio.Event, seconds: float) -> None:
    """Wait for an event, so long at the most, and clear it."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
    event.clear()
