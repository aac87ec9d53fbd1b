"""The path validator: the Python face of the one in the engine.

Chains are judged in one place only, `rust/core`, for packets and for TLS peers alike. Spec: spec/trust.md
section 3.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sealcast import _core
from sealcast.errors import CertificateError
from sealcast.pki.names import Identity, Role

_CURES = {
    "expired": "renew the certificate, and check the clock",
    "not-yet-valid": "check the clock of this machine",
    "revoked": "the device was removed; enrol it anew with a token if that was a mistake",
    "unknown-issuer": "check that the right root is given",
    "revocation-unknown": "the revocation list is too old or of another site; fetch a new one",
    "wrong-usage": "issue it by its profile: its keyUsage, or its issuer's, leaves out what the key does",
}


Anchor = bytes | tuple[bytes, tuple[bytes, ...]]
"""A trust anchor: DER alone, for every site, or with the ids (16 bytes) of the sites that it may vouch for.

A site CA among them is an anchor for its own site alone (TR-21).
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedPeer:
    """An identity whose chain holds; only the validator makes one."""

    identity: Identity
    certificate_hash: bytes
    """SHA-256 of the DER certificate, 32 bytes."""
    not_after: int
    """End of the certificate's life, in microseconds."""
    issuer: bytes
    """The site CA certificate that issued it, DER, from the path that holds."""

    @property
    def name(self) -> str:
        """Device or key server name."""
        return self.identity.name

    @property
    def site_id(self) -> bytes:
        """16 bytes."""
        return self.identity.site_id

    @property
    def role(self) -> Role:
        """The role that was asked for."""
        return self.identity.role


class Validator:
    """Judges chains against a set of trust anchors.

    A wrong yes admits a stranger; a wrong no cuts off a member until its next try.
    """

    def __init__(self, anchors: Sequence[Anchor], intermediates: Sequence[bytes] = ()) -> None:
        """Take DER certificates.

        `anchors`: roots, trusted. `intermediates`: site CA certificates that help to build a path where a
        peer shows only its own certificate (Python's TLS hands out no more than that); they are not trusted
        by being here.
        Raises: CertificateError if there is no anchor or one does not parse.
        """
        if not anchors:
            raise CertificateError(
                "no root is trusted", reason="unknown-issuer", cure="give a root certificate"
            )
        try:
            self._validator = _core.Validator(list(anchors), list(intermediates))
        except ValueError as error:
            raise _refusal(error) from None

    def verify_peer(
        self, chain: Sequence[bytes], role: Role, now: int, crl: bytes | None = None
    ) -> VerifiedPeer:
        """Judge a chain and return whom it speaks for.

        `chain`: DER, end entity first, issuers in any order, the root optional. `role`: the role it must
        have.
        `now`: microseconds. `crl`: the DER CRLs in force, one after the other; None judges no revocation
        (TR-9).
        Raises: CertificateError with the engine's reason.
        """
        try:
            verified = self._validator.verify_peer(list(chain), str(role), now, crl)
        except ValueError as error:
            raise _refusal(error) from None
        return VerifiedPeer(
            identity=Identity(role=Role(verified.role), site_id=bytes(verified.site_id), name=verified.name),
            certificate_hash=bytes(verified.certificate_hash),
            not_after=verified.not_after,
            issuer=bytes(verified.issuer),
        )


def _refusal(error: ValueError) -> CertificateError:
    reason = str(getattr(error, "reason", ""))
    return CertificateError(
        f"the certificate is refused: {error}", reason=reason, cure=_CURES.get(reason, "")
    )
