"""A site that is the same in every run: fixed keys, fixed serials, nonces by RFC 6979."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.reference.credential import PrivateKey
from tests.vectors.cases.schedule import START
from tests.vectors.cases.writing import fixed

SITE_ID = fixed("site", 16)
OTHER_SITE_ID = fixed("other site", 16)
DAY = timedelta(days=1)
MICROSECONDS_PER_DAY = 86_400_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Party:
    certificate: x509.Certificate
    key: PrivateKey

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)


def p256(name: str) -> ec.EllipticCurvePrivateKey:
    return ec.derive_private_key(int.from_bytes(fixed(f"P-256 {name}")) >> 1, ec.SECP256R1())


def ed25519_key(name: str) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(fixed(f"Ed25519 {name}"))


def root(name: str = "root") -> Party:
    return _issue(name, p256(name), issuer=None, days=7300, uri=None, constraints=(True, None))


def site_ca(
    issuer: Party, site_id: bytes = SITE_ID, name: str = "site CA", *, authority: bool = True
) -> Party:
    """With `authority` false, a certificate that has the name of a site CA and is none."""
    uri = f"sealcast:site:{site_id.hex()}"
    constraints = (True, 0) if authority else (False, None)
    return _issue(name, p256(name), issuer=issuer, days=730, uri=uri, constraints=constraints)


def device(
    issuer: Party,
    name: str = "monitor-1",
    *,
    role: str = "device",
    site_id: bytes = SITE_ID,
    key: PrivateKey | None = None,
    begins: int = START,
    days: int = 90,
) -> Party:
    uri = f"sealcast:{role}:{site_id.hex()}:{name}"
    own = key if key is not None else p256(f"{role} {name}")
    return _issue(name, own, issuer=issuer, days=days, uri=uri, constraints=(False, None), begins=begins)


def _issue(
    name: str,
    key: PrivateKey,
    *,
    issuer: Party | None,
    days: int,
    uri: str | None,
    constraints: tuple[bool, int | None],
    begins: int = START,
) -> Party:
    authority, path_length = constraints
    start = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=begins) - timedelta(minutes=1)
    subject = [x509.NameAttribute(NameOID.COMMON_NAME, name)]
    if issuer is not None:
        subject.append(x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Example site"))
    own_id = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    signer = issuer.key if issuer is not None else key
    signer_id = x509.SubjectKeyIdentifier.from_public_key(signer.public_key())
    usage = x509.KeyUsage(
        digital_signature=issuer is not None,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )
    builder = (
        x509.CertificateBuilder()
        .serial_number(int.from_bytes(fixed(f"serial {name} {uri} {days}", 16)) >> 1)
        .subject_name(x509.Name(subject))
        .issuer_name(issuer.certificate.subject if issuer is not None else x509.Name(subject))
        .not_valid_before(start)
        .not_valid_after(start + days * DAY)
        .public_key(key.public_key())
        .add_extension(x509.BasicConstraints(ca=authority, path_length=path_length), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(own_id, critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(signer_id), critical=False
        )
    )
    if not authority:
        purposes = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
        builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
    if uri is not None:
        names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)])
        builder = builder.add_extension(names, critical=False)
    if isinstance(signer, Ed25519PrivateKey):
        certificate = builder.sign(signer, None)
    else:
        certificate = builder.sign(signer, hashes.SHA256(), ecdsa_deterministic=True)
    return Party(certificate=certificate, key=key)
