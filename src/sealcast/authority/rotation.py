"""Rotations in service, in the safe order: publish, wait for the devices, switch, re-issue, retire.

Each function is one step inside the caller's transaction; nothing is in force before that is committed, and
the files of the folder follow it (arrangement.py). So a crash leaves a step undone or done, and the same
request goes on from there. A key of the site CA is made here, as a file of its own, or by the signer process
that holds the present one, before the row that tells of it. What roots have to sign is only drafted here:
their keys are elsewhere.

A site CA's key: another key, under the same site id, certified by an owner's root. A root: the site CA keeps
its key and is certified anew by the new root, so no device needs another certificate. The server's
certificate: done at once.

Spec: spec/trust.md section 6 (TR-24).
"""

from sqlalchemy.orm import Session

from sealcast.authority import audit, lost_bundles, revocation, settlement
from sealcast.authority.arrangement import latest_rotation, tell_signer
from sealcast.authority.changes import Changes
from sealcast.authority.est_state import load_state
from sealcast.authority.issuance import ca_key_name, make_next_key
from sealcast.authority.models import RotationRow
from sealcast.authority.renewal import set_renewal_window
from sealcast.authority.rotation_bundle import sign_delegated
from sealcast.authority.rotation_progress import standing_of
from sealcast.authority.rotation_state import Result, arranged, held_bundle, move, renew_key_server
from sealcast.authority.rotation_steps import ENDED, Kind, Step
from sealcast.authority.site import Site
from sealcast.ca import FileSigner, PassphraseSource, RemoteIssuer, Signer
from sealcast.ca.root import check_alive, read_root
from sealcast.ca.signer import public_key_of
from sealcast.ca.site_request import SiteRequest, check_site_certificate, make_site_request
from sealcast.errors import CertificateError, ConflictError
from sealcast.est.renewal import RenewalWindow
from sealcast.pki.bundle import (
    TrustBundle,
    VerifiedBundle,
)
from sealcast.pki.certificates import (
    certificate_der,
    certificates_pem,
    is_issued_by,
    key_identifier,
    parse_certificate,
    parse_pem_certificates,
)
from sealcast.pki.profiles import MAX_SITE_CAS

WITHIN = 3600 * 1_000_000
"""Microseconds in which devices take their new certificates: a large site must not ask at one moment."""


# --- beginning ----------------------------------------------------------------------------------------------


def rotate_server(session: Session, site: Site, now: int) -> Result:
    """Give the key server another key and certificate; the old one is good until its end."""
    old = site.key_server().chain[0]
    identity = renew_key_server(session, site, now)
    row = _row(Kind.SERVER, Step.DONE, old, now, new=identity.chain[0], finished=now)
    _add(session, row, now)
    return Result(row=row, changes=Changes(identity=identity))


def start_site(session: Session, site: Site, passphrases: PassphraseSource, now: int) -> Result:
    """Make another key for the site CA, and the request for its certificate; a signer process makes its own.

    `passphrases`: of the present key; the new one is encrypted under the same.

    Raises:
        ConflictError: a rotation is under way, or there is no trust bundle.
        CertificateError, StorageError: the passphrase is missing or wrong, or the key cannot be written.
    """
    _check_start(session, now)
    row = _row(Kind.SITE, Step.CERTIFICATE, site.issuer.certificate, now)
    row.request = _request(session, site, passphrases, _next_number(site))
    _add(session, row, now)
    return Result(row=row, changes=Changes())


def _request(session: Session, site: Site, passphrases: PassphraseSource, number: int) -> bytes:
    """Have another key made where the present one is; returns the request for its certificate."""
    issuer = site.issuer
    if isinstance(issuer, RemoteIssuer):
        # What the one before has left for it, should it have been away.
        tell_signer(latest_rotation(session), issuer)
        return issuer.prepare_key(number)
    signer = make_next_key(site.folder, issuer.certificate, issuer.public_key, passphrases)
    return make_site_request(signer, issuer.site_name, site.site_id, number)


def start_root(session: Session, site: Site, root: bytes, now: int) -> Result:
    """Begin to bring in another root. `root`: PEM.

    Raises:
        ConflictError: a rotation is under way, there is no trust bundle, or that root is in it already.
        CertificateError: it is no root that could certify the site CA.
    """
    held = _check_start(session, now)
    new = certificate_der(read_root(root, now))
    if any(public_key_of(new) == public_key_of(anchor.certificate) for anchor in held.bundle.owners()):
        raise ConflictError("the trust bundle lists that root, or its key, already", cure="make another root")
    key = public_key_of(site.issuer.certificate)
    if sum(public_key_of(der) == key for der in site.issuers) > 1:
        # Each stays in the key server's chain (TR-25), of which members take four certificates.
        raise ConflictError(
            "a root was replaced already since the site CA has its key: by another the key server's chain "
            "would become longer than devices take",
            cure="rotate the site CA's key first: sealcast authority rotate site DIR",
        )
    row = _row(Kind.ROOT, Step.CERTIFICATE, site.issuer.certificate, now, new_root=new)
    row.old_root = root_of(site.issuer.certificate, held.bundle)
    _add(session, row, now)
    return Result(row=row, changes=Changes())


def _row(kind: Kind, step: Step, old: bytes, now: int, **values: object) -> RotationRow:
    return RotationRow(kind=str(kind), step=str(step), old=old, started=now, forced=[], **values)


def _add(session: Session, row: RotationRow, now: int) -> None:
    session.add(row)
    session.flush()
    audit.record(session, now, f"rotate {row.kind}", str(row.id), step=row.step)


def _check_start(session: Session, now: int) -> VerifiedBundle:
    latest = latest_rotation(session)
    if latest is not None and latest.step not in ENDED:
        raise ConflictError(
            f"rotation {latest.id} of the {latest.kind} is under way, at the step {latest.step}",
            cure="finish it, or give it up before it is published: sealcast authority rotate status DIR",
        )
    lost_bundles.check_settled(session, now)
    return held_bundle(session)


def _next_number(site: Site) -> int:
    """The next one that no site CA of the folder bears; the names begin anew at their end."""
    borne = [SiteRequest.of_certificate(der).number for der in site.issuers]
    following = [number for number in range(borne[0] + 1, MAX_SITE_CAS + 1) if number not in borne]
    return (following or [number for number in range(1, MAX_SITE_CAS + 1) if number not in borne])[0]


def root_of(certificate: bytes, bundle: TrustBundle) -> bytes:
    """The owner's root (DER) of a bundle that has signed a site CA. Raises: CertificateError."""
    parsed = parse_certificate(certificate)
    for anchor in bundle.owners():
        if is_issued_by(parsed, parse_certificate(anchor.certificate)):
            return anchor.certificate
    raise CertificateError(
        "no owner's root of the trust bundle has signed the site CA's certificate",
        reason="unknown-issuer",
        cure="have one of them sign it: sealcast root sign-site",
    )


# --- the certificate of the new site CA ---------------------------------------------------------------------


def take_certificate(
    session: Session,
    site: Site,
    row: RotationRow,
    certificate: bytes,
    crosses: bytes,
    passphrases: PassphraseSource,
    now: int,
) -> Result:
    """Take what a root has signed.

    `certificate`: PEM, of the site CA. `crosses`: PEM, of each root by the other; empty without any.
    `passphrases`: of the new key.

    Raises:
        ConflictError: the rotation does not wait for it.
        CertificateError: it is for another key, name or site, of another root, or not valid now.
    """
    _check_step(row, Step.CERTIFICATE)
    new = _single(certificate)
    held = held_bundle(session).bundle
    check_alive(parse_certificate(new), "site CA certificate", now)
    signers: list[Signer] = []
    if row.kind == Kind.ROOT:
        _check_certified_anew(site, row, new)
        row.crosses = _check_crosses(row, crosses) if crosses else None
    else:
        asked = SiteRequest.parse(row.request or b"")
        check_site_certificate(
            new,
            public_key=asked.public_key,
            site_id=site.site_id,
            site_name=site.issuer.site_name,
            root=root_of(new, held),
        )
        if parse_certificate(new).subject in [parse_certificate(der).subject for der in site.issuers]:
            raise CertificateError(
                "the new site CA's certificate has the name of the old one, by which CRLs are told apart",
                reason="name",
                cure="have the request signed with its own subject: sealcast root sign-site",
            )
        if isinstance(site.issuer, RemoteIssuer):
            site.issuer.take_certificate(new)
        else:
            path = site.folder / ca_key_name(key_identifier(new))
            signers.append(FileSigner.open(path, name="ca", passphrases=passphrases))
    row.new, row.step = new, Step.PUBLISH
    audit.record(session, now, "take certificate of rotation", str(row.id))
    changed = arranged(site, row, signers)
    # Whoever is in touch has the new CA's list long before it meets one of its certificates (TR-9).
    crl = revocation.issue_crl(session, changed.issuer, now)
    changes = Changes(site=changed, crl=crl, est=load_state(session))
    return Result(row=row, changes=sign_delegated(session, changed, row, changes, now))


def _check_certified_anew(site: Site, row: RotationRow, new: bytes) -> None:
    check_site_certificate(
        new,
        public_key=site.issuer.public_key,
        site_id=site.site_id,
        site_name=site.issuer.site_name,
        root=row.new_root or b"",
    )
    old = parse_certificate(row.old)
    if parse_certificate(new).subject != old.subject or key_identifier(new) != key_identifier(row.old):
        raise CertificateError(
            "the site CA's certificate by the new root has another subject or key identifier than before",
            reason="name",
            cure="have the site CA's present certificate signed anew: sealcast root sign-site DIR/ca.pem",
        )


def _check_crosses(row: RotationRow, pem: bytes) -> bytes:
    roots = [parse_certificate(der) for der in (row.old_root, row.new_root) if der is not None]
    found = parse_pem_certificates(pem)
    for der in found:
        cross = parse_certificate(der)
        fits = [root for root in roots if root.public_key() == cross.public_key()]
        if not fits or not any(is_issued_by(cross, root) for root in roots if root not in fits):
            raise CertificateError(
                "not a certificate of one of the two roots by the other",
                reason="unknown-issuer",
                cure="make them with both roots' keys: sealcast root cross-sign",
            )
    return certificates_pem(found)


def _single(pem: bytes) -> bytes:
    found = parse_pem_certificates(pem)
    if len(found) != 1:
        raise CertificateError(
            f"{len(found)} certificates, not one", reason="malformed", cure="give the site CA's alone"
        )
    return found[0]


# --- going on -----------------------------------------------------------------------------------------------


def advance(
    session: Session, site: Site, row: RotationRow, *, force: bool, within: int | None = None, now: int
) -> Result:
    """Go one step on, if the devices are so far.

    Args:
        session: the transaction.
        site: the site.
        row: the rotation.
        force: go on without them; they need an operator's token when they come back.
        within: in how many microseconds devices take their new certificates; only for the switch of a site
            CA, by default `WITHIN`.
        now: microseconds.

    Raises:
        ConflictError: they are not, with the counts; or the rotation waits for something else.
    """
    if within is not None and (row.kind, row.step) != (Kind.SITE, Step.REPORTS):
        raise ConflictError(
            f"rotation {row.id} has no use for a time in which devices take new certificates: that is said "
            "where a site CA is switched, and counts from there",
            cure="leave it out",
        )
    match Step(row.step):
        case Step.REPORTS:
            _check_standing(standing_of(session, row, now).unreported(), row, force=force)
            return Result(
                row=row, changes=_switch(session, site, row, WITHIN if within is None else within, now)
            )
        case Step.REISSUE:
            _check_standing(standing_of(session, row, now).still_old(), row, force=force)
            move(session, row, Step.RETIRE, now)
            return Result(row=row, changes=sign_delegated(session, site, row, Changes(), now))
        case Step.CERTIFICATE:
            what = "the certificate of the site CA"
        case Step.PUBLISH | Step.RETIRE:
            what = "a trust bundle that the owner's roots have signed"
        case _:
            what = "nothing: it has ended"
    raise ConflictError(
        f"rotation {row.id} waits for {what}", cure="see: sealcast authority rotate status DIR"
    )


def abandon(session: Session, site: Site, row: RotationRow, now: int) -> Result:
    """Give a rotation up of which nothing has been published; a key that was made for it is destroyed.

    Raises: ConflictError: too late.
    """
    if row.step not in (Step.CERTIFICATE, Step.PUBLISH):
        raise ConflictError(
            f"rotation {row.id} cannot be given up at the step {row.step}", cure="finish it, then rotate anew"
        )
    row.finished = now
    move(session, row, Step.ABANDONED, now)
    changed = arranged(site, row, ())
    crl = revocation.issue_crl(session, changed.issuer, now)
    return Result(row=row, changes=Changes(site=changed, crl=crl, est=load_state(session)))


def _switch(session: Session, site: Site, row: RotationRow, within: int, now: int) -> Changes:
    own = held_bundle(session).bundle.site(site.site_id)
    if row.new is None or row.new not in own.authorities:
        raise ConflictError(
            "the trust bundle in force does not list the new site CA: whoever trusts by it would be cut off",
            cure="have a bundle signed that lists it",
        )
    row.switched = now
    is_site = row.kind == Kind.SITE
    # With a new root above it the site CA keeps its key, and every certificate that it has issued is good.
    move(session, row, Step.REISSUE if is_site else Step.RETIRE, now)
    changed = arranged(site, row, ())
    identity = renew_key_server(session, changed, now)
    stored = settlement.sign_all(session, changed, now) if is_site else []
    crl = revocation.issue_crl(session, changed.issuer, now)
    if is_site:
        window = RenewalWindow(start=now, end=now + within)
        issuer = key_identifier(row.old)
        set_renewal_window(session, issued_before=now + within, window=window, now=now, issuer=issuer)
    return Changes(site=changed, identity=identity, channels=stored, crl=crl)


def _check_standing(missing: str, row: RotationRow, *, force: bool) -> None:
    if not missing:
        return
    if not force:
        raise ConflictError(
            f"rotation {row.id} would leave devices behind: {missing}",
            cure="wait for them, or leave them behind with --force",
        )
    row.forced = [*row.forced, row.step]


def _check_step(row: RotationRow, step: Step) -> None:
    if row.step != step:
        raise ConflictError(
            f"rotation {row.id} waits for no {step}, at the step {row.step}",
            cure="see: sealcast authority rotate status DIR",
        )
