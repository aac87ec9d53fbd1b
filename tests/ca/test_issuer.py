"""The site CA: profiles, F1, renewal, CRLs."""

import ipaddress
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from sealcast.ca import KeySigner, SiteCa
from sealcast.errors import CertificateError, CsrError, UsageError
from sealcast.pki.certificates import certificate_identity, parse_certificate
from sealcast.pki.crl import CrlFacts, Revocation, crl_number
from sealcast.pki.names import Identity, Role
from sealcast.pki.times import to_certificate_time
from tests.est.site import DAY, Site


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return Site(tmp_path_factory.mktemp("site"))


def test_a_device_certificate_follows_the_profile(site: Site) -> None:
    signer = KeySigner.generate()
    issued = site.device("monitor-1", signer)
    certificate = parse_certificate(issued.der)
    extensions = certificate.extensions
    assert certificate.public_key() == signer.public_key
    assert certificate.serial_number == issued.serial
    assert certificate.serial_number > 0
    assert certificate_identity(certificate) == issued.identity
    assert issued.identity == Identity(role=Role.DEVICE, site_id=site.site_id, name="monitor-1")
    assert [attribute.value for attribute in certificate.subject] == ["Ward 3", "monitor-1"]
    constraints = extensions.get_extension_for_class(x509.BasicConstraints)
    assert (constraints.critical, constraints.value.ca) == (True, False)
    usage = extensions.get_extension_for_class(x509.KeyUsage)
    assert (usage.critical, usage.value.digital_signature, usage.value.key_cert_sign) == (True, True, False)
    assert set(extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == {
        ExtendedKeyUsageOID.CLIENT_AUTH,
        ExtendedKeyUsageOID.SERVER_AUTH,
    }
    names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert list(names) == [x509.UniformResourceIdentifier(f"sealcast:device:{site.site_id.hex()}:monitor-1")]
    ca = parse_certificate(site.issuer.certificate)
    ca_key_id = ca.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    assert extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier == ca_key_id
    begin = to_certificate_time(site.now) - timedelta(minutes=1)
    assert begin <= certificate.not_valid_before_utc < begin + timedelta(seconds=2)
    assert certificate.not_valid_after_utc == to_certificate_time(site.now) + timedelta(days=90)
    certificate.verify_directly_issued_by(ca)


def test_serial_numbers_are_random_and_long(site: Site) -> None:
    """TR-4."""
    serials = {site.device("monitor-1").serial for _ in range(8)}
    assert len(serials) == 8
    assert max(serials).bit_length() > 128


def test_a_key_server_has_host_names(site: Site) -> None:
    issued = site.issuer.issue_key_server(
        public_key=KeySigner.generate().public_key,
        name="authority",
        hosts=["127.0.0.1", "::1", "Authority.Example.org", "localhost", "localhost"],
        now=site.now,
    )
    certificate = parse_certificate(issued.der)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["authority.example.org", "localhost"]
    assert names.get_values_for_type(x509.IPAddress) == [
        ipaddress.ip_address("127.0.0.1"),
        ipaddress.ip_address("::1"),
    ]
    assert certificate_identity(certificate).role is Role.KEY_SERVER
    assert certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == "authority"


def test_a_host_that_is_none_is_refused(site: Site) -> None:
    with pytest.raises(UsageError):
        site.issuer.issue_key_server(
            public_key=KeySigner.generate().public_key, name="authority", hosts=["a..b"], now=site.now
        )


def test_f1_no_certificate_for_someone_else(site: Site) -> None:
    csr = KeySigner.generate().make_csr("monitor-2")
    with pytest.raises(CsrError) as caught:
        site.issuer.issue_device(csr, "monitor-1", site.now)
    assert caught.value.fault == "name"


def test_a_renewal_is_for_the_same_device(site: Site) -> None:
    first = site.device("monitor-1")
    new = KeySigner.generate()
    csr = new.make_csr("monitor-1", current=parse_certificate(first.der))
    second = site.issuer.renew_device(first.der, csr, site.now + DAY)
    assert second.identity == first.identity
    assert second.serial != first.serial
    assert second.not_after == first.not_after + DAY
    assert parse_certificate(second.der).public_key() == new.public_key
    with pytest.raises(CsrError):
        site.issuer.renew_device(first.der, new.make_csr("monitor-2"), site.now)


def test_no_renewal_for_strangers(site: Site, tmp_path: Path) -> None:
    csr = KeySigner.generate().make_csr("monitor-1")
    for stranger in (Site(tmp_path).device("monitor-1").der, site.server.der, site.issuer.certificate):
        with pytest.raises(CertificateError):
            site.issuer.renew_device(stranger, csr, site.now)


def test_nothing_outlives_the_site_ca(site: Site) -> None:
    end = parse_certificate(site.issuer.certificate).not_valid_after_utc
    late = site.now + (2 * 365 - 10) * DAY
    assert parse_certificate(site.device("monitor-1", now=late).der).not_valid_after_utc == end


@pytest.mark.parametrize("days", [-1, 2 * 365 + 1])
def test_a_site_ca_out_of_its_time_issues_nothing(site: Site, days: int) -> None:
    now = site.now + days * DAY
    with pytest.raises(CertificateError):
        site.device("monitor-1", now=now)
    with pytest.raises(CertificateError):
        site.issuer.issue_crl(number=1, revocations=[], now=now)


def test_the_issuer_needs_its_own_key_and_certificate(site: Site) -> None:
    with pytest.raises(CertificateError, match="do not match"):
        SiteCa(site.issuer.certificate, KeySigner.generate())
    signer = KeySigner.generate()
    with pytest.raises(CertificateError, match="not a site CA"):
        SiteCa(site.device("monitor-1", signer).der, signer)


def test_a_crl_lists_serials_and_lasts_with_grace(site: Site) -> None:
    first, second = site.device("monitor-1"), site.device("monitor-2")
    revocations = [Revocation(serial=issued.serial, time=site.now) for issued in (first, second)]
    der = site.issuer.issue_crl(number=41, revocations=revocations, now=site.now)
    facts = CrlFacts.parse(der)
    assert crl_number(der) == facts.number == 41
    assert facts.serials == {first.serial, second.serial}
    assert facts.next_update - facts.this_update == 96 * 3600 * 1_000_000
    assert not facts.is_due(site.now)
    assert facts.is_due(site.now + DAY)
    crl = x509.load_der_x509_crl(der)
    assert crl.is_signature_valid(site.issuer.signer.public_key)
    assert crl.issuer == parse_certificate(site.issuer.certificate).subject


def test_an_empty_crl_is_a_crl(site: Site) -> None:
    assert (
        CrlFacts.parse(site.issuer.issue_crl(number=1, revocations=[], now=site.now)).serials == frozenset()
    )


@pytest.mark.parametrize("der", [b"", b"\x30\x00", b"garbage"])
def test_other_bytes_are_no_crl(der: bytes) -> None:
    with pytest.raises(CertificateError):
        crl_number(der)
