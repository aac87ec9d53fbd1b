"""Floods of the side channel: requests without end, HTTP/2, connections that never say what they want.

Our listeners speak HTTP/1.1 alone: of the floods of HTTP/2 (rapid reset, CONTINUATION, empty DATA) none can
begin, and what is left is the flood of requests. SEALCAST_HALF_OPEN says how many connections are left half
open: 10,000 in a soak, or as many as the system lets one process have both ends of.
"""

import asyncio
import os
import resource
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest

from sealcast.errors import NetworkError
from sealcast.sidechannel import PeerServer
from sealcast.sidechannel.quota import Quota
from tests.est.site import Site
from tests.figures import record
from tests.sidechannel.flood import flooding, note, waits
from tests.sidechannel.identities import identity_of
from tests.sidechannel.test_repair_service import ONE, Source, ask

HALF_OPEN = int(os.environ.get("SEALCAST_HALF_OPEN", "150"))
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS, RESET, HEADERS, CONTINUATION = 4, 3, 1, 9


def frame(kind: int, stream: int, payload: bytes = b"", flags: int = 0) -> bytes:
    """One of HTTP/2 (RFC 9113 section 4.1)."""
    return len(payload).to_bytes(3) + struct.pack("!BBI", kind, flags, stream) + payload


@pytest.fixture
async def source(tmp_path: Path) -> AsyncIterator[Source]:
    """A publisher's side channel that is being served."""
    made = Source(Site(tmp_path))
    made.quota = Quota(requests_per_second=100)
    async with made.server() as server:
        _, made.port = await server.listen("127.0.0.1")
        yield made


async def connected(
    source: Source, device: str, *protocols: str
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection with a device's certificate, and nothing said on it."""
    context = identity_of(source.site, device).ssl_context_client()
    context.check_hostname = False
    if protocols:
        context.set_alpn_protocols(list(protocols))
    return await asyncio.open_connection("127.0.0.1", source.port, ssl=context)


async def test_d6_http_2_cannot_be_had(source: Source) -> None:
    """Not by ALPN, and not by prior knowledge: the first word of it ends the connection."""
    reader, writer = await connected(source, "bed1", "h2")
    session: ssl.SSLObject = writer.get_extra_info("ssl_object")
    assert session.selected_alpn_protocol() is None
    rapid_reset = b"".join(
        frame(HEADERS, number, b"\x82", 5) + frame(RESET, number, bytes(4)) for number in range(1, 2001, 2)
    )
    endless = frame(HEADERS, 1, b"\x82") + frame(CONTINUATION, 1, bytes(16_000)) * 20
    writer.write(PREFACE + frame(SETTINGS, 0) + rapid_reset + endless)
    answer = b""
    with suppress(ConnectionError):
        async with asyncio.timeout(20):
            answer = await reader.read(1 << 20)
    assert answer.startswith((b"HTTP/1.1 400", b"HTTP/1.0 400")) or not answer
    writer.close()
    assert not source.reads
    async with source.client("bed2") as member:
        assert (await ask(member))[0] == 200


async def test_d6_a_flood_of_requests_is_refused_and_others_are_served(source: Source) -> None:
    """What is refused is not read, and costs no memory; how long the modest one waits is in the ledger."""
    greedy = identity_of(source.site, "greedy")
    async with source.client("modest") as modest:

        async def served() -> None:
            assert (await ask(modest))[0] == 200

        alone = await waits(served)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        authorities = (*greedy.roots, *greedy.issuers)
        async with flooding(greedy, authorities, source.port, "/v1/repair", ONE) as answers:
            beside = await waits(served)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 16 * 1024
    note("repair requests of a modest member beside a flood", alone, beside, answers, grown * 1024)


async def test_d6_requests_that_wait_for_no_answer_are_bounded(source: Source) -> None:
    """Ten thousand in one go on one connection, whose answers nobody reads."""
    request = b"POST /v1/repair HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(ONE), ONE)
    reader, writer = await connected(source, "bed1")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    writer.write(request * 10_000)
    async with source.client("bed2") as member:
        for _ in range(10):
            assert (await ask(member))[0] == 200
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 32 * 1024
    assert (await reader.read(12)).startswith(b"HTTP/1.1 ")
    writer.transport.abort()


async def test_d7_connections_that_never_come_to_a_request_hold_up_nobody(source: Source) -> None:
    """Some never begin TLS, or begin it, at an address of their own; some send a header a byte at a time."""
    # Both ends of each are in this process.
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 2 * HALF_OPEN + 1000)), hard))
    count = min(HALF_OPEN, (hard - 1000) // 2)
    begun = ssl.create_default_context()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with suppress(ssl.SSLWantReadError):
        begun.wrap_bio(incoming, outgoing, server_hostname="x").do_handshake()
    hello = outgoing.read()
    writers: list[asyncio.StreamWriter] = []
    try:
        for number in range(count):
            _, writer = await asyncio.open_connection("127.0.0.1", source.port, local_addr=("127.0.0.2", 0))
            writers.append(writer)
            writer.write((b"", hello[:20], hello)[number % 3])
        slow = [await connected(source, "bed1") for _ in range(20)]
        writers += [writer for _, writer in slow]
        for letter in b"POST /v1/repair HT":
            for _, writer in slow:
                writer.write(bytes([letter]))
            async with asyncio.timeout(10), source.client("bed2") as member:
                assert (await ask(member))[0] == 200
    finally:
        for writer in writers:
            writer.transport.abort()
    record({"what": "half-open connections", "count": count, "held": True})


async def test_d7_a_body_that_never_comes_holds_up_nobody(source: Source) -> None:
    writers: list[asyncio.StreamWriter] = []
    for _ in range(20):
        _, writer = await connected(source, "bed1")
        writers.append(writer)
        writer.write(b"POST /v1/repair HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n\xa3")
    async with asyncio.timeout(10), source.client("bed2") as member:
        for _ in range(10):
            assert (await ask(member))[0] == 200
    for writer in writers:
        writer.transport.abort()
    assert len(source.reads) == 1


async def test_d7_a_listener_that_is_flooded_leaves_the_others_alone(source: Source, tmp_path: Path) -> None:
    """Another port of the same process."""
    other = Source(source.site)
    async with PeerServer(
        identity_of(source.site, "keeper"),
        repair=other._repair,
        files=lambda *_: False,
        is_allowed=lambda *_: True,
        crl=lambda: None,
    ) as server:
        _, other.port = await server.listen("127.0.0.1")
        writers = [(await asyncio.open_connection("127.0.0.1", source.port))[1] for _ in range(100)]
        async with other.client("bed1") as member:
            assert (await ask(member))[0] == 200
        for writer in writers:
            writer.transport.abort()
    with pytest.raises(NetworkError):
        async with other.client("bed1") as member:
            await ask(member)
