"""The device as an application holds it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Self, Unpack

from sealcast.device.identity import DeviceIdentity
from sealcast.endpoint.inbox import Inbox, InboxOptions
from sealcast.endpoint.peer import Peer, PeerOptions
from sealcast.endpoint.peer_site import PeerSite
from sealcast.endpoint.publisher import Publisher, PublisherOptions
from sealcast.endpoint.site import ChannelSite
from sealcast.endpoint.subscriber import Subscriber, SubscriberOptions


class Device:
    """An enrolled device: opens publishers and subscribers, peers and its inbox.

    device = Device.open("/var/lib/sealcast/bed12")

    A peer that is sent to outside of a block of its own stays open until `close`, or until the block of the
    device is left.
    """

    def __init__(self, identity: DeviceIdentity) -> None:
        """Take what `DeviceIdentity.open` has read."""
        self.identity = identity
        # Shared by all peers and the inbox.
        self._sites: dict[ChannelSite, PeerSite] = {}
        # By site and name: those that were sent to outside of a block.
        self._standing: dict[tuple[ChannelSite, str], Peer] = {}
        self._opening = asyncio.Lock()

    @classmethod
    def open(cls, path: Path | str) -> Self:
        """Read a device's folder.

        Raises: StorageError, CertificateError.
        """
        return cls(DeviceIdentity.open(path))

    @property
    def name(self) -> str:
        """The device's name."""
        return self.identity.name

    def publisher(self, channel: str, **options: Unpack[PublisherOptions]) -> Publisher:
        """Return a publisher on `channel`; options as those of `Publisher`."""
        return Publisher(self.identity, channel, **options)

    def subscriber(self, channel: str, **options: Unpack[SubscriberOptions]) -> Subscriber:
        """Return a subscriber to `channel`; options as those of `Subscriber`."""
        return Subscriber(self.identity, channel, **options)

    def peer(self, name: str, *, site: ChannelSite | None = None, **options: Unpack[PeerOptions]) -> Peer:
        """Return a peer to send messages to, written as the site's policies do.

        `site`: whose policies list both devices; None: the device's own. Options as those of `Peer`.
        """
        peer_site = self._peer_site(site)

        async def standing() -> Peer:
            return await self._stand(Peer(peer_site, name, **options))

        return Peer(peer_site, name, standing=standing, **options)

    def inbox(self, *, site: ChannelSite | None = None, **options: Unpack[InboxOptions]) -> Inbox:
        """Return the inbox of this device; `site` as for `peer`, options as those of `Inbox`."""
        return Inbox(self._peer_site(site), **options)

    async def close(self) -> None:
        """Close the peers that were sent to outside of a block, as the end of a block of theirs does."""
        async with self._opening:
            while self._standing:
                _, peer = self._standing.popitem()
                await peer.__aexit__(None, None, None)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _stand(self, peer: Peer) -> Peer:
        """Return the peer of this name that is open for the device, opened now if there is none."""
        key = (peer.site, peer.name)
        async with self._opening:
            if key not in self._standing:
                self._standing[key] = await peer.__aenter__()
            return self._standing[key]

    def _peer_site(self, site: ChannelSite | None) -> PeerSite:
        chosen = site or ChannelSite.own(self.identity)
        return self._sites.setdefault(chosen, PeerSite(self.identity, chosen))
