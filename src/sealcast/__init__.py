"""Sealcast: secure reliable multicast with full key management.

The packages are layers, and imports only go down:

    cli
    sync
    authority, endpoint
    device, sidechannel, repair, relay
    est, keys
    ca
    pki
    errors

The engine is `sealcast._core`, written in Rust; from `pki` upwards everyone may use it.
"""

from typing import TYPE_CHECKING

from sealcast._core import __version__

if TYPE_CHECKING:
    from sealcast.endpoint import (
        ChannelSite,
        Device,
        Inbox,
        Message,
        Peer,
        PeerMessage,
        Publisher,
        RoutingOverrides,
        Subscriber,
    )

__all__ = [
    "ChannelSite",
    "Device",
    "Inbox",
    "Message",
    "Peer",
    "PeerMessage",
    "Publisher",
    "RoutingOverrides",
    "Subscriber",
    "__version__",
]


def __getattr__(name: str) -> object:
    # Loaded at first use: the command line and the service do without the endpoint's libraries.
    if name in __all__:
        from sealcast import endpoint

        return getattr(endpoint, name)
    raise AttributeError(f"module 'sealcast' has no attribute {name!r}")
