"""An independent EST client against the authority: strongSwan's `pki`, with its own TLS, HTTP and X.509."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from sqlalchemy import select

from sealcast.authority.issuance import CA_FILE
from sealcast.authority.models import CertificateRow, DeviceRow, TokenRow
from sealcast.authority.site import ROOT_FILE
from sealcast.pki.certificates import certificate_identity
from tests.authority.conftest import Site
from tests.programs import run_program

# strongSwan's libraries read EC keys by this plugin; Debian has it in libstrongswan-standard-plugins.
PLUGIN = Path("/usr/lib/ipsec/plugins/libstrongswan-openssl.so")

pytestmark = [
    pytest.mark.needs_program("pki"),
    pytest.mark.skipif(
        shutil.which("pki") is not None and not PLUGIN.exists(),
        reason=f"missing {PLUGIN}: apt-get install libstrongswan-standard-plugins",
    ),
]


@dataclass
class Pki:
    """The program, run in a folder of its own."""

    folder: Path
    url: str
    root: Path

    async def run(self, *arguments: str) -> bytes:
        return await run_program("pki", *arguments, folder=self.folder)

    async def make_request(self, name: str, current: x509.Certificate | None = None) -> None:
        """A new key in key.pem and a request in request.der.

        `current`: its subject and subjectAltName are repeated (RFC 7030 section 4.2.2).
        """
        options: list[str] = []
        if current is not None:
            # The program knows no word for a URI, but takes the DER of a GeneralName.
            uri = certificate_identity(current).uri.encode()
            options = ["--san", f"asn1gn:#86{len(uri):02x}{uri.hex()}"]
        key = await self.run("--gen", "--type", "ecdsa", "--size", "256", "--outform", "pem")
        (self.folder / "key.pem").write_bytes(key)
        request = await self.run(
            "--req", "--type", "ecdsa", "--in", "key.pem", "--dn", f"O=Ward, CN={name}", "--outform", "der",
            *options,
        )  # fmt: skip
        (self.folder / "request.der").write_bytes(request)

    async def est(self, *arguments: str) -> x509.Certificate:
        out = await self.run(
            "--est", "--url", self.url, "--cacert", str(self.root), *arguments, "--in", "request.der"
        )
        return x509.load_der_x509_certificate(out)


@dataclass
class Register:
    """What the authority's database knows of one device."""

    certificates: set[str]
    """Serial numbers."""
    is_enrolled: bool
    tokens_used: list[str | None]
    """For each token, the certificate that used it up."""


def register(site: Site, name: str) -> Register:
    with site.authority.site.storage.snapshot() as session:
        device = session.get(DeviceRow, name)
        serials = session.scalars(select(CertificateRow.serial).where(CertificateRow.name == name))
        tokens = session.scalars(select(TokenRow).where(TokenRow.device == name).order_by(TokenRow.created))
        return Register(
            certificates=set(serials),
            is_enrolled=device is not None and device.revoked is None,
            tokens_used=[token.serial if token.used is not None else None for token in tokens],
        )


def serial(certificate: x509.Certificate) -> str:
    return f"{certificate.serial_number:x}"


@pytest.fixture
def pki(site: Site, tmp_path: Path) -> Pki:
    (tmp_path / "client").mkdir()
    return Pki(tmp_path / "client", site.listening.authority, site.folder / ROOT_FILE)


def keep_as_old(pki: Pki, certificate: x509.Certificate) -> list[str]:
    """Options of a renewal: the old key and certificate prove who asks."""
    (pki.folder / "old-key.pem").write_bytes((pki.folder / "key.pem").read_bytes())
    (pki.folder / "old.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return ["--cert", "old.pem", "--key", "old-key.pem"]


async def test_estca_fetches_the_ca_certificates(pki: Pki, site: Site) -> None:
    await pki.run(
        "--estca", "--url", pki.url, "--cacert", str(pki.root), "--caout", "ca.pem", "--outform", "pem"
    )
    fetched = {
        x509.load_pem_x509_certificate(path.read_bytes()).public_bytes(serialization.Encoding.DER)
        for path in pki.folder.glob("ca*.pem")
    }
    assert fetched == set(site.authority.est.ca_certificates())


async def test_est_enrols_and_renews(pki: Pki, site: Site) -> None:
    token = await site.token("monitor-1")
    await pki.make_request("monitor-1")
    first = await pki.est("--userpass", f"monitor-1:{token}")
    assert certificate_identity(first).name == "monitor-1"
    assert register(site, "monitor-1") == Register({serial(first)}, True, [serial(first)])

    site_ca = ["--cacert", str(site.folder / CA_FILE)]
    proof = keep_as_old(pki, first)
    # The request is for a new key.
    await pki.make_request("monitor-1", first)
    second = await pki.est(*site_ca, *proof)
    assert certificate_identity(second) == certificate_identity(first)
    assert second.public_key() != first.public_key()
    assert register(site, "monitor-1") == Register({serial(first), serial(second)}, True, [serial(first)])

    await site.authority.revoke_device("monitor-1")
    proof = keep_as_old(pki, second)
    await pki.make_request("monitor-1", second)
    with pytest.raises(AssertionError, match="EST request failed: HTTP 403"):
        await pki.est(*site_ca, *proof)
    assert len(register(site, "monitor-1").certificates) == 2


async def test_a_wrong_token_is_refused(pki: Pki, site: Site) -> None:
    token = await site.token("monitor-1")
    await pki.make_request("monitor-1")
    for wrong in ("wrong", await site.token("monitor-2"), token[:-1]):
        with pytest.raises(AssertionError, match="EST request failed: HTTP 401"):
            await pki.est("--userpass", f"monitor-1:{wrong}")
    assert register(site, "monitor-1") == Register(set(), False, [None])
    # It takes the right one, and that one once.
    first = await pki.est("--userpass", f"monitor-1:{token}")
    with pytest.raises(AssertionError, match="EST request failed: HTTP 401"):
        await pki.est("--userpass", f"monitor-1:{token}")
    assert register(site, "monitor-1") == Register({serial(first)}, True, [serial(first)])


async def test_f1_another_name_is_refused(pki: Pki, site: Site) -> None:
    token = await site.token("monitor-1")
    await pki.make_request("monitor-2")
    with pytest.raises(AssertionError, match="EST request failed: HTTP 403"):
        await pki.est("--userpass", f"monitor-1:{token}")
    assert register(site, "monitor-2") == Register(set(), False, [])
    # The token is not used up by that (SC-12).
    assert register(site, "monitor-1") == Register(set(), False, [None])
    await pki.make_request("monitor-1")
    first = await pki.est("--userpass", f"monitor-1:{token}")
    assert register(site, "monitor-1") == Register({serial(first)}, True, [serial(first)])
