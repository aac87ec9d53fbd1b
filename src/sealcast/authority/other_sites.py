"""Other sites, as far as their devices are members here: their CRLs, and the certificates that were shown.

A list is taken if a site CA of another site has signed it that the trust bundle lists. Members get it with
ours (TR-9). What it revokes loses its keys in the same transaction. Nothing of ours is signed anew: a list
that two sites took from each other would else never come to rest.

Spec: trust.md TR-26.
"""

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from sealcast.authority import audit
from sealcast.authority.models import CrlSourceRow, GuestRow, OtherCrlRow
from sealcast.errors import CertificateError, UnknownNameError, UsageError
from sealcast.pki.bundle import TrustBundle, VerifiedBundle, key_id
from sealcast.pki.certificates import issuer_key, key_identifier, parse_certificate
from sealcast.pki.crl import CrlFacts, check_crl, split_crls
from sealcast.pki.profiles import CLOCK_ALLOWANCE
from sealcast.pki.times import microseconds

MAX_OTHER_CRLS = 60
"""A document holds 64 lists (TR-9); some are for our own site CAs."""

MAX_OTHER_BYTES = 16 << 20
"""Of all of them: every member is handed them at each join, in an answer of at most 64 MiB (SC-2)."""


def other_crls(session: Session) -> bytes:
    """The lists of other sites, DER, one after the other."""
    rows = session.scalars(select(OtherCrlRow).order_by(OtherCrlRow.site_id, OtherCrlRow.key_id))
    return b"".join(row.der for row in rows)


def import_crls(
    session: Session, document: bytes, bundle: VerifiedBundle | None, own: bytes, now: int
) -> tuple[int, bool]:
    """Take the CRLs of another site: one, or in a rotation there those of several site CAs.

    One by a site CA that the trust bundle does not list yet, or no more, is passed over if another is known.
    The caller settles the channels in the same transaction.

    Args:
        session: the transaction.
        document: DER CRLs, one after the other.
        bundle: the trust bundle in force.
        own: id of this site, 16 bytes.
        now: microseconds.

    Returns: the number of the first that is known, and whether any is new.

    Raises:
        CertificateError: one is malformed, older than the one held, past its nextUpdate, or from the future,
            or none is of anybody whom the bundle lists.
    """
    listed = _authorities(None if bundle is None else bundle.bundle, own)
    taken: list[tuple[int, bool]] = []
    stranger: CertificateError | None = None
    for der in split_crls(document):
        try:
            facts, authority = check_crl(der, tuple(listed))
        except CertificateError as error:
            if error.reason != "unknown-issuer":
                raise
            stranger = stranger or error
            continue
        is_new = _take(session, der, facts, authority, listed[authority], now)
        taken.append((facts.number, is_new))
    if stranger is not None and not taken:
        raise stranger
    return taken[0][0], any(is_new for _, is_new in taken)


def _take(session: Session, der: bytes, facts: CrlFacts, authority: bytes, site_id: bytes, now: int) -> bool:
    """Store one list; returns whether it is another one than is held."""
    name = key_id(authority)
    held = session.get(OtherCrlRow, name)
    if held is not None and held.der == der:
        return False
    _check_times(facts, now)
    if held is not None and facts.number <= held.number:
        raise CertificateError(
            f"CRL {facts.number} of site {site_id.hex()} does not follow {held.number}, which is held",
            reason="backwards",
            cure="give that site's latest list",
        )
    others = select(func.count(), func.sum(func.length(OtherCrlRow.der))).where(OtherCrlRow.key_id != name)
    count, size = session.execute(others).one()
    if count >= MAX_OTHER_CRLS or (size or 0) + len(der) > MAX_OTHER_BYTES:
        raise CertificateError(
            f"with CRL {facts.number} of site {site_id.hex()} there would be {count + 1} lists of others, "
            f"{(size or 0) + len(der)} bytes; {MAX_OTHER_CRLS} and {MAX_OTHER_BYTES} bytes are the most",
            reason="too-many",
            cure="drop site CAs that are not needed from the trust bundle",
        )
    if held is None:
        held = OtherCrlRow(key_id=name, site_id=site_id)
        session.add(held)
    held.number, held.issued, held.next_update = facts.number, facts.this_update, facts.next_update
    held.imported, held.der = now, der
    removed = _revoke_guests(session, authority, site_id, facts, now)
    audit.record(session, now, "import CRL", f"site {site_id.hex()}", number=facts.number, members=removed)
    session.flush()
    return True


def drop_unlisted(session: Session, bundle: VerifiedBundle | None, own: bytes, now: int) -> bool:
    """Drop the lists of site CAs that the trust bundle no longer lists; returns whether there were any."""
    listed = {key_id(der) for der in _authorities(None if bundle is None else bundle.bundle, own)}
    rows = session.scalars(select(OtherCrlRow)).all()
    dropped = [row for row in rows if row.key_id not in listed]
    for row in dropped:
        session.delete(row)
        audit.record(session, now, "drop CRL", f"site {row.site_id.hex()}", number=row.number)
    session.flush()
    return bool(dropped)


def note_guest(session: Session, device: str, certificate: bytes, now: int) -> None:
    """Note the certificate (DER) by which a device of another site was just let in, and its name here."""
    parsed = parse_certificate(certificate)
    row = session.get(GuestRow, device)
    if row is None:
        row = GuestRow(device=device)
        session.add(row)
    row.issuer, row.serial = issuer_key(parsed) or b"", f"{parsed.serial_number:x}"
    row.not_after, row.seen, row.revoked = microseconds(parsed.not_valid_after_utc), now, None
    session.flush()


def set_source(
    session: Session, site_id: bytes, url: str | None, bundle: VerifiedBundle | None, own: bytes, now: int
) -> bool:
    """Say where another site's CRL is fetched from; `url` None: nowhere. Returns: whether that was news.

    Raises:
        UnknownNameError: the trust bundle lists no such other site.
        UsageError: no https URL.
    """
    row = session.get(CrlSourceRow, site_id)
    if url is None:
        if row is not None:
            session.delete(row)
            audit.record(session, now, "drop CRL source", f"site {site_id.hex()}")
        return row is not None
    if site_id not in _authorities(None if bundle is None else bundle.bundle, own).values():
        raise UnknownNameError(
            f"the trust bundle lists no other site {site_id.hex()}",
            cure="list its site CA first; see: sealcast authority bundle draft",
        )
    if not url.startswith("https://"):
        raise UsageError(f"{url[:80]!r} is no https URL", cure="write https://HOST:PORT")
    if row is not None and row.url == url:
        return False
    session.merge(CrlSourceRow(site_id=site_id, url=url))
    audit.record(session, now, "set CRL source", f"site {site_id.hex()}", url=url)
    session.flush()
    return True


def sources(session: Session) -> dict[bytes, str]:
    """URL of the authority of each other site whose CRL is fetched."""
    return {row.site_id: row.url for row in session.scalars(select(CrlSourceRow))}


def _authorities(bundle: TrustBundle | None, own: bytes) -> dict[bytes, bytes]:
    """Site id of each site CA certificate (DER) of another site."""
    return {
        der: site.site_id
        for site in (() if bundle is None else bundle.sites)
        for der in site.authorities
        if site.site_id != own
    }


def _check_times(facts: CrlFacts, now: int) -> None:
    if facts.this_update > now + microseconds(CLOCK_ALLOWANCE):
        raise CertificateError(
            "the CRL was issued in the future", reason="not-yet-valid", cure="check the clocks"
        )
    if facts.next_update <= now:
        raise CertificateError(
            f"CRL {facts.number} is past its nextUpdate", reason="stale", cure="give that site's latest list"
        )


def _revoke_guests(session: Session, authority: bytes, site_id: bytes, facts: CrlFacts, now: int) -> int:
    """Mark the members whose certificate is on the list; one without an issuer's key by its site."""
    known = session.execute(
        select(GuestRow.device, GuestRow.serial).where(
            GuestRow.device.startswith(f"{site_id.hex()}:"),
            GuestRow.issuer.in_((key_identifier(authority), b"")),
            GuestRow.revoked.is_(None),
        )
    )
    named = [device for device, serial in known if int(serial, 16) in facts.serials]
    for device in named:
        session.execute(update(GuestRow).where(GuestRow.device == device).values(revoked=now))
    # Those that have ended need no list any more, and were removed by the upkeep.
    session.execute(delete(GuestRow).where(GuestRow.not_after < now - _KEPT))
    return len(named)


_KEPT = 90 * 24 * 3600 * 1_000_000
"""How long a guest's row outlives its certificate."""
