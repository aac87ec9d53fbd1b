"""CSR attributes: the bytes of RFC 8951 and RFC 9908, and what a client makes of them."""

import base64
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat import asn1
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from sealcast.ca import KeyKind, KeySigner
from sealcast.errors import EnrolmentError, NetworkError, UsageError
from sealcast.est import CsrAttributes, EstClient
from sealcast.est.attributes import (
    CHALLENGE_PASSWORD,
    COMMON_NAME,
    ECDSA_WITH_SHA256,
    EXTENSION_REQUEST,
    EXTENSION_TEMPLATE,
    REQUEST_TEMPLATE,
    SECP256R1,
    SECP384R1,
    SUBJECT_ALT_NAME,
    RequestTemplate,
    WantedAttribute,
    WantedExtension,
)
from sealcast.est.client import plan_request
from sealcast.est.messages import decode_body
from tests.est.site import Site, TokenService, serving
from tests.est.wire import Wire, tls

Oid = x509.ObjectIdentifier
MAC_ADDRESS = Oid("1.3.6.1.1.1.1.22")
ECDSA_WITH_SHA384 = Oid("1.2.840.10045.4.3.3")
ORGANIZATIONAL_UNIT = Oid("2.5.4.11")
KEY_USAGE = Oid("2.5.29.15")
EXTENDED_KEY_USAGE = Oid("2.5.29.37")

RFC_8951 = "MEEGCSqGSIb3DQEJBzASBgcqhkjOPQIBMQcGBSuBBAAiMBYGCSqGSIb3DQEJDjEJBgcrBgEBAQEWBggqhkjOPQQDAw=="
RFC_9908 = "MDIGCSqGSIb3DQEJBzASBgcqhkjOPQIBMQcGBSuBBAAiBgcrBgEBAQEWBggqhkjOPQQDAw=="
"""The same wishes, corrected (appendix B.2)."""
# RFC 9908 section 3.4: a common name to be filled in, two given units; a P-256 key; a subjectAltName with a
# DNS name and an open address, keyUsage, an open extKeyUsage.
TEMPLATE = RequestTemplate(
    subject=(
        (COMMON_NAME, None),
        (ORGANIZATIONAL_UNIT, asn1.encode_der("myDept")),
        (ORGANIZATIONAL_UNIT, asn1.encode_der("myGroup")),
    ),
    curve=SECP256R1,
    extensions=(
        WantedExtension(oid=SUBJECT_ALT_NAME, value=b"\x30\x14\x82\x10www.myServer.com\x87\x00"),
        WantedExtension(oid=KEY_USAGE, critical=True, value=bytes.fromhex("03020388")),
        WantedExtension(oid=EXTENDED_KEY_USAGE),
    ),
)
TEMPLATE_DER = bytes.fromhex(
    "3081a9 3081a6 060b2a864886f70d010910023d 318196"
    "308193 020100"
    "302c 3107 3005 0603550403 310f 300d 060355040b 0c066d7944657074 3110 300e 060355040b 0c076d7947726f7570"
    "a015 3013 06072a8648ce3d0201 06082a8648ce3d030107"
    "a149 3047 060b2a864886f70d010910023e 3138 3036"
    "301d 0603551d11 0416 3014 8210 7777772e6d795365727665722e636f6d 8700"
    "300e 0603551d0f 0101ff 0404 03020388"
    "3005 0603551d25"
)


def test_est_29_the_bytes_are_those_of_rfc_8951() -> None:
    attributes = CsrAttributes(
        wanted=(
            CHALLENGE_PASSWORD,
            WantedAttribute.key(SECP384R1),
            WantedAttribute(oid=EXTENSION_REQUEST, values=(asn1.encode_der(MAC_ADDRESS),)),
            ECDSA_WITH_SHA384,
        )
    )
    assert base64.b64encode(attributes.serialize()).decode() == RFC_8951


def test_est_29_and_those_of_rfc_9908() -> None:
    attributes = CsrAttributes(
        wanted=(CHALLENGE_PASSWORD, WantedAttribute.key(SECP384R1), MAC_ADDRESS, ECDSA_WITH_SHA384)
    )
    assert base64.b64encode(attributes.serialize()).decode() == RFC_9908


def test_est_30_one_list_of_extensions_at_most() -> None:
    wanted = WantedAttribute.extensions(
        [WantedExtension(oid=KEY_USAGE, critical=True, value=bytes.fromhex("03020780"))]
    )
    attributes = CsrAttributes(wanted=(WantedAttribute.key(SECP256R1), wanted))
    assert len(wanted.values) == 1
    der = attributes.serialize()
    # Attribute { id-ExtensionReq, SET { Extensions { Extension { keyUsage, TRUE, … } } } }
    assert bytes.fromhex("06092a864886f70d01090e 3112 3010 300e 0603551d0f 0101ff 0404 03020780") in der
    assert CsrAttributes.parse(der).extensions == (
        WantedExtension(oid=KEY_USAGE, critical=True, value=bytes.fromhex("03020780")),
    )
    assert attributes.curve == SECP256R1
    with pytest.raises(UsageError, match="more than one"):
        CsrAttributes(wanted=(wanted, wanted))
    with pytest.raises(UsageError, match="values"):
        WantedAttribute.extensions([WantedExtension(oid=KEY_USAGE)])


def test_est_30_two_lists_in_one_attribute_are_refused() -> None:
    extensions = bytes.fromhex("3010 300e 0603551d0f 0101ff 0404 03020780")
    twice = CsrAttributes(
        wanted=(WantedAttribute(oid=EXTENSION_REQUEST, values=(extensions, extensions[:-1] + b"\x81")),)
    )
    with pytest.raises(NetworkError, match="2 lists"):
        CsrAttributes.parse(twice.serialize())


def test_est_31_a_template_has_the_form_of_rfc_9908() -> None:
    attributes = CsrAttributes(template=TEMPLATE)
    assert attributes.serialize() == TEMPLATE_DER
    assert CsrAttributes.parse(TEMPLATE_DER) == attributes


def test_est_31_template_and_old_list_stand_together() -> None:
    both = CsrAttributes(wanted=(WantedAttribute.key(SECP384R1), ECDSA_WITH_SHA256), template=TEMPLATE)
    read = CsrAttributes.parse(both.serialize())
    assert read == both
    # Who understands the template uses it alone.
    assert (read.curve, read.extensions) == (SECP256R1, TEMPLATE.extensions)


@pytest.mark.parametrize(
    ("value", "kind"), [(b"\x03\x02\x07\x80", EXTENSION_REQUEST), (None, EXTENSION_TEMPLATE)]
)
def test_est_31_only_open_extensions_use_the_new_list(value: bytes | None, kind: Oid) -> None:
    template = RequestTemplate(extensions=(WantedExtension(oid=KEY_USAGE, value=value),))
    der = CsrAttributes(template=template).serialize()
    found = {oid for oid in (EXTENSION_REQUEST, EXTENSION_TEMPLATE) if asn1.encode_der(oid) in der}
    assert found == {kind}


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ("020100", "020101", "version 1"),
        # Both kinds of lists: the template's own, and id-ExtensionReq in place of the P-256 key's field.
        ("a1493047060b2a864886f70d010910023e", "a1493047060b2a864886f70d010910023d", ""),
    ],
)
def test_est_31_another_template_is_refused_or_says_nothing(before: str, after: str, words: str) -> None:
    changed = bytes.fromhex(TEMPLATE_DER.hex().replace(before, after))
    assert changed != TEMPLATE_DER
    if words:
        with pytest.raises(NetworkError, match=words):
            CsrAttributes.parse(changed)
    else:
        assert CsrAttributes.parse(changed).extensions == ()


def test_est_31_both_kinds_of_lists_in_a_template_are_refused() -> None:
    def attribute(oid: Oid) -> bytes:
        return _tlv(0x30, asn1.encode_der(oid) + bytes.fromhex("3109 3007 3005 0603551d25"))

    attributes = b"".join(sorted(attribute(oid) for oid in (EXTENSION_REQUEST, EXTENSION_TEMPLATE)))
    template = _tlv(0x30, b"\x02\x01\x00" + _tlv(0xA1, attributes))
    der = _tlv(0x30, _tlv(0x30, asn1.encode_der(REQUEST_TEMPLATE) + _tlv(0x31, template)))
    with pytest.raises(NetworkError, match="more than one list"):
        CsrAttributes.parse(der)


def _tlv(tag: int, content: bytes) -> bytes:
    assert len(content) < 128
    return bytes([tag, len(content)]) + content


@given(st.binary(max_size=120))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    _read_or_refuse(data)


@given(st.sampled_from([TEMPLATE_DER, base64.b64decode(RFC_8951)]), st.data())
def test_a_changed_byte_is_read_or_refused(der: bytes, data: st.DataObject) -> None:
    changed = bytearray(der)
    changed[data.draw(st.integers(0, len(der) - 1))] ^= data.draw(st.integers(1, 255))
    _read_or_refuse(bytes(changed))


def _read_or_refuse(der: bytes) -> None:
    with suppress(NetworkError, EnrolmentError):
        plan_request(CsrAttributes.parse(der), "monitor-1")


class TestServer:
    """RFC 7030 section 4.5.2."""

    @pytest.fixture
    async def service(self, tmp_path: Path) -> TokenService:
        return TokenService(Site(tmp_path))

    @pytest.fixture
    async def url(self, service: TokenService) -> AsyncIterator[str]:
        async with serving(service) as url:
            yield url

    async def test_est_28_none_is_204(self, service: TokenService, url: str) -> None:
        reply = await _wire(service, url).get("/.well-known/est/csrattrs")
        assert (reply.status, reply.body) == (204, b"")
        assert await EstClient(url, [service.site.root_der]).csrattrs() is None

    async def test_est_28_anyone_gets_them(self, service: TokenService, url: str) -> None:
        service.attributes = CsrAttributes(wanted=(WantedAttribute.key(SECP384R1),), template=TEMPLATE)
        reply = await _wire(service, url).get("/.well-known/est/csrattrs")
        assert reply.status == 200
        assert reply.headers["Content-Type"] == "application/csrattrs"
        assert reply.headers["Content-Transfer-Encoding"] == "base64"
        assert decode_body(reply.body) == service.attributes.serialize()
        assert await EstClient(url, [service.site.root_der]).csrattrs() == service.attributes

    async def test_a_request_is_made_as_the_server_wants_it(self, service: TokenService, url: str) -> None:
        service.attributes = CsrAttributes(template=TEMPLATE)
        plan = await EstClient(url, [service.site.root_der]).plan("monitor-1")
        assert plan.kind is KeyKind.P256
        request = x509.load_der_x509_csr(
            KeySigner.generate(plan.kind).make_csr("monitor-1", extras=plan.extras)
        )
        assert [(attribute.oid, attribute.value) for attribute in request.subject] == [
            (NameOID.COMMON_NAME, "monitor-1"),
            (NameOID.ORGANIZATIONAL_UNIT_NAME, "myDept"),
            (NameOID.ORGANIZATIONAL_UNIT_NAME, "myGroup"),
        ]
        usage = request.extensions.get_extension_for_class(x509.KeyUsage)
        assert usage.critical
        assert (usage.value.digital_signature, usage.value.key_agreement) == (True, True)
        # What is open, and unknown to a device, is left out.
        assert len(request.extensions) == 1


def _wire(service: TokenService, url: str) -> Wire:
    return Wire(int(url.rpartition(":")[2]), tls([service.site.root_der]))


@pytest.mark.parametrize(
    ("attributes", "kind"),
    [
        (CsrAttributes(), KeyKind.P256),
        (CsrAttributes(wanted=(MAC_ADDRESS,)), KeyKind.P256),
        (CsrAttributes(wanted=(WantedAttribute.key(SECP256R1),)), KeyKind.P256),
        (CsrAttributes(wanted=(WantedAttribute.key(SECP384R1),)), KeyKind.P384),
        (CsrAttributes(template=RequestTemplate(curve=SECP384R1)), KeyKind.P384),
    ],
)
def test_the_key_follows_the_server(attributes: CsrAttributes, kind: KeyKind) -> None:
    assert plan_request(attributes, "monitor-1").kind is kind


@pytest.mark.parametrize(
    "attributes",
    [
        "MCkGCSqGSIb3DQEJBzARBgkqhkiG9w0BAQExBAICEAAGCSqGSIb3DQEBCw==",
        base64.b64encode(
            CsrAttributes(wanted=(WantedAttribute.key(Oid("1.3.132.0.35")),)).serialize()
        ).decode(),
    ],
    ids=["RSA of 4096 bits (RFC 9908 appendix B.4)", "P-521"],
)
def test_a_key_that_is_not_made_here_is_an_error(attributes: str) -> None:
    with pytest.raises(EnrolmentError, match="kind of key"):
        plan_request(CsrAttributes.parse(base64.b64decode(attributes)), "monitor-1")


def test_linking_is_planned_where_it_is_wanted() -> None:
    assert plan_request(CsrAttributes(wanted=(CHALLENGE_PASSWORD,)), "monitor-1").linked
    assert not plan_request(CsrAttributes(wanted=(MAC_ADDRESS,)), "monitor-1").linked
