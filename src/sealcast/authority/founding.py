"""Making an authority whose root is elsewhere: first a request for its site CA, later the certificate.

In between the folder holds the site CA's key, the request, and what the rest is made of (`pending.json`); it
is no authority's folder yet. It becomes one at the moment that `ca.pem` is in it, which is written last.
Until then completing it can be tried again, with another certificate too.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from sealcast.authority.issuance import CA_FILE, CA_KEY_FILE, LEDGER_FILE, certificates
from sealcast.authority.site import (
    KEY_SERVER_NAME,
    LOCAL_HOSTS,
    PENDING_FILE,
    ROOT_FILE,
    SERVER_FILE,
    build_site,
    check_folder,
    hold_lock,
    is_pending,
    new_folder,
)
from sealcast.authority.storage import DATABASE_FILE
from sealcast.authority.vault import KEY_FILE
from sealcast.ca import FileSigner, Ledger, LedgerSettings, LocalIssuer, PassphraseSource
from sealcast.ca.root import check_alive, read_root
from sealcast.ca.site_request import check_site_certificate, make_site_request
from sealcast.errors import CertificateError, StorageError, UsageError
from sealcast.pki.bundle import read_bundle_file
from sealcast.pki.certificates import certificate_der, organization, parse_certificate
from sealcast.pki.files import TEMPORARY_SUFFIX, read_file, storage_errors, write_and_sync
from sealcast.pki.names import check_host_name, check_site_name, new_site_id
from sealcast.pki.profiles import check_usages
from sealcast.system import sync_folder

REQUEST_FILE = "request.pem"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pending:
    """What was said when the request was made."""

    site_id: str
    """Hexadecimal."""
    site_name: str
    hosts: tuple[str, ...]
    device_usages: tuple[str, ...]

    @classmethod
    def read(cls, folder: Path) -> "_Pending":
        path = folder / PENDING_FILE
        try:
            values = json.loads(read_file(path))
            return cls(
                site_id=bytes.fromhex(values["site_id"]).hex(),
                site_name=check_site_name(values["site_name"]),
                hosts=tuple(map(check_host_name, values["hosts"])),
                device_usages=check_usages(values["device_usages"]),
            )
        except (ValueError, TypeError, KeyError, UsageError):
            raise StorageError(
                str(path),
                "makes no sense",
                cure="restore the folder from a backup, or begin anew in another folder",
            ) from None


def request_site(
    folder: Path,
    *,
    site_name: str,
    hosts: Sequence[str],
    device_usages: Sequence[str],
    new_passphrases: PassphraseSource,
) -> bytes:
    """Make the folder of an authority whose site CA waits for its certificate, and return the request.

    Where that was done before with the same values, nothing is made anew.

    Args:
        folder: must not exist, be empty, or be pending.
        site_name: for people.
        hosts: names and addresses of the key server besides the local ones.
        device_usages: extended key usages of devices besides those of TLS, as dotted OIDs.
        new_passphrases: under which the site CA's key is encrypted; without one it is stored in clear.

    Returns:
        The request, PEM.

    Raises:
        UsageError, StorageError.
    """
    check_site_name(site_name)
    usages = check_usages(device_usages)
    names = (*LOCAL_HOSTS, *map(check_host_name, hosts))
    if is_pending(folder):
        held = _Pending.read(folder)
        if (held.site_name, held.hosts, held.device_usages) != (site_name, names, usages):
            raise UsageError(
                f"{folder} waits for the certificate of site {held.site_name!r}, under other options",
                cure="give the options that the request was made with, or choose another folder",
            )
        return read_file(folder / REQUEST_FILE)
    pending = _Pending(
        site_id=new_site_id().hex(), site_name=site_name, hosts=names, device_usages=tuple(usages)
    )
    with new_folder(folder) as building:
        signer = FileSigner.create(building / CA_KEY_FILE, passphrase=new_passphrases.find("ca"))
        der = make_site_request(signer, site_name, bytes.fromhex(pending.site_id))
        request = x509.load_der_x509_csr(der).public_bytes(serialization.Encoding.PEM)
        with storage_errors(building):
            write_and_sync(building / REQUEST_FILE, request)
            write_and_sync(building / PENDING_FILE, json.dumps(asdict(pending), indent=2).encode())
    return request


def complete_site(
    folder: Path,
    *,
    certificate: Path,
    root: Path,
    bundle: Path | None,
    now: int,
    passphrases: PassphraseSource,
    new_passphrases: PassphraseSource,
) -> str:
    """Make an authority of a folder that waits for the certificate of its site CA.

    Where that was done before with the same certificate, this does nothing.

    Args:
        folder: pending.
        certificate: file of the site CA's certificate, PEM.
        root: file of the root that signed it, PEM.
        bundle: file of version 1 of the trust bundle, as signed by that root, if there is one.
        now: microseconds.
        passphrases: of the site CA's key, if that is encrypted.
        new_passphrases: under which the storage key is encrypted; without one it is stored in clear.

    Returns:
        The name of the site.

    Raises:
        CertificateError: the certificate is not the answer to this folder's request, or not of that root.
        StorageError: the folder is not pending, or something cannot be read or written. Nothing is lost.
    """
    ca_certificate = _single(certificate)
    try:
        root_certificate = certificate_der(read_root(read_file(root), now))
    except CertificateError as error:
        raise CertificateError(f"{root}: {error.problem}", reason=error.reason, cure=error.cure) from None
    signed = None if bundle is None else read_bundle_file(bundle)
    if not is_pending(folder):
        check_folder(folder)
        if certificates(folder / CA_FILE)[0] != ca_certificate:
            raise StorageError(
                str(folder),
                "is an authority already, and its site CA has another certificate",
                cure="choose another folder; nothing is overwritten",
            )
    with hold_lock(folder) as held:
        if not held:
            raise StorageError(
                str(folder), "is being served, or changed, by another process", cure="end that one first"
            )
        if is_pending(folder):
            signer = FileSigner.open(folder / CA_KEY_FILE, name="ca", passphrases=passphrases)
            pending = _Pending.read(folder)
            _check_answer(certificate, ca_certificate, signer, pending, root_certificate, now)
            issuer = LocalIssuer(ca_certificate, signer, _ledger(folder, pending))
            _clear(folder)
            build_site(
                folder,
                issuer=issuer,
                root=root_certificate,
                hosts=pending.hosts,
                bundle=signed,
                now=now,
                new_passphrases=new_passphrases,
            )
        with storage_errors(folder):
            for name in (REQUEST_FILE, PENDING_FILE):
                (folder / name).unlink(missing_ok=True)
            sync_folder(folder)
    return organization(parse_certificate(ca_certificate))


def _single(path: Path) -> bytes:
    found = certificates(path)
    if len(found) != 1:
        raise CertificateError(
            f"{path}: holds {len(found)} certificates, not one",
            reason="malformed",
            cure="give the site CA's alone; its root goes to --root-cert",
        )
    return found[0]


def _check_answer(
    path: Path, certificate: bytes, signer: FileSigner, pending: _Pending, root: bytes, now: int
) -> None:
    try:
        check_site_certificate(
            certificate,
            public_key=signer.public_key,
            site_id=bytes.fromhex(pending.site_id),
            site_name=pending.site_name,
            root=root,
        )
        check_alive(parse_certificate(certificate), "site CA certificate", now)
    except CertificateError as error:
        raise CertificateError(f"{path}: {error.problem}", reason=error.reason, cure=error.cure) from None


def _ledger(folder: Path, pending: _Pending) -> Ledger:
    """The ledger of an earlier try is kept: it knows what the site CA's key has signed."""
    path = folder / LEDGER_FILE
    if path.exists():
        return Ledger(path)
    return Ledger.create(
        path,
        LedgerSettings(
            site_id=pending.site_id,
            key_server_name=KEY_SERVER_NAME,
            hosts=pending.hosts,
            device_usages=pending.device_usages,
        ),
    )


def _clear(folder: Path) -> None:
    """Remove what an earlier try has made."""
    with storage_errors(folder):
        for name in (ROOT_FILE, SERVER_FILE, KEY_FILE):
            (folder / name).unlink(missing_ok=True)
        for pattern in (f"{DATABASE_FILE}*", f"*{TEMPORARY_SUFFIX}"):
            for leftover in folder.glob(pattern):
                leftover.unlink()
