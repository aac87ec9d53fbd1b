"""The trust bundle as the authority keeps and hands it out: every version, and who has reported which.

The authority cannot make a version that devices take, save where a bundle delegates the list of its own site
CAs to it: roots sign, elsewhere (`sealcast root sign-bundle`). It refuses one that its own site could not
live with.
Spec: spec/trust.md section 5, spec/side-channel.md SC-19 to SC-21.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce

from sqlalchemy import ColumnElement, and_, func, select, update
from sqlalchemy.orm import Session

from sealcast.authority import audit, lost_bundles
from sealcast.authority.models import BundleRow, DeviceCountRow, DeviceRow, ReportRow
from sealcast.errors import CertificateError
from sealcast.pki.bundle import (
    Anchor,
    BundleSite,
    Purpose,
    SignedBundle,
    TrustBundle,
    VerifiedBundle,
    accept,
    check_successor,
    pin,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleProgress:
    """How far the devices of the site are with a version."""

    version: int
    devices: int
    """Those that are enrolled and hold a certificate that is good now."""
    reported: int
    """Of these, how many have said that they hold it, or a later one."""
    missing: tuple[str, ...]
    """Names of the others, or the first of them, sorted."""


def load_bundle(session: Session) -> VerifiedBundle | None:
    """Return the latest version, walked to from version 1; None if the site has no bundle yet.

    Raises: CertificateError if what is stored does not follow from version 1.
    """
    rows = session.scalars(select(BundleRow).order_by(BundleRow.version)).all()
    if not rows:
        return None
    return reduce(accept, (row.signed for row in rows[1:]), pin(rows[0].signed, rows[0].hash))


def bundle_bytes(session: Session, version: int) -> bytes | None:
    """Return a version as signed; None if there is no such version."""
    row = session.get(BundleRow, version)
    return None if row is None else row.signed


def first_bundle(*, root: bytes, site_id: bytes, site_name: str, authority: bytes, now: int) -> TrustBundle:
    """Return version 1 of a site with one root (DER) and one site CA (DER); `now`: microseconds."""
    return TrustBundle(
        version=1,
        predecessor=None,
        issued=now,
        threshold=1,
        anchors=(Anchor(certificate=root, purpose=Purpose.OWNER, since=now, sites=(site_id,)),),
        sites=(BundleSite(site_id=site_id, name=site_name, delegated=False, authorities=(authority,)),),
    )


def draft_bundle(held: VerifiedBundle, now: int, **changes: object) -> TrustBundle:
    """Return the next version with `changes` of its fields, to be signed.

    Raises: CertificateError: it would not do.
    """
    values = {"version": held.version + 1, "predecessor": held.hash, "issued": now, **changes}
    bundle = replace(held.bundle, **values)  # type: ignore[arg-type]
    check_successor(held.bundle, held.hash, bundle)
    return bundle


def store_bundle(
    session: Session, data: bytes, *, site_id: bytes, issuer: bytes, roots: Sequence[bytes], now: int
) -> VerifiedBundle:
    """Store a signed version as the latest.

    Args:
        session: the transaction.
        data: the signed bundle.
        site_id: of this authority, 16 bytes.
        issuer: the site CA certificate (DER) that it issues with now.
        roots: DER; one of the first version's signers has to be among them.
        now: microseconds.

    Raises:
        CertificateError: it does not follow, lacks signatures, would cut this site off, or may stand in the
            place of one that a backup lacks.
    """
    held = load_bundle(session)
    if held is None:
        signed = SignedBundle.parse(data)
        bundle = pin(data, signed.hash)
        if not signed.signed_by(roots):
            raise CertificateError(
                "version 1 of the trust bundle is signed by none of this site's roots", reason="signature"
            )
    else:
        bundle = accept(held, data)
    if bundle.bundle.issued > now:
        raise CertificateError(
            "the trust bundle was issued in the future", reason="time", cure="check the clocks"
        )
    lost_bundles.check_settled(session, bundle.bundle.issued)
    check_own_site(bundle.bundle, site_id, issuer)
    session.add(BundleRow(version=bundle.version, hash=bundle.hash, issued=bundle.bundle.issued, signed=data))
    audit.record(session, now, "add trust bundle", f"version {bundle.version}", hash=bundle.hash.hex())
    return bundle


def check_own_site(bundle: TrustBundle, site_id: bytes, issuer: bytes) -> None:
    """Raises: CertificateError if a bundle does not list the site CA (DER) that a site issues with now."""
    if not any(site.site_id == site_id and issuer in site.authorities for site in bundle.sites):
        raise CertificateError(
            "the trust bundle would cut this site off: it does not list the site CA that issues now",
            reason="lockout",
            cure="list it until `rotate site` has switched to another one",
        )


def record_report(
    session: Session, device: str, *, version: int, digest: bytes, serial: str, now: int
) -> bool:
    """Note which version a device of the site holds, and by which certificate it says so.

    Returns: False if no version has that hash: it walks another bundle than ours, or one that was lost.
    """
    row = session.get(BundleRow, version)
    if version and (row is None or row.hash != digest):
        lost_bundles.note_unknown(session, device, version, digest, now)
        return False
    session.execute(update(DeviceRow).where(DeviceRow.name == device).values(bundle_version=version))
    report = session.get(ReportRow, device)
    if report is None:
        session.add(ReportRow(device=device, bundle_version=version, serial=serial, reported=now))
    else:
        # A device restored from a backup may say less than before, and is believed.
        report.bundle_version, report.serial, report.reported = version, serial, now
    return True


def bundle_progress(session: Session, version: int, now: int, *, most: int | None = None) -> BundleProgress:
    """Tell how many devices hold at least a version; of those that do not, no more than `most` are named."""
    has = DeviceRow.bundle_version >= version
    ended = select(func.count(), func.count().filter(has)).where(
        DeviceRow.revoked.is_(None), DeviceRow.ends <= now
    )
    without, without_reported = session.execute(ended).one()
    devices = enrolled_devices(session) - without
    reported = enrolled_devices(session, version) - without_reported
    missing = (
        select(DeviceRow.name)
        # The sum keeps SQLite from an index by ends, whose rows it would have to sort.
        .where(DeviceRow.revoked.is_(None), DeviceRow.ends + 0 > now, ~has)
        .order_by(DeviceRow.name)
        .limit(most)
    )
    names = tuple(session.scalars(missing)) if reported < devices else ()
    return BundleProgress(version=version, devices=devices, reported=reported, missing=names)


def enrolled_devices(session: Session, version: int = 0) -> int:
    """How many devices are not removed and have reported at least a version, whenever their certificates
    end.
    """
    counted = select(func.sum(DeviceCountRow.devices)).where(DeviceCountRow.bundle_version >= version)
    return session.scalar(counted) or 0


def living_devices(session: Session, now: int) -> set[str]:
    """Names of the devices that are enrolled and hold a certificate that is good now."""
    return set(session.scalars(select(DeviceRow.name).where(_is_alive(now))))


def _is_alive(now: int) -> ColumnElement[bool]:
    return and_(DeviceRow.revoked.is_(None), DeviceRow.ends > now)


def latest_version(session: Session) -> int:
    """Number of the latest version; 0 without one."""
    return session.scalar(select(func.max(BundleRow.version))) or 0
