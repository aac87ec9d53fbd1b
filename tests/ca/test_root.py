"""Roots: made and imported."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from sealcast.ca import KeyKind, KeySigner, create_root, import_root
from sealcast.errors import CertificateError
from sealcast.pki.certificates import certificate_identity, is_self_signed
from sealcast.pki.names import Role, new_site_id
from sealcast.pki.times import to_datetime

NOW = 1_800_000_000_000_000
DAY = 86_400_000_000


def pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def foreign_root(
    key: ec.EllipticCurvePrivateKey,
    *,
    ca: bool = True,
    path_length: int | None = None,
    sign_certificates: bool = True,
    extensions: bool = True,
    begin: int = NOW - DAY,
    end: int = NOW + 365 * DAY,
    issuer: str = "Owner",
) -> bytes:
    """A root of an owner's own making."""

    def name(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    builder = (
        x509.CertificateBuilder()
        .subject_name(name("Owner"))
        .issuer_name(name(issuer))
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(to_datetime(begin))
        .not_valid_after(to_datetime(end))
    )
    if extensions:
        usage = {"crl_sign": True, "key_cert_sign": sign_certificates, "digital_signature": False}
        off = dict.fromkeys(
            ["content_commitment", "key_encipherment", "data_encipherment", "key_agreement"], False
        )
        builder = builder.add_extension(
            x509.BasicConstraints(ca=ca, path_length=path_length if ca else None), critical=True
        ).add_extension(
            x509.KeyUsage(**usage, **off, encipher_only=False, decipher_only=False), critical=True
        )
    return pem(builder.sign(key, hashes.SHA256()))


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


@pytest.mark.parametrize("kind", [KeyKind.P256, KeyKind.P384])
def test_a_new_root_follows_the_profile(kind: KeyKind) -> None:
    """TR section 2."""
    root = create_root(site_name="Ward 3", signer=KeySigner.generate(kind), now=NOW).certificate
    assert is_self_signed(root)
    constraints = root.extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical
    assert (constraints.value.ca, constraints.value.path_length) == (True, None)
    usage = root.extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    assert (usage.value.key_cert_sign, usage.value.crl_sign, usage.value.digital_signature) == (
        True,
        True,
        False,
    )
    assert root.not_valid_before_utc == to_datetime(NOW) - timedelta(minutes=1)
    assert root.not_valid_after_utc == to_datetime(NOW) + timedelta(days=20 * 365)
    key_id = root.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    assert root.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier == key_id


def test_a_site_ca_follows_the_profile() -> None:
    root = create_root(site_name="Ward 3", signer=KeySigner.generate(KeyKind.P384), now=NOW)
    site_id, signer = new_site_id(), KeySigner.generate()
    ca = root.issue_site_ca(site_name="Ward 3", site_id=site_id, public_key=signer.public_key, now=NOW)
    ca.verify_directly_issued_by(root.certificate)
    identity = certificate_identity(ca)
    assert (identity.role, identity.site_id) == (Role.SITE, site_id)
    constraints = ca.extensions.get_extension_for_class(x509.BasicConstraints).value
    assert (constraints.ca, constraints.path_length) == (True, 0)
    usage = ca.extensions.get_extension_for_class(x509.KeyUsage).value
    assert (usage.key_cert_sign, usage.crl_sign, usage.digital_signature) == (True, True, True)
    assert ca.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)[0].value == "Ward 3"
    assert ca.not_valid_after_utc == to_datetime(NOW) + timedelta(days=2 * 365)
    with pytest.raises(x509.ExtensionNotFound):
        ca.extensions.get_extension_for_class(x509.ExtendedKeyUsage)


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1()])
@pytest.mark.parametrize("path_length", [None, 1, 2])
def test_an_owners_root_certifies_a_site(curve: ec.EllipticCurve, path_length: int | None) -> None:
    key = ec.generate_private_key(curve)
    root = import_root(
        certificate_pem=foreign_root(key, path_length=path_length), key_pem=key_pem(key), now=NOW
    )
    ca = root.issue_site_ca(
        site_name="Ward 3", site_id=new_site_id(), public_key=KeySigner.generate().public_key, now=NOW
    )
    ca.verify_directly_issued_by(root.certificate)
    # Nothing outlives its issuer.
    assert ca.not_valid_after_utc == root.certificate.not_valid_after_utc
    ca.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier)


KEY = ec.generate_private_key(ec.SECP256R1())


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: foreign_root(KEY, ca=False), "CA:FALSE"),
        (lambda: foreign_root(KEY, sign_certificates=False), "keyCertSign"),
        (lambda: foreign_root(KEY, path_length=0), "pathlen 0"),
        (lambda: foreign_root(KEY, extensions=False), "basicConstraints"),
        (lambda: foreign_root(KEY, end=NOW - 1), "expired"),
        (lambda: foreign_root(KEY, begin=NOW + DAY), "valid only from"),
        (lambda: foreign_root(KEY, issuer="Somebody"), "not self-signed"),
        (lambda: foreign_root(ec.generate_private_key(ec.SECP256R1())), "do not match"),
        (lambda: foreign_root(KEY) * 2, "2 certificates"),
        (lambda: b"", "no PEM certificate"),
        (lambda: b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "no PEM certificate"),
    ],
)
def test_an_unfit_root_is_refused(make: Callable[[], bytes], words: str) -> None:
    with pytest.raises(CertificateError, match=words) as caught:
        import_root(certificate_pem=make(), key_pem=key_pem(KEY), now=NOW)
    assert caught.value.cure


def test_other_kinds_of_root_keys_are_refused() -> None:
    signer = KeySigner.generate(KeyKind.ED25519)
    root = create_root(site_name="Ward 3", signer=signer, now=NOW)
    with pytest.raises(CertificateError, match="neither P-256 nor P-384"):
        import_root(certificate_pem=pem(root.certificate), key_pem=signer.to_pem(), now=NOW)


def test_an_expired_root_certifies_nothing() -> None:
    root = create_root(site_name="Ward 3", signer=KeySigner.generate(), now=NOW)
    with pytest.raises(CertificateError, match="expired"):
        root.issue_site_ca(
            site_name="Ward 3",
            site_id=new_site_id(),
            public_key=KeySigner.generate().public_key,
            now=NOW + 21 * 365 * DAY,
        )
