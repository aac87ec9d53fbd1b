"""What stands behind an EST server: who may have which certificate is decided there."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from sealcast.est.attributes import CsrAttributes
from sealcast.est.renewal import CertificateId, RenewalWindow
from sealcast.est.settings import EstSettings
from sealcast.pki.csr import CertificateRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrolmentRequest:
    """A request for a certificate, and all that the transport knows of the one who asks."""

    csr: CertificateRequest
    """Its signature holds, unless the key is to be made here."""
    label: str | None = None
    """Of the site CA that is asked; None: the default one."""
    name: str | None = None
    """HTTP Basic: the device's name; None without an Authorization header."""
    token: str = field(default="", repr=False)
    """HTTP Basic: the one-time token."""
    certificate: bytes | None = None
    """DER: the one whose key the TLS handshake proved. It stands under an authority that the listener trusts
    for the handshake, which may be a maker's: what it is good for is for the service to judge.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratedKey:
    """A key that was made at the server, and its certificate."""

    certificate: bytes
    """DER."""
    private_key: bytes = field(repr=False)
    """DER, PKCS#8; nobody keeps it here."""


class EnrolmentService(Protocol):
    """The authority, or a test.

    The operations raise what `problem_of` maps: TokenError (unknown, used or expired token), CsrError,
    CertificateError (the peer's certificate is revoked, expired, foreign), EnrolmentError (with
    `retry_after`: not decided yet; without: refused), StorageError.
    """

    @property
    def settings(self) -> EstSettings:
        """The switches at this moment."""

    def labels(self) -> Collection[str]:
        """The labels under which the operations are offered, besides none."""

    def ca_certificates(self, label: str | None) -> Sequence[bytes]:
        """Return DER: the current root, every CA certificate between it and what is issued, and after a
        change of the root's key those that lead from the old root to the new one and back.
        """

    def csr_attributes(self, label: str | None) -> CsrAttributes | None:
        """What requests should look like; None: nothing is said about it."""

    def is_registration_authority(self, certificate: bytes) -> bool:
        """Tell whether the holder of this DER certificate asks for others (RFC 7030 section 3.7).

        A wrong yes lets a device get a certificate in any name, and spares it the linking to its session.
        """

    async def enroll(self, request: EnrolmentRequest) -> bytes:
        """Return a DER certificate for a device that has none, or that holds a valid one."""

    async def reenroll(self, request: EnrolmentRequest) -> bytes:
        """Return a DER certificate for the holder of a valid one, which TLS has shown.

        Its chain, role and revocation are for the service to judge. A wrong yes lets a removed device live
        on.
        """

    async def generate(self, request: EnrolmentRequest) -> GeneratedKey:
        """As `enroll`, with a key made here; key and signature of the CSR are of no meaning."""

    async def renewal_window(self, certificate_id: CertificateId) -> RenewalWindow | None:
        """When to renew a certificate; None: unknown here, or not to be renewed."""


__all__ = ["EnrolmentRequest", "EnrolmentService", "GeneratedKey"]
