"""The EST listener as TLS (EST conformance 35), tried by OpenSSL's own client."""

import asyncio
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509

from sealcast.est import make_tls_context, require_linking
from sealcast.pki.certificates import certificate_der
from tests.est.site import Site, TokenService, serving
from tests.est.wire import CHALLENGE_PASSWORD, HANDSHAKE_ERRORS, Wire, body, csr, request, tls

pytestmark = pytest.mark.needs_program("openssl")


@dataclass
class Session:
    """A TLS 1.2 session that a client keeps."""

    context: ssl.SSLContext
    kept: ssl.SSLSession | None = None
    reused: bool | None = None
    credentials: str | None = None

    def __post_init__(self) -> None:
        self.context.maximum_version = ssl.TLSVersion.TLSv1_2


@dataclass
class Listener:
    service: TokenService
    port: int

    @property
    def site(self) -> Site:
        return self.service.site

    async def s_client(self, *options: str, typed: bytes = b"") -> str:
        """What `openssl s_client` says, on both streams; it ends with its input."""
        process = await asyncio.create_subprocess_exec(
            "openssl", "s_client", "-connect", f"127.0.0.1:{self.port}", "-CAfile", str(self.site.root_file),
            "-verify_return_error", "-servername", "localhost", *options,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        async with asyncio.timeout(30):
            out, _ = await process.communicate(typed)
        return out.decode("utf-8", "replace")

    def wire(self, own: tuple[Path, Path] | None = None) -> Wire:
        return Wire(self.port, tls([self.site.root_der], own))


@pytest.fixture
async def listener(tmp_path: Path) -> AsyncIterator[Listener]:
    service = TokenService(Site(tmp_path))
    async with serving(service) as url:
        yield Listener(service, int(url.rpartition(":")[2]))


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_est_35_tls_1_2_and_1_3_are_spoken(listener: Listener, version: ssl.TLSVersion) -> None:
    wire = listener.wire()
    wire.context.minimum_version = wire.context.maximum_version = version
    assert (await wire.get("/.well-known/est/cacerts")).status == 200


@pytest.mark.parametrize("version", ["-tls1", "-tls1_1"])
async def test_est_35_older_versions_are_refused(listener: Listener, version: str) -> None:
    # This client does speak them, and shakes hands with nobody here.
    said = await listener.s_client(version, "-cipher", "ALL:@SECLEVEL=0")
    assert "CONNECTED" in said
    assert "Cipher is (NONE)" in said
    assert "no peer certificate available" in said


@pytest.mark.parametrize("ciphers", ["NULL", "aNULL", "eNULL", "ADH", "AECDH", "EXPORT", "RC4", "3DES"])
async def test_est_35_ciphers_without_secrecy_or_identity_are_refused(
    listener: Listener, ciphers: str
) -> None:
    said = await listener.s_client("-tls1_2", "-cipher", f"{ciphers}:@SECLEVEL=0")
    # What this OpenSSL does not know it cannot offer; that is said before any handshake.
    assert "Cipher is (NONE)" in said or "no cipher match" in said
    assert "Verify return code: 0 (ok)" not in said or "Cipher is (NONE)" in said


async def test_est_35_renegotiation_is_off(listener: Listener) -> None:
    said = await listener.s_client("-tls1_2", typed=b"R\n")
    assert "RENEGOTIATING" in said
    assert "no renegotiation" in said


async def test_est_35_no_ticket_is_given(listener: Listener) -> None:
    for version in ("-tls1_2", "-tls1_3"):
        said = await listener.s_client(version, typed=b"Q\n")
        assert "TLS session ticket:" not in said
        assert "New Session Ticket" not in said


class TestResumption:
    """By session id, on TLS 1.2; Python cannot switch it off."""

    async def post(self, listener: Listener, session: Session, operation: str, sent: bytes) -> int:
        def talk() -> int:
            with (
                socket.create_connection(("127.0.0.1", listener.port), timeout=30) as plain,
                session.context.wrap_socket(
                    plain, server_hostname="localhost", session=session.kept
                ) as connection,
            ):
                session.kept, session.reused = connection.session, connection.session_reused
                connection.sendall(request(operation, sent, credentials=session.credentials))
                status = int(connection.recv(64 * 1024).split()[1])
                # A session that ends without a farewell is not kept.
                connection.unwrap()
                return status

        return await asyncio.to_thread(talk)

    async def test_est_23_what_was_revoked_since_is_refused(self, listener: Listener) -> None:
        own = listener.site.device_files("monitor-1")
        current = certificate_der(x509.load_pem_x509_certificate(own[0].read_bytes()))
        session = Session(listener.wire(own).context)
        sent = body(csr("", current=current))
        assert await self.post(listener, session, "simplereenroll", sent) == 200
        assert await self.post(listener, session, "simplereenroll", sent) == 200
        assert session.reused
        listener.service.revoke(current)
        assert await self.post(listener, session, "simplereenroll", sent) == 403
        assert session.reused

    async def test_est_19_it_links_nothing(self, listener: Listener) -> None:
        session = Session(listener.wire().context)
        session.credentials = f"monitor-1:{listener.service.token('monitor-1')}"
        linked = body(csr("monitor-1", attributes={CHALLENGE_PASSWORD: b"AAAAAAAAAAAAAAAA"}))
        assert await self.post(listener, session, "simpleenroll", linked) == 400
        assert await self.post(listener, session, "simpleenroll", linked) == 400
        assert session.reused
        assert await self.post(listener, session, "simpleenroll", body(csr("monitor-1"))) == 200


async def test_http_2_is_not_offered(listener: Listener) -> None:
    """EST clients speak HTTP/1.1."""
    said = await listener.s_client("-alpn", "h2,http/1.1", typed=b"Q\n")
    assert "ALPN protocol: h2" not in said


async def test_a_self_signed_client_certificate_ends_the_handshake(
    listener: Listener, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    stranger = Site(tmp_path / "other")
    with pytest.raises(HANDSHAKE_ERRORS):
        await listener.wire(stranger.device_files("monitor-1", chain=False)).get("/.well-known/est/cacerts")


def test_the_version_follows_the_switch(tmp_path: Path) -> None:
    site = Site(tmp_path)
    context = make_tls_context(site.server_chain_file, site.server_key_file, site.authorities)
    for required, version in ((True, ssl.TLSVersion.TLSv1_2), (False, ssl.TLSVersion.MAXIMUM_SUPPORTED)):
        require_linking(context, required)
        assert context.maximum_version == version
        assert context.minimum_version == ssl.TLSVersion.TLSv1_2
