"""An independent EST client: strongSwan's `pki`, with its own TLS, HTTP and X.509."""

import asyncio
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from sealcast.pki.certificates import certificate_identity
from tests.est.site import Site, TokenService, serving

# strongSwan's libraries read EC keys by this plugin; Debian has it in libstrongswan-standard-plugins.
PLUGIN = Path("/usr/lib/ipsec/plugins/libstrongswan-openssl.so")

PKI_FOUND = shutil.which("pki") is not None

pytestmark = [
    pytest.mark.needs_program("pki"),
    pytest.mark.skipif(
        PKI_FOUND and not PLUGIN.exists() and os.environ.get("CI") != "true",
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
        process = await asyncio.create_subprocess_exec(
            "pki",
            *arguments,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        async with asyncio.timeout(30):
            out, log = await process.communicate()
        lines = [line for line in log.decode().splitlines() if not line.startswith("plugin ")]
        assert process.returncode == 0, "\n".join(lines)
        return out

    async def make_request(self, name: str) -> None:
        """A new key in key.pem and a request in request.der."""
        key = await self.run("--gen", "--type", "ecdsa", "--size", "256", "--outform", "pem")
        (self.folder / "key.pem").write_bytes(key)
        request = await self.run(
            "--req", "--type", "ecdsa", "--in", "key.pem", "--dn", f"O=Ward 3, CN={name}", "--outform", "der"
        )
        (self.folder / "request.der").write_bytes(request)

    async def est(self, *arguments: str) -> x509.Certificate:
        out = await self.run(
            "--est", "--url", self.url, "--cacert", str(self.root), *arguments, "--in", "request.der"
        )
        return x509.load_der_x509_certificate(out)


@pytest.fixture
def service(tmp_path: Path) -> TokenService:
    (tmp_path / "site").mkdir()
    return TokenService(Site(tmp_path / "site"))


@pytest.fixture
async def pki(tmp_path: Path, service: TokenService) -> AsyncIterator[Pki]:
    async with serving(service) as url:
        (tmp_path / "client").mkdir()
        yield Pki(tmp_path / "client", url, service.site.root_file)


async def test_estca_fetches_the_ca_certificates(pki: Pki, service: TokenService) -> None:
    await pki.run(
        "--estca", "--url", pki.url, "--cacert", str(pki.root), "--caout", "ca.pem", "--outform", "pem"
    )
    fetched = {
        x509.load_pem_x509_certificate(path.read_bytes()).public_bytes(serialization.Encoding.DER)
        for path in pki.folder.glob("ca*.pem")
    }
    assert fetched == set(service.site.authorities)


async def test_est_enrols_and_renews(pki: Pki, service: TokenService) -> None:
    await pki.make_request("monitor-1")
    first = await pki.est("--userpass", f"monitor-1:{service.token('monitor-1')}")
    assert certificate_identity(first).name == "monitor-1"
    assert not service.tokens

    # The old key and certificate prove who asks; the request is for a new key.
    (pki.folder / "old-key.pem").write_bytes((pki.folder / "key.pem").read_bytes())
    (pki.folder / "old.pem").write_bytes(first.public_bytes(serialization.Encoding.PEM))
    (pki.folder / "site-ca.pem").write_bytes(
        x509.load_der_x509_certificate(service.site.issuer.certificate).public_bytes(
            serialization.Encoding.PEM
        )
    )
    await pki.make_request("monitor-1")
    second = await pki.est("--cacert", "site-ca.pem", "--cert", "old.pem", "--key", "old-key.pem")
    assert certificate_identity(second) == certificate_identity(first)
    assert second.serial_number != first.serial_number
    assert second.public_key() != first.public_key()
    assert len(service.issued) == 2


async def test_a_wrong_token_is_refused(pki: Pki, service: TokenService) -> None:
    await pki.make_request("monitor-1")
    service.token("monitor-1")
    with pytest.raises(AssertionError):
        await pki.est("--userpass", "monitor-1:wrong")
    assert not service.issued


async def test_f1_another_name_is_refused(pki: Pki, service: TokenService) -> None:
    await pki.make_request("monitor-2")
    with pytest.raises(AssertionError):
        await pki.est("--userpass", f"monitor-1:{service.token('monitor-1')}")
    assert not service.issued
