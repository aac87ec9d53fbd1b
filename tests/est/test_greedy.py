"""Certificate requests that want too much (F3), and those that are no requests (F4), at a running server.

The certificate that comes back is compared with the profile field by field; what the request asked for beside
its name is refused or left out.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sealcast.errors import CsrError
from sealcast.est.messages import decode_certificates
from sealcast.pki.certificates import parse_certificate
from sealcast.pki.csr import CertificateRequest
from tests.authority.maker import key_usage
from tests.est.site import Site, TokenService, serving
from tests.est.wire import Reply, Wire, body, csr, request, tls


@dataclass
class Listener:
    service: TokenService
    wire: Wire

    async def enroll(self, der: bytes) -> Reply:
        token = self.service.token("monitor-1")
        return await self.wire.post("simpleenroll", body(der), credentials=f"monitor-1:{token}")


@pytest.fixture
async def listener(tmp_path: Path) -> AsyncIterator[Listener]:
    service = TokenService(Site(tmp_path))
    async with serving(service) as url:
        yield Listener(service, Wire(int(url.rpartition(":")[2]), tls([service.site.root_der])))


def extensions_of(certificate: x509.Certificate) -> dict[str, tuple[bool, bytes]]:
    """By identifier; without what differs from key to key."""
    return {
        extension.oid.dotted_string: (extension.critical, extension.value.public_bytes())
        for extension in certificate.extensions
        if not isinstance(extension.value, x509.SubjectKeyIdentifier)
    }


GREEDY: dict[str, list[x509.ExtensionType]] = {
    "CA": [x509.BasicConstraints(ca=True, path_length=5)],
    "keyCertSign": [key_usage(key_cert_sign=True, crl_sign=True, digital_signature=True)],
    "any purpose": [x509.ExtendedKeyUsage([ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE])],
    "OCSP": [x509.ExtendedKeyUsage([ExtendedKeyUsageOID.OCSP_SIGNING]), x509.OCSPNoCheck()],
    "policy": [
        x509.CertificatePolicies([x509.PolicyInformation(x509.ObjectIdentifier("2.5.29.32.0"), None)])
    ],
    "name constraints": [x509.NameConstraints([x509.DNSName("example.org")], None)],
    "foreign key identifier": [x509.SubjectKeyIdentifier(b"\x01" * 20)],
    "long life": [
        x509.PrivateKeyUsagePeriod(datetime(2020, 1, 1), datetime(2999, 1, 1)),  # noqa: DTZ001
        x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.311.20.2"), b"\x1e\x04\x00C\x00A"),
    ],
    "unknown": [x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x04\x01\x00")],
}


@pytest.mark.parametrize("what", GREEDY)
async def test_f3_what_a_request_wants_beside_its_name_is_left_out(listener: Listener, what: str) -> None:
    plain, greedy = csr("monitor-1"), csr("monitor-1", extensions=GREEDY[what])
    issued = []
    for der in (plain, greedy):
        reply = await listener.enroll(der)
        assert reply.status == 200
        issued.append(parse_certificate(decode_certificates(reply.body)[0]))
    assert extensions_of(issued[1]) == extensions_of(issued[0])
    assert issued[1].subject == issued[0].subject
    assert issued[1].not_valid_after_utc - issued[1].not_valid_before_utc == (
        issued[0].not_valid_after_utc - issued[0].not_valid_before_utc
    )


NAMES: dict[str, list[x509.GeneralName]] = {
    "wildcard": [x509.DNSName("*.example.org")],
    "host": [x509.DNSName("authority")],
    "mail": [x509.RFC822Name("root@example.org")],
    "directory": [x509.DirectoryName(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "root")]))],
    "another device": [x509.UniformResourceIdentifier("sealcast:device:" + "0" * 32 + ":monitor-2")],
    "key server": [x509.UniformResourceIdentifier("sealcast:key-server:" + "0" * 32 + ":monitor-1")],
    "NUL": [x509.UniformResourceIdentifier("sealcast:device:" + "0" * 32 + ":monitor-1\x00x")],
    "other name": [x509.OtherName(x509.ObjectIdentifier("1.3.6.1.4.1.311.20.2.3"), b"\x0c\x04root")],
}


@pytest.mark.parametrize("what", NAMES)
async def test_f3_names_that_are_not_its_own_are_refused(listener: Listener, what: str) -> None:
    reply = await listener.enroll(csr("monitor-1", names=NAMES[what]))
    assert reply.status == 403
    assert not listener.service.issued


async def test_f3_ten_thousand_names_are_refused_at_once(listener: Listener) -> None:
    names: list[x509.GeneralName] = [x509.DNSName(f"h{number}") for number in range(10_000)]
    reply = await listener.enroll(csr("monitor-1", names=names))
    assert reply.status == 413
    assert not listener.service.issued


@pytest.mark.parametrize(
    "name",
    [
        "monitor-1\x00",
        "monitor-1\x00.evil",
        "monitor-1 ",
        "\u200bmonitor-1",
        "MONITOR-1",
        "*",
        "moni*",
        "mönitor-1",
    ],
)
async def test_f3_a_common_name_is_exactly_the_devices(listener: Listener, name: str) -> None:
    assert (await listener.enroll(csr(name))).status == 403
    assert not listener.service.issued


async def test_f3_two_common_names_are_none(listener: Listener) -> None:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name) for name in ("monitor-1", "root")])
    assert (await listener.enroll(csr("", subject=subject))).status == 403


async def test_f3_other_fields_of_the_subject_are_left_out(listener: Listener) -> None:
    """SC-15."""
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Another site"),
            x509.NameAttribute(NameOID.COMMON_NAME, "monitor-1"),
        ]
    )
    reply = await listener.enroll(csr("", subject=subject))
    assert reply.status == 200
    issued = parse_certificate(decode_certificates(reply.body)[0])
    assert issued.subject.rfc4514_string() == "CN=monitor-1,O=Ward 3"


SMALL_ORDER = [
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0000000000000000000000000000000000000000000000000000000000000080",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000080",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
]


def with_key(raw: bytes) -> bytes:
    """A request for an Ed25519 key that nobody has, signed as its small order allows: R = A, S = 0."""
    key = ed25519.Ed25519PrivateKey.generate()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "monitor-1")])
    der = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, None)
    encoded = der.public_bytes(serialization.Encoding.DER)
    identity = b"\x01" + bytes(31)
    return encoded.replace(key.public_key().public_bytes_raw(), raw)[:-64] + identity + bytes(32)


@pytest.mark.parametrize("raw", SMALL_ORDER)
async def test_f4_a_key_of_small_order_is_refused(listener: Listener, raw: str) -> None:
    """Under the identity any signature of this form holds, so it would prove possession of nothing."""
    reply = await listener.enroll(with_key(bytes.fromhex(raw)))
    assert reply.status == 400
    assert not listener.service.issued


def test_f4_such_a_signature_may_hold() -> None:
    """The library takes it for good; hence the check of the key."""
    der = with_key(bytes.fromhex(SMALL_ORDER[2]))
    assert x509.load_der_x509_csr(der).is_signature_valid
    with pytest.raises(CsrError, match="small order"):
        CertificateRequest.parse(der)


WEAK = {
    "P-224": ec.generate_private_key(ec.SECP224R1()),
    "RSA 1024": rsa.generate_private_key(65537, 1024),  # noqa: S505
    "RSA 2048": rsa.generate_private_key(65537, 2048),
}


@pytest.mark.parametrize("what", WEAK)
async def test_f4_a_weak_key_is_refused(listener: Listener, what: str) -> None:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "monitor-1")])
    builder = x509.CertificateSigningRequestBuilder().subject_name(name)
    der = builder.sign(WEAK[what], hashes.SHA256()).public_bytes(serialization.Encoding.DER)  # type: ignore[arg-type]
    assert (await listener.enroll(der)).status == 400


async def test_f4_a_point_that_is_not_on_the_curve_is_refused(listener: Listener) -> None:
    der = csr("monitor-1")
    point = (
        x509.load_der_x509_csr(der)
        .public_key()
        .public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
    )
    for wrong in (point[:-1] + bytes([point[-1] ^ 1]), b"\x04" + bytes(64), b"\x04" + b"\xff" * 64):
        assert (await listener.enroll(der.replace(point, wrong))).status == 400


@dataclass(frozen=True)
class Element:
    """An element of DER: the bytes, and where it and its content start and end."""

    start: int
    content: int
    end: int


def children(der: bytes, start: int, end: int) -> list[Element]:
    """The elements between two places; none if they are not whole."""
    found = []
    while start < end:
        length, content = der[start + 1] if start + 1 < end else 0xFF, start + 2
        if length & 0x80:
            count = length & 0x7F
            length, content = int.from_bytes(der[content : content + count], "big"), content + count
        if content + length > end:
            return []
        found.append(Element(start, content, content + length))
        start = content + length
    return found


def within(der: bytes, element: Element) -> list[Element]:
    """Its own elements: of a constructed one, and of an OCTET STRING that holds DER, as extensions do."""
    holds = der[element.start] & 0x20 or der[element.start] == 0x04
    return children(der, element.content, element.end) if holds else []


def all_elements(der: bytes, start: int, end: int) -> Iterator[Element]:
    """Every element, outer ones first."""
    for element in children(der, start, end):
        yield element
        for inner in within(der, element):
            yield from all_elements(der, inner.start, inner.end)


def rebuilt(der: bytes, place: Element, replacement: bytes) -> bytes:
    """DER with one element replaced, and the lengths of those around it right again."""

    def encode(element: Element) -> bytes:
        if element == place:
            return replacement
        if not element.start <= place.start < element.end:
            return der[element.start : element.end]
        inner = b"".join(map(encode, within(der, element)))
        return der[element.start : element.start + 1] + _length(len(inner)) + inner

    return b"".join(map(encode, children(der, 0, len(der))))


def _length(size: int) -> bytes:
    if size < 0x80:
        return bytes([size])
    octets = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([0x80 | len(octets)]) + octets


FULL = csr(
    "monitor-1",
    names=[x509.UniformResourceIdentifier("sealcast:device:" + "0" * 32 + ":monitor-1")],
    extensions=[x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), key_usage(digital_signature=True)],
    attributes={x509.ObjectIdentifier("1.2.840.113549.1.9.7"): b"password"},
)


def structural() -> Iterator[bytes]:
    """FULL with each element emptied, removed, doubled, retyped, and wrapped."""
    for place in all_elements(FULL, 0, len(FULL)):
        element, inner = FULL[place.start : place.end], FULL[place.content : place.end]
        yield rebuilt(FULL, place, bytes([FULL[place.start], 0]))
        yield rebuilt(FULL, place, b"")
        yield rebuilt(FULL, place, element + element)
        for tag in (0x02, 0x04, 0x05, 0x0C, 0x30, 0x31, 0xA0):
            yield rebuilt(FULL, place, bytes([tag]) + _length(len(inner)) + inner)
        yield rebuilt(FULL, place, b"\x30" + _length(len(element)) + element)


def test_the_structural_changes_are_changes() -> None:
    changed = list(structural())
    assert len(changed) > 300
    # Lengths are right: what is replaced by itself is the same again.
    assert all(
        rebuilt(FULL, place, FULL[place.start : place.end]) == FULL
        for place in all_elements(FULL, 0, len(FULL))
    )
    # An empty extKeyUsage in an otherwise whole request is among them.
    assert any(bytes.fromhex("0603551d25 0402 3000") in der for der in changed)


@pytest.mark.timeout(120)
async def test_f4_a_request_with_a_changed_structure_is_400_and_the_server_lives(listener: Listener) -> None:
    """Empty sequences among them: the fault that ended another CA (an empty extKeyUsage)."""
    credentials = f"monitor-1:{listener.service.token('monitor-1')}"
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", listener.wire.port, ssl=listener.wire.context, server_hostname="localhost"
    )
    statuses = set()
    for der in structural():
        writer.write(request("simpleenroll", body(der), credentials=credentials))
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        await reader.readexactly(length)
        statuses.add(int(head.split()[1]))
    writer.close()
    assert statuses <= {400, 403}
    assert not listener.service.issued
    assert (await listener.enroll(csr("monitor-1"))).status == 200


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_f4_any_change_of_bytes_is_an_error_of_the_request(data: st.DataObject) -> None:
    """In this process, many at once; at worst what is changed does not matter."""
    der = bytearray(FULL)
    for _ in range(data.draw(st.integers(1, 8))):
        match data.draw(st.sampled_from(["change", "cut", "insert"])):
            case "change":
                der[data.draw(st.integers(0, len(der) - 1))] = data.draw(st.integers(0, 255))
            case "cut":
                position = data.draw(st.integers(0, len(der) - 1))
                del der[position : position + data.draw(st.integers(1, 16))]
            case _:
                position = data.draw(st.integers(0, len(der)))
                der[position:position] = data.draw(st.binary(min_size=1, max_size=16))
        if not der:
            der = bytearray(b"\x30\x00")
    for own_key in (True, False):
        try:
            parsed = CertificateRequest.parse(bytes(der), own_key=own_key)
        except CsrError as error:
            assert str(error).isprintable()  # noqa: PT017
        else:
            assert not own_key or parsed.public_key is not None


@given(st.binary(max_size=400))
def test_f4_any_bytes_are_an_error_of_the_request(data: bytes) -> None:
    for own_key in (True, False):
        with pytest.raises(CsrError):
            CertificateRequest.parse(data, own_key=own_key)


async def test_f4_nesting_without_end_is_400(listener: Listener) -> None:
    der = b""
    for _ in range(1900):
        der = b"\x30" + _length(len(der)) + der
    assert (await listener.enroll(der)).status == 400
