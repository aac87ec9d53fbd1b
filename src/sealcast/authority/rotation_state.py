"""What the steps of a rotation have in common: how it moves, and what a site is at its step."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

from sqlalchemy.orm import Session

from sealcast.authority import audit, bundles
from sealcast.authority.arrangement import authorities_of, roots_of, shown_authorities
from sealcast.authority.changes import Changes
from sealcast.authority.issuance import certificate_row
from sealcast.authority.models import RotationRow
from sealcast.authority.rotation_steps import Step
from sealcast.authority.site import KeyServerIdentity, Site
from sealcast.ca import Issuer, KeySigner, LocalIssuer, RemoteIssuer, Signer
from sealcast.errors import ConflictError, StorageError, UnknownNameError
from sealcast.pki.bundle import VerifiedBundle
from sealcast.pki.certificates import parse_certificate

_log = logging.getLogger("sealcast.authority")


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A step that was done."""

    row: RotationRow
    changes: Changes


def rotation_row(session: Session, number: int) -> RotationRow:
    """Raises: UnknownNameError."""
    row = session.get(RotationRow, number)
    if row is None:
        raise UnknownNameError(
            f"there is no rotation {number}", cure="see: sealcast authority rotate status DIR"
        )
    return row


def held_bundle(session: Session) -> VerifiedBundle:
    held = bundles.load_bundle(session)
    if held is None:
        raise ConflictError(
            "the site has no trust bundle, and without one no device can be told of another root or site CA",
            cure="draft, sign and import version 1: sealcast authority bundle draft DIR",
        )
    return held


def arranged(site: Site, row: RotationRow, signers: Sequence[Signer]) -> Site:
    """The site with the certificates of the row's step; the files follow when that is stored."""
    issuers = tuple(authorities_of(row, site.issuers))
    roots = tuple(roots_of(row, site.roots))
    return replace(site, roots=roots, issuers=issuers, issuer=_issuer(site.issuer, issuers, signers))


def _issuer(present: Issuer, authorities: Sequence[bytes], signers: Sequence[Signer]) -> Issuer:
    match present:
        case LocalIssuer():
            return present.arranged(authorities, *signers)
        case RemoteIssuer():
            return present.arranged(authorities)
    raise StorageError("site CA", "an issuer of an unknown kind")


def move(session: Session, row: RotationRow, step: Step, now: int) -> None:
    row.step = str(step)
    audit.record(session, now, f"rotate {row.kind}", str(row.id), step=row.step, forced=" ".join(row.forced))
    session.flush()


def ensure_key_server(site: Site, now: int) -> None:
    """Make the key server's key and certificate where its file is lost: the site CA vouches for it anew.

    The one that was lost is good until its end, and nobody has its key unless it was taken.
    Raises: StorageError, CertificateError.
    """
    if site.server_file.exists():
        return
    with site.storage.transaction() as session:
        identity = renew_key_server(session, site, now)
        serial = f"{parse_certificate(identity.chain[0]).serial_number:x}"
        audit.record(session, now, "remake server certificate", site.key_server_name, serial=serial)
    _log.warning(
        "%s was not there: the key server has another key and certificate; if it may be in other hands, "
        "rotate the site CA: sealcast authority rotate site DIR",
        site.server_file,
    )


def renew_key_server(session: Session, site: Site, now: int) -> KeyServerIdentity:
    """Give the key server another key and certificate, in the folder at once."""
    signer = KeySigner.generate()
    issued = site.issuer.issue_key_server(
        public_key=signer.public_key, name=site.key_server_name, hosts=site.hosts, now=now
    )
    session.add(certificate_row(issued))
    session.flush()
    # If the transaction fails after this, the ledger still has it, and it is recorded from there.
    site.write_key_server(issued, signer, shown_authorities(session, site.issuers))
    return site.key_server()
