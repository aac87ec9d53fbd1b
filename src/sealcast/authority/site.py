"""The folder of an authority: what lies where, how it is made, who may change it.

| file | what | secret |
|---|---|---|
| root.pem | root certificate, to be given to devices | |
| root.key | key of a root made here; to be taken offline after `init` | yes |
| ca.pem, ca.key | site CA | key |
| ledger.db | what the site CA has signed, before it signs it (WAL files beside it) | |
| server.pem | key and chain of the key server, for TLS and for control streams | yes |
| authority.db | database (WAL files beside it) | sealed |
| audit.head | copy of the audit log's head (audit.py) | |
| storage.key | key-encryption key of the database | yes |
| pending.json, request.pem | of a site CA that a root elsewhere has yet to certify (founding.py) | |
| lock, control.sock | held, and listened on, by a running service | |
| signer.sock | listened on by a signer process; a link to it where that has a folder of its own | |

`root.key`, `ca.key` and `storage.key` may be encrypted under a passphrase (at_rest.py).

One process at a time changes anything: the holder of the lock. A command that finds it held asks the running
service through the socket instead, so that its change is in force there when the command returns.
"""

import logging
import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509

from sealcast import system
from sealcast.authority import audit
from sealcast.authority.arrangement import ROOT_FILE as ROOT_FILE
from sealcast.authority.arrangement import settle
from sealcast.authority.at_rest import keys_at_rest
from sealcast.authority.bundles import first_bundle, store_bundle
from sealcast.authority.issuance import (
    CA_FILE,
    CA_KEY_FILE,
    LEDGER_FILE,
    certificate_row,
    certificates,
    ensure_ledger,
    open_issuer,
    remote_issuer,
)
from sealcast.authority.models import SiteRow
from sealcast.authority.revocation import issue_crl
from sealcast.authority.storage import DATABASE_FILE, Storage
from sealcast.authority.vault import KEY_FILE, Vault, wrapped
from sealcast.ca import (
    FileSigner,
    IssuedCertificate,
    Issuer,
    KeySigner,
    Ledger,
    LedgerSettings,
    LocalIssuer,
    PassphraseSource,
    Root,
    create_root,
    import_root,
)
from sealcast.ca.passphrase import NO_PASSPHRASE
from sealcast.ca.signer import fits
from sealcast.errors import CertificateError, SealcastError, StorageError
from sealcast.pki.bundle import SignedBundle
from sealcast.pki.certificates import certificate_der, certificate_identity, certificates_pem
from sealcast.pki.files import PRIVATE, read_file, storage_errors, write_and_sync, write_atomically
from sealcast.pki.names import Role, check_host_name, check_site_name, new_site_id
from sealcast.pki.profiles import check_usages
from sealcast.pki.times import microseconds
from sealcast.pki.validator import Validator
from sealcast.system import sync_folder

_log = logging.getLogger("sealcast.authority")

ROOT_KEY_FILE = "root.key"
SERVER_FILE = "server.pem"
LOCK_FILE = "lock"
SOCKET_FILE = "control.sock"
PENDING_FILE = "pending.json"

KEY_SERVER_NAME = "key-server"
LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")
"""Names under which every key server is certified; a demonstration on one machine needs no others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyServerIdentity:
    """The key server's certificate, and the key that it is for."""

    chain: tuple[bytes, ...]
    """DER: its own, then the site CA's."""
    signer: KeySigner
    not_before: int
    not_after: int
    """Microseconds."""

    @property
    def renewal_time(self) -> int:
        """When it is to be renewed: at 2/3 of its life (design 7)."""
        return self.not_before + (self.not_after - self.not_before) * 2 // 3

    def is_due(self, now: int) -> bool:
        """Whether it is to be renewed. One of the future was made while the clock was ahead: nobody would
        talk to its holder for as long.
        """
        return now >= self.renewal_time or now < self.not_before


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A site whose folder is there and whose parts fit each other."""

    folder: Path
    site_id: bytes
    """16 bytes."""
    name: str
    key_server_name: str
    hosts: tuple[str, ...]
    """Under which devices reach the key server: DNS names and IP addresses."""
    roots: tuple[bytes, ...]
    """DER."""
    issuer: Issuer
    issuers: tuple[bytes, ...]
    """The site CA certificates (DER) that may have signed policies, CRLs and devices; the first issues."""
    vault: Vault
    storage: Storage
    passphrases: PassphraseSource
    """Of the keys that lie in the folder."""

    @staticmethod
    def open(
        folder: Path, *, passphrases: PassphraseSource | None = None, issuer: Issuer | None = None
    ) -> "Site":
        """Read and check the folder.

        Args:
            folder: of the authority.
            passphrases: of keys that are encrypted; by default from the environment or a prompt.
            issuer: the site CA; by default the signer process if one listens, else the key in the folder.

        Raises:
            StorageError: something is missing, unreadable or damaged.
            CertificateError: certificates and keys do not fit each other.
        """
        check_folder(folder)
        passphrases = passphrases or PassphraseSource()
        storage = Storage.open(folder / DATABASE_FILE)
        with keys_at_rest(folder):
            settle(folder, storage, None)
            roots = tuple(certificates(folder / ROOT_FILE))
            issuers = tuple(certificates(folder / CA_FILE))
            issuer = issuer or open_issuer(folder, passphrases)
            vault = Vault.load(folder / KEY_FILE, passphrases)
            _settle_keys(folder, storage, issuer)
        if isinstance(issuer, LocalIssuer):
            ensure_ledger(folder, storage)
        with storage.transaction() as session:
            row = session.get(SiteRow, 1)
            if row is None:
                raise StorageError(
                    str(storage.path), "holds no site", cure="restore the folder from a backup"
                )
            if row.site_id != issuer.site_id:
                raise StorageError(
                    str(folder),
                    "database and site CA belong to different sites",
                    cure="restore the whole folder from one backup",
                )
            return Site(
                folder=folder,
                site_id=row.site_id,
                name=row.name,
                key_server_name=row.key_server_name,
                hosts=tuple(row.hosts),
                roots=roots,
                issuer=issuer,
                issuers=issuers,
                vault=vault,
                storage=storage,
                passphrases=passphrases,
            )

    @staticmethod
    def open_for_reading(folder: Path) -> "Site":
        """Read the folder for who only lists: no key is opened, and nothing can be signed or unsealed.

        Raises:
            StorageError, CertificateError: as `open`.
        """
        storage = open_storage(folder)
        roots = tuple(certificates(folder / ROOT_FILE))
        with storage.snapshot() as session:
            row = session.get(SiteRow, 1)
            if row is None:
                raise StorageError(
                    str(storage.path), "holds no site", cure="restore the folder from a backup"
                )
            return Site(
                folder=folder,
                site_id=row.site_id,
                name=row.name,
                key_server_name=row.key_server_name,
                hosts=tuple(row.hosts),
                roots=roots,
                issuer=remote_issuer(folder),
                issuers=tuple(certificates(folder / CA_FILE)),
                passphrases=NO_PASSPHRASE,
                # A key that opens nothing.
                vault=Vault(Vault.new_key()),
                storage=storage,
            )

    @property
    def server_file(self) -> Path:
        """PEM with the key server's key and chain."""
        return self.folder / SERVER_FILE

    def validator(self) -> Validator:
        """A validator that trusts this site's roots."""
        return Validator(self.roots, self.issuers)

    def key_server(self) -> KeyServerIdentity:
        """Read the key server's certificate and key.

        Raises:
            StorageError, CertificateError: missing, readable by others, damaged, or not of this site.
        """
        return _read_key_server(self.server_file, self.site_id)

    def write_key_server(
        self, issued: IssuedCertificate, signer: KeySigner, authorities: Sequence[bytes] = ()
    ) -> None:
        """Replace the key server's certificate and key, both or neither.

        `authorities`: site CA certificates (DER) to show with it; by default the one that issues.
        """
        chain = [issued.der, *(authorities or self.issuers[:1])]
        write_atomically(self.server_file, signer.to_pem() + certificates_pem(chain), PRIVATE)


def init_site(
    folder: Path,
    *,
    site_name: str,
    root: tuple[Path, Path] | None,
    hosts: Sequence[str],
    now: int,
    passphrases: PassphraseSource = NO_PASSPHRASE,
    new_passphrases: PassphraseSource = NO_PASSPHRASE,
    device_usages: Sequence[str] = (),
) -> None:
    """Make the folder of a new authority.

    It is built beside its place and renamed, so that after a failure or a crash there is no half of one.

    Args:
        folder: must not exist, or be empty.
        site_name: for people.
        root: certificate and key file of the owner's root; None makes a root.
        hosts: names and addresses of the key server besides the local ones.
        now: microseconds.
        passphrases: of the owner's root key, if that is encrypted.
        new_passphrases: under which root key, site CA key and storage key are encrypted; one that has none
            is stored in clear.
        device_usages: extended key usages of devices besides those of TLS, as dotted OIDs.

    Raises:
        UsageError, CertificateError, StorageError.
    """
    check_site_name(site_name)
    device_usages = check_usages(device_usages)
    for host in hosts:
        check_host_name(host)
    check_not_pending(folder)
    with new_folder(folder) as building:
        made = _root(building, site_name, root, now, passphrases, new_passphrases)
        _certify_and_build(
            building, site_name, made, (*LOCAL_HOSTS, *hosts), now, new_passphrases, device_usages
        )


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Yield a folder to be filled in the block, which has the name `folder` after it.

    Raises:
        StorageError: there is something at that place.
    """
    with storage_errors(folder):
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise StorageError(
                str(folder), "is not an empty folder", cure="choose another folder; nothing is overwritten"
            )
        folder.parent.mkdir(parents=True, exist_ok=True)
        for leftover in folder.parent.glob(f".{folder.name}.init-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        building = folder.parent / f".{folder.name}.init-{secrets.token_hex(4)}"
        building.mkdir(mode=0o700)
    try:
        yield building
        with storage_errors(folder):
            sync_folder(building)
            building.rename(folder)
            sync_folder(folder.parent)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise


def is_pending(folder: Path) -> bool:
    """Whether the site CA of the folder waits for its certificate."""
    return (folder / PENDING_FILE).is_file() and not (folder / CA_FILE).is_file()


def check_not_pending(folder: Path) -> None:
    """Check that the folder is not that of an authority half made.

    Raises:
        StorageError: it is.
    """
    if is_pending(folder):
        raise StorageError(
            str(folder),
            "is an authority half made: its site CA waits for a certificate",
            cure="complete it: sealcast authority init DIR --certificate FILE --root-cert FILE",
        )


def check_folder(folder: Path) -> None:
    """Check that an authority was made there.

    Raises:
        StorageError: it was not.
    """
    check_not_pending(folder)
    if not (folder / CA_FILE).is_file():
        raise StorageError(
            str(folder),
            "is no authority's folder",
            cure="make one with: sealcast authority init DIR --site NAME",
        )


def open_storage(folder: Path) -> Storage:
    """The database of an authority, for who only lists: no key is opened.

    Raises:
        StorageError: there is none, or it is damaged.
    """
    check_folder(folder)
    return Storage.open(folder / DATABASE_FILE)


@contextmanager
def exclusive(folder: Path) -> Iterator[bool]:
    """Hold the folder's lock for the length of the block, if nobody does.

    Yields:
        True: held, this process may change the folder. False: a service, or another command, holds it.
    """
    check_folder(folder)
    with hold_lock(folder) as held:
        yield held


@contextmanager
def hold_lock(folder: Path) -> Iterator[bool]:
    """As `exclusive`, whatever is in the folder."""
    path = folder / LOCK_FILE
    with storage_errors(path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, PRIVATE)
    try:
        yield system.lock(descriptor)
    finally:
        os.close(descriptor)


def _settle_keys(folder: Path, storage: Storage, issuer: Issuer) -> None:
    """A signer that is away, or was restored, stops nothing that needs no signature."""
    try:
        settle(folder, storage, issuer)
    except SealcastError as error:
        if isinstance(issuer, LocalIssuer):
            raise
        _log.warning("the signer does not follow the rotation of its key yet: %s", error)


def _certify_and_build(
    folder: Path,
    site_name: str,
    root: Root,
    hosts: tuple[str, ...],
    now: int,
    new_passphrases: PassphraseSource,
    device_usages: tuple[str, ...],
) -> None:
    site_id = new_site_id()
    ca_signer = FileSigner.create(folder / CA_KEY_FILE, passphrase=new_passphrases.find("ca"))
    ca_certificate = root.issue_site_ca(
        site_name=site_name, site_id=site_id, public_key=ca_signer.public_key, now=now
    )
    settings = LedgerSettings(
        site_id=site_id.hex(), key_server_name=KEY_SERVER_NAME, hosts=hosts, device_usages=device_usages
    )
    ledger = Ledger.create(folder / LEDGER_FILE, settings)
    issuer = LocalIssuer(certificate_der(ca_certificate), ca_signer, ledger)
    build_site(
        folder,
        issuer=issuer,
        root=certificate_der(root.certificate),
        hosts=hosts,
        bundle=_first_bundle(root, issuer, now),
        now=now,
        new_passphrases=new_passphrases,
    )
    # The folder is moved now, and an open database would not follow.
    ledger.close()


def build_site(
    folder: Path,
    *,
    issuer: LocalIssuer,
    root: bytes,
    hosts: tuple[str, ...],
    bundle: bytes | None,
    now: int,
    new_passphrases: PassphraseSource,
) -> None:
    """Make everything that a folder with the key of a site CA still lacks; the certificate is written last.

    Args:
        folder: what is made must not be there.
        issuer: the site CA.
        root: DER.
        hosts: of the key server.
        bundle: version 1 of the trust bundle, as signed; None: there is none yet.
        now: microseconds.
        new_passphrases: under which the storage key is encrypted.

    Raises:
        CertificateError: the site CA, or the bundle, is not of that root. StorageError.
    """
    # What the register does not know of an earlier try is revoked when the authority starts.
    before = issuer.last_position()
    server_signer = KeySigner.generate()
    issued = issuer.issue_key_server(
        public_key=server_signer.public_key, name=KEY_SERVER_NAME, hosts=hosts, now=now
    )
    chain = [issued.der, issuer.certificate]
    Validator([root], [issuer.certificate]).verify_peer(chain, Role.KEY_SERVER, now)
    key = Vault.new_key()
    with storage_errors(folder):
        write_and_sync(folder / ROOT_FILE, certificates_pem([root]))
        write_and_sync(folder / SERVER_FILE, server_signer.to_pem() + certificates_pem(chain), PRIVATE)
        write_and_sync(folder / KEY_FILE, wrapped(key, new_passphrases.find("storage")), PRIVATE)
    storage = Storage.create(folder / DATABASE_FILE)
    with storage.transaction() as session:
        session.add(
            SiteRow(
                id=1,
                site_id=issuer.site_id,
                name=issuer.site_name,
                key_server_name=KEY_SERVER_NAME,
                hosts=list(hosts),
                created=now,
                restored=False,
                ledger_position=0 if before else issuer.last_position(),
            )
        )
        session.add(certificate_row(issued))
        issue_crl(session, issuer, now)
        if bundle is not None:
            store_bundle(
                session,
                bundle,
                site_id=issuer.site_id,
                issuer=issuer.certificate,
                roots=[root],
                now=now,
            )
        audit.record(session, now, "make site", issuer.site_name, site_id=issuer.site_id.hex())
    with storage_errors(folder):
        sync_folder(folder)
    write_atomically(folder / CA_FILE, certificates_pem([issuer.certificate]))


def _first_bundle(root: Root, issuer: Issuer, now: int) -> bytes:
    """Version 1 of the trust bundle, signed while the root's key is at hand."""
    der = certificate_der(root.certificate)
    bundle = first_bundle(
        root=der, site_id=issuer.site_id, site_name=issuer.site_name, authority=issuer.certificate, now=now
    )
    return SignedBundle.unsigned(bundle).sign(der, root.signer).serialize()


def _root(
    folder: Path,
    site_name: str,
    files: tuple[Path, Path] | None,
    now: int,
    passphrases: PassphraseSource,
    new_passphrases: PassphraseSource,
) -> Root:
    if files is None:
        signer = FileSigner.create(folder / ROOT_KEY_FILE, passphrase=new_passphrases.find("root"))
        return create_root(site_name=site_name, signer=signer, now=now)
    certificate_file, key_file = files
    try:
        return import_root(
            certificate_pem=read_file(certificate_file),
            key_pem=read_file(key_file),
            now=now,
            passphrases=passphrases,
            key_source=str(key_file),
        )
    except CertificateError as error:
        if error.problem.startswith(str(key_file)):
            raise
        raise CertificateError(
            f"{certificate_file}: {error.problem}", reason=error.reason, cure=error.cure
        ) from None


def _read_key_server(path: Path, site_id: bytes) -> KeyServerIdentity:
    if not path.exists():
        raise StorageError(
            str(path),
            "is not there",
            cure="start the service, which makes another: sealcast authority serve DIR",
        )
    signer = FileSigner.open(path)
    chain = tuple(certificates(path))
    certificate = x509.load_der_x509_certificate(chain[0])
    cure = "restore it from a backup of this folder, or remove it: the next start makes another"
    if not fits(signer, certificate):
        raise CertificateError(f"{path}: certificate and key do not match", reason="key", cure=cure)
    identity = certificate_identity(certificate)
    if (identity.role, identity.site_id) != (Role.KEY_SERVER, site_id):
        raise CertificateError(
            f"{path}: the certificate is that of {identity.uri}, not of this site's key server",
            reason="wrong-site",
            cure=cure,
        )
    return KeyServerIdentity(
        chain=chain,
        signer=signer,
        not_before=microseconds(certificate.not_valid_before_utc),
        not_after=microseconds(certificate.not_valid_after_utc),
    )
