"""The EST server over real TLS, seen by a client that sends raw bytes (RFC 7030, RFC 8951, SC-10 to
SC-12).
"""

import asyncio
import base64
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import AttributeOID, NameOID

from sealcast.ca import KeySigner
from sealcast.errors import ConfigError, EnrolmentError, StorageError
from sealcast.est import make_tls_context, start_listener
from sealcast.est.messages import MAX_BODY_BYTES, decode_certificates, encode_body
from sealcast.est.problems import Problem
from sealcast.pki.certificates import certificate_identity, certificates_pem, parse_certificate
from tests.est.site import DAY, Site, TokenService, serving


@dataclass
class Reply:
    status: int
    headers: dict[str, str]
    """Names as they were on the wire."""
    body: bytes


@dataclass
class Peer:
    """A client of ours without a client library."""

    port: int
    context: ssl.SSLContext
    service: TokenService
    sent: list[bytes] = field(default_factory=list)

    async def send(self, raw: bytes) -> Reply:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self.port, ssl=self.context, server_hostname="localhost"
        )
        try:
            writer.write(raw)
            await writer.drain()
            head = (await reader.readuntil(b"\r\n\r\n")).decode("ascii").split("\r\n")
            headers = dict(line.split(": ", 1) for line in head[1:] if line)
            body = await reader.readexactly(int(headers.get("Content-Length", "0")))
            return Reply(int(head[0].split()[1]), headers, body)
        finally:
            writer.close()

    async def get(self, path: str, method: str = "GET") -> Reply:
        return await self.send(
            f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: test\r\n\r\n".encode()
        )

    async def post(
        self,
        operation: str,
        body: bytes,
        *,
        credentials: str | None = None,
        content_type: str | None = "application/pkcs10",
        headers: str = "",
    ) -> Reply:
        head = f"POST /.well-known/est/{operation} HTTP/1.1\r\nHost: localhost\r\n"
        head += f"Content-Length: {len(body)}\r\n"
        if credentials is not None:
            head += f"Authorization: Basic {base64.b64encode(credentials.encode()).decode()}\r\n"
        if content_type is not None:
            head += f"Content-Type: {content_type}\r\n"
        return await self.send(f"{head}{headers}\r\n".encode() + body)


@pytest.fixture
async def peer(tmp_path: Path) -> AsyncIterator[Peer]:
    service = TokenService(Site(tmp_path))
    async with serving(service) as url:
        yield Peer(int(url.rpartition(":")[2]), tls(service.site), service)


def tls(site: Site, own: tuple[Path, Path] | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=certificates_pem([site.root_der]).decode())
    if own:
        context.load_cert_chain(*own)
    return context


def csr(name: str, attribute: bytes | None = None, uri: str | None = None) -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateSigningRequestBuilder().subject_name(
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    )
    if attribute is not None:
        builder = builder.add_attribute(AttributeOID.CHALLENGE_PASSWORD, attribute)
    if uri is not None:
        names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)])
        builder = builder.add_extension(names, critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


CSR = encode_body(csr("monitor-1"))


class TestCacerts:
    """RFC 7030 section 4.1."""

    async def test_anyone_gets_root_and_site_ca(self, peer: Peer) -> None:
        reply = await peer.get("/.well-known/est/cacerts")
        assert reply.status == 200
        assert reply.headers["Content-Type"] == "application/pkcs7-mime"
        assert sorted(decode_certificates(reply.body)) == sorted(peer.service.site.authorities)

    async def test_form_is_what_clients_in_the_field_need(self, peer: Peer) -> None:
        reply = await peer.get("/.well-known/est/cacerts")
        assert reply.headers["Content-Transfer-Encoding"] == "base64"
        assert "Content-Length" in reply.headers
        assert "Transfer-Encoding" not in reply.headers
        assert len(reply.headers) <= 16
        assert max(len(line) for line in reply.body.splitlines()) == 64
        assert reply.body.endswith(b"\n")

    async def test_a_client_without_a_name_gets_one_line(self, peer: Peer) -> None:
        """SC-15."""
        """strongSwan's pki."""
        reply = await peer.send(b"GET /.well-known/est/cacerts HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert reply.body.count(b"\n") == 1
        assert sorted(decode_certificates(reply.body)) == sorted(peer.service.site.authorities)


class TestSimpleenroll:
    """RFC 7030 section 4.2.1."""

    async def enroll(self, peer: Peer, **changes: str | None) -> Reply:
        credentials = f"monitor-1:{peer.service.token('monitor-1')}"
        return await peer.post("simpleenroll", CSR, **{"credentials": credentials, **changes})  # type: ignore[arg-type]

    async def test_a_token_gets_one_certificate(self, peer: Peer) -> None:
        reply = await self.enroll(peer)
        assert reply.status == 200
        assert reply.headers["Content-Type"] == "application/pkcs7-mime; smime-type=certs-only"
        assert reply.headers["Content-Transfer-Encoding"] == "base64"
        [certificate] = decode_certificates(reply.body)
        assert certificate_identity(parse_certificate(certificate)).name == "monitor-1"

    async def test_a_token_counts_once(self, peer: Peer) -> None:
        credentials = f"monitor-1:{peer.service.token('monitor-1')}"
        assert (await peer.post("simpleenroll", CSR, credentials=credentials)).status == 200
        again = await peer.post("simpleenroll", CSR, credentials=credentials)
        assert again.status == 401
        assert len(peer.service.issued) == 1

    @pytest.mark.parametrize(
        ("credentials", "status"),
        [(None, 401), ("monitor-1:wrong", 401), ("monitor-1:", 401), (":token", 401), ("monitor-1", 401)],
    )
    async def test_without_credentials_it_asks_for_them(
        self, peer: Peer, credentials: str | None, status: int
    ) -> None:
        reply = await peer.post("simpleenroll", CSR, credentials=credentials)
        assert reply.status == status
        assert reply.headers["WWW-Authenticate"].startswith("Basic realm=")
        assert reply.headers["Content-Type"].startswith("text/plain")
        assert not peer.service.issued

    @pytest.mark.parametrize("value", ["Bearer abc", "Basic", "Basic !!!", "Basic /w=="])
    async def test_odd_authorization_is_none(self, peer: Peer, value: str) -> None:
        reply = await peer.post("simpleenroll", CSR, headers=f"Authorization: {value}\r\n")
        assert reply.status == 401

    async def test_a_refused_request_does_not_use_the_token_up(self, peer: Peer) -> None:
        """SC-12."""
        credentials = f"monitor-1:{peer.service.token('monitor-1')}"
        broken = encode_body(csr("monitor-1")[:-1] + b"\x00")
        assert (await peer.post("simpleenroll", broken, credentials=credentials)).status == 400
        assert (await peer.post("simpleenroll", CSR, credentials=credentials)).status == 200

    async def test_f1_a_request_for_another_name_is_refused(self, peer: Peer) -> None:
        reply = await self.enroll(peer)
        assert reply.status == 200
        credentials = f"monitor-1:{peer.service.token('monitor-1')}"
        reply = await peer.post("simpleenroll", encode_body(csr("monitor-2")), credentials=credentials)
        assert reply.status == 403
        assert b"monitor-2" in reply.body
        assert len(peer.service.issued) == 1

    @pytest.mark.parametrize(("name", "status"), [("monitor-1", 200), ("monitor-2", 403)])
    async def test_f1_a_subject_alternative_name_must_be_the_devices_own(
        self, peer: Peer, name: str, status: int
    ) -> None:
        """SC-11."""
        uri = f"sealcast:device:{peer.service.site.site_id.hex()}:{name}"
        credentials = f"monitor-1:{peer.service.token('monitor-1')}"
        body = encode_body(csr("monitor-1", uri=uri))
        assert (await peer.post("simpleenroll", body, credentials=credentials)).status == status

    async def test_f1_a_token_of_another_device_is_refused(self, peer: Peer) -> None:
        credentials = f"monitor-1:{peer.service.token('monitor-2')}"
        assert (await peer.post("simpleenroll", CSR, credentials=credentials)).status == 401

    async def test_a_broken_signature_is_refused(self, peer: Peer) -> None:
        der = bytearray(csr("monitor-1"))
        der[-1] ^= 1
        credentials = f"monitor-1:{peer.service.token('monitor-1')}"
        reply = await peer.post("simpleenroll", encode_body(bytes(der)), credentials=credentials)
        assert reply.status == 400
        assert b"signature" in reply.body

    @pytest.mark.parametrize("content_type", ["application/pkcs10; charset=us-ascii", "APPLICATION/PKCS10"])
    async def test_parameters_of_the_content_type_are_ignored(self, peer: Peer, content_type: str) -> None:
        assert (await self.enroll(peer, content_type=content_type)).status == 200

    @pytest.mark.parametrize(
        "content_type", [None, "text/plain", "application/pkcs7-mime", "application/x-pkcs10"]
    )
    async def test_another_content_type_is_refused(self, peer: Peer, content_type: str | None) -> None:
        assert (await self.enroll(peer, content_type=content_type)).status == 415

    @pytest.mark.parametrize("value", ["", "base64", "binary", "quoted-printable"])
    async def test_the_transfer_encoding_of_a_request_is_ignored(self, peer: Peer, value: str) -> None:
        """RFC 8951 section 3."""
        header = f"Content-Transfer-Encoding: {value}\r\n" if value else ""
        assert (await self.enroll(peer, headers=header)).status == 200

    @pytest.mark.parametrize("body", [b"", b"AAAA", b"not base64!", b"\x00" * 10, b"MAA="])
    async def test_garbage_is_refused(self, peer: Peer, body: bytes) -> None:
        credentials = f"monitor-1:{peer.service.token('monitor-1')}"
        assert (await peer.post("simpleenroll", body, credentials=credentials)).status == 400

    async def test_a_large_body_is_refused(self, peer: Peer) -> None:
        credentials = f"monitor-1:{peer.service.token('monitor-1')}"
        body = b"A" * (MAX_BODY_BYTES + 4)
        assert (await peer.post("simpleenroll", body, credentials=credentials)).status == 413
        # Within the limit of a body, but too large for a request.
        assert (await peer.post("simpleenroll", b"A" * 32768, credentials=credentials)).status == 413

    async def test_an_undecided_request_says_when_to_ask_again(self, peer: Peer) -> None:
        peer.service.pending_seconds = 300
        reply = await self.enroll(peer)
        assert reply.status == 202
        assert reply.headers["Retry-After"] == "300"

    @pytest.mark.parametrize(
        ("failure", "status", "word"),
        [
            (RuntimeError("secret thing"), 500, b"internal"),
            (StorageError("/secret/path", "full"), 503, b"store"),
            (EnrolmentError("device is blocked"), 403, b"blocked"),
        ],
    )
    async def test_a_failure_tells_no_secrets(
        self, peer: Peer, failure: Exception, status: int, word: bytes, caplog: pytest.LogCaptureFixture
    ) -> None:
        peer.service.failure = failure
        reply = await self.enroll(peer)
        assert reply.status == status
        assert word in reply.body
        assert b"secret" not in reply.body
        assert ("secret thing" in caplog.text) is (status == 500)


class TestSimplereenroll:
    """RFC 7030 section 4.2.2."""

    async def test_a_certificate_gets_its_successor(self, peer: Peer) -> None:
        peer.context = tls(peer.service.site, peer.service.site.device_files("monitor-1"))
        reply = await peer.post("simplereenroll", CSR)
        assert reply.status == 200
        [certificate] = decode_certificates(reply.body)
        assert certificate_identity(parse_certificate(certificate)).name == "monitor-1"

    async def test_a_client_may_send_its_certificate_alone(self, peer: Peer) -> None:
        peer.context = tls(peer.service.site, peer.service.site.device_files("monitor-1", chain=False))
        assert (await peer.post("simplereenroll", CSR)).status == 200

    async def test_a_token_is_not_enough(self, peer: Peer) -> None:
        credentials = f"monitor-1:{peer.service.token('monitor-1')}"
        assert (await peer.post("simplereenroll", CSR, credentials=credentials)).status == 403

    async def test_f1_a_successor_for_someone_else_is_refused(self, peer: Peer) -> None:
        peer.context = tls(peer.service.site, peer.service.site.device_files("monitor-2"))
        assert (await peer.post("simplereenroll", CSR)).status == 403

    async def test_a_revoked_certificate_is_refused(self, peer: Peer) -> None:
        chain_file, key_file = peer.service.site.device_files("monitor-1")
        peer.service.revoke(x509.load_pem_x509_certificate(chain_file.read_bytes()).public_bytes(
            serialization.Encoding.DER
        ))  # fmt: skip
        peer.context = tls(peer.service.site, (chain_file, key_file))
        assert (await peer.post("simplereenroll", CSR)).status == 403

    async def test_a_key_server_is_no_device(self, peer: Peer) -> None:
        site = peer.service.site
        peer.context = tls(site, (site.server_chain_file, site.server_key_file))
        assert (await peer.post("simplereenroll", encode_body(csr("authority")))).status == 403

    async def test_an_expired_certificate_ends_the_handshake(self, peer: Peer) -> None:
        site = peer.service.site
        past = site.device_files("monitor-1")
        expired = site.folder / "expired.pem"
        expired.write_bytes(certificates_pem([_expired(site, past[1]), site.issuer.certificate]))
        peer.context = tls(site, (expired, past[1]))
        with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
            await peer.post("simplereenroll", CSR)

    async def test_a_foreign_certificate_ends_the_handshake(self, peer: Peer, tmp_path: Path) -> None:
        (tmp_path / "other").mkdir()
        stranger = Site(tmp_path / "other", site_id=peer.service.site.site_id)
        peer.context = tls(peer.service.site, stranger.device_files("monitor-1"))
        with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
            await peer.post("simplereenroll", CSR)


def _expired(site: Site, key_file: Path) -> bytes:
    from sealcast.pki.profiles import CertificateIssuer, device_builder

    signer = KeySigner.from_pem(key_file.read_bytes(), "key")
    builder = device_builder(
        name="monitor-1",
        site_name="Ward 3",
        site_id=site.site_id,
        public_key=signer.public_key,
        issuer=CertificateIssuer.of(
            parse_certificate(site.issuer.certificate), site.issuer.signer.public_key
        ),
        serial=1,
        now=site.now - 100 * DAY,
    )
    return site.issuer.signer.sign_certificate(builder).public_bytes(serialization.Encoding.DER)


class TestLinking:
    """RFC 7030 section 3.5: a challengePassword must belong to the TLS session."""

    async def enroll(self, peer: Peer, *, right: bool) -> Reply:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", peer.port, ssl=peer.context, server_hostname="localhost"
        )
        connection = writer.get_extra_info("ssl_object")
        unique = connection.get_channel_binding("tls-unique")
        body = encode_body(csr("monitor-1", base64.b64encode(unique if right else b"other session")))
        credentials = base64.b64encode(f"monitor-1:{peer.service.token('monitor-1')}".encode()).decode()
        writer.write(
            f"POST /.well-known/est/simpleenroll HTTP/1.1\r\nHost: localhost\r\n"
            f"Content-Length: {len(body)}\r\nAuthorization: Basic {credentials}\r\n"
            "Content-Type: application/pkcs10\r\n\r\n".encode()
            + body
        )
        head = await reader.readuntil(b"\r\n\r\n")
        writer.close()
        return Reply(int(head.split()[1]), {}, b"")

    @pytest.mark.parametrize(("right", "status"), [(True, 200), (False, 400)])
    async def test_on_tls_1_2(self, peer: Peer, right: bool, status: int) -> None:
        peer.context.maximum_version = ssl.TLSVersion.TLSv1_2
        assert (await self.enroll(peer, right=right)).status == status

    async def test_tls_1_3_has_no_such_value(self, peer: Peer) -> None:
        assert (await self.enroll(peer, right=True)).status == 400


class TestTransport:
    """RFC 7030 section 3: what the listener admits."""

    @pytest.mark.parametrize(
        "path",
        ["/", "/.well-known/est", "/.well-known/est/", "/.well-known/est/csrattrs",
         "/.well-known/est/fullcmc", "/.well-known/est/serverkeygen",
         "/.well-known/est/label/cacerts", "/.well-known/est/CACERTS"],
    )  # fmt: skip
    async def test_an_unknown_operation_is_404(self, peer: Peer, path: str) -> None:
        reply = await peer.get(path)
        assert reply.status == 404
        assert reply.headers["Content-Type"].startswith("text/plain")

    @pytest.mark.parametrize(
        ("method", "operation", "allowed"),
        [
            ("GET", "simpleenroll", "POST"),
            ("PUT", "simplereenroll", "POST"),
            ("DELETE", "cacerts", "GET,HEAD"),
        ],
    )
    async def test_a_wrong_method_is_405(self, peer: Peer, method: str, operation: str, allowed: str) -> None:
        reply = await peer.get(f"/.well-known/est/{operation}", method)
        assert reply.status == 405
        assert reply.headers["Allow"] == allowed

    @pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
    async def test_tls_versions(self, peer: Peer, version: ssl.TLSVersion) -> None:
        peer.context.minimum_version = peer.context.maximum_version = version
        assert (await peer.get("/.well-known/est/cacerts")).status == 200

    @pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated")
    async def test_older_tls_is_refused(self, peer: Peer) -> None:
        peer.context.set_ciphers("ALL:@SECLEVEL=0")
        peer.context.minimum_version = ssl.TLSVersion.TLSv1_1
        peer.context.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await peer.get("/.well-known/est/cacerts")

    async def test_clear_http_is_refused(self, peer: Peer) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", peer.port)
        writer.write(b"GET /.well-known/est/cacerts HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"HTTP/1.1 200" not in await reader.read()
        writer.close()

    async def test_sessions_are_not_resumed(self, peer: Peer) -> None:
        _, writer = await asyncio.open_connection(
            "127.0.0.1", peer.port, ssl=peer.context, server_hostname="localhost"
        )
        session = writer.get_extra_info("ssl_object").session
        assert session is None or not session.has_ticket
        writer.close()

    async def test_a_used_port_is_one_clear_error(self, peer: Peer) -> None:
        site = peer.service.site
        context = make_tls_context(site.server_chain_file, site.server_key_file, site.authorities)
        with pytest.raises(ConfigError, match="in use") as caught:
            await start_listener(peer.service, "127.0.0.1", peer.port, context)
        assert caught.value.exit_code == 3


def test_every_problem_has_a_status_of_its_own_meaning() -> None:
    for problem in Problem:
        assert problem.status == 202 or 400 <= problem.status < 600
        assert problem.text
        assert "\n" not in problem.text
