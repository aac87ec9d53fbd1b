"""What an operator may switch at an EST server, and the labels under which it answers.

A label is the additional path segment of RFC 7030 section 3.2.2: one for each site CA, so that a client that
can hold only one root asks for the certificates of one.
"""

import re
from dataclasses import dataclass

from sealcast.errors import UsageError
from sealcast.pki.quantities import MAX_DURATION

OPERATIONS = (
    "cacerts",
    "csrattrs",
    "fullcmc",
    "renewal-info",
    "serverkeygen",
    "simpleenroll",
    "simplereenroll",
)
"""Path segments that mean something else than a label, whether this server offers them or not."""

MAX_LABELS = 32

RECOVERY_GRACE = 30 * 86_400_000_000
"""Microseconds; where the operator says nothing."""

_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


@dataclass(frozen=True, slots=True, kw_only=True)
class EstSettings:
    """The switches of one server; the defaults are the strictest that common clients can work with."""

    labels: tuple[str, ...] = ()
    """Besides those that the service has by itself."""
    server_keygen: bool = False
    """/serverkeygen: the private key is made here and crosses the network. Off: 404."""
    linking_required: bool = False
    """Every request must carry tls-unique in challengePassword (RFC 7030 section 3.5). TLS 1.3 has no such
    value, so the listener then speaks TLS 1.2 only.
    """
    strict_bodies: bool = False
    """Refuse what is not base64 of DER, although its meaning is plain: PEM armour and raw DER."""
    approve_tokens: bool = False
    """A token alone is not enough: an operator approves each first enrolment."""
    open_requests: bool = False
    """Whoever gives a device name without a token (HTTP Basic, empty password) may ask, and waits for an
    operator's approval.
    """
    recovery_grace_us: int = RECOVERY_GRACE
    """Microseconds after its certificate's end in which a device may recover by a proof (SC-22); 0: never."""

    def __post_init__(self) -> None:
        if not 0 <= self.recovery_grace_us <= MAX_DURATION:
            raise UsageError(
                f"not a grace for recovery: {self.recovery_grace_us} microseconds",
                cure="give 0 (never) up to 10 years",
            )
        if len(self.labels) > MAX_LABELS:
            raise UsageError(f"{len(self.labels)} labels are more than {MAX_LABELS}", cure="drop some")
        for label in self.labels:
            check_label(label)


def check_label(label: str) -> str:
    """Return `label` if a server may answer under it; raise UsageError otherwise. RFC 7030 section 3.2.2."""
    if _LABEL.fullmatch(label) is None:
        raise UsageError(
            f"not an EST label: {label[:80]!r}",
            cure="use 1 to 63 letters, digits, dots, underscores and hyphens, a letter or digit first",
        )
    if label.lower() in OPERATIONS:
        raise UsageError(
            f"an EST label must not be the name of an operation: {label!r}", cure="choose another"
        )
    return label
