"""The site CA of a folder: where its key is, and what it has signed that the register does not know.

A certificate is signed inside the transaction that records it, and the ledger of the site CA has its serial
number before that. When the transaction fails after the signature, or the process ends there, `reconcile`
finds the number again and revokes it.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from cryptography import x509
from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from sealcast.authority import approvals, audit
from sealcast.authority.models import (
    CertificateRow,
    CrlRow,
    DeviceRow,
    PolicyRow,
    SiteRow,
    StreamRow,
    TokenRow,
    UnrecordedRow,
)
from sealcast.authority.storage import Storage
from sealcast.ca import (
    FileSigner,
    Issuance,
    IssuedCertificate,
    Issuer,
    KeySigner,
    Ledger,
    LedgerSettings,
    Limits,
    LocalIssuer,
    PassphraseSource,
    Permit,
    RemoteIssuer,
)
from sealcast.ca.keyfile import is_encrypted, no_passphrase_cure
from sealcast.ca.local import NO_LIMITS, permit_cure
from sealcast.errors import CertificateError, StorageError
from sealcast.pki.certificates import key_identifier, parse_pem_certificates
from sealcast.pki.crl import Revocation
from sealcast.pki.files import read_file
from sealcast.pki.names import Role, check_device_name
from sealcast.pki.signed import PublicKey

CA_FILE = "ca.pem"
CA_KEY_FILE = "ca.key"
LEDGER_FILE = "ledger.db"
SIGNER_SOCKET_FILE = "signer.sock"

_PAGE = 500


def open_issuer(folder: Path, passphrases: PassphraseSource) -> Issuer:
    """The issuer of a folder: the signer process if one listens, else the key that lies here.

    Raises:
        StorageError, CertificateError: the key is missing, unreadable, encrypted, or of another certificate.
    """
    remote = remote_issuer(folder)
    has_key = (folder / CA_KEY_FILE).exists()
    if remote.is_listening() or (not has_key and (folder / SIGNER_SOCKET_FILE).is_symlink()):
        return remote
    return local_issuer(folder, passphrases)


def remote_issuer(folder: Path) -> RemoteIssuer:
    """The issuer that asks the signer process of a folder; no key is opened here."""
    first, *others = certificates(folder / CA_FILE)
    return RemoteIssuer(first, folder / SIGNER_SOCKET_FILE, others=others)


def local_issuer(
    folder: Path,
    passphrases: PassphraseSource,
    *,
    limits: Limits = NO_LIMITS,
    clock: Callable[[], int] | None = None,
) -> LocalIssuer:
    """The issuer with the key of a folder.

    Raises:
        StorageError, CertificateError: the key is missing, unreadable, encrypted, or of another certificate.
    """
    first, *others = certificates(folder / CA_FILE)
    key_file = ca_key_file(folder, first)
    signer = FileSigner.open(key_file, name="ca", passphrases=passphrases)
    try:
        issuer = LocalIssuer(first, signer, Ledger(folder / LEDGER_FILE), limits=limits, clock=clock)
        if not others:
            return issuer
        files = {ca_key_file(folder, der) for der in others} - {key_file}
        more = (FileSigner.open(file, name="ca", passphrases=passphrases) for file in files if file.exists())
        return issuer.arranged([first, *others], *more)
    except CertificateError as error:
        if error.reason != "key":
            raise
        raise CertificateError(
            f"{key_file}: is not the key of {folder / CA_FILE}: they do not match",
            reason="key",
            cure="restore both files from one backup",
        ) from None


def ca_key_file(folder: Path, certificate: bytes) -> Path:
    """The file of the key of a site CA (DER): one of its own while a rotation goes on, else CA_KEY_FILE."""
    own = ca_key_name(key_identifier(certificate))
    return folder / own if (folder / own).exists() else folder / CA_KEY_FILE


def ca_key_name(identifier: bytes) -> str:
    """The name of the file of a site CA's key that is not CA_KEY_FILE yet; `identifier`: of the key."""
    return f"ca-{identifier.hex()[:16]}.key"


def make_next_key(
    folder: Path, certificate: bytes, public_key: PublicKey, passphrases: PassphraseSource
) -> KeySigner:
    """Make and store another key of the site CA, encrypted under the passphrase of the present one.

    `certificate` (DER), `public_key`: of the present one. Raises: CertificateError, StorageError: the
    passphrase is missing or wrong, or the key cannot be written.
    """
    passphrase = None
    present = ca_key_file(folder, certificate)
    if is_encrypted(read_file(present)):
        passphrase = passphrases.find("ca", what=str(present))
        if passphrase is None:
            raise CertificateError(
                f"{present}: the key is encrypted, and there is no passphrase for the new one",
                reason="key",
                cure=no_passphrase_cure("ca"),
            )
        if FileSigner.open(present, name="ca", passphrases=passphrases).public_key != public_key:
            raise CertificateError(f"{present}: is not the key of the site CA", reason="key")
    signer = KeySigner.generate()
    identifier = x509.SubjectKeyIdentifier.from_public_key(signer.public_key).digest
    signer.store(folder / ca_key_name(identifier), passphrase)
    return signer


def ensure_ledger(folder: Path, storage: Storage) -> None:
    """Make the ledger of a folder that is from before there were ledgers.

    Raises:
        StorageError: there was one, and it is gone.
    """
    path = folder / LEDGER_FILE
    if path.exists():
        return
    with storage.snapshot() as session:
        site = session.get(SiteRow, 1)
        if site is None:
            return
        if site.ledger_position is not None:
            raise StorageError(
                str(path), "the ledger of the site CA is missing", cure="restore the folder from a backup"
            )
        settings = LedgerSettings(
            site_id=site.site_id.hex(), key_server_name=site.key_server_name, hosts=tuple(site.hosts)
        )
        removed = session.scalars(select(DeviceRow.name).where(DeviceRow.revoked.is_not(None))).all()
        revoked = session.execute(
            select(CertificateRow.serial, CertificateRow.revoked, CertificateRow.not_after).where(
                CertificateRow.revoked.is_not(None)
            )
        ).all()
        number = session.scalar(select(func.max(CrlRow.number))) or 0
        versions = session.execute(
            select(PolicyRow.channel, func.max(PolicyRow.version)).group_by(PolicyRow.channel)
        ).all()
    now = site.created
    ledger = Ledger.create(path, settings)
    for name in removed:
        ledger.set_removed(name, now, removed=True)
    for serial, when, ends in revoked:
        ledger.enter_revocation(Revocation(serial=int(serial, 16), time=when or now), ends)
    if number:
        ledger.reserve_crl(number, now)
    for channel, version in versions:
        ledger.reserve_policy(channel, version, now)


def reconcile(
    session: Session, issuer: Issuer, now: int, *, in_use: Mapping[int, bytes], restored: bool = False
) -> bool:
    """Bring the register in line with the ledger of the site CA; nothing may be being issued meanwhile.

    A serial number that the ledger has and the register has not is revoked, as nobody knows who holds its
    certificate. After a restore those that were signed are noted only: the devices that got them in the lost
    time go on, and can be revoked by name. A device that the ledger says is removed is removed.

    Args:
        session: the transaction.
        issuer: the site CA.
        now: microseconds.
        in_use: certificates (DER) of our own by serial number, which are recorded instead.
        restored: whether the database is from a backup.

    Returns:
        Whether CRL and policies have to be made anew.
    """
    site = session.get_one(SiteRow, 1)
    position = site.ledger_position or 0
    if issuer.last_position() < position:
        # The ledger is older than the database: whatever it holds may be new to us.
        position = 0
    changed = False
    while entries := issuer.issued_after(position, _PAGE):
        known = _known_serials(session, entries)
        for entry in entries:
            if not entry.is_void and f"{entry.serial:x}" not in known:
                changed = True
                _take_in(session, entry, now, in_use, spare=restored and entry.certificate is not None)
        position = entries[-1].position
    if site.ledger_position != position:
        site.ledger_position = position
    return _remove_removed(session, issuer, now) or changed


def readmit(session: Session, issuer: Issuer, name: str, now: int) -> None:
    """Let a removed device come back: called where an operator gives it the means to enrol anew.

    Raises:
        CertificateError: the signer is the operator's, and this process is not.
    """
    device = session.get(DeviceRow, check_device_name(name))
    if device is not None and device.revoked is not None and name in issuer.removed_names():
        issuer.readmit(name, now)
        audit.record(session, now, "readmit device", name)


def permit(session: Session, issuer: Issuer, what: Permit, name: str, now: int) -> None:
    """Let a name be an admin or a registration authority: called where an operator makes it one.

    Raises:
        CertificateError: the signer is the operator's and this process is not, and he has not permitted it.
    """
    if name in issuer.permitted(what):
        return
    try:
        issuer.permit(what, check_device_name(name), now)
    except CertificateError as error:
        raise CertificateError(
            f"the signer's operator has not permitted {name!r} to be {what}",
            reason=error.reason,
            cure=permit_cure(what),
        ) from None
    audit.record(session, now, f"permit {what}", name)


def certificates(path: Path) -> list[bytes]:
    """The DER certificates of a PEM file. Raises: StorageError, CertificateError, which name the file."""
    try:
        return parse_pem_certificates(read_file(path))
    except CertificateError as error:
        raise CertificateError(f"{path}: {error.problem}", reason=error.reason, cure=error.cure) from None


def _known_serials(session: Session, entries: Sequence[Issuance]) -> set[str]:
    serials = [f"{entry.serial:x}" for entry in entries]
    return {
        serial
        for column in (CertificateRow.serial, UnrecordedRow.serial)
        for serial in session.scalars(select(column).where(column.in_(serials)))
    }


def _take_in(
    session: Session, entry: Issuance, now: int, in_use: Mapping[int, bytes], *, spare: bool
) -> None:
    intent, serial = entry.intent, f"{entry.serial:x}"
    if entry.serial in in_use:
        session.add(certificate_row(IssuedCertificate.of(in_use[entry.serial])))
        audit.record(session, now, "record certificate", intent.identity.name, serial=serial)
        return
    session.add(
        UnrecordedRow(
            serial=serial,
            name=intent.identity.name,
            role=str(intent.identity.role),
            request=intent.request,
            time=intent.time,
            ends=intent.ends,
            revoked=None if spare else now,
        )
    )
    action = "find unrecorded certificate" if spare else "revoke unrecorded certificate"
    audit.record(session, now, action, intent.identity.name, serial=serial)


def _remove_removed(session: Session, issuer: Issuer, now: int) -> bool:
    names = sorted(issuer.removed_names())
    gone = [
        row
        for start in range(0, len(names), _PAGE)
        for row in session.scalars(
            select(DeviceRow).where(
                DeviceRow.revoked.is_(None), DeviceRow.name.in_(names[start : start + _PAGE])
            )
        )
    ]
    for row in gone:
        row.revoked = now
        strike_off(session, row.name, now)
        audit.record(session, now, "remove device again", row.name)
    return bool(gone)


def strike_off(session: Session, name: str, now: int) -> None:
    """Revoke every certificate of a device, and drop its streams, tokens and requests: what else stands in
    its name, save its place in channels.
    """
    # A token that was handed out before must not bring it back.
    session.execute(delete(TokenRow).where(TokenRow.device == name, TokenRow.used.is_(None)))
    session.execute(delete(StreamRow).where(StreamRow.device == name))
    approvals.forget_device(session, name)
    revoke_certificates(session, name, now)


def revoke_certificates(session: Session, name: str, now: int, role: Role = Role.DEVICE) -> None:
    """Mark every certificate of a device, or of an admin, as revoked, those too that only the ledger has told
    of.
    """
    for row in (CertificateRow, UnrecordedRow):
        session.execute(
            update(row)
            .where(row.name == name, row.role == str(role), row.revoked.is_(None))
            .values(revoked=now)
        )


def certificate_row(issued: IssuedCertificate) -> CertificateRow:
    """The row that records a certificate."""
    return CertificateRow(
        serial=f"{issued.serial:x}",
        name=issued.identity.name,
        role=str(issued.identity.role),
        not_before=issued.not_before,
        not_after=issued.not_after,
        issuer=issued.issuer,
        der=issued.der,
    )
