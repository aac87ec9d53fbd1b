"""When devices are told to renew: by the life of a certificate, or earlier where the operator needs it.

`set_renewal_window` is the lever of a mass re-issue: before an authority switches to another issuer, it has
every certificate of the old one renewed in a window of its choice (RFC 9773).
"""

from sqlalchemy import select
from sqlalchemy.orm import Session

from sealcast.authority import audit
from sealcast.authority.models import CertificateRow, RenewalWindowRow
from sealcast.errors import UsageError
from sealcast.est.renewal import CertificateId, RenewalWindow


def set_renewal_window(
    session: Session, *, issued_before: int, window: RenewalWindow, now: int, issuer: bytes | None = None
) -> None:
    """Have every certificate renewed in `window` whose notBefore lies before `issued_before`.

    Where the window by a certificate's life, or one set before, starts earlier, that one holds. `issuer`:
    only what the key of this key identifier has signed.

    Raises:
        UsageError: the window ends before it starts.
    """
    if window.end <= window.start:
        raise UsageError("the renewal window ends before it starts", cure="give a later end")
    session.add(
        RenewalWindowRow(
            issued_before=issued_before, issuer=issuer, start=window.start, end=window.end, set_at=now
        )
    )
    audit.record(
        session,
        now,
        "set renewal window",
        "*",
        issued_before=issued_before,
        start=window.start,
        end=window.end,
    )


def renewal_window(session: Session, certificate_id: CertificateId) -> RenewalWindow | None:
    """The window of a certificate; None if this site has not issued it, or has revoked it."""
    row = session.get(CertificateRow, f"{certificate_id.serial:x}")
    if row is None or row.revoked is not None or CertificateId.of(row.der) != certificate_id:
        return None
    set_windows = session.scalars(
        select(RenewalWindowRow).where(
            RenewalWindowRow.issued_before > row.not_before,
            RenewalWindowRow.issuer.is_(None) | (RenewalWindowRow.issuer == certificate_id.key_identifier),
        )
    )
    return min(
        [
            RenewalWindow.by_life(row.not_before, row.not_after),
            *(RenewalWindow(start=entry.start, end=entry.end) for entry in set_windows),
        ],
        key=lambda window: window.start,
    )
