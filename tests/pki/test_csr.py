"""SC-11 and F1: which certificate requests are accepted, and for whom."""

import ipaddress
from datetime import UTC, datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.x509.oid import AttributeOID, NameOID
from hypothesis import given
from hypothesis import strategies as st

from sealcast.ca import KeySigner
from sealcast.errors import CsrError
from sealcast.pki.csr import MAX_CSR_BYTES, CertificateRequest, make_csr
from sealcast.pki.names import Identity, Role

KEY = ec.generate_private_key(ec.SECP256R1())
IDENTITY = Identity(role=Role.DEVICE, site_id=bytes(16), name="monitor-1")
OTHER = Identity(role=Role.DEVICE, site_id=bytes(16), name="monitor-2")


def build(
    *names: str,
    sans: list[x509.GeneralName] | None = None,
    attribute: tuple[x509.ObjectIdentifier, bytes] | None = None,
    key: ec.EllipticCurvePrivateKey
    | rsa.RSAPrivateKey
    | ed25519.Ed25519PrivateKey
    | ed448.Ed448PrivateKey = KEY,
) -> bytes:
    builder = x509.CertificateSigningRequestBuilder().subject_name(
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name) for name in names])
    )
    if sans is not None:
        builder = builder.add_extension(x509.SubjectAlternativeName(sans), critical=False)
    if attribute is not None:
        builder = builder.add_attribute(*attribute)
    algorithm = (
        None if isinstance(key, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey) else hashes.SHA256()
    )
    return builder.sign(key, algorithm).public_bytes(serialization.Encoding.DER)


def uri(identity: Identity) -> x509.GeneralName:
    return x509.UniformResourceIdentifier(identity.uri)


def test_a_device_asks_by_its_common_name_alone() -> None:
    request = CertificateRequest.parse(make_csr(KEY, IDENTITY.name))
    request.judge(IDENTITY)
    assert request.public_key == KEY.public_key()
    assert request.challenge_password is None


def test_its_own_uri_is_allowed() -> None:
    CertificateRequest.parse(build(IDENTITY.name, sans=[uri(IDENTITY)])).judge(IDENTITY)


def test_ed25519_is_allowed() -> None:
    key = ed25519.Ed25519PrivateKey.generate()
    CertificateRequest.parse(make_csr(key, IDENTITY.name)).judge(IDENTITY)


@pytest.mark.parametrize(
    ("names", "sans"),
    [
        ((OTHER.name,), None),
        (("monitor-1 ",), None),
        (("MONITOR-1",), None),
        ((), None),
        ((IDENTITY.name, OTHER.name), None),
        ((OTHER.name, IDENTITY.name), None),
        ((IDENTITY.name,), [uri(OTHER)]),
        ((IDENTITY.name,), [uri(IDENTITY), uri(OTHER)]),
        ((IDENTITY.name,), [uri(IDENTITY), uri(IDENTITY)]),
        ((IDENTITY.name,), [uri(Identity(role=Role.KEY_SERVER, site_id=bytes(16), name=IDENTITY.name))]),
        ((IDENTITY.name,), [uri(Identity(role=Role.DEVICE, site_id=b"\x01" * 16, name=IDENTITY.name))]),
        ((IDENTITY.name,), [x509.DNSName("authority")]),
        ((IDENTITY.name,), [uri(IDENTITY), x509.DNSName("authority")]),
        ((IDENTITY.name,), [x509.IPAddress(ipaddress.ip_address("10.0.0.1"))]),
        ((IDENTITY.name,), [x509.RFC822Name("a@example.org")]),
    ],
)
def test_f1_no_request_for_someone_else(names: tuple[str, ...], sans: list[x509.GeneralName] | None) -> None:
    with pytest.raises(CsrError) as caught:
        CertificateRequest.parse(build(*names, sans=sans)).judge(IDENTITY)
    assert caught.value.fault == "name"


def test_f1_change_subject_name_is_not_ignored() -> None:
    """SC-15."""
    change = x509.ObjectIdentifier("1.3.6.1.5.5.7.7.36")
    with pytest.raises(CsrError) as caught:
        CertificateRequest.parse(build(IDENTITY.name, attribute=(change, b"monitor-2")))
    assert caught.value.fault == "attribute"


def test_a_challenge_password_is_told() -> None:
    request = build(IDENTITY.name, attribute=(AttributeOID.CHALLENGE_PASSWORD, b"binding"))
    assert CertificateRequest.parse(request).challenge_password == "binding"


@pytest.mark.parametrize(
    "key",
    [
        ec.generate_private_key(ec.SECP384R1()),
        ec.generate_private_key(ec.SECP256K1()),
        rsa.generate_private_key(65537, 2048),
        ed448.Ed448PrivateKey.generate(),
    ],
    ids=["p384", "secp256k1", "rsa", "ed448"],
)
def test_other_kinds_of_keys_are_refused(key: ec.EllipticCurvePrivateKey) -> None:
    with pytest.raises(CsrError) as caught:
        CertificateRequest.parse(build(IDENTITY.name, key=key))
    assert caught.value.fault in ("key", "encoding")


def test_a_broken_signature_is_refused() -> None:
    request = bytearray(make_csr(KEY, IDENTITY.name))
    request[-1] ^= 1
    with pytest.raises(CsrError) as caught:
        CertificateRequest.parse(bytes(request))
    assert caught.value.fault == "signature"


def test_a_large_request_is_refused() -> None:
    with pytest.raises(CsrError) as caught:
        CertificateRequest.parse(b"\x30" * (MAX_CSR_BYTES + 1))
    assert caught.value.fault == "size"


@given(st.binary(max_size=300))
def test_any_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(CsrError):
        CertificateRequest.parse(data)


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_a_changed_byte_is_refused(position: int, mask: int) -> None:
    der = make_csr(KEY, IDENTITY.name)
    request = bytearray(der)
    request[position % len(request)] ^= mask
    try:
        changed = CertificateRequest.parse(bytes(request))
        changed.judge(IDENTITY)
    except CsrError:
        return
    # The count of unused bits of the signature may change where those bits are zero; nothing else.
    signed = x509.load_der_x509_csr(der).tbs_certrequest_bytes
    assert x509.load_der_x509_csr(bytes(request)).tbs_certrequest_bytes == signed
    assert changed.public_key == KEY.public_key()


def test_a_renewal_repeats_subject_and_names() -> None:
    """RFC 7030 section 4.2.2."""
    signer = KeySigner(KEY)
    current = (
        x509.CertificateBuilder()
        .subject_name(
            x509.Name(
                [
                    x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Ward 3"),
                    x509.NameAttribute(NameOID.COMMON_NAME, IDENTITY.name),
                ]
            )
        )
        .issuer_name(x509.Name([]))
        .public_key(KEY.public_key())
        .serial_number(1)
        .not_valid_before(datetime(2026, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2027, 1, 1, tzinfo=UTC))
        .add_extension(x509.SubjectAlternativeName([uri(IDENTITY)]), critical=False)
        .sign(KEY, hashes.SHA256())
    )
    request = x509.load_der_x509_csr(signer.make_csr(IDENTITY.name, current=current))
    assert request.subject == current.subject
    names = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert list(names) == [uri(IDENTITY)]
