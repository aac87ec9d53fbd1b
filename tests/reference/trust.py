"""Whom to believe: chain, stream, policy. Spec: trust.md sections 2 and 3, TR-14, TR-15.

CRLs are left out: revocation is RFC 5280's and is tested where the validator is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.x509.oid import ExtendedKeyUsageOID

from tests.reference import credential, schedule
from tests.reference.credential import Bundle, Credential, Policy, PublicKey, Signed


class RefusedError(Exception):
    """Not to be trusted; the argument is the reason, one of the words used in the vectors."""

    @property
    def reason(self) -> str:
        return str(self.args[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    site_id: str
    name: str
    certificate_hash: bytes
    public_key: PublicKey


def accept_stream(
    bundle_bytes: bytes,
    *,
    stream_id: bytes,
    policy: Policy,
    anchors: Sequence[bytes],
    role: str,
    now: int,
    packet_time: int,
) -> Credential:
    """The credential of a stream that may be believed (TR-14); raises RefusedError or MalformedError."""
    bundle = Bundle.parse(bundle_bytes)
    signed = Signed.parse(bundle.signed)
    stated = Credential.parse(signed.tbs)
    if schedule.stream_id(stated.public_key) != stream_id:
        raise RefusedError("stream-id")
    device = verify_chain(bundle.chain, anchors, now, role)
    if stated.certificate_hash != device.certificate_hash:
        raise RefusedError("certificate")
    if (stated.site_id.hex(), stated.device) != (device.site_id, device.name):
        raise RefusedError("certificate")
    if not signed.holds(device.public_key, credential.CREDENTIAL_CONTEXT):
        raise RefusedError("signature")
    if stated.channel_id != policy.channel_id:
        raise RefusedError("channel")
    if stated.suite != policy.suite:
        raise RefusedError("suite")
    if not all(stated.not_before <= time <= stated.not_after for time in (now, packet_time)):
        raise RefusedError("time")
    if role == "device" and _member(policy, device) not in policy.publishers:
        raise RefusedError("policy")
    return stated


def accept_policy(
    signed_bytes: bytes, *, chain: Sequence[bytes], anchors: Sequence[bytes], now: int, known_version: int = 0
) -> Policy:
    """TR-15; chain: the site CA's certificate first."""
    signed = Signed.parse(signed_bytes)
    policy = Policy.parse(signed.tbs)
    issuer = verify_chain(chain, anchors, now, "site")
    if issuer.site_id != policy.site_id.hex():
        raise RefusedError("site")
    if not signed.holds(issuer.public_key, credential.POLICY_CONTEXT):
        raise RefusedError("signature")
    if schedule.channel_id(policy.site_id, policy.channel) != policy.channel_id:
        raise RefusedError("channel")
    if policy.version < known_version:
        raise RefusedError("version")
    if now >= policy.next_update:
        raise RefusedError("time")
    return policy


def verify_chain(chain: Sequence[bytes], anchors: Sequence[bytes], now: int, role: str) -> Identity:
    """The identity of the first certificate (TR-5 to TR-7); raises RefusedError."""
    try:
        certificates = [x509.load_der_x509_certificate(der) for der in chain]
        roots = [x509.load_der_x509_certificate(der) for der in anchors]
        moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=now)
        root = next(root for root in roots if _is_issued_by(certificates[-1], root))
        for certificate, issuer in zip(certificates, [*certificates[1:], root], strict=True):
            if not _is_issued_by(certificate, issuer):
                raise RefusedError("chain")
        for certificate in (*certificates, root):
            if not certificate.not_valid_before_utc <= moment <= certificate.not_valid_after_utc:
                raise RefusedError("chain")
        for issuer in (*certificates[1:], root):
            _check_authority(issuer)
        words = _uri(certificates[0])
        if words[1] != role:
            raise RefusedError("chain")
        if role != "site":
            _check_end_entity(certificates[0])
            if _uri(certificates[1])[1:] != ["site", words[2]]:
                raise RefusedError("chain")
    except (ValueError, LookupError, StopIteration, x509.ExtensionNotFound) as error:
        raise RefusedError("chain") from error
    key = certificates[0].public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey | Ed25519PublicKey):
        raise RefusedError("chain")
    return Identity(
        site_id=words[2],
        name=words[3] if role != "site" else "",
        certificate_hash=sha256(chain[0]).digest(),
        public_key=key,
    )


def _is_issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _check_authority(certificate: x509.Certificate) -> None:
    extensions = certificate.extensions
    constraints = extensions.get_extension_for_class(x509.BasicConstraints).value
    usage = extensions.get_extension_for_class(x509.KeyUsage).value
    if not (constraints.ca and usage.key_cert_sign):
        raise RefusedError("chain")


def _check_end_entity(certificate: x509.Certificate) -> None:
    extensions = certificate.extensions
    constraints = extensions.get_extension_for_class(x509.BasicConstraints).value
    usage = extensions.get_extension_for_class(x509.KeyUsage).value
    extended = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    wanted = {ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH}
    if constraints.ca or not usage.digital_signature or not wanted <= set(extended):
        raise RefusedError("chain")


def _uri(certificate: x509.Certificate) -> list[str]:
    """The words of the one `sealcast:` URI."""
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    uris = [u for u in names.get_values_for_type(x509.UniformResourceIdentifier) if u.startswith("sealcast:")]
    if len(uris) != 1:
        raise RefusedError("chain")
    return uris[0].split(":")


def _member(policy: Policy, device: Identity) -> str:
    own = policy.site_id.hex() == device.site_id
    return device.name if own else f"{device.site_id}:{device.name}"
