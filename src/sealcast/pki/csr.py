"""Certificate requests (PKCS#10): making them on the device, judging them at the authority.

Spec: spec/side-channel.md SC-11, RFC 2986, RFC 7030 sections 4.2.1 and 4.2.2.
"""

import hashlib
from dataclasses import dataclass
from typing import Self

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import NameOID

from sealcast.errors import CertificateError, CsrError
from sealcast.pki.certificates import spki
from sealcast.pki.hardware import HardwareIdentity
from sealcast.pki.names import Identity
from sealcast.pki.signed import PublicKey

PrivateKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey

MAX_CSR_BYTES = 8 * 1024
"""A P-256 request with all we allow is under 1 KiB.

RSA and stray extensions of other clients stay under 4 KiB.
"""

_CHALLENGE_PASSWORD = x509.ObjectIdentifier("1.2.840.113549.1.9.7")
# RFC 6402 section 2.8: asks for another name at renewal. Must not be ignored in silence.
_CHANGE_SUBJECT_NAME = x509.ObjectIdentifier("1.3.6.1.5.5.7.7.36")
# RFC 7030 sections 4.4.1.1 and 4.4.1.2: by which key a private key is to be encrypted.
_DECRYPT_KEY_IDENTIFIERS = (
    x509.ObjectIdentifier("1.2.840.113549.1.9.16.2.37"),
    x509.ObjectIdentifier("1.2.840.113549.1.9.16.2.54"),
)

# The y of Ed25519 points of small order, in canonical form and not: under them signatures hold that no
# private key has made.
_SMALL_ORDER = frozenset(
    bytes.fromhex(y)
    for y in (
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    )
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateRequest:
    """A request whose signature holds: whoever sent it has the private key.

    Whose name it may bear is not judged yet.
    """

    der: bytes
    """As it came."""
    public_key: PublicKey | None
    """None if the key is to be made by the authority."""
    key_hash: bytes
    """SHA-256 of the SubjectPublicKeyInfo in the request, 32 bytes: by it a repeated request is known, as its
    challengePassword changes with the TLS session (RFC 7030 section 4.2.3).
    """
    common_name: str
    uris: tuple[str, ...]
    """The URIs asked for in subjectAltName."""
    hardware: HardwareIdentity | None
    """The names of the hardware that are asked for."""
    has_other_names: bool
    """Whether names of still another kind are asked for in subjectAltName."""
    subject: x509.Name
    alternative_names: tuple[x509.GeneralName, ...]
    challenge_password: str | None
    """What binds the request to a TLS session (RFC 7030 section 3.5), if it is there."""
    wants_encrypted_key: bool
    """Whether a key that the authority makes must come encrypted (RFC 7030 section 4.4.1)."""

    @classmethod
    def parse(cls, der: bytes, *, own_key: bool = True) -> Self:
        """Read a request and check size, signature and kind of key.

        Without `own_key` the key is to be made by the authority, so key and signature mean nothing and are
        not judged (RFC 7030 section 4.4.1).
        Raises: CsrError with the fault `size`, `encoding`, `signature`, `key` or `attribute`.
        """
        if len(der) > MAX_CSR_BYTES:
            raise CsrError(f"the request has {len(der)} bytes, more than {MAX_CSR_BYTES}", fault="size")
        try:
            request = x509.load_der_x509_csr(der)
            subject, attributes = request.subject, request.attributes
            signature_holds = not own_key or request.is_signature_valid
        # The library warns of names that are too short or too long; where warnings are errors, this is one.
        except (ValueError, x509.InvalidVersion, UnsupportedAlgorithm, UserWarning) as error:
            raise CsrError(f"not a certificate request: {error}", fault="encoding") from None
        if not signature_holds:
            raise CsrError("the request's signature does not hold", fault="signature")
        public_key = _allowed_key(request) if own_key else None
        names = _subject_alternative_names(request)
        # SC-15
        if any(attribute.oid == _CHANGE_SUBJECT_NAME for attribute in attributes):
            raise CsrError(
                "the request asks for another name (changeSubjectName)",
                fault="attribute",
                cure="enrol under the new name with a token",
            )
        uris = tuple(names.get_values_for_type(x509.UniformResourceIdentifier)) if names else ()
        hardware = _hardware(subject, names)
        known = len(uris) + (hardware is not None and hardware.module is not None)
        return cls(
            der=der,
            public_key=public_key,
            key_hash=_key_hash(request),
            common_name=_common_name(subject),
            uris=uris,
            hardware=hardware,
            has_other_names=names is not None and len(names) > known,
            subject=subject,
            alternative_names=tuple(names or ()),
            challenge_password=_challenge_password(attributes),
            wants_encrypted_key=any(attribute.oid in _DECRYPT_KEY_IDENTIFIERS for attribute in attributes),
        )

    def key(self) -> PublicKey:
        """Return the request's own key. Raises: CsrError if it was read without one."""
        if self.public_key is None:
            raise CsrError("the request brings no key", fault="key")
        return self.public_key

    def judge(self, identity: Identity, hardware: HardwareIdentity | None = None) -> None:
        """Check that the request asks for the authenticated identity and for no other. Spec: SC-11.

        `hardware`: the approved names of the hardware; a request may leave them out, and ask for no others.
        Raises: CsrError with the fault `name`.
        """
        self.judge_name(identity.name)
        module = self.hardware.module if self.hardware is not None else None
        approved = hardware.module if hardware is not None else None
        if (
            self.has_other_names
            or self.uris not in ((), (identity.uri,))
            or (module is not None and module != approved)
        ):
            raise CsrError(
                f"the request's subjectAltName is not that of device {identity.name!r}", fault="name"
            )

    def judge_successor(self, current: x509.Certificate) -> None:
        """Check that the request is for the same subject and subjectAltName as the present certificate.

        RFC 7030 section 4.2.2. Attributes are compared by their text, as some clients encode the same string
        as another ASN.1 type. Raises: CsrError with the fault `name`.
        """
        if self.subject != current.subject:
            raise CsrError(
                f"the request's subject is {self.subject.rfc4514_string()[:120]!r}, not that of the present "
                f"certificate, {current.subject.rfc4514_string()!r}",
                fault="name",
                cure="repeat the subject of the certificate that is to be renewed",
            )
        try:
            names = list(current.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
        except x509.ExtensionNotFound:
            names = []
        if sorted(map(repr, self.alternative_names)) != sorted(map(repr, names)):
            raise CsrError(
                "the request's subjectAltName is not that of the present certificate",
                fault="name",
                cure="repeat the subjectAltName of the certificate that is to be renewed",
            )

    def judge_name(self, name: str) -> None:
        """Check the common name alone. Raises: CsrError with the fault `name`."""
        if self.common_name != name:
            raise CsrError(
                f"the request is for {self.common_name[:80]!r}, not for device {name!r}", fault="name"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestExtras:
    """What a server wants in a request besides the name (RFC 7030 sections 3.5 and 4.5)."""

    subject: x509.Name | None = None
    """In place of the common name alone."""
    extensions: tuple[x509.Extension[x509.ExtensionType], ...] = ()
    challenge_password: str | None = None


def make_csr(
    key: PrivateKey,
    name: str,
    *,
    current: x509.Certificate | None = None,
    extras: RequestExtras | None = None,
) -> bytes:
    """Return a DER request for a device, signed with its new key.

    `current`: at renewal, the present certificate: RFC 7030 section 4.2.2 wants the same subject and
    subjectAltName. Before the first enrolment a device does not know its site id, so subjectAltName is left
    out.
    """
    extras = extras or RequestExtras()
    builder = x509.CertificateSigningRequestBuilder()
    if extras.challenge_password is not None:
        value = extras.challenge_password.encode()
        builder = builder.add_attribute(_CHALLENGE_PASSWORD, value)
    if current is None:
        subject = extras.subject or x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = builder.subject_name(subject)
        for extension in extras.extensions:
            builder = builder.add_extension(extension.value, critical=extension.critical)
    else:
        builder = builder.subject_name(current.subject)
        names = current.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        builder = builder.add_extension(names.value, critical=names.critical)
    hash_algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(key, hash_algorithm).public_bytes(serialization.Encoding.DER)


def _allowed_key(request: x509.CertificateSigningRequest) -> PublicKey:
    try:
        public_key = request.public_key()
    except (ValueError, UnsupportedAlgorithm):
        return check_device_key(None)
    return check_device_key(public_key)


def check_device_key(public_key: object) -> PublicKey:
    """Return the key if a device may have it. Raises: CsrError with the fault `key`."""
    match public_key:
        case ec.EllipticCurvePublicKey(curve=ec.SECP256R1()):
            return public_key
        case ed25519.Ed25519PublicKey():
            raw = bytearray(public_key.public_bytes_raw())
            raw[31] &= 0x7F
            if bytes(raw) in _SMALL_ORDER:
                raise CsrError("the request's key is a point of small order", fault="key")
            return public_key
    raise CsrError("the request's key is neither P-256 nor Ed25519", fault="key", cure="make a P-256 key")


def _key_hash(request: x509.CertificateSigningRequest) -> bytes:
    try:
        known = spki(request.public_key())
    except (ValueError, UnsupportedAlgorithm):
        # Only where the key means nothing; then the request has to be the same.
        known = request.tbs_certrequest_bytes
    return hashlib.sha256(known).digest()


def _subject_alternative_names(request: x509.CertificateSigningRequest) -> x509.SubjectAlternativeName | None:
    try:
        return request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return None
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType) as error:
        raise CsrError(f"the request's extensions make no sense: {error}", fault="encoding") from None


def _hardware(subject: x509.Name, names: x509.SubjectAlternativeName | None) -> HardwareIdentity | None:
    try:
        return HardwareIdentity.of(subject, names)
    except CertificateError:
        # A subject may say what it likes, as nothing but its common name is taken from it unasked.
        subject = x509.Name([])
    try:
        return HardwareIdentity.of(subject, names)
    except CertificateError as error:
        raise CsrError(f"the request names its hardware badly: {error}", fault="name") from None


def _common_name(subject: x509.Name) -> str:
    names = subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    if len(names) != 1:
        raise CsrError(f"the request has {len(names)} common names, not one", fault="name")
    value = names[0].value
    return value if isinstance(value, str) else value.decode("latin-1")


def _challenge_password(attributes: x509.Attributes) -> str | None:
    # The value may be a PrintableString, a UTF8String or an IA5String; its text is what counts.
    found = [attribute.value for attribute in attributes if attribute.oid == _CHALLENGE_PASSWORD]
    return found[0].decode("utf-8", "replace") if found else None
