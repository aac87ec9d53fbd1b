"""Who this device is: what its folder holds, read and ready for use."""

import json
import random
import ssl
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Self

from sealcast.ca.signer import FileSigner, Signer, fits
from sealcast.device.folder import (
    KEY_FILE,
    Stamp,
    current_bundle,
    current_credentials,
    pending_request,
    stamp,
)
from sealcast.errors import CertificateError, StorageError, UsageError
from sealcast.pki.bundle import VerifiedBundle
from sealcast.pki.certificates import certificate_identity, parse_certificate, parse_pem_certificates
from sealcast.pki.ends import End, certificate_end, chain_ends
from sealcast.pki.files import read_file
from sealcast.pki.names import Role, check_device_name, parse_site_id
from sealcast.pki.times import microseconds, system_time, to_datetime
from sealcast.pki.tls import client_context, leading, server_context
from sealcast.pki.validator import Anchor, Validator

SETTINGS_FILE = "device.toml"
CERTIFICATE_FILE = "certificate.pem"
ISSUERS_FILE = "issuers.pem"
ROOTS_FILE = "roots.pem"

_RENEWAL_JITTER = timedelta(days=3)
"""Devices enrolled on one day must not all renew on one other day."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceSettings:
    """What `device.toml` says."""

    name: str
    site_id: bytes
    """16 bytes."""
    authority_url: str
    """EST: `https://host:port`."""
    keys_url: str
    """Key server: `https://host:port`."""
    role: Role = Role.DEVICE
    """`device` or `admin`."""

    def serialize(self) -> bytes:
        """Return the file's text."""
        values = {
            "name": self.name,
            "site": self.site_id.hex(),
            "authority": self.authority_url,
            "keys": self.keys_url,
            **({} if self.role is Role.DEVICE else {"role": str(self.role)}),
        }
        # For printable text a JSON string is a TOML string.
        lines = (f"{key} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in values.items())
        return "".join(lines).encode()

    @classmethod
    def parse(cls, text: bytes) -> Self:
        """Read the file's text. Raises: UsageError."""
        try:
            values: Mapping[str, object] = tomllib.loads(text.decode())
            name, site, authority, keys = (values[key] for key in ("name", "site", "authority", "keys"))
            role = Role(str(values.get("role", Role.DEVICE)))
        except (tomllib.TOMLDecodeError, ValueError, KeyError) as error:
            raise UsageError(f"not a device's settings: {error}") from None
        if not (
            isinstance(name, str)
            and isinstance(site, str)
            and isinstance(authority, str)
            and isinstance(keys, str)
        ):
            raise UsageError("not a device's settings: every value must be a string")
        return cls(
            name=check_device_name(name),
            site_id=parse_site_id(site),
            authority_url=authority,
            keys_url=keys,
            role=role,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceIdentity:
    """One device's name, key, certificates and roots, as they were when the folder was read.

    After a renewal, also one by another process, open the folder again.
    """

    path: Path
    """The device's folder."""
    settings: DeviceSettings
    signer: Signer
    """Holds the device key: signs stream credentials and requests."""
    chain: tuple[bytes, ...]
    """DER: our certificate, then its issuers without the root."""
    told_issuers: tuple[bytes, ...]
    """DER: the site CA certificates that the authority told at the last enrolment or renewal."""
    given_roots: tuple[bytes, ...]
    """DER: the roots that were given at enrolment."""
    bundle: VerifiedBundle | None
    """The trust bundle in force; None before there is one."""
    serial: int
    not_before: int
    """Microseconds."""
    not_after: int
    """Microseconds."""
    credentials: Path
    """The folder of the credentials that were read."""
    stamp: Stamp
    """Of the folder before it was read: another one now means that there is something new."""

    @classmethod
    def open(cls, path: Path | str, role: Role = Role.DEVICE) -> Self:
        """Read the folder of a device, or of an admin.

        Raises: StorageError if there is no such thing, or something is missing or damaged; CertificateError
        if key and certificate do not belong together.
        """
        folder = Path(path)
        before = stamp(folder)
        credentials = current_credentials(folder)
        if credentials is None:
            if pending_request(folder) is not None:
                raise StorageError(
                    str(folder),
                    f"holds no {role} yet: its request is not decided",
                    cure=f"see: sealcast device show {folder}; go on: sealcast {role} enroll {folder}",
                )
            raise StorageError(
                str(folder), f"holds no {role}", cure=f"enrol it first: sealcast {role} enroll {folder} ..."
            )
        try:
            settings = DeviceSettings.parse(read_file(credentials / SETTINGS_FILE))
        except UsageError as error:
            raise StorageError(
                str(credentials / SETTINGS_FILE), str(error), cure="enrol again, or restore the file"
            ) from None
        if settings.role is not role:
            raise StorageError(
                str(folder),
                f"holds the {settings.role} {settings.name!r}, no {role}",
                cure="give another folder",
            )
        signer = FileSigner.open(credentials / KEY_FILE)
        chain = _certificates(credentials / CERTIFICATE_FILE)
        leaf = parse_certificate(chain[0])
        if not fits(signer, leaf):
            raise CertificateError(
                f"{credentials / KEY_FILE}: is not the key of the certificate beside it",
                reason="key",
                cure="restore the folder, or enrol again with a token",
            )
        identity = certificate_identity(leaf)
        if (identity.role, identity.name, identity.site_id) != (role, settings.name, settings.site_id):
            raise CertificateError(
                f"{credentials}: the certificate is that of {identity.uri}, not of {settings.name!r}",
                reason="wrong-role",
                cure="enrol again with a token",
            )
        return cls(
            path=folder,
            settings=settings,
            signer=signer,
            chain=chain,
            told_issuers=_certificates(credentials / ISSUERS_FILE),
            given_roots=_certificates(credentials / ROOTS_FILE),
            bundle=current_bundle(folder),
            serial=leaf.serial_number,
            not_before=microseconds(leaf.not_valid_before_utc),
            not_after=microseconds(leaf.not_valid_after_utc),
            credentials=credentials,
            stamp=before,
        )

    @property
    def name(self) -> str:
        """The device's name."""
        return self.settings.name

    @property
    def site_id(self) -> bytes:
        """16 bytes."""
        return self.settings.site_id

    @property
    def authority_url(self) -> str:
        """EST: `https://host:port`."""
        return self.settings.authority_url

    @property
    def keys_url(self) -> str:
        """Key server: `https://host:port`."""
        return self.settings.keys_url

    @property
    def roots(self) -> tuple[bytes, ...]:
        """DER: the trust anchors, from the trust bundle as soon as there is one (TR-21)."""
        if self.bundle is None:
            return self.given_roots
        return tuple(anchor.certificate for anchor in self.bundle.bundle.vouching())

    @property
    def issuers(self) -> tuple[bytes, ...]:
        """DER: the site CA certificates that help to build paths; they are not trusted by being here."""
        if self.bundle is None:
            return self.told_issuers
        return self.bundle.bundle.authorities()

    @property
    def anchors(self) -> tuple[Anchor, ...]:
        """The trust anchors with their scope (TR-21)."""
        if self.bundle is None:
            return self.given_roots
        # It is no earlier than when the bundle was signed, whatever the clock says.
        return self.bundle.bundle.trusted(max(system_time(), self.bundle.bundle.issued))

    @property
    def certificate(self) -> bytes:
        """Our own certificate, DER."""
        return self.chain[0]

    @property
    def certificate_file(self) -> Path:
        """PEM: our chain."""
        return self.credentials / CERTIFICATE_FILE

    @property
    def key_file(self) -> Path:
        """PEM: our key."""
        return self.credentials / KEY_FILE

    def validator(self) -> Validator:
        """Return a validator that trusts this device's roots and knows its site CAs."""
        return Validator(self.anchors, self.issuers)

    def ssl_context_client(self) -> ssl.SSLContext:
        """Return a context for the side channel: TLS 1.3, shows our chain.

        Judge the peer by `validator()`.
        """
        return client_context(self.certificate_file, self.key_file, leading(self.roots, self.issuers))

    def ssl_context_server(self) -> ssl.SSLContext:
        """Return a context for our own listener: TLS 1.3, admits holders of certificates under our roots."""
        return server_context(self.certificate_file, self.key_file, leading(self.roots, self.issuers))

    def ends(self) -> tuple[End, ...]:
        """Return the life of our certificate and of each issuer up to the root."""
        return chain_ends(self.certificate, (*self.chain[1:], *self.issuers), self.roots)

    def check_roots(self, now: int) -> None:
        """Check that some root is left to judge others by. `now`: microseconds.

        Raises: CertificateError with the reason `roots-ended`; it says what brings the device back.
        """
        roots = [certificate_end(parse_certificate(der)) for der in self.roots]
        if all(root.ends <= now for root in roots):
            last = max(roots, key=lambda root: root.ends)
            raise CertificateError(
                f"every root that device {self.name!r} trusts has ended by this machine's clock, "
                f"{to_datetime(now):%Y-%m-%dT%H:%M:%SZ}: {last.warning(now)}",
                reason="roots-ended",
                cure="set the clock if it is wrong; else enrol anew into this folder with the new root: "
                "sealcast device enroll DIR --root NEW --token TOKEN",
            )

    def renewal_time(self) -> int:
        """Return when to renew, in microseconds: at 2/3 of the certificate's life, less a jitter.

        The jitter follows from the certificate, so that every process and every start says the same.
        """
        life = self.not_after - self.not_before
        jitter = min(microseconds(_RENEWAL_JITTER), life // 10)
        return self.not_before + life * 2 // 3 - random.Random(self.serial).randrange(jitter + 1)  # noqa: S311


def _certificates(path: Path) -> tuple[bytes, ...]:
    try:
        return tuple(parse_pem_certificates(read_file(path)))
    except CertificateError as error:
        raise StorageError(str(path), str(error), cure="enrol again, or restore the file") from None
