"""What a site needs to live, and when each of it ends: shown by `status`, and told in the log while near.

All of it renews by itself or by a ceremony long before; what is near has been missed, or is blocked.
"""

from collections.abc import Iterator

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from sealcast.authority import bundles, revocation
from sealcast.authority.models import (
    AdminRow,
    CertificateRow,
    ChannelRow,
    DeviceRow,
    OtherCrlRow,
    PolicyRow,
)
from sealcast.authority.site import Site
from sealcast.pki.certificates import parse_certificate
from sealcast.pki.ends import End, certificate_end, chain_ends
from sealcast.pki.names import Role
from sealcast.pki.profiles import DEVICE
from sealcast.pki.times import microseconds

_NAMES_SHOWN = 3

_AWAY = 30 * 86_400_000_000
"""Microseconds after its certificate's end from which a holder counts as gone, not as late."""


def site_ends(session: Session, site: Site, now: int) -> tuple[End, ...]:
    """Return the life of each thing that the site needs; of holders' certificates, those that end soon.

    `now`: microseconds. Raises: StorageError, CertificateError: a file of the folder is damaged.
    """
    held = bundles.load_bundle(session)
    owners = () if held is None else tuple(anchor.certificate for anchor in held.bundle.owners())
    authorities = site.issuers if held is None else (*site.issuers, *held.bundle.authorities())
    found = list(chain_ends(site.key_server().chain[0], authorities, (*site.roots, *owners)))
    found += [end for end in map(certificate_end, map(parse_certificate, owners)) if end not in found]
    crl = revocation.crl_dates(session)
    found.append(End(what=f"CRL {crl.number}", begins=crl.issued, ends=crl.next_update))
    found += _other_crls(session)
    found += _policies(session)
    found += _holders(session, now)
    return tuple(sorted(found, key=lambda end: end.ends))


def _other_crls(session: Session) -> Iterator[End]:
    """A list of another site that ends is one that is not brought here any more."""
    for row in session.scalars(select(OtherCrlRow).order_by(OtherCrlRow.site_id)):
        what = f"CRL {row.number} of site {row.site_id.hex()}"
        yield End(what=what, begins=row.issued, ends=row.next_update)


def _policies(session: Session) -> Iterator[End]:
    latest = (
        select(PolicyRow.channel, func.max(PolicyRow.version).label("version"))
        .group_by(PolicyRow.channel)
        .subquery()
    )
    rows = session.execute(
        select(PolicyRow.channel, PolicyRow.issued, PolicyRow.next_update)
        .join(latest, (PolicyRow.channel == latest.c.channel) & (PolicyRow.version == latest.c.version))
        .where(PolicyRow.channel.in_(select(ChannelRow.name)))
    )
    for channel, issued, next_update in rows:
        yield End(what=f"policy of channel {channel!r}", begins=issued, ends=next_update)


def _holders(session: Session, now: int) -> Iterator[End]:
    """Devices and admins that have not renewed in time; who has been away for longer is left out."""
    soon = now + microseconds(DEVICE.life) // 4
    devices = select(DeviceRow.name).where(
        DeviceRow.revoked.is_(None), DeviceRow.ends <= soon, DeviceRow.ends > now - _AWAY
    )
    admins = select(AdminRow.name).where(AdminRow.revoked.is_(None))
    for role, holders in ((Role.DEVICE, devices), (Role.ADMIN, admins)):
        ends = func.max(CertificateRow.not_after)
        late = session.execute(
            select(CertificateRow.name, func.max(CertificateRow.not_before), ends)
            .where(
                CertificateRow.role == str(role),
                CertificateRow.revoked.is_(None),
                CertificateRow.name.in_(holders),
            )
            .group_by(CertificateRow.name)
            .having(ends <= soon, ends > now - _AWAY)
            .order_by(ends)
        ).all()
        if late:
            names = ", ".join(name for name, _, _ in late[:_NAMES_SHOWN])
            more = f" and {len(late) - _NAMES_SHOWN} more" if len(late) > _NAMES_SHOWN else ""
            _, begins, first = late[0]
            yield End(what=f"certificate of {role} {names}{more}", begins=begins, ends=first)
