"""The issuer that holds the site CA's key: a ledger before each signature, and rules that hold whoever asks.

The same in the one process of a small site and in a signer process. Against a caller that somebody has broken
into it keeps: no CA certificate, no key server under other names, nothing to the name of a removed device, no
CRL that takes a revocation back, no number that goes back, no more than so many of a kind in an hour, no
administrator and no registration authority of a name that the operator has not given.
"""

import hashlib
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta

from sealcast.ca.issuer import DeviceRequest, Intent, Issuance, IssuedCertificate, Permit, Plan, SiteCa
from sealcast.ca.ledger import Ledger
from sealcast.ca.signer import Signer, public_key_of
from sealcast.errors import CertificateError, SealcastError, StorageError, UsageError
from sealcast.pki.bundle import SignedBundle, TrustBundle, VerifiedBundle, accept
from sealcast.pki.certificates import has_usage, parse_certificate, spki
from sealcast.pki.crl import GRACE, LIFE, Revocation
from sealcast.pki.hardware import HardwareIdentity
from sealcast.pki.names import Role, check_device_name
from sealcast.pki.policy import Policy
from sealcast.pki.policy_names import Names
from sealcast.pki.profiles import DEVICE, REGISTRATION_AUTHORITY
from sealcast.pki.signed import PublicKey
from sealcast.pki.times import microseconds

HOUR = microseconds(timedelta(hours=1))

MAX_SKEW = microseconds(timedelta(minutes=10))
"""Between the clock of a signer process and the times that it is given."""

_MAX_POLICY_SLOTS = 64
"""A policy outlives the keys that members may have fetched ahead, which are fewer."""

MAX_REVOCATIONS = 1_000_000
"""Entries of a CRL; one of them has about 40 bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How many signatures of each kind are made in an hour; None: as many as are asked for."""

    device: int | None = 20_000
    key_server: int | None = 60
    admin: int | None = 60
    crl: int | None = 20_000
    policy: int | None = 200_000
    key: int | None = 12
    """Keys of the site CA that are made for a rotation."""

    def by_kind(self) -> Mapping[str, int | None]:
        """The limits by the words that an operator uses."""
        return {
            str(Role.DEVICE): self.device,
            str(Role.KEY_SERVER): self.key_server,
            str(Role.ADMIN): self.admin,
            "crl": self.crl,
            "policy": self.policy,
            "key": self.key,
        }


NO_LIMITS = Limits(device=None, key_server=None, admin=None, crl=None, policy=None, key=None)
"""For the one process of a small site, where the key is in the hands of whoever asks."""


class LocalIssuer:
    """Satisfies `Issuer`; good for several threads."""

    def __init__(
        self,
        certificate: bytes,
        signer: Signer,
        ledger: Ledger,
        *,
        limits: Limits = NO_LIMITS,
        clock: Callable[[], int] | None = None,
        others: Sequence[tuple[bytes, Signer]] = (),
    ) -> None:
        """Take the site CA's DER certificate, the signer of its key, and its ledger.

        `limits`: signatures in an hour. `clock`: what to go by in place of the callers' times, microseconds.
        `others`: site CAs of a rotation, by their DER certificates, that issue nothing but CRLs.
        Raises: CertificateError if certificate and key do not fit, StorageError if the ledger is of another
        site.
        """
        self._ledger = ledger
        self._clock = clock
        self._limits = limits
        self._others = [SiteCa(der, other) for der, other in others]
        self._reserved: list[int] = []
        self._ca = SiteCa(certificate, signer, reserve=self._reserve, usages=self._usages)
        self._recent = {
            kind: _Recent(kind, limit) for kind, limit in limits.by_kind().items() if limit is not None
        }
        self._is_checked = False
        # What is judged, counted and reserved is not moved past by a removal; signatures are made beside it.
        self._lock = threading.RLock()
        # The names in the last policy of each channel that passed, and the devices that were removed then.
        self._checked: dict[str, tuple[tuple[Names, Names], frozenset[str]]] = {}

    @property
    def certificate(self) -> bytes:
        """The site CA's DER certificate."""
        return self._ca.certificate

    @property
    def ledger(self) -> Ledger:
        """What it has signed."""
        return self._ledger

    @property
    def public_key(self) -> PublicKey:
        """The site CA's public key."""
        return self._ca.public_key

    @property
    def site_id(self) -> bytes:
        """16 bytes."""
        return self._ca.site_id

    @property
    def site_name(self) -> str:
        """The organization in the site CA's subject."""
        return self._ca.site_name

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
        with self._lock:
            self._check_new(name, registers=registers)
            return self._issue(
                lambda now: self._ca.issue_device(
                    csr, name, now, hardware=hardware, generated=generated, registers=registers
                ),
                now,
            )

    def renew_device(self, current: bytes, csr: bytes, now: int) -> IssuedCertificate:
        """As `Issuer.renew_device`."""
        with self._lock:
            self._check_renewable(current)
            return self._issue(lambda now: self._ca.renew_device(current, csr, now), now)

    def issue_devices(
        self, requests: Sequence[DeviceRequest], now: int
    ) -> list[IssuedCertificate | SealcastError]:
        """As `Issuer.issue_devices`."""
        now = self._now(now)
        with self._lock:
            plans = [self._plan(request, now) for request in requests]
            intents = [plan.intent for plan in plans if isinstance(plan, Plan)]
            serials = iter(self._ledger.reserve_all(intents))
        outcomes: list[IssuedCertificate | SealcastError] = []
        signed: dict[int, bytes | None] = {}
        try:
            for plan in plans:
                if not isinstance(plan, Plan):
                    outcomes.append(plan)
                    continue
                serial = next(serials)
                signed[serial] = None
                issued = self._ca.issue(plan, serial)
                signed[serial] = hashlib.sha256(issued.der).digest()
                outcomes.append(issued)
        except BaseException:
            # None has left the issuer.
            with suppress(StorageError):
                self._ledger.conclude_all(dict.fromkeys([*signed, *serials]))
            raise
        self._ledger.conclude_all(signed)
        return outcomes

    def issue_key_server(
        self, *, public_key: PublicKey, name: str, hosts: Sequence[str], now: int
    ) -> IssuedCertificate:
        """As `Issuer.issue_key_server`. Raises: UsageError if it is not the key server of this site."""
        settings = self._ledger.settings()
        strange = sorted(set(hosts) - set(settings.hosts))
        if strange or name != settings.key_server_name:
            what = f"the host {strange[0][:80]!r}" if strange else f"a key server of the name {name[:80]!r}"
            raise UsageError(
                f"the site CA does not certify {what}", cure="its key server's names were given at init"
            )
        return self._issue(
            lambda now: self._ca.issue_key_server(public_key=public_key, name=name, hosts=hosts, now=now), now
        )

    def issue_admin(self, csr: bytes, name: str, now: int) -> IssuedCertificate:
        """As `Issuer.issue_admin`."""
        with self._lock:
            self._check_permitted(Permit.ADMIN, name)
            return self._issue(lambda now: self._ca.issue_admin(csr, name, now), now)

    def issue_crl(self, *, number: int, revocations: Iterable[Revocation], now: int) -> bytes:
        """As `Issuer.issue_crl`."""
        now = self._now(now)
        asked = list(revocations)
        if len(asked) > MAX_REVOCATIONS or any(entry.time > now + MAX_SKEW for entry in asked):
            raise UsageError(
                f"a CRL of {len(asked)} entries, or with one from the future", cure="check the clock"
            )
        with self._lock:
            self._count("crl", now)
        # A serial number that nobody has asked for here may be from before the ledger.
        ends = now + microseconds(DEVICE.life)
        listed, number = self._ledger.revoke(asked, ends, number, now)
        # Serial numbers are drawn from one ledger, so a list that names another CA's certificate names no
        # other one. A CA that has ended is asked for no list any more.
        alive = [other for other in self._others if now < other.not_after]
        return b"".join(ca.issue_crl(number=number, revocations=listed, now=now) for ca in (self._ca, *alive))

    def sign_policy(self, policy: Policy) -> bytes:
        """As `Issuer.sign_policy`. Raises: UsageError if it lists a removed device, or its times make no
        sense.
        """
        return self.sign_policies([policy])[0]

    def sign_policies(self, policies: Sequence[Policy]) -> list[bytes]:
        """As `Issuer.sign_policies`. Raises: as `sign_policy`."""
        if not policies:
            return []
        now = self._now(policies[0].issued)
        with self._lock:
            removed = self._ledger.removed_names()
            for policy in policies:
                self._check_policy(policy, removed, now)
            for _ in policies:
                self._count("policy", now)
            versions = self._ledger.reserve_policies(
                [(policy.channel, policy.version) for policy in policies], now
            )
        return [
            self._ca.sign_policy(replace(policy, version=version))
            for policy, version in zip(policies, versions, strict=True)
        ]

    def remove(self, name: str, now: int) -> None:
        """As `Issuer.remove`; it registers no others either, should it come back."""
        with self._lock:
            self.withdraw(Permit.REGISTRATION_AUTHORITY, name, now)
            self._ledger.set_removed(check_device_name(name), self._now(now), removed=True)

    def readmit(self, name: str, now: int) -> None:
        """As `Issuer.readmit`."""
        self._ledger.set_removed(check_device_name(name), self._now(now), removed=False)

    def removed_names(self) -> frozenset[str]:
        """As `Issuer.removed_names`."""
        return self._ledger.removed_names()

    def permit(self, what: Permit, name: str, now: int) -> None:
        """As `Issuer.permit`."""
        self._ledger.set_permitted(what, check_device_name(name), self._now(now), given=True)

    def withdraw(self, what: Permit, name: str, now: int) -> None:
        """As `Issuer.withdraw`."""
        with self._lock:
            self._ledger.set_permitted(what, check_device_name(name), self._now(now), given=False)

    def permitted(self, what: Permit) -> frozenset[str]:
        """As `Issuer.permitted`."""
        return self._ledger.permitted_names(what)

    def issued_after(self, position: int, limit: int) -> Sequence[Issuance]:
        """As `Issuer.issued_after`."""
        return self._ledger.issued_after(position, limit)

    def last_position(self) -> int:
        """As `Issuer.last_position`."""
        return self._ledger.last_position()

    def sign_bundle(self, held: VerifiedBundle, bundle: TrustBundle) -> bytes:
        """Sign the next version of the trust bundle, where `held` leaves the list of this site's CAs to it.

        Raises: CertificateError: it does not follow, or changes more than that (TR-20).
        """
        signed = SignedBundle.unsigned(bundle).sign(self.certificate, self._ca.signer).serialize()
        accept(held, signed)
        return signed

    def arranged(self, certificates: Sequence[bytes], *signers: Signer) -> "LocalIssuer":
        """Return an issuer with the same ledger and limits that issues under another certificate.

        `certificates`: DER, the one that issues first, then those whose CRLs go on. `signers`: of keys that
        this one does not hold. Raises: CertificateError if the key of the first is held by nobody.
        """
        held = [*signers, self._ca.signer, *(other.signer for other in self._others)]

        def signer_of(der: bytes) -> Signer | None:
            key = public_key_of(der)
            return next((signer for signer in held if signer.public_key == key), None)

        first = signer_of(certificates[0])
        if first is None:
            raise CertificateError("the key of that site CA is not here", reason="key")
        others = [(der, signer) for der in certificates[1:] if (signer := signer_of(der)) is not None]
        issuer = LocalIssuer(
            certificates[0],
            first,
            self._ledger,
            limits=self._limits,
            clock=self._clock,
            others=_other_keys(first, others),
        )
        # What was signed by one counts for all.
        issuer._recent, issuer._checked, issuer._lock = self._recent, self._checked, self._lock
        return issuer

    def held(self) -> list[tuple[bytes, Signer]]:
        """The site CAs that sign here: certificates (DER) and signers of their keys, the one that issues
        first.
        """
        return [(ca.certificate, ca.signer) for ca in (self._ca, *self._others)]

    def charge(self, kind: str, now: int) -> None:
        """Count something of a kind that is limited. Raises: StorageError: too much of it in this hour."""
        with self._lock:
            self._count(kind, self._now(now))

    def check_ledger(self) -> None:
        """Check that the ledger is this site CA's. Raises: StorageError."""
        if not self._is_checked and self._ledger.settings().site_id != self.site_id.hex():
            raise StorageError(
                str(self._ledger.path),
                "the ledger is of another site CA",
                cure="restore the whole folder from one backup",
            )
        self._is_checked = True

    # --- inside ---------------------------------------------------------------------------------------------

    def _issue(self, sign: Callable[[int], IssuedCertificate], now: int) -> IssuedCertificate:
        with self._lock:
            self._reserved.clear()
            try:
                issued = sign(self._now(now))
            except BaseException:
                # No certificate has left the issuer: the number is spent, and that is all.
                with suppress(StorageError):
                    for serial in self._reserved:
                        self._ledger.conclude(serial, None)
                raise
            self._ledger.conclude(issued.serial, hashlib.sha256(issued.der).digest())
            return issued

    def _plan(self, request: DeviceRequest, now: int) -> Plan | SealcastError:
        """What may be signed, or why it must not be."""
        try:
            if request.current is None:
                self._check_new(request.name, registers=request.registers)
            else:
                self._check_renewable(request.current)
            plan = self._ca.plan_device(request, now)
            self._count(str(Role.DEVICE), now)
        except SealcastError as error:
            return error
        return plan

    def _check_new(self, name: str, *, registers: bool) -> None:
        self._check_not_removed(name)
        if registers:
            self._check_permitted(Permit.REGISTRATION_AUTHORITY, name)

    def _check_renewable(self, current: bytes) -> None:
        held = IssuedCertificate.of(current)
        if held.identity.role is Role.DEVICE:
            self._check_not_removed(held.identity.name)
        if self._ledger.is_revoked(held.serial):
            raise CertificateError(
                f"the certificate of device {held.identity.name!r} is revoked",
                reason="revoked",
                cure="enrol it anew with a token",
            )
        if has_usage(parse_certificate(current), REGISTRATION_AUTHORITY):
            self._check_permitted(Permit.REGISTRATION_AUTHORITY, held.identity.name)

    def _reserve(self, intent: Intent) -> int:
        """Called by the CA when all is judged, and right before the signature."""
        self._count(str(intent.identity.role), intent.time)
        serial = self._ledger.reserve(intent)
        self._reserved.append(serial)
        return serial

    def _usages(self) -> Sequence[str]:
        return self._ledger.settings().device_usages

    def _now(self, now: int) -> int:
        return now if self._clock is None else self._clock()

    def _count(self, kind: str, now: int) -> None:
        self.check_ledger()
        recent = self._recent.get(kind)
        if recent is not None:
            recent.count(now, self._ledger)

    def _check_policy(self, policy: Policy, removed: frozenset[str], now: int) -> None:
        life = microseconds(LIFE) + microseconds(GRACE) + _MAX_POLICY_SLOTS * policy.slots.length
        if abs(policy.issued - now) > MAX_SKEW or policy.next_update > policy.issued + life:
            raise UsageError(
                f"the times of the policy of channel {policy.channel!r} make no sense", cure="check the clock"
            )
        # Of what was checked before, only the difference is looked at: there may be many of both.
        lists = policy.publishers, policy.subscribers
        known, gone = self._checked.get(policy.channel) or self._checked_alike(lists)
        listed = {
            *(name for name in removed - gone if any(name in names for names in lists)),
            *(
                name
                for names, before in zip(lists, known, strict=True)
                for name in removed.intersection(names.beyond(before))
            ),
        }
        if listed:
            raise UsageError(
                f"the policy of channel {policy.channel!r} lists a removed device: {min(listed)!r}",
                cure=_READMIT,
            )
        self._checked[policy.channel] = lists, removed

    def _checked_alike(self, lists: tuple[Names, Names]) -> tuple[tuple[Names, Names], frozenset[str]]:
        """What is known of a new channel: as much as of another one that lists the same."""
        alike = (each for each in self._checked.values() if each[0] == lists)
        return next(alike, ((Names(), Names()), frozenset()))

    def _check_not_removed(self, name: str) -> None:
        self.check_ledger()
        if self._ledger.is_removed(check_device_name(name)):
            raise CertificateError(f"device {name!r} is revoked", reason="revoked", cure=_READMIT)

    def _check_permitted(self, what: Permit, name: str) -> None:
        self.check_ledger()
        if not self._ledger.is_permitted(what, check_device_name(name)):
            raise CertificateError(
                f"the site CA may not certify {name!r} as {what}",
                reason="not-allowed",
                cure=permit_cure(what),
            )


def permit_cure(what: Permit) -> str:
    """What to do where a name is not permitted what it asks for."""
    return f"as the user that the signer runs as: sealcast authority permit DIR NAME --{what}"


def _other_keys(issuing: Signer, others: Sequence[tuple[bytes, Signer]]) -> list[tuple[bytes, Signer]]:
    """One certificate of each key but the one that issues: a key has one list, under one name."""
    by_key = {spki(signer.public_key): (der, signer) for der, signer in reversed(others)}
    by_key.pop(spki(issuing.public_key), None)
    return list(by_key.values())


_READMIT = "make a new token; with a signer of another user, first: sealcast authority readmit DIR NAME"


class _Recent:
    """Signatures of one kind within the last hour. A restart does not forget those of certificates."""

    def __init__(self, kind: str, limit: int) -> None:
        self._kind = kind
        self._limit = limit
        self._times: deque[int] | None = None

    def count(self, now: int, ledger: Ledger) -> None:
        """Count one more. Raises: StorageError: that would be too many; later it may be had."""
        if self._times is None:
            known = self._kind in Role.__members__.values()
            self._times = deque(ledger.times_since(Role(self._kind), now - HOUR) if known else ())
        while self._times and self._times[0] <= now - HOUR:
            self._times.popleft()
        if len(self._times) >= self._limit:
            raise StorageError(
                str(ledger.path),
                f"{self._limit} signatures of the kind {self._kind!r} were asked for within an hour",
                cure="wait; if it was not you who asked, somebody else did: see the ledger, and --limit",
            )
        self._times.append(now)
