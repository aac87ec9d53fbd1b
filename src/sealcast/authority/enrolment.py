"""Who is admitted to a certificate, and the certificates of devices, as rows.

A first certificate is had by a one-time token, by a maker's certificate, by a registration authority, or by
an operator's approval alone; every later one by the one before. Spec: spec/side-channel.md section 3.
"""

import base64
import hashlib
import secrets
from collections.abc import Iterable
from dataclasses import dataclass

from cryptography import x509
from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from sealcast.authority import approvals, audit
from sealcast.authority.approvals import Credential, State
from sealcast.authority.issuance import certificate_row
from sealcast.authority.models import ApprovalRow, CertificateRow, DeviceRow, TokenRow
from sealcast.ca import IssuedCertificate, Issuer
from sealcast.errors import CertificateError, EnrolmentError, TokenError
from sealcast.pki.certificates import has_usage, parse_certificate, spki
from sealcast.pki.csr import CertificateRequest
from sealcast.pki.hardware import HardwareIdentity
from sealcast.pki.idevid import Maker, VerifiedIdevid
from sealcast.pki.names import Identity, Role, check_device_name
from sealcast.pki.policy_rules import check_roles
from sealcast.pki.profiles import REGISTRATION_AUTHORITY
from sealcast.pki.quantities import format_duration
from sealcast.pki.renewal_proof import RenewalProof
from sealcast.pki.signed import PublicKey
from sealcast.pki.times import microseconds

PROOF_ALLOWANCE = 300_000_000
"""Microseconds by which the clocks of device and authority may differ in a proof."""

SUPERSEDED = "superseded"
"""Reason: a proof by a certificate that is not the device's latest one."""

_TOKEN_BYTES = 20
"""160 bits: 32 characters of base32, which no shell and no option parser takes for anything else."""


def create_token(
    session: Session,
    *,
    device: str,
    ttl: int,
    now: int,
    roles: Iterable[str] | None = None,
    kind: Role = Role.DEVICE,
    registers: bool = False,
) -> str:
    """Make a one-time token for the enrolment of `device`; only its hash is stored.

    Args:
        session: the transaction.
        device: name of the device; it need not exist.
        ttl: microseconds that it is good for.
        now: microseconds.
        roles: that the device gets by its enrolment; None leaves a device that is known those it has.
        kind: what enrols; for an admin, `device` is its name.
        registers: whether it makes the device a registration authority, which enrols others.

    Raises:
        UsageError: not a device name, not a role, or too many roles.
    """
    check_device_name(device)
    checked = None if roles is None else list(check_roles(roles))
    session.execute(
        delete(TokenRow).where(
            TokenRow.expires <= now,
            TokenRow.used.is_(None),
            # One by which a request waits for approval was shown in time.
            TokenRow.hash.not_in(approvals.waiting_credentials(session)),
        )
    )
    token = base64.b32encode(secrets.token_bytes(_TOKEN_BYTES)).decode("ascii").lower()
    session.add(
        TokenRow(
            hash=token_hash(token),
            device=device,
            kind=str(kind),
            created=now,
            expires=now + ttl,
            roles=checked,
            registers=registers,
        )
    )
    audit.record(
        session,
        now,
        "make token",
        device,
        kind=str(kind),
        expires=now + ttl,
        roles=" ".join(checked) if checked else None,
        registers=registers,
    )
    return token


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """The request is stored, and an operator has to decide it."""

    retry_after: int
    """Seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """By what a device is admitted to its first certificate."""

    device: str
    credential: Credential
    credential_id: bytes = b""
    detail: str = ""
    """For the operator who approves."""
    needs_approval: bool
    token: TokenRow | None = None
    maker_key: bytes | None = None
    """Which maker's certificate it was."""
    hardware: HardwareIdentity | None = None
    """What the maker says of the hardware; it goes into the certificate."""
    registrar: str | None = None
    """The registration authority that asked for it."""


def token_kind(session: Session, token: str) -> Role:
    """What a token makes; of one that is unknown, a device: `check_token` refuses it."""
    row = session.get(TokenRow, token_hash(token))
    return Role.DEVICE if row is None else Role(row.kind)


def check_token(
    session: Session,
    *,
    device: str,
    token: str,
    now: int,
    kind: Role = Role.DEVICE,
    key_hash: bytes | None = None,
) -> TokenRow:
    """The row of a token that admits `device`, as what it is, now.

    A token that has ended since the request for the key of `key_hash` began to wait for approval still counts
    for it.

    Raises:
        TokenError: unknown, used, expired, or of another device. Whoever holds no valid token cannot tell
            whether one exists: the last case reads like the first.
    """
    row = session.get(TokenRow, token_hash(token))
    if row is None or (row.device, row.kind) != (device, kind):
        raise TokenError(f"no such token for device {device!r}")
    if row.used is not None:
        raise TokenError(f"the token of device {device!r} has been used already")
    if row.expires <= now and not (
        key_hash is not None and approvals.waits(session, credential_id=row.hash, key_hash=key_hash)
    ):
        raise TokenError(f"the token of device {device!r} has expired")
    return row


def admit_by_token(
    session: Session, *, device: str, token: str, key_hash: bytes, needs_approval: bool, now: int
) -> Admission:
    """Admit `device` by a one-time token. Raises: as `check_token`."""
    row = check_token(session, device=device, token=token, key_hash=key_hash, now=now)
    return Admission(
        device=device,
        credential=Credential.TOKEN,
        credential_id=row.hash,
        needs_approval=needs_approval,
        token=row,
    )


def admit_by_maker(
    session: Session, idevid: VerifiedIdevid, csr: CertificateRequest, makers: Iterable[Maker]
) -> Admission:
    """Admit a device by its maker's certificate, which has been verified; `makers`: those in force now.

    Raises:
        EnrolmentError: the maker was removed meanwhile, or the name belongs to another device.
        CsrError: the request is for another name than the maker's certificate allows.
    """
    if not any((maker.fingerprint, maker.rule) == (idevid.maker, idevid.rule) for maker in makers):
        raise EnrolmentError("the maker of this certificate was removed")
    name = check_device_name(idevid.name if idevid.name is not None else csr.common_name)
    csr.judge_name(name)
    needs_approval = idevid.name is None
    known = session.get(DeviceRow, name)
    if known is not None and not needs_approval and known.maker_key != idevid.key_hash:
        # Two makers may give the same serial number; and what an operator's token has made stays his.
        raise EnrolmentError(
            f"device {name!r} was enrolled by other means", cure="enrol it with a token of the operator"
        )
    if known is not None and not needs_approval and known.revoked is not None:
        raise CertificateError(
            f"device {name!r} is revoked", reason="revoked", cure="enrol it anew with a token"
        )
    return Admission(
        device=name,
        credential=Credential.MAKER,
        credential_id=idevid.key_hash,
        detail=idevid.subject,
        needs_approval=needs_approval,
        maker_key=idevid.key_hash,
        hardware=idevid.hardware,
    )


def admit_without_credential(name: str) -> Admission:
    """Let a request without any credential wait for an operator."""
    return Admission(device=check_device_name(name), credential=Credential.NONE, needs_approval=True)


def admit_by_registrar(session: Session, *, registrar: bytes, csr: CertificateRequest) -> Admission:
    """Admit the device that a registration authority vouches for.

    `registrar`: its DER certificate, whose chain and purpose have been verified.

    Raises:
        CertificateError: the registration authority was revoked, or the device was: only the operator brings
            one back.
        UsageError: the request is for no device name.
    """
    own = check_register(session, registrar)
    name = check_device_name(csr.common_name)
    known = session.get(DeviceRow, name)
    if known is not None and known.revoked is not None:
        raise CertificateError(
            f"device {name!r} is revoked", reason="revoked", cure="enrol it anew with a token"
        )
    return Admission(
        device=name,
        credential=Credential.NONE,
        needs_approval=False,
        maker_key=None if known is None else known.maker_key,
        registrar=own.name,
    )


def enrol(
    session: Session,
    issuer: Issuer,
    admission: Admission,
    csr: CertificateRequest,
    *,
    generated: PublicKey | None = None,
    now: int,
) -> bytes | Waiting:
    """Certify a device that was admitted, or have it wait for an operator.

    A token is used up in this transaction and only in it (SC-12).

    Returns:
        The DER certificate. `Waiting` has to be committed too: the request is a row from now on.

    Raises:
        CsrError: the request is bad, or for another name; the token stays good.
        EnrolmentError: the operator has denied it.
    """
    device = admission.device
    csr.judge(Identity(role=Role.DEVICE, site_id=issuer.site_id, name=device), admission.hardware)
    approval = None
    if admission.needs_approval:
        approval = approvals.ask(
            session,
            device=device,
            key_hash=csr.key_hash,
            generated=generated is not None,
            credential=admission.credential,
            credential_id=admission.credential_id,
            detail=admission.detail,
            now=now,
        )
        match State(approval.state):
            case State.PENDING:
                return Waiting(retry_after=approvals.RETRY_SECONDS)
            case State.DENIED:
                raise EnrolmentError(f"the operator has denied it: {approval.reason or 'no reason given'}")
            case State.ISSUED:
                # The answer was lost on its way.
                return _issued_before(session, approval)
            case State.APPROVED:
                pass
    token = admission.token
    issued = issuer.issue_device(
        csr.der,
        device,
        now,
        hardware=admission.hardware,
        generated=generated,
        registers=token is not None and token.registers,
    )
    serial = f"{issued.serial:x}"
    session.add(certificate_row(issued))
    session.flush()
    if token is not None:
        token.used, token.serial = now, serial
    if approval is not None:
        approval.state, approval.serial = State.ISSUED, serial
    roles = None if token is None else token.roles
    known = session.get(DeviceRow, device)
    enter_device(session, known, issued, now, roles=roles, maker_key=admission.maker_key)
    record_enrolment(
        session,
        device,
        now,
        serial=serial,
        by=admission.registrar or str(admission.credential),
        generated=generated is not None,
    )
    return issued.der


def enter_device(
    session: Session,
    known: DeviceRow | None,
    issued: IssuedCertificate,
    now: int,
    *,
    roles: list[str] | None,
    maker_key: bytes | None,
) -> None:
    """Enter a device that has been certified into the register, where its row may be `known`; `roles` None
    leaves it those it has.
    """
    if known is None:
        row = DeviceRow(
            name=issued.identity.name,
            enrolled=now,
            roles=roles or [],
            maker_key=maker_key,
            ends=issued.not_after,
        )
        session.add(row)
        return
    # The operator made the token, or said yes, after the removal (revoke_device deletes older ones): it may
    # come back.
    known.enrolled, known.revoked, known.maker_key, known.ends = now, None, maker_key, issued.not_after
    if roles is not None:
        known.roles = roles


def record_enrolment(
    session: Session, device: str, now: int, *, serial: str, by: str, generated: bool
) -> None:
    """Write an enrolment into the log."""
    audit.record(session, now, "enrol device", device, serial=serial, by=by, generated=generated)


def _issued_before(session: Session, approval: ApprovalRow) -> bytes:
    row = session.get(CertificateRow, approval.serial)
    if row is None or row.revoked is not None or approval.generated:
        raise EnrolmentError(
            "what was approved has been fetched already", cure="make a new request, with a new key"
        )
    return row.der


def renew(
    session: Session,
    issuer: Issuer,
    *,
    current: bytes,
    csr: CertificateRequest,
    generated: PublicKey | None = None,
    same_subject: bool = True,
    now: int,
) -> IssuedCertificate:
    """Certify anew the device that holds `current` (DER), whose chain has been verified.

    Revocation is judged here once more, in the transaction that issues: between the check of the request and
    now the device may have been removed.

    Args:
        session: the transaction.
        issuer: the site CA.
        current: the certificate.
        csr: the request.
        generated: a key that was made here, in place of the request's.
        same_subject: whether subject and subjectAltName must be those of `current` (/simplereenroll).
        now: microseconds.

    Raises:
        CertificateError: revoked, or not a certificate that this site knows.
        CsrError: the request is bad, or for another name.
    """
    name = check_register(session, current).name
    if same_subject:
        issued = issuer.renew_device(current, csr.der, now)
    else:
        held = parse_certificate(current)
        names = held.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        issued = issuer.issue_device(
            csr.der,
            name,
            now,
            hardware=HardwareIdentity.of(held.subject, names),
            generated=generated,
            registers=has_usage(held, REGISTRATION_AUTHORITY),
        )
    session.add(certificate_row(issued))
    session.get_one(DeviceRow, name).ends = issued.not_after
    audit.record(session, now, "renew device", name, serial=f"{issued.serial:x}")
    return issued


def renew_for(
    session: Session, issuer: Issuer, *, registrar: bytes, csr: CertificateRequest, now: int
) -> IssuedCertificate:
    """Certify anew a device by request of a registration authority (RFC 7030 section 3.7).

    Raises:
        CertificateError: one of both is revoked, or the device has no certificate.
        CsrError: the request is bad, or differs from the device's last certificate.
    """
    own = check_register(session, registrar)
    name = check_device_name(csr.common_name)
    latest = _latest_certificate(session, name)
    if latest is None:
        raise CertificateError(f"device {name!r} has no certificate", reason="unknown-certificate")
    if has_usage(parse_certificate(latest.der), REGISTRATION_AUTHORITY):
        # It renews itself, by its own key: else one registration authority could take another's place.
        raise CertificateError(f"device {name!r} renews itself", reason="wrong-role")
    issued = renew(session, issuer, current=latest.der, csr=csr, now=now)
    audit.record(session, now, "renew for", name, by=own.name, serial=f"{issued.serial:x}")
    return issued


def recover(session: Session, issuer: Issuer, *, proof: RenewalProof, grace: int, now: int) -> bytes:
    """Certify anew a device whose certificate has expired, by a proof whose signature holds (SC-22).

    That the certificate is one of ours is told by the register, byte for byte; so is that no later one has
    been issued, save for the key of this very request, whose answer was lost then.

    Args:
        session: the transaction.
        issuer: the site CA.
        proof: of the device.
        grace: microseconds after a certificate's end in which it may still be renewed; 0: never.
        now: microseconds.

    Returns: the DER certificate.

    Raises:
        CertificateError: not expired, past the grace, revoked, unknown, superseded, or a proof of another
            time.
        CsrError: the request is bad, or for another name.
    """
    if abs(now - proof.time) > PROOF_ALLOWANCE:
        raise CertificateError(
            "the proof was signed at another time than now", reason="time", cure="set the device's clock"
        )
    end = microseconds(parse_certificate(proof.certificate).not_valid_after_utc)
    if now < end:
        raise CertificateError(
            "the certificate has not expired: it is renewed over TLS", reason="not-expired", cure="renew it"
        )
    if now >= end + grace:
        raise CertificateError(
            f"the certificate expired more than {format_duration(grace)} ago, past this site's grace"
            if grace
            else "the certificate has expired, and this site grants no grace",
            reason="expired",
            cure="enrol it again with a token",
        )
    csr = CertificateRequest.parse(proof.csr)
    shown = check_register(session, proof.certificate)
    latest = _latest_certificate(session, shown.name)
    if latest is not None and latest.not_before > shown.not_before:
        if spki(parse_certificate(latest.der).public_key()) != spki(csr.key()):
            # Who has only the older one is a copy of the device, as of its disk or from a backup.
            raise CertificateError(
                f"device {shown.name!r} has had a later certificate than this one",
                reason=SUPERSEDED,
                cure="enrol it again with a token, if it is no copy of the device",
            )
        if latest.revoked is None and now < latest.not_after:
            return latest.der
    return renew(session, issuer, current=proof.certificate, csr=csr, now=now).der


def _latest_certificate(session: Session, name: str) -> CertificateRow | None:
    return session.scalars(
        select(CertificateRow)
        .where(CertificateRow.name == name, CertificateRow.role == Role.DEVICE)
        .order_by(CertificateRow.not_before.desc())
        .limit(1)
    ).first()


def check_register(session: Session, certificate: bytes) -> CertificateRow:
    """The row of a device's certificate (DER) that is good.

    Raises:
        CertificateError: this site has not recorded it, or it or its device is revoked.
    """
    parsed = parse_certificate(certificate)
    row = session.get(CertificateRow, f"{parsed.serial_number:x}")
    if row is None or row.der != certificate or row.role != Role.DEVICE:
        raise CertificateError(
            "the certificate is not in the register",
            reason="unknown-certificate",
            cure="enrol the device with a token",
        )
    device = session.get(DeviceRow, row.name)
    if device is None or device.revoked is not None or row.revoked is not None:
        raise CertificateError(
            f"device {row.name!r} is revoked", reason="revoked", cure="enrol it anew with a token"
        )
    return row


def token_hash(token: str) -> bytes:
    """SHA-256 of a token, by which it is stored."""
    return hashlib.sha256(token.encode()).digest()
