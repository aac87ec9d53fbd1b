"""Clients of others for what must be refused: requests by `openssl req`, sent by `curl`."""

import base64
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from sealcast.est.messages import MAX_BODY_BYTES, decode_certificates
from sealcast.pki.certificates import certificate_identity, parse_certificate
from tests.est.site import Site, TokenService, serving
from tests.programs import run_program

pytestmark = pytest.mark.needs_program("curl", "openssl")


@dataclass
class Shell:
    """The programs, in a folder of their own."""

    folder: Path
    url: str
    service: TokenService

    async def run(self, *command: str) -> bytes:
        return await run_program(*command, folder=self.folder)

    async def request(
        self, *options: str, subject: str = "/CN=monitor-1", kind: str = "ec", bits: str = "P-256"
    ) -> bytes:
        """A request, DER, for a new key in key.pem."""
        choice = f"ec_paramgen_curve:{bits}" if kind == "ec" else f"rsa_keygen_bits:{bits}"
        await self.run("openssl", "genpkey", "-algorithm", kind, "-pkeyopt", choice, "-out", "key.pem")
        return await self.run(
            "openssl", "req", "-new", "-key", "key.pem", "-subj", subject, "-outform", "DER", *options
        )

    async def post(
        self,
        sent: bytes,
        *options: str,
        operation: str = "simpleenroll",
        content_type: str = "application/pkcs10",
    ) -> tuple[int, bytes]:
        """Status and body of the answer to a POST."""
        (self.folder / "sent").write_bytes(sent)
        out = await self.run(
            "curl", "--silent", "--cacert", str(self.service.site.root_file), "--write-out", "\n%{http_code}",
            "--data-binary", "@sent", "--header", f"Content-Type: {content_type}", *options,
            f"{self.url}/.well-known/est/{operation}",
        )  # fmt: skip
        answer, _, status = out.rpartition(b"\n")
        return int(status), answer

    def credentials(self, name: str = "monitor-1") -> tuple[str, str]:
        return "--user", f"{name}:{self.service.token(name)}"


@pytest.fixture
async def shell(tmp_path: Path) -> AsyncIterator[Shell]:
    for name in ("site", "client"):
        (tmp_path / name).mkdir()
    service = TokenService(Site(tmp_path / "site"))
    async with serving(service) as url:
        yield Shell(tmp_path / "client", url, service)


async def enrol(shell: Shell) -> None:
    """A device in cert.pem and key.pem, by a token."""
    status, answer = await shell.post(base64.encodebytes(await shell.request()), *shell.credentials())
    assert status == 200
    (shell.folder / "answer").write_bytes(answer)
    await shell.run("openssl", "base64", "-d", "-in", "answer", "-out", "answer.p7")
    await shell.run(
        "openssl", "pkcs7", "-inform", "DER", "-in", "answer.p7", "-print_certs", "-out", "cert.pem"
    )


async def test_est_9_what_they_get_is_a_certificate_that_openssl_reads(shell: Shell) -> None:
    await enrol(shell)
    shown = await shell.run(
        "openssl", "x509", "-in", "cert.pem", "-noout", "-subject", "-ext", "subjectAltName"
    )
    assert b"monitor-1" in shown
    assert f"URI:sealcast:device:{shell.service.site.site_id.hex()}:monitor-1".encode() in shown
    chain = await shell.run("openssl", "x509", "-in", "cert.pem", "-noout", "-pubkey")
    assert chain == await shell.run("openssl", "pkey", "-in", "key.pem", "-pubout")


async def test_est_22_a_renewal_by_their_own_means(shell: Shell) -> None:
    await enrol(shell)
    old = parse_certificate(shell.service.issued[0].der)
    uri = certificate_identity(old).uri
    sent = await shell.request("-addext", f"subjectAltName=URI:{uri}", subject="/O=Ward 3/CN=monitor-1")
    # The new key is in key.pem now; the old one proves who asks, so it was kept.
    assert (await shell.post(base64.encodebytes(sent), operation="simplereenroll"))[0] == 403
    await enrol(shell)
    (shell.folder / "own.pem").write_bytes((shell.folder / "key.pem").read_bytes())
    sent = await shell.request("-addext", f"subjectAltName=URI:{uri}", subject="/O=Ward 3/CN=monitor-1")
    status, answer = await shell.post(
        base64.encodebytes(sent), "--cert", "cert.pem", "--key", "own.pem", operation="simplereenroll"
    )
    assert status == 200
    assert certificate_identity(parse_certificate(decode_certificates(answer)[0])) == certificate_identity(
        old
    )


@pytest.mark.parametrize(
    ("options", "status"),
    [
        (("-addext", "basicConstraints=critical,CA:TRUE,pathlen:3"), 200),
        (("-addext", "keyUsage=critical,keyCertSign,cRLSign"), 200),
        (("-addext", "extendedKeyUsage=anyExtendedKeyUsage"), 200),
        (("-addext", "subjectAltName=DNS:*.example.org"), 403),
        (("-addext", "subjectAltName=IP:127.0.0.1"), 403),
        (("-addext", "subjectAltName=email:root@example.org"), 403),
        (("-addext", "subjectAltName=otherName:1.2.3.4;UTF8:root"), 403),
    ],
)
async def test_f3_greedy_requests(shell: Shell, options: tuple[str, ...], status: int) -> None:
    sent = base64.encodebytes(await shell.request(*options))
    assert (await shell.post(sent, *shell.credentials()))[0] == status
    for issued in shell.service.issued:
        (shell.folder / "cert.der").write_bytes(issued.der)
        text = await shell.run("openssl", "x509", "-inform", "DER", "-in", "cert.der", "-noout", "-text")
        assert b"CA:FALSE" in text
        assert b"Certificate Sign" not in text
        assert b"Any Extended Key Usage" not in text
        # The heading, and the six extensions of the profile.
        assert text.count(b"X509v3 ") == 7


@pytest.mark.parametrize(
    ("kind", "bits"),
    [("rsa", "2048"), ("rsa", "1024"), ("ec", "P-384"), ("ec", "secp256k1"), ("ec", "secp224r1")],
)
async def test_est_10_keys_outside_the_policy(shell: Shell, kind: str, bits: str) -> None:
    sent = base64.encodebytes(await shell.request(kind=kind, bits=bits))
    status, answer = await shell.post(sent, *shell.credentials())
    assert (status, b"P-256" in answer) == (400, True)


async def test_est_10_a_hash_outside_the_policy(shell: Shell) -> None:
    status, _ = await shell.post(base64.encodebytes(await shell.request("-sha1")), *shell.credentials())
    assert status == 400
    assert not shell.service.issued


@pytest.mark.parametrize(
    "content_type", ["application/x-www-form-urlencoded", "application/octet-stream", ""]
)
async def test_est_11_wrong_content_types(shell: Shell, content_type: str) -> None:
    sent = base64.encodebytes(await shell.request())
    status, _ = await shell.post(sent, *shell.credentials(), content_type=content_type)
    assert status == 415


async def test_est_11_a_body_without_end(shell: Shell) -> None:
    status, _ = await shell.post(b"A" * (MAX_BODY_BYTES + 1), *shell.credentials())
    assert status == 413
    chunked = ("--header", "Transfer-Encoding: chunked")
    status, _ = await shell.post(b"A" * (MAX_BODY_BYTES + 1), *shell.credentials(), *chunked)
    assert status == 413


async def test_est_12_a_chunked_request_is_read(shell: Shell) -> None:
    sent = base64.encodebytes(await shell.request())
    status, _ = await shell.post(sent, *shell.credentials(), "--header", "Transfer-Encoding: chunked")
    assert status == 200


@pytest.mark.parametrize("credentials", [(), ("--user", "monitor-1:wrong"), ("--digest", "--user", "a:b")])
async def test_est_14_without_good_credentials(shell: Shell, credentials: tuple[str, ...]) -> None:
    sent = base64.encodebytes(await shell.request())
    assert (await shell.post(sent, *credentials))[0] == 401


async def test_est_17_another_name(shell: Shell) -> None:
    sent = base64.encodebytes(await shell.request(subject="/CN=monitor-2"))
    assert (await shell.post(sent, *shell.credentials()))[0] == 403


async def test_f11_curl_refuses_a_server_of_another_root(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = Site(tmp_path / "other")
    shell.service.site.root_file.write_bytes(other.root_file.read_bytes())
    with pytest.raises(AssertionError):
        await shell.post(b"", *shell.credentials())
    assert not shell.service.issued
