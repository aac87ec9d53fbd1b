"""Whose channel it is: that of the device's own site, or of another one, whose policy lets the device in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from sealcast.device.identity import DeviceIdentity
from sealcast.errors import UsageError
from sealcast.pki.names import check_site_id, parse_site_id


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelSite:
    """The site that a channel belongs to, and where its key server is."""

    site_id: bytes
    """16 bytes. With the channel's name it is the channel's identity (spec/wire.md DP-3)."""
    keys_url: str
    """Key server: `https://host:port`."""

    def __post_init__(self) -> None:
        check_site_id(self.site_id)
        if not self.keys_url.startswith("https://"):
            raise UsageError(f"no key server at {self.keys_url!r}", cure="write https://HOST:PORT")

    @classmethod
    def own(cls, identity: DeviceIdentity) -> Self:
        """The device's own."""
        return cls(site_id=identity.site_id, keys_url=identity.keys_url)

    @classmethod
    def find(cls, identity: DeviceIdentity, site: str, keys_url: str) -> Self:
        """Another one, by its id or by the name that the device's trust bundle has for it.

        Raises: UsageError: the bundle has no such site, or several of that name.
        """
        listed = () if identity.bundle is None else identity.bundle.bundle.sites
        named = [entry.site_id for entry in listed if entry.name == site]
        if len(named) > 1:
            ids = ", ".join(sorted(site_id.hex() for site_id in named))
            raise UsageError(f"several sites have the name {site!r}: {ids}", cure="give the id")
        try:
            site_id = named[0] if named else parse_site_id(site)
        except UsageError:
            known = ", ".join(sorted(entry.name for entry in listed)) or "none"
            raise UsageError(
                f"no site {site[:80]!r} in the device's trust bundle",
                cure=f"give its id, 32 hexadecimal digits, or one of these names: {known}",
            ) from None
        return cls(site_id=site_id, keys_url=keys_url)
