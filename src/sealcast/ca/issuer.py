"""The site CA: what the authority asks of it, and the one that holds its key.

It decides what a certificate says; whether the asker may have one is decided above (token, revocation,
approval), and what was issued is recorded there. There is no way to have any bytes signed.
Spec: spec/trust.md sections 2 and 4, spec/side-channel.md SC-11.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from cryptography import x509
from cryptography.x509.oid import NameOID

from sealcast.ca.crls import CrlMaker
from sealcast.ca.observation import announce
from sealcast.ca.root import check_alive
from sealcast.ca.signer import Signer, fits
from sealcast.errors import CertificateError, SealcastError
from sealcast.pki.certificates import (
    certificate_der,
    certificate_identity,
    has_usage,
    issuer_key,
    parse_certificate,
    spki,
)
from sealcast.pki.crl import Revocation
from sealcast.pki.csr import CertificateRequest, check_device_key
from sealcast.pki.hardware import HardwareIdentity
from sealcast.pki.names import Identity, Role, check_device_name
from sealcast.pki.policy import Policy
from sealcast.pki.profiles import (
    ADMIN,
    DEVICE,
    KEY_SERVER,
    REGISTRATION_AUTHORITY,
    CertificateIssuer,
    Profile,
    admin_builder,
    device_builder,
    key_server_builder,
)
from sealcast.pki.signed import PublicKey
from sealcast.pki.times import microseconds


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuedCertificate:
    """A fresh certificate and what a register of them needs."""

    der: bytes
    identity: Identity
    serial: int
    not_before: int
    not_after: int
    """Microseconds."""
    issuer: bytes | None
    """Key identifier of the site CA's key."""

    @classmethod
    def of(cls, der: bytes, identity: Identity | None = None) -> "IssuedCertificate":
        """Read it from a certificate of our own profiles. Raises: CertificateError.

        `identity`: its identity, where that is known.
        """
        certificate = parse_certificate(der)
        return cls(
            der=der,
            identity=identity or certificate_identity(certificate),
            serial=certificate.serial_number,
            not_before=microseconds(certificate.not_valid_before_utc),
            not_after=microseconds(certificate.not_valid_after_utc),
            issuer=issuer_key(certificate),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Intent:
    """What is about to be signed under a serial number that nothing else bears."""

    identity: Identity
    request: bytes
    """SHA-256 of the certificate request, or of the public key where there is none."""
    time: int
    """Microseconds."""
    ends: int
    """The latest end that the certificate may have, in microseconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceRequest:
    """A certificate of a device that is asked for, by somebody who may have it."""

    csr: CertificateRequest
    name: str = ""
    """The authenticated name; at a renewal it is that of `current`."""
    current: bytes | None = None
    """At a renewal the present certificate (DER), as `Issuer.renew_device` takes it."""
    hardware: HardwareIdentity | None = None
    """This and the next two as `Issuer.issue_device` takes them; at a renewal they follow from `current`."""
    generated: PublicKey | None = None
    registers: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A certificate that may be signed once there is a serial number for it."""

    intent: Intent
    build: Callable[[int], x509.CertificateBuilder]
    """From the serial number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Issuance:
    """An entry of the ledger of the site CA: an intent, its serial number, and what became of it."""

    position: int
    """Counts from 1, in the order of the intents."""
    intent: Intent
    serial: int
    certificate: bytes | None
    """SHA-256 of the certificate, if it is known to have been signed."""
    is_void: bool
    """Whether it is known that nothing was signed."""


class Permit(StrEnum):
    """What the site CA certifies for names alone that its operator has given it for that."""

    ADMIN = "admin"
    REGISTRATION_AUTHORITY = "registrar"


class Issuer(Protocol):
    """A site CA at work, here or in a process of its own.

    Errors of every method: CsrError and CertificateError: what is asked for is refused, now and later;
    StorageError: the ledger cannot be written, the signer does not answer, or too much was asked for in this
    hour: nothing came of it that the caller has to undo, and asking again later is of use.
    """

    @property
    def certificate(self) -> bytes:
        """The site CA's DER certificate."""

    @property
    def public_key(self) -> PublicKey:
        """The site CA's public key."""

    @property
    def site_id(self) -> bytes:
        """16 bytes."""

    @property
    def site_name(self) -> str:
        """The organization in the site CA's subject."""

    def issue_device(
        self,
        csr: bytes,
        name: str,
        now: int,
        *,
        hardware: HardwareIdentity | None = None,
        generated: PublicKey | None = None,
        registers: bool = False,
    ) -> IssuedCertificate:
        """Certify a device's key for the authenticated name.

        `csr`: DER. `now`: microseconds; an issuer with a clock of its own goes by that. `hardware`: names of
        the hardware that the caller has approved. `generated`: a key that was made for the device, in place
        of the request's. `registers`: the device is a registration authority. Raises: CsrError if the request
        is bad or asks for another identity (SC-11), CertificateError if the name has been removed or is not
        permitted what is asked for it, or the site CA is not valid.
        """

    def renew_device(self, current: bytes, csr: bytes, now: int) -> IssuedCertificate:
        """Certify anew the device that holds a certificate of this site; the key may be the same or new.

        `current`: its DER certificate, whose chain, role and revocation the caller has judged; names of the
        hardware are taken from it, and whether it registers others. `csr`: DER.
        Raises: CsrError if the request asks for another subject or subjectAltName, CertificateError if
        `current` is not a device certificate of this site, or is revoked.
        """

    def issue_devices(
        self, requests: Sequence[DeviceRequest], now: int
    ) -> list[IssuedCertificate | SealcastError]:
        """Certify many devices: as one after the other, at the price of one wait for the disk.

        What is refused stands in its place; the others are not touched by it. Raises: StorageError if none
        can be had.
        """

    def issue_key_server(
        self, *, public_key: PublicKey, name: str, hosts: Sequence[str], now: int
    ) -> IssuedCertificate:
        """Certify the key of a key server, which serves EST under the same certificate.

        `hosts`: DNS names and IP addresses under which devices reach it. `now`: microseconds.
        """

    def issue_admin(self, csr: bytes, name: str, now: int) -> IssuedCertificate:
        """Certify the key of an administrator of the management API. `csr`: DER. `now`: microseconds.

        Raises: CertificateError if the name is not permitted to be one.
        """

    def issue_crl(self, *, number: int, revocations: Iterable[Revocation], now: int) -> bytes:
        """Return a DER CRL.

        `number`: the lowest that it may bear; it bears a higher one where that was used already.
        `revocations`: at least these; what stood on an earlier CRL and has not ended stays on it.
        """

    def sign_policy(self, policy: Policy) -> bytes:
        """Return the signed object (TR-13), as peers get it.

        `policy.version`: the lowest that it may bear; it bears a higher one where that was used already.
        """

    def sign_policies(self, policies: Sequence[Policy]) -> list[bytes]:
        """As `sign_policy` for each, at the price of one wait for the disk; all, or an error and none."""

    def remove(self, name: str, now: int) -> None:
        """Note that a device is removed: nothing is issued to its name, and no policy lists it, until it is
        readmitted.
        """

    def readmit(self, name: str, now: int) -> None:
        """Note that an operator lets a removed device come back."""

    def removed_names(self) -> frozenset[str]:
        """The devices that are removed."""

    def permit(self, what: Permit, name: str, now: int) -> None:
        """Note that an operator lets a name have a certificate of that kind, until it is withdrawn."""

    def withdraw(self, what: Permit, name: str, now: int) -> None:
        """Note that a name is to have no more certificates of that kind."""

    def permitted(self, what: Permit) -> frozenset[str]:
        """The names that may have certificates of that kind."""

    def issued_after(self, position: int, limit: int) -> Sequence[Issuance]:
        """The first `limit` entries of the ledger above a position, in their order."""

    def last_position(self) -> int:
        """The position of the newest entry of the ledger; 0 without any."""


class SiteCa:
    """The site CA with its key: builds by the profiles and signs. It remembers nothing that decides."""

    def __init__(
        self,
        certificate: bytes,
        signer: Signer,
        *,
        reserve: Callable[[Intent], int] | None = None,
        usages: Callable[[], Sequence[str]] = tuple,
    ) -> None:
        """Take the site CA's DER certificate and the signer of its key.

        `reserve`: is called with what is about to be signed, once all is judged, and returns its serial
        number; by default a random one. `usages`: extended key usages of devices besides those of TLS.
        Raises: CertificateError if they do not fit, or if it is not the certificate of a site CA.
        """
        self._certificate = parse_certificate(certificate)
        self._signer = signer
        self._reserve = reserve or (lambda _: x509.random_serial_number())
        self._usages = usages
        if not fits(signer, self._certificate):
            raise CertificateError(
                "site CA certificate and key do not match", reason="key", cure="restore the backup"
            )
        identity = certificate_identity(self._certificate)
        if identity.role is not Role.SITE:
            raise CertificateError(f"not a site CA: {identity.uri}", reason="wrong-role")
        self._site_id = identity.site_id
        self._site_name = site_name_of(self._certificate)
        self._as_issuer = CertificateIssuer.of(self._certificate, signer.public_key)
        self._crls = CrlMaker(self._as_issuer, signer)

    @property
    def certificate(self) -> bytes:
        """The site CA's DER certificate."""
        return certificate_der(self._certificate)

    @property
    def public_key(self) -> PublicKey:
        """The site CA's public key."""
        return self._signer.public_key

    @property
    def site_id(self) -> bytes:
        """16 bytes."""
        return self._site_id

    @property
    def site_name(self) -> str:
        """The organization in the site CA's subject."""
        return self._site_name

    @property
    def not_after(self) -> int:
        """End of the site CA's certificate, microseconds."""
        return self._as_issuer.not_after

    @property
    def signer(self) -> Signer:
        """The signer of the site CA's key."""
        return self._signer

    def issue_device(
        self,
        csr: bytes,
        name: str,
        now: int,
        *,
        hardware: HardwareIdentity | None = None,
        generated: PublicKey | None = None,
        registers: bool = False,
    ) -> IssuedCertificate:
        """As `Issuer.issue_device`."""
        request = DeviceRequest(
            csr=CertificateRequest.parse(csr, own_key=generated is None),
            name=name,
            hardware=hardware,
            generated=generated,
            registers=registers,
        )
        return self._certify(request, now)

    def renew_device(self, current: bytes, csr: bytes, now: int) -> IssuedCertificate:
        """As `Issuer.renew_device`."""
        return self._certify(DeviceRequest(csr=CertificateRequest.parse(csr), current=current), now)

    def plan_device(self, request: DeviceRequest, now: int) -> Plan:
        """Judge what is asked for a device. Raises: as `Issuer.issue_device` and `Issuer.renew_device`."""
        name, hardware, registers = request.name, request.hardware, request.registers
        if request.current is not None:
            current = parse_certificate(request.current)
            held = certificate_identity(current)
            if held.role is not Role.DEVICE or held.site_id != self._site_id:
                raise CertificateError(f"not a device of this site: {held.uri}", reason="wrong-role")
            names = current.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            request.csr.judge_successor(current)
            name, hardware = held.name, HardwareIdentity.of(current.subject, names)
            registers = has_usage(current, REGISTRATION_AUTHORITY)
        identity = Identity(role=Role.DEVICE, site_id=self._site_id, name=check_device_name(name))
        request.csr.judge(identity, hardware)
        generated = request.generated
        public_key = request.csr.key() if generated is None else check_device_key(generated)
        usages = self._usages()
        return Plan(
            intent=self._intent(identity, request.csr.der, DEVICE, now),
            build=lambda serial: device_builder(
                name=name,
                site_name=self._site_name,
                site_id=self._site_id,
                public_key=public_key,
                issuer=self._as_issuer,
                serial=serial,
                now=now,
                hardware=hardware,
                usages=usages,
                registers=registers,
            ),
        )

    def issue(self, plan: Plan, serial: int) -> IssuedCertificate:
        """Sign what was planned, under a serial number of its own."""
        return self._issued(plan.build(serial), plan.intent.identity)

    def issue_key_server(
        self, *, public_key: PublicKey, name: str, hosts: Sequence[str], now: int
    ) -> IssuedCertificate:
        """As `Issuer.issue_key_server`."""
        identity = Identity(role=Role.KEY_SERVER, site_id=self._site_id, name=name)
        builder = key_server_builder(
            name=name,
            hosts=hosts,
            site_name=self._site_name,
            site_id=self._site_id,
            public_key=public_key,
            issuer=self._as_issuer,
            serial=self._serial(identity, spki(public_key), KEY_SERVER, now),
            now=now,
        )
        return self._issued(builder, identity)

    def issue_admin(self, csr: bytes, name: str, now: int) -> IssuedCertificate:
        """As `Issuer.issue_admin`."""
        identity = Identity(role=Role.ADMIN, site_id=self._site_id, name=name)
        request = CertificateRequest.parse(csr)
        request.judge(identity)
        builder = admin_builder(
            name=name,
            site_name=self._site_name,
            site_id=self._site_id,
            public_key=request.key(),
            issuer=self._as_issuer,
            serial=self._serial(identity, csr, ADMIN, now),
            now=now,
        )
        return self._issued(builder, identity)

    def issue_crl(self, *, number: int, revocations: Iterable[Revocation], now: int) -> bytes:
        """Return a DER CRL. `number`: above that of every CRL of this site before. `now`: microseconds."""
        check_alive(self._certificate, "site CA certificate", now)
        return self._crls.make(number=number, revocations=revocations, now=now)

    def sign_policy(self, policy: Policy) -> bytes:
        """Return the signed object (TR-13). Raises: CertificateError if it is of another site."""
        if policy.site_id != self._site_id:
            raise CertificateError(f"a policy of site {policy.site_id.hex()}", reason="wrong-site")
        return policy.sign(self._signer)

    def _certify(self, request: DeviceRequest, now: int) -> IssuedCertificate:
        plan = self.plan_device(request, now)
        return self.issue(plan, self._reserve(plan.intent))

    def _serial(self, identity: Identity, request: bytes, profile: Profile, now: int) -> int:
        return self._reserve(self._intent(identity, request, profile, now))

    def _intent(self, identity: Identity, request: bytes, profile: Profile, now: int) -> Intent:
        check_alive(self._certificate, "site CA certificate", now)
        return Intent(
            identity=identity,
            request=hashlib.sha256(request).digest(),
            time=now,
            ends=min(now + microseconds(profile.life), self._as_issuer.not_after),
        )

    def _issued(self, builder: x509.CertificateBuilder, identity: Identity) -> IssuedCertificate:
        der = announce(certificate_der(self._signer.sign_certificate(builder)))
        return IssuedCertificate.of(der, identity)


def site_name_of(certificate: x509.Certificate) -> str:
    """The organization in a site CA's subject; empty without one."""
    names = certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    return str(names[0].value) if names else ""
