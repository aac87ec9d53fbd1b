"""The five certificate profiles, as unsigned builders; `sealcast.ca` signs them.

Spec: spec/trust.md section 2 (TR-3, TR-4), RFC 5280.
"""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from sealcast.errors import UsageError
from sealcast.pki.hardware import HardwareIdentity
from sealcast.pki.names import Identity, Role, check_site_name
from sealcast.pki.signed import PublicKey
from sealcast.pki.times import microseconds, to_certificate_time

CLOCK_ALLOWANCE = timedelta(minutes=1)
"""How long before issuance a certificate is valid, for peers whose clocks lag. Spec: TR-4."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """One column of the table of TR section 2."""

    life: timedelta
    path_length: int | None
    """None without a limit; of no meaning for end entities."""
    is_ca: bool
    signs: bool
    """digitalSignature in keyUsage."""


ROOT = Profile(life=timedelta(days=20 * 365), path_length=None, is_ca=True, signs=False)
SITE_CA = Profile(life=timedelta(days=2 * 365), path_length=0, is_ca=True, signs=True)
DEVICE = Profile(life=timedelta(days=90), path_length=None, is_ca=False, signs=True)
KEY_SERVER = Profile(life=timedelta(days=90), path_length=None, is_ca=False, signs=True)
ADMIN = Profile(life=timedelta(days=90), path_length=None, is_ca=False, signs=True)

REGISTRATION_AUTHORITY = x509.ObjectIdentifier("1.3.6.1.5.5.7.3.28")
"""id-kp-cmcRA (RFC 6402): in extKeyUsage of a device that registers others at EST."""

MAX_SITE_CAS = 99
"""Names for the keys of a site's CA; with the longest name of a site, the common name has 64 characters."""

_BOTH_SIDES = (ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH)

MAX_EXTRA_USAGES = 8

# Each would make a device's certificate more than that of a device.
_REFUSED_USAGES = {
    ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE: "any usage at all",
    ExtendedKeyUsageOID.OCSP_SIGNING: "answers about revocation",
    ExtendedKeyUsageOID.CODE_SIGNING: "signing of programs",
    ExtendedKeyUsageOID.TIME_STAMPING: "time stamps",
    REGISTRATION_AUTHORITY: "registration of other devices",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateIssuer:
    """What a certificate takes from the one who signs it."""

    subject: x509.Name
    public_key: PublicKey
    key_identifier: x509.SubjectKeyIdentifier
    not_after: int
    """The end of the issuer's own life in microseconds: nothing that it issues outlives it."""

    @classmethod
    def of(cls, certificate: x509.Certificate, public_key: PublicKey) -> "CertificateIssuer":
        """Take it from the issuer's own certificate, whose key is `public_key`."""
        try:
            identifier = certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        except x509.ExtensionNotFound:
            identifier = x509.SubjectKeyIdentifier.from_public_key(public_key)
        return cls(
            subject=certificate.subject,
            public_key=public_key,
            key_identifier=identifier,
            not_after=microseconds(certificate.not_valid_after_utc),
        )

    @classmethod
    def self_signed(
        cls, common_name: str, site_name: str, public_key: PublicKey, not_after: int
    ) -> "CertificateIssuer":
        """Take it for a certificate of this name that its own key will sign. `not_after`: microseconds."""
        return cls(
            subject=_subject(common_name, site_name),
            public_key=public_key,
            key_identifier=x509.SubjectKeyIdentifier.from_public_key(public_key),
            not_after=not_after,
        )


def root_builder(*, site_name: str, public_key: PublicKey, serial: int, now: int) -> x509.CertificateBuilder:
    """Build a root certificate, to be signed by its own key."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{check_site_name(site_name)} root")])
    issuer = CertificateIssuer(
        subject=subject,
        public_key=public_key,
        key_identifier=x509.SubjectKeyIdentifier.from_public_key(public_key),
        not_after=now + microseconds(ROOT.life),
    )
    return _builder(ROOT, subject, public_key, issuer, serial, now)


def cross_builder(
    *, certificate: x509.Certificate, public_key: PublicKey, issuer: CertificateIssuer, serial: int, now: int
) -> x509.CertificateBuilder:
    """Build a certificate of a root's name and key, to be signed by another root.

    It ends with the earlier of the two. Its subjectKeyIdentifier is that of `certificate`, as what the root
    has issued names it. Spec: TR-22.
    """
    known = CertificateIssuer.of(certificate, public_key)
    life = min(known.not_after, issuer.not_after) - now
    profile = replace(ROOT, life=timedelta(microseconds=life))
    return _builder(
        profile, certificate.subject, public_key, issuer, serial, now, key_identifier=known.key_identifier
    )


def site_ca_name(site_name: str, number: int = 1) -> str:
    """Return the common name of the `number`th key of a site's CA, 1 to MAX_SITE_CAS (TR-23).

    Each key has a name of its own, as CRLs are found by the name of who signed them.
    """
    return f"{check_site_name(site_name)} CA" if number == 1 else f"{check_site_name(site_name)} CA {number}"


def site_ca_builder(
    *,
    site_name: str,
    site_id: bytes,
    public_key: PublicKey,
    issuer: CertificateIssuer,
    serial: int,
    now: int,
    number: int = 1,
) -> x509.CertificateBuilder:
    """Build a site CA certificate, to be signed by a root. `number`: as `site_ca_name`."""
    identity = Identity(role=Role.SITE, site_id=site_id, name="")
    subject = _subject(site_ca_name(site_name, number), site_name)
    return _builder(SITE_CA, subject, public_key, issuer, serial, now).add_extension(
        x509.SubjectAlternativeName([x509.UniformResourceIdentifier(identity.uri)]), critical=False
    )


def device_builder(
    *,
    name: str,
    site_name: str,
    site_id: bytes,
    public_key: PublicKey,
    issuer: CertificateIssuer,
    serial: int,
    now: int,
    hardware: HardwareIdentity | None = None,
    usages: Sequence[str] = (),
    registers: bool = False,
) -> x509.CertificateBuilder:
    """Build a device certificate, to be signed by the site CA.

    `hardware`: approved names of the hardware (802.1AR). `usages`: further extended key usages, dotted OIDs,
    so that the certificate serves another protocol too. `registers`: the device is a registration authority,
    which asks for the certificates of others.
    """
    identity = Identity(role=Role.DEVICE, site_id=site_id, name=name)
    return _end_entity(
        DEVICE,
        identity,
        site_name,
        public_key,
        issuer,
        serial,
        now,
        usages=(
            *_BOTH_SIDES,
            *map(x509.ObjectIdentifier, check_usages(usages)),
            *((REGISTRATION_AUTHORITY,) if registers else ()),
        ),
        hardware=hardware,
    )


def admin_builder(
    *,
    name: str,
    site_name: str,
    site_id: bytes,
    public_key: PublicKey,
    issuer: CertificateIssuer,
    serial: int,
    now: int,
) -> x509.CertificateBuilder:
    """Build the certificate of an administrator, to be signed by the site CA."""
    identity = Identity(role=Role.ADMIN, site_id=site_id, name=name)
    usages = (ExtendedKeyUsageOID.CLIENT_AUTH,)
    return _end_entity(ADMIN, identity, site_name, public_key, issuer, serial, now, usages=usages)


def key_server_builder(
    *,
    name: str,
    hosts: Sequence[str],
    site_name: str,
    site_id: bytes,
    public_key: PublicKey,
    issuer: CertificateIssuer,
    serial: int,
    now: int,
) -> x509.CertificateBuilder:
    """Build a key server certificate, to be signed by the site CA.

    `hosts`: DNS names and IP addresses under which clients reach it (EST clients check them).
    """
    identity = Identity(role=Role.KEY_SERVER, site_id=site_id, name=name)
    return _end_entity(
        KEY_SERVER, identity, site_name, public_key, issuer, serial, now, usages=_BOTH_SIDES, hosts=hosts
    )


def check_usages(usages: Sequence[str]) -> tuple[str, ...]:
    """Return further extended key usages for devices, sorted, if each is one that a device may have.

    Raises: UsageError.
    """
    for usage in usages:
        try:
            identifier = x509.ObjectIdentifier(usage)
        except ValueError:
            raise UsageError(
                f"not an object identifier: {usage[:80]!r}", cure="write it as 1.2.840.10004.20701.1.1"
            ) from None
        if identifier in _REFUSED_USAGES:
            raise UsageError(
                f"the extended key usage {usage} stands for {_REFUSED_USAGES[identifier]}",
                cure="leave it out: no device may have it",
            )
    chosen = tuple(sorted({usage for usage in usages if x509.ObjectIdentifier(usage) not in _BOTH_SIDES}))
    if len(chosen) > MAX_EXTRA_USAGES:
        raise UsageError(f"{len(chosen)} extended key usages", cure=f"give at most {MAX_EXTRA_USAGES}")
    return chosen


def _end_entity(
    profile: Profile,
    identity: Identity,
    site_name: str,
    public_key: PublicKey,
    issuer: CertificateIssuer,
    serial: int,
    now: int,
    *,
    usages: Sequence[x509.ObjectIdentifier],
    hosts: Sequence[str] = (),
    hardware: HardwareIdentity | None = None,
) -> x509.CertificateBuilder:
    names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(identity.uri)]
    names += [_host_name(host) for host in dict.fromkeys(hosts)]
    module = hardware.general_name() if hardware is not None else None
    if module is not None:
        names.append(module)
    subject = _subject(identity.name, site_name, hardware.serial_number if hardware is not None else None)
    return (
        _builder(profile, subject, public_key, issuer, serial, now)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
    )


def _builder(
    profile: Profile,
    subject: x509.Name,
    public_key: PublicKey,
    issuer: CertificateIssuer,
    serial: int,
    now: int,
    key_identifier: x509.SubjectKeyIdentifier | None = None,
) -> x509.CertificateBuilder:
    not_after = min(now + microseconds(profile.life), issuer.not_after)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.subject)
        .public_key(public_key)
        .serial_number(serial)
        .not_valid_before(to_certificate_time(now - microseconds(CLOCK_ALLOWANCE)))
        .not_valid_after(to_certificate_time(not_after))
        .add_extension(
            x509.BasicConstraints(ca=profile.is_ca, path_length=profile.path_length), critical=True
        )
        .add_extension(_key_usage(profile), critical=True)
        .add_extension(
            key_identifier or x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False
        )
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer.key_identifier),
            critical=False,
        )
    )


def _key_usage(profile: Profile) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=profile.signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=profile.is_ca,
        crl_sign=profile.is_ca,
        encipher_only=False,
        decipher_only=False,
    )


def _subject(common_name: str, site_name: str, serial_number: str | None = None) -> x509.Name:
    attributes = [
        x509.NameAttribute(NameOID.ORGANIZATION_NAME, check_site_name(site_name)),
        x509.NameAttribute(NameOID.COMMON_NAME, common_name),
    ]
    if serial_number is not None:
        attributes.append(x509.NameAttribute(NameOID.SERIAL_NUMBER, serial_number))
    return x509.Name(attributes)


def _host_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        try:
            return x509.DNSName(host.encode("idna").decode("ascii").lower())
        except UnicodeError:
            raise UsageError(f"not a host name or an IP address: {host[:80]!r}") from None
