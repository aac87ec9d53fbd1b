"""Who serves repairs: many who ask the same, one who asks for everything, what nobody can mean. SC-43."""

import asyncio
import contextlib
import gzip
from collections.abc import Awaitable, Callable
from pathlib import Path

import cbor2
import pytest
from aiohttp import web

from sealcast.errors import NetworkError
from sealcast.pki.signed import decode_cbor
from sealcast.sidechannel import PeerClient, PeerServer
from sealcast.sidechannel.coalescing import MAX_ANSWERS, MOMENT_SECONDS, WHOLE_SECONDS, Answer, Coalesced
from sealcast.sidechannel.listener import Listener
from sealcast.sidechannel.messages import MAX_PEER_ANSWER, RepairRequest
from sealcast.sidechannel.quota import Accounts, Quota
from sealcast.sidechannel.server import Admission, Repaired
from tests.est.site import Site
from tests.sidechannel.identities import identity_of

CHANNEL, STREAM = bytes([1] * 32), bytes(range(16))
ONE = RepairRequest(channel=CHANNEL, stream=STREAM, ranges=((7, 7),)).serialize()


def packet(generation: int, step: int = 0) -> bytes:
    """What has the header's epoch where DP-4 says, and is nothing else."""
    return bytes(25) + step.to_bytes(1) + generation.to_bytes(4) + bytes(170)


class Source:
    """A peer server that counts its reads."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.reads: list[tuple[tuple[tuple[int, int], ...], Admission | None]] = []
        self.admissions: dict[str, Admission] = {}
        self.packets = [packet(1)]
        self.quota = Quota()
        self.port = 0

    def _repair(
        self,
        _channel: bytes,
        _stream: bytes,
        ranges: tuple[tuple[int, int], ...],
        admission: Admission | None,
    ) -> Repaired:
        self.reads.append((ranges, admission))
        since = (0, 0) if admission is None else admission[:2]
        return [sent for sent in self.packets if (int.from_bytes(sent[26:30]), sent[25]) >= since], 0, None

    async def _admission(self, _channel: bytes, device: str) -> Admission:
        return self.admissions.get(device, (0, 0, 0))

    def server(self) -> PeerServer:
        return PeerServer(
            identity_of(self.site, "keeper"),
            repair=self._repair,
            files=lambda *_: False,
            is_allowed=lambda *_: True,
            crl=lambda: None,
            admission=self._admission,
            quota=self.quota,
        )

    def client(self, device: str) -> PeerClient:
        return PeerClient(identity_of(self.site, device), host="127.0.0.1", port=self.port, device="keeper")


@pytest.fixture
def source(tmp_path: Path) -> Source:
    return Source(Site(tmp_path))


async def ask(client: PeerClient, body: bytes = ONE) -> tuple[int, bytes]:
    return await client.exchange("POST", "/v1/repair", body, answer_seconds=30)


async def test_d1_a_thousand_requests_for_one_packet_are_one_read(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    # On kept connections: a thousand handshakes may take longer than an answer stands.
    monkeypatch.setattr("sealcast.sidechannel.listener.KEPT_OPEN", 64)
    source.quota = Quota(requests_per_second=1000)
    async with source.server() as server:
        _, source.port = await server.listen("127.0.0.1")
        async with source.client("bed1") as bed1, source.client("bed2") as bed2:
            answers = await asyncio.gather(*(ask(client) for _ in range(500) for client in (bed1, bed2)))
    assert {status for status, _ in answers} == {200}
    assert len({body for _, body in answers}) == 1
    assert source.reads == [(((7, 7),), None)]


async def test_who_came_later_shares_no_answer_with_what_is_not_for_it(source: Source) -> None:
    """SC-42: what is read once for all is given to those alone who may have all of it."""
    source.packets = [packet(1, 3), packet(1, 5)]
    source.admissions = {"late": (1, 5, 0)}
    async with source.server() as server:
        _, source.port = await server.listen("127.0.0.1")
        async with source.client("early") as early, source.client("late") as late:
            of_early, of_late = await asyncio.gather(ask(early), ask(late))
    assert decode_cbor(of_early[1])["packets"] == source.packets
    assert decode_cbor(of_late[1])["packets"] == source.packets[1:]


async def test_d2_a_greedy_member_is_told_when_to_come_back_and_others_are_served(source: Source) -> None:
    source.quota = Quota(requests_per_second=2)
    async with source.server() as server:
        _, source.port = await server.listen("127.0.0.1")
        async with source.client("greedy") as greedy, source.client("modest") as modest:
            assert [(await ask(greedy))[0] for _ in range(8)] == [200] * 8
            # Refusals come late, and all of these are charged before the first one.
            refusals = asyncio.gather(*(ask(greedy) for _ in range(12)))
            assert (await ask(modest))[0] == 200
            session = greedy._connection._session
            assert session is not None
            async with session.post(f"https://127.0.0.1:{source.port}/v1/repair", data=ONE) as response:
                assert (response.status, response.headers["Retry-After"]) == (429, "1")
            refused = [decode_cbor(body) for status, body in await refusals if status == 429]
            assert {answer["error"] for answer in refused} == {"too-many-requests"}
            assert {answer["retry-after"] for answer in refused} == {1}


def test_d2_bytes_count_and_come_back_with_time() -> None:
    now = 0.0
    accounts = Accounts(Quota(bytes_per_second=1000, requests_per_second=10), lambda: now)
    assert accounts.charge_request("greedy") is None
    accounts.charge_bytes("greedy", 4000 + 2500)
    assert accounts.charge_request("greedy") == 3
    assert accounts.charge_request("modest") is None
    now = 2.4
    assert accounts.charge_request("greedy") == 1
    now = 2.6
    assert accounts.charge_request("greedy") is None


@pytest.mark.parametrize(
    "ranges",
    [
        [[9, 3]],
        [[0, 2**63]],
        [[-5, 3]],
        [[0, 1]] * 65,
        [[0, 2**62]],
        [[0]],
        [[0, "9"]],
    ],
    ids=["backwards", "2^63", "negative", "65", "beyond the last", "half", "text"],
)
async def test_d5_absurd_ranges_are_refused_unread(source: Source, ranges: list[object]) -> None:
    body = cbor2.dumps({"channel": CHANNEL, "stream": STREAM, "ranges": ranges}, canonical=True)
    async with source.server() as server:
        _, source.port = await server.listen("127.0.0.1")
        async with source.client("bed1") as client:
            status, answer = await ask(client, body)
    assert (status, decode_cbor(answer)["error"]) == (400, "malformed-request")
    assert not source.reads


@pytest.mark.filterwarnings("ignore:Sending a large body")
async def test_d5_a_million_ranges_are_too_large(source: Source) -> None:
    body = b"\xa3franges\x9a\x00\x0fB@" + b"\x82\x00\x01" * 1_000_000
    async with source.server() as server:
        _, source.port = await server.listen("127.0.0.1")
        async with source.client("bed1") as client:
            # It may not even be read to its end.
            with contextlib.suppress(NetworkError):
                assert (await ask(client, body))[0] == 413
    assert not source.reads


async def _endless(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    for _ in range(64):
        await response.write(bytes(1 << 20))
    return response


async def _bomb(_: web.Request) -> web.StreamResponse:
    return web.Response(body=gzip.compress(bytes(1 << 26)), headers={"Content-Encoding": "gzip"})


async def _poisoned(
    site: Site, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> tuple[int, bytes]:
    application = web.Application()
    application.router.add_post("/v1/repair", handler)
    listener = Listener(identity_of(site, "keeper"))
    _, port = await listener.listen(application, "127.0.0.1", 0)
    try:
        client = PeerClient(identity_of(site, "bed1"), host="127.0.0.1", port=port, device="keeper")
        async with client:
            return await ask(client)
    finally:
        await listener.close()


async def test_d3_an_endless_answer_is_read_no_further_than_one_may_be(tmp_path: Path) -> None:
    with pytest.raises(NetworkError, match=f"more than {MAX_PEER_ANSWER} bytes"):
        await _poisoned(Site(tmp_path), _endless)


async def test_d3_a_gzip_bomb_is_not_unpacked(tmp_path: Path) -> None:
    status, body = await _poisoned(Site(tmp_path), _bomb)
    assert status == 200
    assert len(body) < 1 << 20


async def test_an_answer_that_failed_is_made_anew_and_those_of_a_moment_are_bounded() -> None:
    now, is_whole = 0.0, False
    coalesced, made = Coalesced(lambda: now), 0

    async def make() -> Answer:
        nonlocal made
        made += 1
        if made == 1:
            raise ValueError("not yet")
        return Answer(body=bytes(1000), since=None, is_whole=is_whole)

    with pytest.raises(ValueError, match="not yet"):
        await coalesced.of("a", make)
    assert (await coalesced.of("a", make)).body == bytes(1000)
    assert (await coalesced.of("a", make)).body == bytes(1000)
    assert made == 2
    now += 2 * MOMENT_SECONDS
    await coalesced.of("a", make)
    assert made == 3
    now, is_whole = now + 2 * MOMENT_SECONDS, True
    for _ in range(3):
        await coalesced.of("a", make)
        now += 2 * MOMENT_SECONDS
    assert made == 4, "what lacks nothing stands longer"
    for number in range(2 * MAX_ANSWERS):
        await coalesced.of(number, make)
    assert len(coalesced._entries) <= MAX_ANSWERS
    assert coalesced._bytes == 1000 * len(coalesced._entries)
    now += WHOLE_SECONDS
    await coalesced.of("b", make)
    assert coalesced._bytes == 1000
