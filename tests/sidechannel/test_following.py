"""Those who follow a stream over real sockets: pushed at once, read once for many, held nowhere. SC-44."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import cbor2
import pytest

from sealcast.pki.signed import decode_cbor
from sealcast.sidechannel import PeerClient, PeerServer, followers
from sealcast.sidechannel.follow_messages import FollowRequest
from sealcast.sidechannel.followers import Followers, FollowSource
from sealcast.sidechannel.quota import Quota
from sealcast.sidechannel.server import Admission, Repaired
from tests.est.site import Site
from tests.sidechannel.identities import identity_of

CHANNEL, STREAM = bytes([1] * 32), bytes(range(16))


class Source:
    """A peer server with a stream of packets, each of which says its sequence."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.packets: list[bytes] = []
        self.reads = 0
        self.allowed = True
        self.is_awaited = False
        self.has_come = asyncio.Event()
        self.quota = Quota()
        self.port = 0

    def _repair(
        self,
        _channel: bytes,
        _stream: bytes,
        ranges: tuple[tuple[int, int], ...],
        _admission: Admission | None,
    ) -> Repaired:
        self.reads += 1
        first, last = ranges[0]
        return self.packets[first : last + 1], 0, None

    def _reach(self, _channel: bytes, stream: bytes) -> tuple[int, bool] | None:
        return (len(self.packets), False) if stream == STREAM else None

    def take_fresh(self, goes_on: bool) -> list[bytes]:
        self.is_awaited = goes_on
        return [STREAM]

    def seal(self, server: PeerServer, count: int = 1, size: int = 100) -> None:
        for _ in range(count):
            self.packets.append(len(self.packets).to_bytes(8) + bytes(size))
        if self.is_awaited:
            server.followers.take_fresh(self)

    def _await(self, _channel: bytes) -> None:
        self.is_awaited = True
        self.has_come.set()

    async def waiting(self, server: PeerServer, count: int) -> None:
        """Until so many wait."""
        async with asyncio.timeout(20):
            while server.followers._waiting.total() < count:
                self.has_come.clear()
                await self.has_come.wait()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[PeerServer]:
        server = PeerServer(
            identity_of(self.site, "keeper"),
            repair=self._repair,
            files=lambda *_: False,
            follow=FollowSource(reach=self._reach, await_fresh=self._await),
            is_allowed=lambda *_: self.allowed,
            crl=lambda: None,
            quota=self.quota,
        )
        async with server:
            _, self.port = await server.listen("127.0.0.1")
            yield server

    def client(self, device: str) -> PeerClient:
        return PeerClient(identity_of(self.site, device), host="127.0.0.1", port=self.port, device="keeper")


@pytest.fixture
def source(tmp_path: Path) -> Source:
    return Source(Site(tmp_path))


def body(first: int, stream: bytes = STREAM) -> bytes:
    return FollowRequest(channel=CHANNEL, stream=stream, first=first).serialize()


async def follow(client: PeerClient, asked: bytes) -> tuple[int, bytes]:
    return await client.exchange("POST", "/v1/follow", asked, answer_seconds=30)


async def test_many_who_wait_are_answered_at_once_by_one_read(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As many handshakes take their time.
    monkeypatch.setattr("sealcast.sidechannel.server.HOLD_SECONDS", 30)
    async with source.serving() as server, source.client("bed1") as bed1, source.client("bed2") as bed2:
        asked = [asyncio.ensure_future(follow(one, body(0))) for _ in range(10) for one in (bed1, bed2)]
        await source.waiting(server, 20)
        assert source.reads == 0
        source.seal(server)
        answers = await asyncio.gather(*asked)
        assert {status for status, _ in answers} == {200}
        assert {bytes(decode_cbor(given)["packets"][0]) for _, given in answers} == {source.packets[0]}
        assert source.reads == 1
        assert server.followers._waiting.total() == 0
        # Nobody waits any more, and the engine hears of it when it next has something.
        source.seal(server)
        assert not source.is_awaited


async def test_what_comes_soon_after_an_answer_comes_together(source: Source) -> None:
    """A busy stream costs a follower a hundred answers a second, not one for each packet."""
    async with source.serving() as server, source.client("bed1") as client:
        got, answers = 0, 0

        async def seal() -> None:
            for _ in range(100):
                source.seal(server)
                await asyncio.sleep(0.001)

        sealing = asyncio.ensure_future(seal())
        while got < 100:
            _, given = await follow(client, body(got))
            got += len(decode_cbor(given)["packets"])
            answers += 1
        await sealing
        assert answers < 50


async def test_a_lagging_follower_is_given_what_there_is_without_a_pause(source: Source) -> None:
    async with source.serving() as server, source.client("bed1") as client:
        source.seal(server, 3000)
        counts, got = [], 0
        while got < 3000:
            counts.append(len(decode_cbor((await follow(client, body(got)))[1])["packets"]))
            got += counts[-1]
        assert counts == [1024, 1024, 952]


async def test_a_request_is_judged_anew_before_it_is_answered(source: Source) -> None:
    """Who was removed while it waited gets a refusal, and no packet."""
    async with source.serving() as server, source.client("bed1") as client:
        asked = asyncio.ensure_future(follow(client, body(0)))
        await source.waiting(server, 1)
        source.allowed = False
        source.seal(server)
        status, given = await asked
        assert (status, decode_cbor(given)["error"]) == (403, "not-allowed")


async def test_what_waits_is_answered_with_nothing_after_five_seconds(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sealcast.sidechannel.server.HOLD_SECONDS", 0.2)
    async with source.serving(), source.client("bed1") as client:
        status, given = await follow(client, body(7))
        assert (status, decode_cbor(given)["packets"]) == (200, [])


async def test_d2_who_waits_too_often_is_told_to_come_back(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(followers, "MAX_FOLLOWERS_PER_DEVICE", 3)
    monkeypatch.setattr("sealcast.sidechannel.server.HOLD_SECONDS", 30)
    async with (
        source.serving() as server,
        source.client("greedy") as greedy,
        source.client("modest") as modest,
    ):
        asked = [asyncio.ensure_future(follow(greedy, body(0))) for _ in range(3)]
        await source.waiting(server, 3)
        status, given = await follow(greedy, body(0))
        assert (status, decode_cbor(given)["retry-after"]) == (429, 1)
        asked.append(asyncio.ensure_future(follow(modest, body(0))))
        await source.waiting(server, 4)
        source.seal(server)
        assert [status for status, _ in await asyncio.gather(*asked)] == [200] * 4


async def test_d2_bytes_that_were_followed_count(source: Source) -> None:
    source.quota = Quota(bytes_per_second=1000)
    async with source.serving() as server, source.client("greedy") as greedy:
        source.seal(server, 64, 1000)
        assert (await follow(greedy, body(0)))[0] == 200
        status, given = await follow(greedy, body(0))
        assert status == 429
        assert decode_cbor(given)["retry-after"] > 50


async def test_d1_a_reader_that_stands_still_is_let_go_of_and_holds_a_slice(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is on the way to it is bounded, and others get theirs meanwhile."""
    monkeypatch.setattr(followers, "SLICE_SECONDS", 0.5)
    let_go, take_off = asyncio.Event(), followers._take_off

    def noted(counts: Counter[str], key: str, count: int) -> None:
        take_off(counts, key, count)
        if key == "slow" and count > 1:
            let_go.set()

    monkeypatch.setattr(followers, "_take_off", noted)
    async with source.serving() as server, source.client("slow") as slow, source.client("quick") as quick:
        source.seal(server, 40, 50_000)
        async with (
            slow._connection._new_session() as session,
            session.post(f"https://127.0.0.1:{source.port}/v1/follow", data=body(0)) as response,
        ):
            response.content._protocol.pause_reading()
            assert (await follow(quick, body(0)))[0] == 200
            assert server.followers._carried.total() <= 2 << 20
            async with asyncio.timeout(10):
                await let_go.wait()
            assert not server.followers._carried
        assert (await follow(slow, body(39)))[0] == 200


async def test_d1_answers_on_the_way_are_bounded_for_each_device(monkeypatch: pytest.MonkeyPatch) -> None:
    class Request:
        """Of a client that takes nothing."""

    async def stuck(_request: object, _body: bytes) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(followers, "_send", stuck)
    crowd = Followers()
    tasks = [
        asyncio.ensure_future(crowd.carry(Request(), "slow", bytes(2 << 20)))  # type: ignore[arg-type]
        for _ in range(8)
    ]
    await asyncio.sleep(0)
    done = [task for task in tasks if task.done()]
    assert len(done) == 4
    assert all("already" in str(task.exception()) for task in done)
    assert crowd._carried == {"slow": 8 << 20}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert not crowd._carried


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"channel": CHANNEL, "stream": STREAM},
        {"channel": CHANNEL, "stream": STREAM, "from": -1},
        {"channel": CHANNEL, "stream": STREAM, "from": 2**62 + 1},
        {"channel": CHANNEL, "stream": STREAM, "from": "0"},
        {"channel": CHANNEL, "stream": STREAM[:15], "from": 0},
        {"channel": CHANNEL[:31], "stream": STREAM, "from": 0},
    ],
    ids=["empty", "no from", "negative", "beyond", "text", "short stream", "short channel"],
)
async def test_d5_absurd_requests_are_refused_unread(source: Source, fields: dict[str, object]) -> None:
    async with source.serving(), source.client("bed1") as client:
        status, given = await follow(client, cbor2.dumps(fields, canonical=True))
    assert (status, decode_cbor(given)["error"]) == (400, "malformed-request")
    assert source.reads == 0


async def test_an_unknown_stream_is_refused_at_once(source: Source) -> None:
    async with source.serving(), source.client("bed1") as client:
        status, given = await follow(client, body(0, bytes(16)))
    assert (status, decode_cbor(given)["error"]) == (404, "unknown-stream")
