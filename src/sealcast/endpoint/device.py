"""The device as an application holds it."""

from __future__ import annotations

from pathlib import Path
from typing import Self, Unpack

from sealcast.device.identity import DeviceIdentity
from sealcast.endpoint.publisher import Publisher, PublisherOptions
from sealcast.endpoint.subscriber import Subscriber, SubscriberOptions


class Device:
    """An enrolled device: opens publishers and subscribers.

    device = Device.open("/var/lib/sealcast/bed12")
    """

    def __init__(self, identity: DeviceIdentity) -> None:
        """Take what `DeviceIdentity.open` has read."""
        self.identity = identity

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
