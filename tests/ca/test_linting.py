"""The profiles, each linted by pkilint: exactly the excused findings, and a linter that does find things."""

from pathlib import Path

from cryptography import x509

from sealcast.ca import KeyKind, KeySigner, Permit, create_root, observing
from sealcast.pki.certificates import certificate_der, parse_certificate
from sealcast.pki.hardware import HardwareIdentity
from sealcast.pki.profiles import CertificateIssuer, device_builder
from tests.ca.test_local import HOSTS, NOW, Ca, csr
from tests.linting import EXCUSED, Collected, findings, verdict


def test_every_profile_has_exactly_the_excused_findings(tmp_path: Path) -> None:
    collected = Collected()
    with observing(collected.add):
        create_root(site_name="Ward", signer=KeySigner.generate(KeyKind.P384), now=NOW)
        issuer = Ca(tmp_path).issuer()
        first = issuer.issue_device(csr(), "monitor-1", NOW)
        issuer.issue_device(KeySigner.generate(KeyKind.ED25519).make_csr("monitor-1"), "monitor-1", NOW)
        hardware = HardwareIdentity(serial_number="SN-1", module=("1.3.6.1.4.1.99999.1", b"\x01\x02"))
        issuer.issue_device(csr(), "monitor-1", NOW, hardware=hardware)
        again = KeySigner.generate().make_csr("monitor-1", current=parse_certificate(first.der))
        issuer.renew_device(first.der, again, NOW)
        issuer.issue_key_server(public_key=KeySigner.generate().public_key, name="keys", hosts=HOSTS, now=NOW)
        issuer.permit(Permit.ADMIN, "alice", NOW)
        issuer.issue_admin(csr("alice"), "alice", NOW)
    assert {shape[0] for shape in collected.ders} == {"root", "site", "device", "key-server", "admin"}
    assert len(collected.ders) == 8, "shapes are told apart, and a renewal has the shape of the first"
    assert findings(list(collected.ders.values())).keys() == EXCUSED.keys()
    assert verdict(collected) == ""


def test_the_linter_finds_what_is_wrong(tmp_path: Path) -> None:
    ca = Ca(tmp_path)
    issuer = x509.load_der_x509_certificate(ca.certificate)
    builder = device_builder(
        name="monitor-1",
        site_name="Ward",
        site_id=ca.site_id,
        public_key=KeySigner.generate().public_key,
        issuer=CertificateIssuer.of(issuer, ca.signer.public_key),
        serial=1,
        now=NOW,
    )
    builder._serial_number = (1 << 168) + 1
    collected = Collected()
    collected.add(certificate_der(ca.signer.sign_certificate(builder)))
    assert "serial" in verdict(collected)
