"""SC-23, TR-22: a change of the root's key, the rollover set of /cacerts, the paths that it gives."""

import asyncio
import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509

from sealcast.ca import CrossCertificates, KeySigner, Root, SiteCa, create_root, cross_certify
from sealcast.errors import CertificateError
from sealcast.est import EstClient
from sealcast.pki import Role, Validator
from sealcast.pki.certificates import certificate_der, certificates_pem, is_self_signed, parse_certificate
from sealcast.pki.times import microseconds
from tests.est.site import DAY, SECOND, Site, TokenService, serving


@dataclass
class Rollover:
    """The site's old root, a new one, and what leads from one to the other."""

    site: Site
    new: Root
    cross: CrossCertificates
    issuer: SiteCa
    """The site CA under the new root."""

    @property
    def old_root(self) -> bytes:
        return self.site.root_der

    @property
    def new_root(self) -> bytes:
        return certificate_der(self.new.certificate)

    @property
    def authorities(self) -> list[bytes]:
        return [
            self.new_root,
            self.old_root,
            self.cross.old_with_new,
            self.cross.new_with_old,
            self.issuer.certificate,
        ]


@pytest.fixture
def rollover(tmp_path: Path) -> Rollover:
    site = Site(tmp_path)
    # Certificates start a minute before their issuance: this one now, and it ends after the old one.
    later = site.now + 60 * SECOND
    new = create_root(site_name="Ward 3", signer=KeySigner.generate(), now=later)
    signer = KeySigner.generate()
    ca = new.issue_site_ca(site_name="Ward 3", site_id=site.site_id, public_key=signer.public_key, now=later)
    return Rollover(site, new, cross_certify(site.root, new, later), SiteCa(certificate_der(ca), signer))


async def test_est_7_cacerts_holds_the_four_of_a_change(rollover: Rollover) -> None:
    service = TokenService(rollover.site)
    service.authorities[None] = rollover.authorities
    async with serving(service) as url:
        told = await EstClient(url, [rollover.old_root]).cacerts()
    assert sorted(told) == sorted(rollover.authorities)
    new_with_new, old_with_old = parse_certificate(rollover.new_root), parse_certificate(rollover.old_root)
    old_with_new, new_with_old = (
        parse_certificate(der) for der in (rollover.cross.old_with_new, rollover.cross.new_with_old)
    )
    assert is_self_signed(new_with_new)
    assert is_self_signed(old_with_old)
    new_with_old.verify_directly_issued_by(old_with_old)
    old_with_new.verify_directly_issued_by(new_with_new)
    assert new_with_old.public_key() == new_with_new.public_key()
    assert old_with_new.public_key() == old_with_old.public_key()
    ends = {der: parse_certificate(der).not_valid_after_utc for der in rollover.authorities}
    assert max(ends, key=lambda der: ends[der]) == rollover.new_root
    # RFC 4210 section 4.4: they end with the earlier root.
    assert new_with_old.not_valid_after_utc == old_with_new.not_valid_after_utc == min(
        old_with_old.not_valid_after_utc, new_with_new.not_valid_after_utc
    )  # fmt: skip


def device(issuer: SiteCa, now: int) -> tuple[bytes, KeySigner]:
    signer = KeySigner.generate()
    return issuer.issue_device(signer.make_csr("monitor-1"), "monitor-1", now).der, signer


@pytest.mark.parametrize("trusts", ["old", "new"])
@pytest.mark.parametrize("under", ["old", "new"])
def test_est_8_one_root_is_enough_for_certificates_of_both(
    rollover: Rollover, trusts: str, under: str
) -> None:
    """By NewWithOld and by OldWithNew; judged by our validator, and by OpenSSL."""
    site = rollover.site
    issuer = site.issuer if under == "old" else rollover.issuer
    root = rollover.old_root if trusts == "old" else rollover.new_root
    now = site.now + SECOND
    certificate, signer = device(issuer, now)
    others = [*rollover.authorities, site.issuer.certificate]
    client = EstClient("https://127.0.0.1:1", [root])
    enrolled = client.check(
        certificate, public_key=signer.public_key, name="monitor-1", ca_certificates=others, now=now
    )
    assert enrolled.identity.site_id == site.site_id
    assert openssl_verifies(site.folder, root, others, certificate, now)


@pytest.mark.parametrize("trusts", ["old", "new"])
@pytest.mark.parametrize("under", ["old", "new"])
def test_est_8_without_the_cross_certificates_there_is_no_path(
    rollover: Rollover, trusts: str, under: str
) -> None:
    """So it is they who give it."""
    issuer = rollover.site.issuer if under == "old" else rollover.issuer
    root = rollover.old_root if trusts == "old" else rollover.new_root
    now = rollover.site.now + SECOND
    certificate, _ = device(issuer, now)
    validator = Validator([root], [rollover.site.issuer.certificate, rollover.issuer.certificate])
    if trusts == under:
        assert validator.verify_peer([certificate], Role.DEVICE, now).name == "monitor-1"
    else:
        with pytest.raises(CertificateError):
            validator.verify_peer([certificate], Role.DEVICE, now)


async def test_est_8_a_client_of_the_old_root_reaches_a_server_under_the_new_one(rollover: Rollover) -> None:
    site, signer = rollover.site, KeySigner.generate()
    issued = rollover.issuer.issue_key_server(
        public_key=signer.public_key, name="authority", hosts=["127.0.0.1"], now=site.now
    )
    chain = [issued.der, rollover.issuer.certificate, rollover.cross.new_with_old]
    site.server_chain_file.write_bytes(certificates_pem(chain))
    site.server_key_file.write_bytes(signer.to_pem())
    service = TokenService(site)
    service.authorities[None] = rollover.authorities
    async with serving(service) as url:
        assert await EstClient(url, [rollover.old_root]).cacerts()
    site.server_chain_file.write_bytes(certificates_pem(chain[:2]))
    async with serving(service) as url:
        with pytest.raises(CertificateError):
            await EstClient(url, [rollover.old_root]).cacerts()


def openssl_verifies(folder: Path, root: bytes, others: list[bytes], certificate: bytes, now: int) -> bool:
    # OpenSSL takes any self-signed certificate for the end of the path, and looks for no other one.
    below = [der for der in others if not is_self_signed(parse_certificate(der))]
    files = {"root.pem": [root], "others.pem": below, "leaf.pem": [certificate]}
    for name, ders in files.items():
        (folder / name).write_bytes(certificates_pem(ders))
    verdict = subprocess.run(
        ["openssl", "verify", "-attime", str(now // 1_000_000), "-CAfile", "root.pem", "-no-CApath",
         "-untrusted", "others.pem", "leaf.pem"],
        cwd=folder, capture_output=True, check=False,
    )  # fmt: skip
    return verdict.returncode == 0


def test_est_37_the_servers_chain_holds_and_names_it(rollover: Rollover) -> None:
    site = rollover.site
    assert openssl_verifies(
        site.folder, rollover.old_root, [site.issuer.certificate], site.server.der, site.now
    )
    names = parse_certificate(site.server.der).extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert "127.0.0.1" in map(str, names.value.get_values_for_type(x509.IPAddress))


@pytest.mark.parametrize("name", ["localhost", "elsewhere.example.org"])
async def test_est_37_a_client_checks_the_name(rollover: Rollover, name: str) -> None:
    async with serving(TokenService(rollover.site)) as url:
        context = ssl.create_default_context(cadata=certificates_pem([rollover.old_root]).decode())
        connection = asyncio.open_connection(
            "127.0.0.1", int(url.rpartition(":")[2]), ssl=context, server_hostname=name
        )
        if name == "localhost":
            _, writer = await connection
            writer.close()
        else:
            with pytest.raises(ssl.SSLCertVerificationError, match="mismatch"):
                await connection


class TestCrossCertify:
    def test_a_root_is_not_certified_by_itself(self, rollover: Rollover) -> None:
        with pytest.raises(CertificateError, match="same key"):
            cross_certify(rollover.site.root, rollover.site.root, rollover.site.now)

    def test_both_must_be_alive(self, rollover: Rollover) -> None:
        end = microseconds(rollover.site.root.certificate.not_valid_after_utc)
        with pytest.raises(CertificateError, match="old root expired"):
            cross_certify(rollover.site.root, rollover.new, end)
        early = create_root(site_name="Ward 3", signer=KeySigner.generate(), now=rollover.site.now + 2 * DAY)
        with pytest.raises(CertificateError, match="new root is valid only"):
            cross_certify(rollover.site.root, early, rollover.site.now)

    def test_key_identifiers_are_those_of_the_roots(self, rollover: Rollover) -> None:
        """What a root has issued names its key by them."""
        for der, root in (
            (rollover.cross.new_with_old, rollover.new.certificate),
            (rollover.cross.old_with_new, rollover.site.root.certificate),
        ):
            found, expected = (
                certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
                for certificate in (parse_certificate(der), root)
            )
            assert found == expected
