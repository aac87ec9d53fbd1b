"""Connections that have not said who they are: few of one address, and not for long. D7, SC-51."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.est.site import Site, TokenService, serving
from tests.sidechannel.identities import identity_of
from tests.sidechannel.test_repair_service import Source, ask

HALF_OPEN, WAITING = 4, 8
HERE, ELSEWHERE = "127.0.0.1", "127.0.0.2"
REQUEST = b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n"
End = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def bound(monkeypatch: pytest.MonkeyPatch, **values: float) -> None:
    for name, value in {"HALF_OPEN": HALF_OPEN, "WAITING": WAITING, **values}.items():
        monkeypatch.setattr(f"sealcast.est.connections.{name}", value)


@pytest.fixture
async def source(tmp_path: Path) -> AsyncIterator[Source]:
    made = Source(Site(tmp_path))
    async with made.server() as server:
        _, made.port = await server.listen(HERE)
        yield made


class Attacker:
    """Opens connections from an address of its own, and closes none."""

    def __init__(self, port: int, address: str) -> None:
        self._port = port
        self._address = address
        self.ends: list[End] = []

    async def open(self, count: int, context: ssl.SSLContext | None = None) -> None:
        for _ in range(count):
            end = await asyncio.open_connection(HERE, self._port, local_addr=(self._address, 0), ssl=context)
            self.ends.append(end)

    async def ended(self, count: int) -> None:
        """Wait until so many are."""
        reads = [asyncio.ensure_future(_end(reader)) for reader, _ in self.ends]
        try:
            async with asyncio.timeout(20):
                for read in asyncio.as_completed(reads):
                    await read
                    count -= 1
                    if not count:
                        return
        finally:
            for read in reads:
                read.cancel()

    def close(self) -> None:
        for _, writer in self.ends:
            writer.transport.abort()


async def _end(reader: asyncio.StreamReader) -> None:
    while True:
        try:
            if not await reader.read(1 << 16):
                return
        except ConnectionError:
            return


async def test_d7_an_attacker_elsewhere_leaves_members_alone(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    bound(monkeypatch)
    attacker = Attacker(source.port, ELSEWHERE)
    try:
        await attacker.open(40)
        async with asyncio.timeout(10), AsyncExitStack() as stack:
            # Each over a connection of its own, opened beside the flood.
            for number in range(10):
                member = await stack.enter_async_context(source.client(f"bed{number}"))
                assert (await ask(member))[0] == 200
        await attacker.ended(40 - HALF_OPEN - WAITING)
    finally:
        attacker.close()


async def test_d7_members_at_the_attackers_address_are_served(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those who were there wait for nothing, and who comes has to wait for one hasty limit at most."""
    bound(monkeypatch, HASTY_SECONDS=0.3)
    attacker = Attacker(source.port, HERE)
    try:
        async with AsyncExitStack() as stack:
            # More than may be half open: whoever has shown its certificate does not count.
            members = [
                await stack.enter_async_context(source.client(f"bed{number}"))
                for number in range(2 * HALF_OPEN)
            ]
            for member in members:
                assert (await ask(member))[0] == 200
            await attacker.open(20)
            async with asyncio.timeout(10):
                for member in members:
                    assert (await ask(member))[0] == 200
                newcomer = await stack.enter_async_context(source.client("newcomer"))
                assert (await ask(newcomer))[0] == 200
    finally:
        attacker.close()


async def test_d7_many_members_of_one_address_come_at_once(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    bound(monkeypatch, WAITING=100)
    async with AsyncExitStack() as stack:
        members = [await stack.enter_async_context(source.client(f"bed{number}")) for number in range(40)]
        answers = await asyncio.gather(*map(ask, members))
    assert [status for status, _ in answers] == [200] * 40


async def test_d7_who_is_slow_to_come_to_a_request_is_ended(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before TLS, in it, after it, and in the middle of the first request."""
    bound(monkeypatch, HALF_OPEN=100, HANDSHAKE_SECONDS=0.5, FIRST_REQUEST_SECONDS=0.5)
    context = identity_of(source.site, "bed1").ssl_context_client()
    reader, writer = await asyncio.open_connection(HERE, source.port, ssl=context)
    attacker = Attacker(source.port, HERE)
    try:
        writer.write(REQUEST)
        await asyncio.wait_for(reader.readuntil(b"no such request: GET"), 10)
        await attacker.open(4)
        for _, slow in attacker.ends[2:]:
            slow.write(b"\x16\x03\x01\x02\x00\x01")
        await attacker.open(4, context)
        for _, slow in attacker.ends[6:]:
            slow.write(REQUEST[:-2])
        await attacker.ended(8)
        # One that has come to a request may take its time for the next.
        writer.write(REQUEST)
        await asyncio.wait_for(reader.readuntil(b"no such request: GET"), 10)
    finally:
        writer.close()
        attacker.close()


async def test_d7_who_shows_no_certificate_counts_until_it_asks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A listener of EST: TLS alone says nothing about who it is."""
    bound(monkeypatch, HASTY_SECONDS=0.3, WAITING=100)
    site = Site(tmp_path)
    context = ssl.create_default_context(cafile=str(site.root_file))
    context.check_hostname = False
    async with serving(TokenService(site)) as url:
        attacker = Attacker(int(url.rpartition(":")[2]), HERE)
        try:
            await attacker.open(HALF_OPEN, context)
            blocked = asyncio.ensure_future(attacker.open(1, context))
            await attacker.ended(HALF_OPEN)
            await blocked
            reader, writer = attacker.ends[-1]
            writer.write(b"GET /.well-known/est/cacerts HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b" 200 " in await asyncio.wait_for(reader.readline(), 10)
        finally:
            attacker.close()
