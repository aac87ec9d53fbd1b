"""The site CA's files follow a rotation; what a crash has left out, the next who opens the folder does.

The database says how far a rotation is (rotation.py), and is written first. Each file is replaced whole; a
signer process is told, and does the same to its keys (signer_keys.py):

| file | while a rotation goes on | at its end |
|---|---|---|
| ca.pem | both site CA certificates, the one that issues first | the new one |
| ca.key, ca-….key | the old key, the new one | ca.key is the new one, which has taken the old one's place |
| root.pem | from the switch on the new root first, then the old one | the new one |

A root's rotation leaves the old certificate of the site CA in ca.pem: its key is the same, and a device that
has slept through all of it knows the key server by that one.
"""

from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from sqlalchemy import select
from sqlalchemy.orm import Session

from sealcast.authority.issuance import CA_FILE, CA_KEY_FILE, ca_key_name, certificates
from sealcast.authority.models import RotationRow
from sealcast.authority.rotation_steps import ENDED, Kind, Step
from sealcast.authority.storage import Storage
from sealcast.ca import Issuer, LocalIssuer, RemoteIssuer
from sealcast.ca.signer import public_key_of
from sealcast.ca.site_request import SiteRequest
from sealcast.pki.certificates import certificates_pem, key_identifier, parse_pem_certificates
from sealcast.pki.files import storage_errors, write_atomically
from sealcast.system import sync_folder

ROOT_FILE = "root.pem"
_KEYS = "ca-*.key"


def settle(folder: Path, storage: Storage, issuer: Issuer | None) -> None:
    """Have the files, and a signer process, say what the database says; the caller holds the folder's lock.

    `issuer`: whoever has the keys; None: they are left for a later call, as it is not known yet.

    Raises: StorageError, CertificateError: one cannot be read or written, or the signer does not follow; the
    next call goes on from there.
    """
    with storage.snapshot() as session:
        row = latest_rotation(session)
    listed = certificates(folder / CA_FILE)
    if row is not None:
        listed = _replace(folder / CA_FILE, authorities_of(row, listed))
        if row.kind == Kind.ROOT:
            _replace(folder / ROOT_FILE, roots_of(row, certificates(folder / ROOT_FILE)))
    match issuer:
        case LocalIssuer():
            _keep_keys(folder, row, listed)
        case RemoteIssuer():
            tell_signer(row, issuer)


def tell_signer(row: RotationRow | None, issuer: RemoteIssuer) -> None:
    """Have a signer process do to its keys what is stored of the latest rotation; again does nothing more.

    Raises: StorageError, CertificateError: it does not answer, or refuses.
    """
    if row is None or row.kind != Kind.SITE or row.request is None:
        return
    match Step(row.step):
        case Step.REISSUE | Step.RETIRE if row.new is not None:
            issuer.switch(public_key_of(row.new))
        case Step.DONE if row.new is not None:
            issuer.switch(public_key_of(row.new))
            issuer.retire(public_key_of(row.old))
        case Step.ABANDONED:
            issuer.abandon(SiteRequest.parse(row.request).public_key)
        case _:
            pass


def latest_rotation(session: Session) -> RotationRow | None:
    """The last rotation of a root or of the site CA's key, whether it has ended or not."""
    chosen = select(RotationRow).where(RotationRow.kind != Kind.SERVER)
    return session.scalars(chosen.order_by(RotationRow.id.desc()).limit(1)).first()


def authorities_of(row: RotationRow, present: Sequence[bytes]) -> list[bytes]:
    """The site CA certificates (DER) at the step of a rotation, the one that issues first.

    `present`: those of now, or of any step before.
    """
    new = () if row.new is None else (row.new,)
    others = [der for der in present if der not in (row.old, row.new)]
    match Step(row.step):
        case Step.CERTIFICATE | Step.ABANDONED:
            return [row.old, *others]
        case Step.PUBLISH | Step.REPORTS:
            return [row.old, *others, *new]
        case Step.REISSUE | Step.RETIRE:
            return [*new, row.old, *others]
        case Step.DONE if row.kind == Kind.ROOT:
            return [*new, row.old, *others]
        case Step.DONE:
            gone = public_key_of(row.old)
            return [*new, *(der for der in others if public_key_of(der) != gone)]


def rollover_certificates(session: Session) -> tuple[bytes, ...]:
    """The certificates (DER) of old and new root by each other, while both are in use."""
    row = latest_rotation(session)
    if row is None or row.crosses is None or row.step in ENDED:
        return ()
    return tuple(parse_pem_certificates(row.crosses))


def shown_authorities(session: Session, authorities: Sequence[bytes]) -> list[bytes]:
    """What the key server shows above its own certificate (DER), in the order in which clients try it.

    `authorities`: the site CA certificates, the one that issues first. All those of its key: each leads to a
    root that somebody may know (TR-25).
    """
    first = public_key_of(authorities[0])
    shown = [der for der in authorities if public_key_of(der) == first]
    chosen = select(RotationRow).where(RotationRow.kind == Kind.ROOT, RotationRow.switched.is_not(None))
    row = session.scalars(chosen.order_by(RotationRow.id.desc()).limit(1)).first()
    if row is None or row.new not in shown:
        return shown
    if row.crosses is not None and row.new_root is not None:
        # Who knows only the old root comes to it from the new one.
        new_key = public_key_of(row.new_root)
        crosses = parse_pem_certificates(row.crosses)
        return [shown[0], *(der for der in crosses if public_key_of(der) == new_key), *shown[1:]]
    # Without that OpenSSL takes the first and no other; until its end the old root is the one that all know.
    return shown if row.step == Step.DONE else [*shown[1:], shown[0]]


def roots_of(row: RotationRow, present: Sequence[bytes]) -> list[bytes]:
    """The roots (DER) to hand out at the step of a rotation, the one that counts in future first."""
    others = [der for der in present if der != row.new_root]
    if row.new_root is None or row.switched is None or row.step == Step.ABANDONED:
        return list(present)
    if row.step == Step.DONE:
        others = [der for der in others if der != row.old_root]
    return [row.new_root, *others]


def _replace(path: Path, wanted: Sequence[bytes]) -> list[bytes]:
    if certificates(path) != list(wanted):
        write_atomically(path, certificates_pem(wanted))
    return list(wanted)


def _keep_keys(folder: Path, row: RotationRow | None, listed: Sequence[bytes]) -> None:
    """Put the key that issues in its place once the other is not needed, and drop keys of no certificate."""
    wanted = {ca_key_name(key_identifier(der)) for der in listed}
    if row is not None and row.step == Step.CERTIFICATE and row.request is not None:
        key = x509.load_der_x509_csr(row.request).public_key()
        wanted.add(ca_key_name(x509.SubjectKeyIdentifier.from_public_key(key).digest))
    with storage_errors(folder):
        first = folder / ca_key_name(key_identifier(listed[0]))
        if row is not None and row.step == Step.DONE and first.exists():
            # By this the old key is gone.
            first.replace(folder / CA_KEY_FILE)
            sync_folder(folder)
        leftovers = [path for path in folder.glob(_KEYS) if path.name not in wanted]
        for path in leftovers:
            path.unlink()
        if leftovers:
            sync_folder(folder)
