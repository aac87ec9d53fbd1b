"""Repair and reports on files between devices, over real TLS: spec/side-channel.md section 2, TR-8, SC-1."""

import asyncio
import io
import ssl
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest

from sealcast.errors import (
    CertificateError,
    ChannelError,
    ConfigError,
    NetworkError,
    NotAllowedError,
    UnknownChannelError,
    UnreachableError,
)
from sealcast.pki.certificates import parse_certificate, parse_pem_certificates
from sealcast.pki.crl import Revocation
from sealcast.sidechannel import PeerClient, PeerServer
from sealcast.sidechannel.peer_messages import FileReport
from sealcast.sidechannel.server import Admission, Repaired
from tests.est.site import Site
from tests.sidechannel.identities import FileIdentity, expired_identity, identity_of, key_server_identity

CHANNEL, OTHER_CHANNEL = bytes([1] * 32), bytes([2] * 32)
STREAM = bytes(range(16))


class Publisher:
    """A peer server over what a test says."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.identity = identity_of(site, "monitor-1")
        self.packets = {sequence: f"packet {sequence}".encode() for sequence in range(10, 20)}
        self.allowed = {"display-1"}
        self.reports: list[tuple[str, FileReport]] = []
        self.crl: bytes | None = None
        self.port = 0

    def repair(
        self,
        channel: bytes,
        stream: bytes,
        ranges: tuple[tuple[int, int], ...],
        _admission: Admission | None,
    ) -> Repaired | None:
        assert channel == CHANNEL
        if stream != STREAM:
            return None
        wanted = [
            packet
            for sequence, packet in self.packets.items()
            if any(first <= sequence <= last for first, last in ranges)
        ]
        return wanted, min(self.packets), b"heartbeat"

    def files(self, device: str, report: FileReport) -> bool:
        self.reports.append((device, report))
        return report.stream == STREAM

    def server(self) -> PeerServer:
        return PeerServer(
            self.identity,
            repair=self.repair,
            files=self.files,
            is_allowed=lambda channel, device: device in self.allowed if channel == CHANNEL else None,
            crl=lambda: self.crl,
        )

    def client(self, identity: FileIdentity, device: str = "monitor-1") -> PeerClient:
        return PeerClient(identity, host="127.0.0.1", port=self.port, device=device)


@pytest.fixture
async def publisher(tmp_path: Path) -> AsyncIterator[Publisher]:
    publisher = Publisher(Site(tmp_path))
    async with publisher.server() as server:
        _, publisher.port = await server.listen("127.0.0.1")
        yield publisher


async def test_packets_come_back_as_they_were(publisher: Publisher) -> None:
    async with publisher.client(identity_of(publisher.site, "display-1")) as client:
        answer = await client.repair(CHANNEL, STREAM, ((11, 12), (19, 25)))
    assert answer.packets == (b"packet 11", b"packet 12", b"packet 19")
    assert (answer.oldest, answer.head) == (10, b"heartbeat")


async def test_an_answer_is_bounded(publisher: Publisher) -> None:
    """SC-8: at most 1,024 packets and 2 MiB."""
    async with publisher.client(identity_of(publisher.site, "display-1")) as client:
        publisher.packets = dict.fromkeys(range(2000), b"x")
        assert len((await client.repair(CHANNEL, STREAM, ((0, 2000),))).packets) == 1024
        publisher.packets = {sequence: bytes(60_000) for sequence in range(50)}
        assert len((await client.repair(CHANNEL, STREAM, ((0, 2001),))).packets) == 34


async def test_a_report_on_files_arrives_with_its_sender(publisher: Publisher) -> None:
    word = FileReport(channel=CHANNEL, stream=STREAM, round=1, whole=(bytes(16),))
    async with publisher.client(identity_of(publisher.site, "display-1")) as client:
        await client.report_files(word)
    assert publisher.reports == [("display-1", word)]


async def test_what_is_not_published_here_is_unknown(publisher: Publisher) -> None:
    async with publisher.client(identity_of(publisher.site, "display-1")) as client:
        with pytest.raises(ChannelError, match="not published here"):
            await client.repair(CHANNEL, bytes(16), ((0, 1),))
        with pytest.raises(UnknownChannelError):
            await client.repair(OTHER_CHANNEL, STREAM, ((0, 1),))


async def test_the_policy_is_asked_for_each_request(publisher: Publisher) -> None:
    async with publisher.client(identity_of(publisher.site, "display-1")) as client:
        await client.repair(CHANNEL, STREAM, ((11, 11),))
        publisher.allowed.clear()
        with pytest.raises(NotAllowedError):
            await client.repair(CHANNEL, STREAM, ((11, 11),))


async def test_the_crl_is_asked_for_each_request(publisher: Publisher) -> None:
    """D10: a removal takes effect on a connection that is open."""
    site = publisher.site
    identity = identity_of(site, "display-1")
    async with publisher.client(identity) as client:
        await client.repair(CHANNEL, STREAM, ((11, 11),))
        serial = parse_certificate(
            parse_pem_certificates(await asyncio.to_thread(identity.certificate_file.read_bytes))[0]
        ).serial_number
        publisher.crl = site.issuer.issue_crl(
            number=1, revocations=[Revocation(serial=serial, time=site.now)], now=site.now
        )
        with pytest.raises(CertificateError) as caught:
            await client.repair(CHANNEL, STREAM, ((11, 11),))
    assert caught.value.reason == "revoked"


async def test_a_stranger_gets_nothing(publisher: Publisher, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = Site(tmp_path / "other")
    for identity in (
        identity_of(other, "display-1", trusting=publisher.site),
        expired_identity(publisher.site, "display-1"),
    ):
        async with publisher.client(identity) as client:
            with pytest.raises((CertificateError, UnreachableError)):
                await client.repair(CHANNEL, STREAM, ((11, 11),))
    async with publisher.client(key_server_identity(publisher.site)) as client:
        with pytest.raises(CertificateError, match="role"):
            await client.repair(CHANNEL, STREAM, ((11, 11),))


async def test_a_client_judges_before_it_asks(publisher: Publisher, tmp_path: Path) -> None:
    """TR-8: role and identity of the peer; not one byte of a request leaves for another."""
    (tmp_path / "other").mkdir()
    other = Site(tmp_path / "other")
    identity = identity_of(publisher.site, "display-1")
    async with publisher.client(identity, device="monitor-2") as client:
        with pytest.raises(CertificateError, match="not who was asked for"):
            await client.repair(CHANNEL, STREAM, ((11, 11),))
    async with publisher.client(identity_of(publisher.site, "display-1", trusting=other)) as client:
        with pytest.raises(CertificateError):
            await client.repair(CHANNEL, STREAM, ((11, 11),))


async def test_a_site_ca_that_is_new_to_this_side_comes_with_the_handshake(publisher: Publisher) -> None:
    """TR-6: under a root that is trusted; what a peer shows is no anchor."""
    identity = replace(identity_of(publisher.site, "display-1"), issuers=())
    async with publisher.client(identity) as client:
        answer = await client.repair(CHANNEL, STREAM, ((11, 11),))
    assert list(answer.packets) == [b"packet 11"]


async def test_a_renewed_certificate_is_shown_without_a_restart(publisher: Publisher) -> None:
    async def shown() -> bytes:
        identity = identity_of(publisher.site, "display-1")
        _, writer = await asyncio.open_connection(
            "127.0.0.1", publisher.port, ssl=identity.ssl_context_client()
        )
        connection: ssl.SSLObject = writer.get_extra_info("ssl_object")
        certificate = connection.getpeercert(binary_form=True)
        writer.close()
        assert certificate
        return certificate

    publisher.port = 0
    async with publisher.server() as server:
        _, publisher.port = await server.listen("127.0.0.1")
        before = await shown()
        async with publisher.client(identity_of(publisher.site, "display-1")) as client:
            await client.repair(CHANNEL, STREAM, ((11, 11),))
            server.reload(identity_of(publisher.site, "monitor-1"))
            await client.repair(CHANNEL, STREAM, ((11, 11),))
        assert await shown() != before


async def test_bodies_are_bounded_and_requests_are_named(publisher: Publisher) -> None:
    """SC-2: 1 MiB."""
    identity = identity_of(publisher.site, "display-1")
    connector = aiohttp.TCPConnector(ssl=identity.ssl_context_client())
    async with aiohttp.ClientSession(f"https://127.0.0.1:{publisher.port}", connector=connector) as session:
        for method, path, body, status in (
            ("POST", "/v1/repair", io.BytesIO(bytes(1024 * 1024 + 1)), 413),
            ("POST", "/v1/repair", b"garbage", 400),
            ("GET", "/v1/repair", b"", 400),
            ("POST", "/v1/nothing", b"", 400),
        ):
            async with session.request(method, path, data=body) as answer:
                assert answer.status == status, path


async def test_nobody_there_is_unreachable(tmp_path: Path) -> None:
    identity = identity_of(Site(tmp_path), "display-1")
    async with PeerClient(identity, host="127.0.0.1", port=1, device="monitor-1") as client:
        with pytest.raises(UnreachableError, match=r"https://127\.0\.0\.1:1"):
            await client.repair(CHANNEL, STREAM, ((11, 11),))


async def test_a_port_that_is_taken_is_named(publisher: Publisher) -> None:
    async with publisher.server() as server:
        with pytest.raises(ConfigError, match=f"{publisher.port}: the port is in use"):
            await server.listen("127.0.0.1", publisher.port)


async def test_an_answer_that_makes_no_sense_is_a_network_error(publisher: Publisher) -> None:
    publisher.packets = {0: bytes(70_000)}
    async with publisher.client(identity_of(publisher.site, "display-1")) as client:
        with pytest.raises(NetworkError, match="malformed repair reply"):
            await client.repair(CHANNEL, STREAM, ((0, 1),))
