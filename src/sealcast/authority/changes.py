"""What a transaction changed of what the running service holds in memory."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from sealcast.authority.admins import AdminRole
from sealcast.authority.est_state import EstState
from sealcast.authority.models import DeviceRow
from sealcast.authority.revocation import CurrentCrl
from sealcast.authority.site import KeyServerIdentity, Site
from sealcast.authority.stored_channel import StoredChannel
from sealcast.pki.bundle import VerifiedBundle


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What is None or empty is as it was."""

    channels: Sequence[StoredChannel] = ()
    crl: CurrentCrl | None = None
    revoked: frozenset[str] | None = None
    """Every device that is removed."""
    removed: frozenset[str] = frozenset()
    """Devices that are removed now, where nothing else is known of the others."""
    readmitted: frozenset[str] = frozenset()
    """Devices that are not removed, or no longer."""
    bundle: VerifiedBundle | None = None
    admins: Mapping[str, AdminRole] | None = None
    est: EstState | None = None
    site: Site | None = None
    """With another issuer; the files of the folder follow."""
    identity: KeyServerIdentity | None = None
    """The key server's, which has a new certificate."""


def revoked_devices(session: Session) -> frozenset[str]:
    """The names of removed devices."""
    return frozenset(session.scalars(select(DeviceRow.name).where(DeviceRow.revoked.is_not(None))))
