"""When what a chain rests on ends, and whether that is soon: of the whole chain, not of its leaf only.

A certificate that renews itself hides the CA above it, which ends in silence. So whoever shows or watches a
certificate shows and watches each issuer up to the root, and says so while there is time to act.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta

from cryptography import x509
from cryptography.x509.oid import NameOID

from sealcast.errors import CertificateError
from sealcast.pki.certificates import certificate_identity, is_issued_by, is_self_signed, parse_certificate
from sealcast.pki.times import microseconds, to_datetime

NEAR_FRACTION = 4
"""Everything renews in the first three quarters of its life: what is in its last quarter has been missed."""

NEAR_AT_MOST = timedelta(days=365)
"""A year is enough to carry a new root to every device."""

_DAY = 86_400_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """The life of one thing that others rest on."""

    what: str
    """For people, such as: root 'Ward root'."""
    begins: int
    ends: int
    """Microseconds."""

    @property
    def near_from(self) -> int:
        """From when on its end is near, in microseconds: its last quarter, at most a year."""
        return self.ends - min((self.ends - self.begins) // NEAR_FRACTION, microseconds(NEAR_AT_MOST))

    def is_near(self, now: int) -> bool:
        """Tell whether somebody has to act. `now`: microseconds."""
        return now >= self.near_from

    def warning(self, now: int) -> str:
        """Return one line for people. `now`: microseconds."""
        moment = f"{to_datetime(self.ends):%Y-%m-%dT%H:%M:%SZ}"
        if now >= self.ends:
            return f"{self.what} has ended: {moment}"
        days, rest = divmod(self.ends - now, _DAY)
        left = f"{days} days" if days > 1 else f"{(days * _DAY + rest) // (_DAY // 24)} hours"
        return f"{self.what} ends in {left}: {moment}"


def warnings(ends: Iterable[End], now: int) -> tuple[str, ...]:
    """Return a line for each end that is near, the earliest first. `now`: microseconds."""
    near = sorted((end for end in ends if end.is_near(now)), key=lambda end: end.ends)
    return tuple(end.warning(now) for end in near)


def certificate_end(certificate: x509.Certificate) -> End:
    """Return the life of a certificate."""
    return End(
        what=_title(certificate),
        begins=microseconds(certificate.not_valid_before_utc),
        ends=microseconds(certificate.not_valid_after_utc),
    )


def chain_ends(leaf: bytes, authorities: Sequence[bytes], roots: Sequence[bytes]) -> tuple[End, ...]:
    """Return the life of a certificate, of the CA that issued it, and of the root above.

    Of several paths it is the one that lasts longest: a verifier tries all. `leaf`, `authorities`, `roots`:
    DER. Where no path is known, the leaf stands alone. Raises: CertificateError: one does not parse.
    """
    certificate = parse_certificate(leaf)
    anchors = [parse_certificate(der) for der in dict.fromkeys(roots)]
    paths: list[tuple[End, ...]] = [()]
    for issuer in map(parse_certificate, dict.fromkeys(authorities)):
        if not is_issued_by(certificate, issuer):
            continue
        if is_self_signed(issuer):
            paths.append((certificate_end(issuer),))
        paths += [
            (certificate_end(issuer), certificate_end(root))
            for root in anchors
            if root != issuer and is_issued_by(issuer, root)
        ]
    longest = max(paths, key=lambda path: (bool(path), min((end.ends for end in path), default=0)))
    return (certificate_end(certificate), *longest)


def _title(certificate: x509.Certificate) -> str:
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    name = str(names[0].value) if names else certificate.subject.rfc4514_string()
    try:
        role = str(certificate_identity(certificate).role)
    except CertificateError:
        return f"root {name!r}"
    return f"site CA {name!r}" if role == "site" else f"certificate of {role} {name!r}"
