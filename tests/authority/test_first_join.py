"""The first join of a device that comes when all do: connections are taken, and that is all at first."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from urllib.parse import urlsplit

import pytest

from sealcast import _core
from sealcast.device import DeviceIdentity
from sealcast.endpoint.session import Session
from sealcast.endpoint.site import ChannelSite
from sealcast.errors import UnreachableError
from tests.authority.conftest import Site


class Door:
    """Stands before a key server; ends or holds the first connections, and leads the others through."""

    def __init__(self, ended: int = 0, held: int = 0) -> None:
        self.came = 0
        self.port = 0
        self._ended = ended
        self._held = held
        self._opened: list[asyncio.StreamWriter] = []

    @asynccontextmanager
    async def before(self, host: str, port: int) -> AsyncIterator[None]:
        """Stand there."""

        async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self._opened.append(writer)
            self.came += 1
            if self.came <= self._ended:
                writer.transport.abort()
            elif self.came > self._ended + self._held:
                back, to = await asyncio.open_connection(host, port)
                self._opened.append(to)
                await asyncio.gather(_carry(reader, to), _carry(back, writer))

        server = await asyncio.start_server(take, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield
        finally:
            server.close()
            for writer in self._opened:
                writer.transport.abort()


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(1 << 16):
            writer.write(data)
    writer.close()


async def join(identity: DeviceIdentity, port: int) -> int:
    """Join at a port; return the version of the policy that is told."""
    engine = _core.ReceiveEngine(
        site_id=identity.site_id,
        channel="ward/ecg",
        device_site_id=identity.site_id,
        device=identity.name,
        anchors=identity.anchors,
        issuers=identity.issuers,
        now=_core.steady_time(),
        jitter_seed=1,
    )
    own = replace(ChannelSite.own(identity), keys_url=f"https://127.0.0.1:{port}")
    session = Session(engine, identity, own, "ward/ecg", engine.handle_deadline, "subscribe")
    session.start()
    try:
        async with asyncio.timeout(30):
            return (await session.joined())["version"]
    finally:
        await session.close()


@pytest.fixture
async def identity(site: Site) -> DeviceIdentity:
    await site.add_channel()
    return await site.enrol("monitor-1")


@pytest.mark.parametrize("door", [Door(ended=3), Door(held=2)], ids=["ends them", "holds them"])
async def test_it_is_tried_again_where_connections_are_taken(
    identity: DeviceIdentity, door: Door, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("sealcast.sidechannel.connection.CONNECT_SECONDS", 0.3)
    address = urlsplit(ChannelSite.own(identity).keys_url)
    assert address.hostname is not None
    assert address.port is not None
    async with door.before(address.hostname, address.port):
        assert await join(identity, door.port) >= 1
    assert "trying again" in caplog.text


async def test_it_ends_where_that_goes_on(identity: DeviceIdentity, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sealcast.endpoint.session.JOIN_PATIENCE_SECONDS", 0.5)
    door = Door(ended=1000)
    async with door.before("127.0.0.1", 1):
        with pytest.raises(UnreachableError, match=f":{door.port}"):
            await join(identity, door.port)
    assert door.came > 2


async def test_nobody_is_waited_for_where_nobody_listens(
    identity: DeviceIdentity, caplog: pytest.LogCaptureFixture
) -> None:
    door = Door()
    async with door.before("127.0.0.1", 1):
        pass
    with pytest.raises(UnreachableError, match=f":{door.port}"):
        await join(identity, door.port)
    assert "trying again" not in caplog.text
