"""Admins as rows: who may use the management API, in which role, and their certificates.

The private key is made on the admin's own machine. Like a device it enrols by EST with a one-time token; the
token says that it makes an admin's certificate. The role is no part of the certificate.
"""

from enum import StrEnum

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from sealcast.authority import audit
from sealcast.authority.issuance import certificate_row, revoke_certificates
from sealcast.authority.models import AdminRow, CertificateRow, TokenRow
from sealcast.authority.revocation import issue_crl
from sealcast.ca import IssuedCertificate, Issuer, Permit
from sealcast.errors import CertificateError, ConflictError, UnknownNameError
from sealcast.pki.names import Role, check_device_name


class AdminRole(StrEnum):
    """What an admin may do; each may do what those before it may."""

    VIEWER = "viewer"
    """Read."""
    OPERATOR = "operator"
    """Tokens, channels, policy."""
    SECURITY_OFFICER = "security-officer"
    """Roots, bundles, revocations, admins."""

    def includes(self, other: "AdminRole") -> bool:
        """Whether this role may do what `other` may."""
        ranks = list(AdminRole)
        return ranks.index(self) >= ranks.index(other)


def add_admin(session: Session, name: str, role: AdminRole, now: int) -> AdminRow:
    """Enter an admin; a token (`enrolment.create_token`) lets it enrol.

    Raises:
        UsageError: not a name.
        ConflictError: there is one of that name.
    """
    if session.get(AdminRow, check_device_name(name)) is not None:
        raise ConflictError(
            f"admin {name!r} exists already", cure="see: sealcast authority admin --help, for role and token"
        )
    row = AdminRow(name=name, role=str(role), added=now, enrolled=None, revoked=None)
    session.add(row)
    audit.record(session, now, "add admin", name, role=str(role))
    return row


def admin_row(session: Session, name: str) -> AdminRow:
    """The row of an admin.

    Raises:
        UnknownNameError: no such admin.
    """
    row = session.get(AdminRow, name)
    if row is None:
        raise UnknownNameError(f"unknown admin {name[:80]!r}", cure="see: sealcast authority admin list DIR")
    return row


def set_role(session: Session, name: str, role: AdminRole, now: int) -> None:
    """Change what an admin may do, from its next request on.

    Raises:
        UnknownNameError: no such admin.
    """
    row = admin_row(session, name)
    before, row.role = row.role, str(role)
    audit.record(session, now, "set role", name, role=str(role), before=before)


def revoke_admin(session: Session, issuer: Issuer, name: str, now: int) -> bool:
    """Revoke every certificate of an admin and every token for it; its next request is refused.

    Returns:
        False if it was revoked before.

    Raises:
        UnknownNameError: no such admin.
    """
    row = admin_row(session, name)
    session.execute(
        delete(TokenRow).where(TokenRow.device == name, TokenRow.kind == Role.ADMIN, TokenRow.used.is_(None))
    )
    if row.revoked is not None:
        return False
    row.revoked = now
    issuer.withdraw(Permit.ADMIN, name, now)
    revoke_certificates(session, name, now, Role.ADMIN)
    crl = issue_crl(session, issuer, now)
    audit.record(session, now, "revoke admin", name, crl_number=crl.number)
    return True


def enrol_admin(session: Session, issuer: Issuer, token: TokenRow, csr: bytes, now: int) -> IssuedCertificate:
    """Certify the admin of a token that has been checked; it is used up in this transaction.

    Raises:
        UnknownNameError: the admin is gone.
        CsrError: the request is bad, or for another name; the token stays good.
    """
    row = admin_row(session, token.device)
    issued = issuer.issue_admin(csr, row.name, now)
    session.add(certificate_row(issued))
    session.flush()
    token.used, token.serial = now, f"{issued.serial:x}"
    # A token is made by a security officer, after the revocation if there was one.
    row.enrolled, row.revoked = now, None
    audit.record(session, now, "enrol admin", row.name, serial=f"{issued.serial:x}")
    return issued


def renew_admin(
    session: Session, issuer: Issuer, *, current: bytes, csr: bytes, name: str, now: int
) -> IssuedCertificate:
    """Certify anew the admin that holds `current` (DER), whose chain has been verified.

    Raises:
        CertificateError: revoked, or not a certificate that this site knows.
        CsrError: the request is bad, or for another name.
    """
    row = session.get(AdminRow, name)
    stored = session.scalars(
        select(CertificateRow).where(
            CertificateRow.name == name, CertificateRow.role == Role.ADMIN, CertificateRow.der == current
        )
    ).first()
    if row is None or stored is None:
        raise CertificateError(
            f"the certificate of admin {name!r} is not in the register",
            reason="unknown-certificate",
            cure="enrol with a token",
        )
    if row.revoked is not None or stored.revoked is not None:
        raise CertificateError(f"admin {name!r} is revoked", reason="revoked", cure="enrol with a new token")
    issued = issuer.issue_admin(csr, name, now)
    session.add(certificate_row(issued))
    audit.record(session, now, "renew admin", name, serial=f"{issued.serial:x}")
    return issued


def current_roles(session: Session) -> dict[str, AdminRole]:
    """Every admin that is not revoked, and its role."""
    rows = session.execute(select(AdminRow.name, AdminRow.role).where(AdminRow.revoked.is_(None)))
    return {name: AdminRole(role) for name, role in rows}


def current_role(session: Session, name: str) -> AdminRole | None:
    """The role of one; None if it is revoked or unknown."""
    row = session.get(AdminRow, name)
    return None if row is None or row.revoked is not None else AdminRole(row.role)
