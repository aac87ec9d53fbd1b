"""Makers' certificates: RFC 5280 as far as a maker's chain goes, and the name that it gives (EST 15, 16)."""

from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from sealcast.errors import CertificateError
from sealcast.pki.certificates import certificate_der, certificates_pem
from sealcast.pki.idevid import MAX_CERTIFICATES, Maker, NameRule, find_maker, parse_crls
from sealcast.pki.times import microseconds, system_time
from tests.authority.maker import PAST
from tests.authority.maker import Maker as Factory

KEY = ec.generate_private_key(ec.SECP256R1())
NOW = system_time()
ENDED = datetime(2024, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def factory() -> Factory:
    return Factory()


def trusted(factory: Factory, rule: NameRule = NameRule.SERIAL_NUMBER, crls: str = "") -> Maker:
    return Maker.parse(factory.pem, rule, parse_crls(crls.encode()) if crls else ())


def idevid(factory: Factory, **changes: object) -> bytes:
    return certificate_der(factory.certificate(KEY, **changes))  # type: ignore[arg-type]


def test_est_16_a_good_one_proves_its_maker_and_its_name(factory: Factory) -> None:
    verified = trusted(factory).verify(idevid(factory), NOW)
    assert verified.name == "SN-7"
    assert verified.maker == trusted(factory).fingerprint
    assert "Acme" in verified.subject


@pytest.mark.parametrize(
    "usages",
    [None, [ExtendedKeyUsageOID.CLIENT_AUTH], [ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE]],
    ids=["none", "clientAuth", "any"],
)
def test_est_15_its_purpose_may_be_open_or_client_authentication(
    factory: Factory, usages: list[x509.ObjectIdentifier] | None
) -> None:
    assert trusted(factory).verify(idevid(factory, usages=usages), NOW).name == "SN-7"


@pytest.mark.parametrize(
    "make",
    [
        lambda factory: idevid(factory, until=ENDED),
        lambda factory: idevid(factory, usages=[ExtendedKeyUsageOID.SERVER_AUTH]),
        lambda factory: idevid(factory, usages=[ExtendedKeyUsageOID.CODE_SIGNING]),
        lambda factory: idevid(factory, is_ca=True),
        lambda factory: idevid(factory, signs_data=False),
        lambda factory: idevid(Factory()),
        lambda factory: idevid(factory, issuer=factory.root, issuer_key=KEY),
        lambda factory: idevid(factory)[:-1] + b"\x00",
        lambda _: certificate_der(Factory().root),
    ],
    ids=["expired", "server", "code", "CA", "no signing", "another maker", "forged", "damaged", "a root"],
)
def test_est_15_another_certificate_is_refused(factory: Factory, make: Callable[[Factory], bytes]) -> None:
    with pytest.raises(CertificateError) as caught:
        trusted(factory).verify(make(factory), NOW)
    assert caught.value.cure


def test_est_15_its_time_is_that_of_the_authority(factory: Factory) -> None:
    maker = trusted(factory)
    short = idevid(factory, until=datetime(2027, 6, 1, tzinfo=UTC))
    assert maker.verify(short, microseconds(datetime(2027, 5, 31, tzinfo=UTC))).name == "SN-7"
    with pytest.raises(CertificateError):
        maker.verify(short, microseconds(datetime(2027, 6, 2, tzinfo=UTC)))
    with pytest.raises(CertificateError):
        maker.verify(short, microseconds(PAST) - 1)


def test_est_15_an_issuer_that_has_ended_is_refused() -> None:
    factory = Factory(until=ENDED)
    with pytest.raises(CertificateError):
        trusted(factory).verify(idevid(factory), NOW)


def test_est_15_the_path_length_counts() -> None:
    """A CA below one that allows none, and the same below one that does."""
    for length, is_good in ((0, False), (1, True)):
        factory = Factory(path_length=length)
        key = ec.generate_private_key(ec.SECP256R1())
        lower = factory.ca("Acme line 3", key, factory.issuer_key, "Acme issuer", path_length=0)
        leaf = idevid(factory, issuer=lower, issuer_key=key)
        pem = factory.pem + certificates_pem([certificate_der(lower)])
        maker = Maker.parse(pem, NameRule.SERIAL_NUMBER)
        if is_good:
            assert maker.verify(leaf, NOW).name == "SN-7"
        else:
            with pytest.raises(CertificateError):
                maker.verify(leaf, NOW)


def test_est_15_an_issuer_without_the_right_to_sign_is_refused() -> None:
    factory = Factory(signs=False)
    with pytest.raises(CertificateError, match="sign"):
        trusted(factory).verify(idevid(factory), NOW)


@pytest.mark.parametrize(
    ("name", "is_good"),
    [("pump.acme.example", True), ("pump.evil.example", False), ("acme.example.evil.example", False)],
)
def test_est_15_name_constraints_count(name: str, is_good: bool) -> None:
    allowed = x509.NameConstraints([x509.DNSName("acme.example")], None)
    factory = Factory(constraints=allowed)
    leaf = idevid(factory, names=[x509.DNSName(name)])
    if is_good:
        assert trusted(factory).verify(leaf, NOW).name == "SN-7"
    else:
        with pytest.raises(CertificateError):
            trusted(factory).verify(leaf, NOW)


def test_est_15_constraints_on_directory_names_are_not_passed_over() -> None:
    """Some versions of the library did not look at them; then a maker's line could sign for another."""
    other = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Other")])
    factory = Factory(constraints=x509.NameConstraints([x509.DirectoryName(other)], None))
    with pytest.raises(CertificateError):
        trusted(factory).verify(idevid(factory), NOW)


class TestRevocation:
    def test_est_15_without_a_list_it_is_not_judged(self, factory: Factory) -> None:
        assert trusted(factory).verify(idevid(factory), NOW).name == "SN-7"

    def test_est_15_what_the_maker_has_revoked_is_refused(self, factory: Factory) -> None:
        leaf = factory.certificate(KEY)
        for serials, is_good in (((leaf.serial_number + 1,), True), ((leaf.serial_number,), False)):
            maker = trusted(factory, crls=factory.crl(*serials))
            if is_good:
                assert maker.verify(certificate_der(leaf), NOW).name == "SN-7"
            else:
                with pytest.raises(CertificateError) as caught:
                    maker.verify(certificate_der(leaf), NOW)
                assert caught.value.reason == "revoked"

    def test_est_15_an_issuer_that_was_revoked_is_refused(self, factory: Factory) -> None:
        crl = factory.crl(factory.issuer.serial_number, of_root=True)
        with pytest.raises(CertificateError) as caught:
            trusted(factory, crls=crl).verify(idevid(factory), NOW)
        assert caught.value.reason == "revoked"

    def test_f10_a_stale_list_refuses_everything(self, factory: Factory) -> None:
        with pytest.raises(CertificateError) as caught:
            trusted(factory, crls=factory.crl(until=ENDED)).verify(idevid(factory), NOW)
        assert caught.value.reason == "revocation-unknown"

    def test_f10_a_list_of_somebody_else_says_nothing(self, factory: Factory) -> None:
        """The same issuer's name, another key."""
        leaf = factory.certificate(KEY)
        forged = Factory().crl(leaf.serial_number)
        assert trusted(factory, crls=forged).verify(certificate_der(leaf), NOW).name == "SN-7"

    def test_lists_come_in_pem_and_der(self, factory: Factory) -> None:
        pem = factory.crl(7)
        der = x509.load_pem_x509_crl(pem.encode()).public_bytes(serialization.Encoding.DER)
        assert parse_crls(pem.encode()) == parse_crls(der) == [der]
        assert parse_crls((pem + "text between\n" + pem).encode()) == [der, der]
        for bad in (b"", b"text", pem.encode()[:200]):
            with pytest.raises(CertificateError):
                parse_crls(bad)


class TestName:
    @pytest.mark.parametrize(
        ("rule", "changes", "name"),
        [
            (NameRule.SERIAL_NUMBER, {"serial_number": "PN 7"}, None),
            (NameRule.SERIAL_NUMBER, {"serial_number": "a/../b"}, None),
            (NameRule.SERIAL_NUMBER, {"serial_number": None}, None),
            (NameRule.SERIAL_NUMBER, {"serial_number": "x" * 64}, None),
            (NameRule.HARDWARE_SERIAL, {"hardware_serial": b"HW-9"}, "HW-9"),
            (NameRule.HARDWARE_SERIAL, {"hardware_serial": b"\x00\xff\x10"}, "00ff10"),
            (NameRule.HARDWARE_SERIAL, {"hardware_serial": b"a b"}, None),
            (NameRule.HARDWARE_SERIAL, {}, None),
        ],
    )
    def test_what_is_no_device_name_is_refused_with_the_cure(
        self, factory: Factory, rule: NameRule, changes: dict[str, object], name: str | None
    ) -> None:
        maker = trusted(factory, rule)
        if name is not None:
            assert maker.verify(idevid(factory, **changes), NOW).name == name
            return
        with pytest.raises(CertificateError) as caught:
            maker.verify(idevid(factory, **changes), NOW)
        assert (caught.value.reason, "rule" in caught.value.cure) == ("name", True)

    def test_by_approval_the_operator_decides(self, factory: Factory) -> None:
        assert trusted(factory, NameRule.APPROVAL).verify(idevid(factory), NOW).name is None


class TestFile:
    def test_one_root_and_what_is_below_it(self, factory: Factory) -> None:
        maker = trusted(factory)
        assert maker.certificates == (certificate_der(factory.root), certificate_der(factory.issuer))

    @pytest.mark.parametrize(
        ("make", "words"),
        [
            (lambda factory: b"", "no PEM"),
            (lambda factory: certificates_pem([certificate_der(factory.issuer)]), "0 self-signed"),
            (lambda factory: factory.pem + Factory().pem, "2 self-signed"),
            (lambda factory: factory.pem * MAX_CERTIFICATES, "self-signed"),
            (lambda factory: factory.pem + certificates_pem([idevid(factory)]), "no CA"),
        ],
    )
    def test_anything_else_is_one_clear_error(
        self, factory: Factory, make: Callable[[Factory], bytes], words: str
    ) -> None:
        with pytest.raises(CertificateError, match=words) as caught:
            Maker.parse(make(factory), NameRule.APPROVAL)
        assert caught.value.cure

    def test_each_certificate_is_judged_by_every_maker(self, factory: Factory) -> None:
        others = [trusted(Factory("Other")), trusted(Factory("Third"))]
        assert find_maker([*others, trusted(factory)], idevid(factory), NOW).name == "SN-7"
        for makers in ([], others):
            with pytest.raises(CertificateError):
                find_maker(makers, idevid(factory), NOW)
