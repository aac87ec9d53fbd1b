"""What a site adds to the profiles: hardware names (802.1AR), usages of another protocol, administrators."""

from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.name import _ASN1Type
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from sealcast.ca import KeySigner
from sealcast.errors import CertificateError, CsrError, UsageError
from sealcast.pki import Role, Validator
from sealcast.pki.certificates import certificate_identity, parse_certificate
from sealcast.pki.csr import CertificateRequest
from sealcast.pki.hardware import HARDWARE_MODULE_NAME, HardwareIdentity
from sealcast.pki.names import Identity
from sealcast.pki.profiles import MAX_EXTRA_USAGES, check_usages
from tests.ca.test_local import NOW, Ca, csr
from tests.est.site import DAY, Site

HARDWARE = HardwareIdentity(serial_number="SN-0042", module=("1.3.6.1.4.1.99999.7", b"\x00\x42"))
SDC = ("1.2.840.10004.20701.1.1", "1.2.840.10004.20701.1.2")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return Site(tmp_path_factory.mktemp("site"))


def request(*names: x509.GeneralName, subject: tuple[x509.NameAttribute[str], ...] = ()) -> bytes:
    """A request of another client for monitor-1."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = subject or (x509.NameAttribute(NameOID.COMMON_NAME, "monitor-1"),)
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(subject))
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def validator_of(site: Site) -> Validator:
    return Validator([site.root_der], [site.issuer.certificate])


def module_name(hardware: HardwareIdentity = HARDWARE) -> x509.OtherName:
    name = hardware.general_name()
    assert name is not None
    return name


class TestHardware:
    def test_approved_names_stand_in_the_certificate_and_stay(self, site: Site) -> None:
        plain = csr()
        first = site.issuer.issue_device(plain, "monitor-1", site.now, hardware=HARDWARE)
        certificate = parse_certificate(first.der)
        assert certificate.subject.get_attributes_for_oid(NameOID.SERIAL_NUMBER)[0].value == "SN-0042"
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert HardwareIdentity.of(certificate.subject, names) == HARDWARE
        assert module_name() in list(names)
        # DER by hand: SEQUENCE { OID, OCTET STRING } (RFC 4108).
        assert module_name().value.hex() == "300f06092b06010401868d1f0704020042"
        assert certificate_identity(certificate) == first.identity
        # RFC 7030 section 4.2.2: the request repeats subject and alternative names.
        again = KeySigner.generate().make_csr("monitor-1", current=certificate)
        assert CertificateRequest.parse(again).hardware == HARDWARE
        second = parse_certificate(site.issuer.renew_device(first.der, again, site.now + DAY).der)
        assert second.subject == certificate.subject
        assert second.extensions.get_extension_for_class(x509.SubjectAlternativeName).value == names
        # One that leaves them out is for another certificate.
        with pytest.raises(CsrError, match="subject"):
            site.issuer.renew_device(first.der, plain, site.now + DAY)
        validator_of(site).verify_peer([first.der], Role.DEVICE, site.now)

    def test_nobody_takes_a_name_that_was_not_approved(self, site: Site) -> None:
        other = HardwareIdentity(module=("1.3.6.1.4.1.99999.7", b"\x00\x43"))
        for hardware in (None, other, HardwareIdentity(serial_number="SN-0042")):
            with pytest.raises(CsrError) as caught:
                site.issuer.issue_device(request(module_name()), "monitor-1", site.now, hardware=hardware)
            assert caught.value.fault == "name"
        with pytest.raises(CsrError):
            site.issuer.issue_device(
                request(module_name(), module_name(other)), "monitor-1", site.now, hardware=HARDWARE
            )
        issued = site.issuer.issue_device(request(module_name()), "monitor-1", site.now, hardware=HARDWARE)
        assert b"SN-0042" in issued.der
        # Another kind of other name (a user principal name) is not ours to give.
        strange = x509.OtherName(x509.ObjectIdentifier("1.3.6.1.4.1.311.20.2.3"), b"\x0c\x01x")
        with pytest.raises(CsrError):
            site.issuer.issue_device(request(strange), "monitor-1", site.now, hardware=HARDWARE)

    def test_a_subject_may_say_what_it_likes_unheard(self, site: Site) -> None:
        subject = (
            x509.NameAttribute(NameOID.COMMON_NAME, "monitor-1"),
            x509.NameAttribute(NameOID.SERIAL_NUMBER, "not_printable*", _ASN1Type.UTF8String),
        )
        asked = request(subject=subject)
        assert CertificateRequest.parse(asked).hardware is None
        assert b"not_printable" not in site.issuer.issue_device(asked, "monitor-1", site.now).der

    @pytest.mark.parametrize("value", [b"\x05\x00", b"\x30\x00", b"\x30\x03\x06\x01\x2a", b"\x04\x02ab"])
    def test_malformed_module_names(self, value: bytes) -> None:
        asked = request(x509.OtherName(HARDWARE_MODULE_NAME, value))
        with pytest.raises(CsrError) as caught:
            CertificateRequest.parse(asked)
        assert caught.value.fault == "name"

    @pytest.mark.parametrize(
        "values",
        [
            {"serial_number": ""},
            {"serial_number": "x" * 65},
            {"serial_number": "Ä"},
            {"module": ("1.2.3", b"")},
            {"module": ("1.2.3", b"x" * 256)},
            {"module": ("one", b"x")},
        ],
    )
    def test_names_have_bounds(self, values: dict[str, object]) -> None:
        with pytest.raises(CertificateError):
            HardwareIdentity(**values)  # type: ignore[arg-type]


class TestUsages:
    def test_a_site_adds_its_own(self, tmp_path: Path) -> None:
        ca = Ca(tmp_path, device_usages=SDC)
        issued = ca.issuer().issue_device(csr(), "monitor-1", NOW)
        found = parse_certificate(issued.der).extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        assert [usage.dotted_string for usage in found] == [
            ExtendedKeyUsageOID.CLIENT_AUTH.dotted_string,
            ExtendedKeyUsageOID.SERVER_AUTH.dotted_string,
            *SDC,
        ]
        server = ca.issuer().issue_key_server(
            public_key=KeySigner.generate().public_key, name="keys", hosts=["localhost"], now=NOW
        )
        assert SDC[0] not in str(parse_certificate(server.der).extensions)

    def test_which_may_be_added(self) -> None:
        assert check_usages([SDC[1], SDC[0], SDC[0], "1.3.6.1.5.5.7.3.1"]) == SDC
        for usage in ("2.5.29.37.0", "1.3.6.1.5.5.7.3.9", "1.3.6.1.5.5.7.3.3", "1.3.6.1.5.5.7.3.8", "x", ""):
            with pytest.raises(UsageError):
                check_usages([usage])
        with pytest.raises(UsageError):
            check_usages([f"1.2.3.{number}" for number in range(MAX_EXTRA_USAGES + 1)])


class TestAdmin:
    def test_an_administrator_is_a_client_and_no_device(self, site: Site) -> None:
        asked = csr("alice")
        issued = site.issuer.issue_admin(asked, "alice", site.now)
        assert issued.identity == Identity(role=Role.ADMIN, site_id=site.site_id, name="alice")
        usage = parse_certificate(issued.der).extensions.get_extension_for_class(x509.ExtendedKeyUsage)
        assert list(usage.value) == [ExtendedKeyUsageOID.CLIENT_AUTH]
        validator = validator_of(site)
        assert validator.verify_peer([issued.der], Role.ADMIN, site.now).name == "alice"
        for role in (Role.DEVICE, Role.KEY_SERVER, Role.SITE):
            with pytest.raises(CertificateError) as caught:
                validator.verify_peer([issued.der], role, site.now)
            assert caught.value.reason == "wrong-role"
        with pytest.raises(CertificateError) as caught:
            validator.verify_peer([site.device("monitor-1").der], Role.ADMIN, site.now)
        assert caught.value.reason == "wrong-role"
        with pytest.raises(CsrError):
            site.issuer.issue_admin(asked, "bob", site.now)
        with pytest.raises(CertificateError):
            site.issuer.renew_device(issued.der, asked, site.now)
