"""The trust bundles of a rotation: drafted for the roots, taken when they have signed, or signed by the site.

Spec: spec/trust.md sections 5 and 6.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sqlalchemy.orm import Session

from sealcast.authority import bundles, lost_bundles, revocation
from sealcast.authority.arrangement import latest_rotation
from sealcast.authority.changes import Changes
from sealcast.authority.est_state import load_state
from sealcast.authority.models import RotationRow
from sealcast.authority.rotation_progress import standing_of
from sealcast.authority.rotation_state import arranged, held_bundle, move, renew_key_server
from sealcast.authority.rotation_steps import ENDED, Kind, Step
from sealcast.authority.site import Site
from sealcast.ca import LocalIssuer
from sealcast.errors import CertificateError, ConflictError
from sealcast.pki.bundle import Anchor, BundleSite, Purpose, SignedBundle, TrustBundle, VerifiedBundle


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A version of the trust bundle that has to be signed elsewhere."""

    unsigned: bytes
    """A signed object without any signature."""
    version: int
    threshold: int
    """How many of `signers` have to sign it."""
    signers: tuple[bytes, ...]
    """DER: the owner's roots of the version before."""


def draft(session: Session, site: Site, row: RotationRow, now: int) -> Draft:
    """The version of the trust bundle that the rotation waits for, unsigned.

    Raises:
        ConflictError: it waits for none.
        UsageError, CertificateError: devices could not live with it.
    """
    held = held_bundle(session)
    bundle = _next_bundle(session, site, row, held, now)
    return Draft(
        unsigned=SignedBundle.unsigned(bundle).serialize(),
        version=bundle.version,
        threshold=held.bundle.threshold,
        signers=tuple(each.certificate for each in held.bundle.owners() if each in bundle.owners()),
    )


def _next_bundle(
    session: Session, site: Site, row: RotationRow, held: VerifiedBundle, now: int
) -> TrustBundle:
    if row.step not in (Step.PUBLISH, Step.RETIRE) or row.new is None:
        raise ConflictError(
            f"rotation {row.id} waits for no trust bundle, at the step {row.step}",
            cure="see: sealcast authority rotate status DIR",
        )
    lost_bundles.check_settled(session, now)
    anchors, own = held.bundle.anchors, held.bundle.site(site.site_id)
    if row.step == Step.PUBLISH:
        authorities = _once([site.issuer.certificate, *own.authorities, row.new])
        if row.new_root is not None:
            scope = next(anchor.sites for anchor in anchors if anchor.certificate == row.old_root)
            added = Anchor(certificate=row.new_root, purpose=Purpose.OWNER, since=now, sites=scope)
            anchors = (*anchors, added)
    else:
        authorities = tuple(der for der in _once([row.new, *own.authorities]) if der != row.old)
        if row.old_root is not None:
            anchors = tuple(anchor for anchor in anchors if anchor.certificate != row.old_root)
    sites = tuple(
        replace(each, authorities=authorities) if each.site_id == site.site_id else each
        for each in held.bundle.sites
    )
    return bundles.draft_bundle(held, max(now, held.bundle.issued), anchors=anchors, sites=sites)


def sign_delegated(session: Session, site: Site, row: RotationRow, changes: Changes, now: int) -> Changes:
    """Sign and take the bundle at once, where the one in force leaves the list of site CAs to the site."""
    held = held_bundle(session)
    if (
        row.kind != Kind.SITE
        or not isinstance(site.issuer, LocalIssuer)
        or not held.bundle.site(site.site_id).delegated
    ):
        return changes
    signed = site.issuer.sign_bundle(held, _next_bundle(session, site, row, held, now))
    _, taken = import_bundle(session, site, signed, now)
    return replace(
        changes,
        bundle=taken.bundle,
        site=taken.site or changes.site,
        crl=taken.crl or changes.crl,
        est=taken.est or changes.est,
    )


def _once(ders: Sequence[bytes]) -> tuple[bytes, ...]:
    return tuple(dict.fromkeys(ders))


def import_bundle(session: Session, site: Site, data: bytes, now: int) -> tuple[VerifiedBundle, Changes]:
    """Take a signed version of the trust bundle; a rotation that waits for it goes on.

    Raises: CertificateError: it does not follow, or takes away what this site or a rotation needs.
    """
    held = bundles.store_bundle(
        session, data, site_id=site.site_id, issuer=site.issuer.certificate, roots=site.roots, now=now
    )
    row = latest_rotation(session)
    changes = Changes(bundle=held)
    if row is None or row.step in ENDED:
        return held, changes
    own = held.bundle.site(site.site_id)
    lists_new, lists_old = (
        _lists(row, row.new, row.new_root, held, own),
        _lists(row, row.old, row.old_root, held, own),
    )
    match Step(row.step):
        case Step.PUBLISH if lists_new:
            row.version = held.version
            move(session, row, Step.REPORTS, now)
        case Step.REPORTS if not lists_new:
            raise CertificateError(
                f"the trust bundle takes away what rotation {row.id} has published",
                reason="lockout",
                cure="finish the rotation first",
            )
        case Step.REISSUE if not lists_old:
            raise CertificateError(
                f"the trust bundle drops the old site CA: {standing_of(session, row, now).still_old()}",
                reason="lockout",
                cure="wait for them: sealcast authority rotate status DIR, then rotate site DIR",
            )
        case Step.RETIRE if not lists_old:
            if row.kind == Kind.ROOT:
                _check_beginning(held)
            row.finished = now
            move(session, row, Step.DONE, now)
            changed = arranged(site, row, ())
            return held, Changes(
                bundle=held,
                site=changed,
                crl=revocation.issue_crl(session, changed.issuer, now),
                est=load_state(session),
                # With another chain, where that was a root's.
                identity=renew_key_server(session, changed, now) if row.kind == Kind.ROOT else None,
            )
        case _:
            pass
    return held, changes


def _check_beginning(held: VerifiedBundle) -> None:
    """A device that is made from now on begins with this version, by the roots that are left (TR-18)."""
    owners = [anchor.certificate for anchor in held.bundle.owners()]
    if SignedBundle.parse(held.signed).signed_by(owners) < held.bundle.threshold:
        raise CertificateError(
            "the trust bundle is not signed by the roots that it keeps: no new device could begin with it",
            reason="lockout",
            cure="have the new root sign it too: sealcast root sign-bundle",
        )


def _lists(
    row: RotationRow, authority: bytes | None, root: bytes | None, held: VerifiedBundle, own: BundleSite
) -> bool:
    if row.kind == Kind.ROOT and root not in [anchor.certificate for anchor in held.bundle.owners()]:
        return False
    return authority in own.authorities
