"""F8, F9: certificates of this site in places that are not theirs, shown to each client that we ship.

The chains are right and the TLS sockets real; what differs is the role or the name. Whoever is refused hears
not one byte of a request.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest

from sealcast.authority.admins import AdminRole
from sealcast.authority.remote import RemoteManagement
from sealcast.authority.site import SERVER_FILE
from sealcast.ca import KeySigner
from sealcast.device import DeviceIdentity
from sealcast.errors import CertificateError, NotAllowedError, SealcastError
from sealcast.est import EstClient
from sealcast.keys import MemberRole
from sealcast.sidechannel import KeyServerClient, PeerClient, PeerServer
from tests.authority.conftest import Site
from tests.authority.test_routes import enrol_at_another_site, own_files

Files = tuple[Path, Path]
CHANNEL = "ward/ecg"


@dataclass
class Impostor:
    """A server that shows whatever certificate it was given, and notes what it is told."""

    port: int = 0
    heard: bytearray = field(default_factory=bytearray)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            self.heard += await reader.read(65_536)
        finally:
            writer.close()


@asynccontextmanager
async def showing(files: Files, host: str = "127.0.0.1") -> AsyncIterator[Impostor]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*files)
    impostor = Impostor()
    server = await asyncio.start_server(impostor.serve, host, 0, ssl=context)
    impostor.port = server.sockets[0].getsockname()[1]
    async with server:
        yield impostor


class Told:
    """A device that is told another key server."""

    def __init__(self, identity: DeviceIdentity, url: str) -> None:
        self._identity, self.keys_url = identity, url

    def __getattr__(self, name: str) -> object:
        return getattr(self._identity, name)


@dataclass
class Clients:
    """Each client, and one request of it to a port of this machine."""

    site: Site
    device: DeviceIdentity
    admin: DeviceIdentity

    async def est(self, port: int, host: str = "localhost") -> None:
        client = EstClient(f"https://{host}:{port}", self.site.roots, own=own_files(self.device))
        await client.simpleenroll("monitor-1", "a token", KeySigner.generate().make_csr("monitor-1"))

    async def keys(self, port: int) -> None:
        told = Told(self.device, f"https://127.0.0.1:{port}")
        async with KeyServerClient(told, clock=self.site.clock) as client:  # type: ignore[arg-type]
            await client.join(CHANNEL, MemberRole.SUBSCRIBE)

    async def manage(self, port: int) -> None:
        client = RemoteManagement(f"https://127.0.0.1:{port}", self.site.devices / "admin-vera")
        await asyncio.to_thread(client.call, "GET", "/v1/site")

    async def peer(self, port: int, expected: str = "monitor-1") -> None:
        async with PeerClient(self.device, host="127.0.0.1", port=port, device=expected) as client:
            await client.repair(bytes(32), bytes(16), ((0, 1),))

    async def refuse(self, impostor: Impostor, ask: Awaitable[None], said: str) -> None:
        """The request fails by a certificate, in one line that says what is wrong with it."""
        with pytest.raises(CertificateError, match=said) as caught:
            await ask
        assert "\n" not in str(caught.value)
        assert caught.value.exit_code == 5
        assert not impostor.heard


@pytest.fixture
async def clients(site: Site) -> Clients:
    await site.add_channel(CHANNEL)
    return Clients(site, await site.enrol("monitor-1"), await site.admin("vera", AdminRole.VIEWER))


async def test_f8_a_device_is_no_key_server_no_est_server_and_no_authority(clients: Clients) -> None:
    """Its certificate is good for TLS servers, and its name may be that of a host: that makes no DNS name."""
    device = await clients.site.enrol("localhost")
    async with showing(own_files(device)) as impostor:
        await clients.refuse(impostor, clients.keys(impostor.port), "role")
        await clients.refuse(impostor, clients.manage(impostor.port), "role")
        await clients.refuse(impostor, clients.est(impostor.port), "(?i)hostname mismatch")
        await clients.refuse(impostor, clients.est(impostor.port, "127.0.0.1"), "(?i)address mismatch")


async def test_f8_an_admin_is_no_server(clients: Clients) -> None:
    async with showing(own_files(clients.admin)) as impostor:
        for ask in (clients.keys, clients.manage, clients.est, clients.peer):
            await clients.refuse(impostor, ask(impostor.port), "refused|role")


async def test_f8_a_key_server_is_no_device(clients: Clients) -> None:
    """Neither as a peer that others ask, nor as one that asks."""
    site = clients.site
    server_file = site.folder / SERVER_FILE
    async with showing((server_file, server_file)) as impostor:
        await clients.refuse(impostor, clients.peer(impostor.port, "key-server"), "role")
    served: list[object] = []
    peer = PeerServer(
        clients.device,
        repair=lambda *asked: served.append(asked),
        files=lambda *_: False,
        is_allowed=lambda *_: True,
        crl=lambda: site.authority.crl.der,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.load_cert_chain(server_file)
    async with peer, aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as session:
        _, port = await peer.listen("127.0.0.1")
        for url in (
            f"https://127.0.0.1:{port}/v1/repair",
            f"{site.listening.keys}/v1/channels/ward%2Fecg/keys",
            f"{site.listening.manage}/v1/site",
        ):
            async with session.post(url, data=b"\xa0") as answer:
                assert answer.status == 401, url
    assert not served


async def test_f9_the_authority_of_another_site_under_the_same_root(clients: Clients, tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        await enrol_at_another_site(clients.site, tmp_path, stack)
        server_file = tmp_path / "other" / SERVER_FILE
        async with showing((server_file, server_file)) as impostor:
            await clients.refuse(impostor, clients.keys(impostor.port), "not who was asked for")
            await clients.refuse(impostor, clients.manage(impostor.port), "another site")


async def test_f9_the_own_authority_at_a_host_that_it_is_not_certified_for(clients: Clients) -> None:
    server_file = clients.site.folder / SERVER_FILE
    async with showing((server_file, server_file), "127.0.0.2") as impostor:
        await clients.refuse(impostor, clients.est(impostor.port, "127.0.0.2"), "(?i)address mismatch")


async def test_f9_another_device_than_the_one_that_was_asked_for(clients: Clients) -> None:
    device = await clients.site.enrol("monitor-2")
    async with showing(own_files(device)) as impostor:
        await clients.refuse(impostor, clients.peer(impostor.port), "monitor-2.* not who was asked for")


async def test_the_right_ones_are_talked_to(clients: Clients) -> None:
    """The same requests, where they belong."""
    site = clients.site
    server_file = site.folder / SERVER_FILE
    requests: list[tuple[Callable[[int], Awaitable[None]], Files]] = [
        (clients.est, (server_file, server_file)),
        (clients.keys, (server_file, server_file)),
        (clients.manage, (server_file, server_file)),
        (clients.peer, own_files(clients.device)),
    ]
    for ask, files in requests:
        async with showing(files) as genuine:
            with pytest.raises(SealcastError) as caught:
                await ask(genuine.port)
            assert not isinstance(caught.value, CertificateError | NotAllowedError)
            assert genuine.heard
