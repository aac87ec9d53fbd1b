"""Publishers that do not listen, at a repair node over real TLS: who may, and what is heeded. SC-50."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import cbor2
import pytest

from sealcast.errors import UnreachableError
from sealcast.pki.signed import decode_cbor
from sealcast.sidechannel import (
    MalformedMessageError,
    PeerClient,
    PeerServer,
    RepairAnswer,
    RepairRequest,
)
from sealcast.sidechannel.outbound import Outbound
from sealcast.sidechannel.quota import Quota
from sealcast.sidechannel.wanted_messages import WantedAnswer, WantedRequest
from tests.est.site import Site
from tests.sidechannel.identities import identity_of

CHANNEL, STREAM = bytes([1] * 32), bytes(range(16))
WANTED = RepairRequest(channel=CHANNEL, stream=STREAM, ranges=((3, 4), (7, 7)))
NOTHING = RepairAnswer(packets=(), oldest=0, head=None)
PACKETS = RepairAnswer(packets=(b"three", b"four", b"seven"), oldest=1, head=b"head")


class WatchedOutbound(Outbound):
    """Tells of each request that has come."""

    def __init__(self) -> None:
        super().__init__(lambda stream: "monitor" if stream == STREAM else None)
        self.came: asyncio.Queue[bytes] = asyncio.Queue()

    async def take(self, stream_id: bytes, number: int, brought: RepairAnswer) -> WantedAnswer:
        self.came.put_nowait(stream_id)
        return await super().take(stream_id, number, brought)


class Node:
    """A repair node's server, and what it wants."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.outbound = WatchedOutbound()
        self.port = 0

    def server(self) -> PeerServer:
        return PeerServer(
            identity_of(self.site, "keeper"),
            repair=lambda *_: None,
            files=lambda *_: False,
            is_allowed=lambda channel, device: device != "stranger" if channel == CHANNEL else None,
            crl=lambda: None,
            quota=Quota(requests_per_second=10),
            outbound=lambda _: self.outbound,
        )

    def client(self, device: str) -> PeerClient:
        return PeerClient(identity_of(self.site, device), host="127.0.0.1", port=self.port, device="keeper")


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    node = Node(Site(tmp_path))
    async with node.server() as server:
        _, node.port = await server.listen("127.0.0.1")
        yield node


async def post(client: PeerClient, body: bytes) -> tuple[int, bytes]:
    return await client.exchange("POST", "/v1/wanted", body, answer_seconds=10)


def brings(number: int, packets: RepairAnswer, stream: bytes = STREAM) -> bytes:
    return WantedRequest(channel=CHANNEL, stream=stream, number=number, brought=packets).serialize()


async def waits(node: Node, client: PeerClient, body: bytes) -> asyncio.Task[tuple[int, bytes]]:
    """A request that has come to wait at the node."""
    task = asyncio.ensure_future(post(client, body))
    async with asyncio.timeout(10):
        await node.outbound.came.get()
    return task


async def test_what_is_wanted_is_asked_and_brought(node: Node) -> None:
    async with node.client("monitor") as client:
        waiting = await waits(node, client, brings(0, NOTHING))
        asking = asyncio.ensure_future(node.outbound.ask(WANTED))
        status, body = await waiting
        wanted = WantedAnswer.parse(body)
        assert (status, wanted.ranges) == (200, WANTED.ranges)
        waiting = await waits(node, client, brings(wanted.number, PACKETS))
        assert await asking == PACKETS
        # The next thing has another number, and what answers an earlier one is nobody's.
        asking = asyncio.ensure_future(node.outbound.ask(WANTED))
        again = WantedAnswer.parse((await waiting)[1])
        assert again.number != wanted.number
        waiting = await waits(node, client, brings(wanted.number, PACKETS))
        assert not asking.done()
        newest = await waits(node, client, brings(again.number, NOTHING))
        assert await asking == NOTHING
        # One request waits at a time: the earlier one is let go.
        assert WantedAnswer.parse((await waiting)[1]) == WantedAnswer(number=0)
        node.outbound.end()
        assert WantedAnswer.parse((await newest)[1]) == WantedAnswer(number=0)


async def test_a_device_that_poses_as_the_publisher_is_refused(node: Node) -> None:
    """A member of the channel, and one that is none; nothing that they bring is heeded."""
    async with (
        node.client("monitor") as monitor,
        node.client("bed1") as bed,
        node.client("stranger") as stranger,
    ):
        waiting = await waits(node, monitor, brings(0, NOTHING))
        asking = asyncio.ensure_future(node.outbound.ask(WANTED))
        number = WantedAnswer.parse((await waiting)[1]).number
        for client in (bed, stranger):
            status, body = await post(client, brings(number, PACKETS))
            assert (status, decode_cbor(body)["error"]) == (403, "not-allowed")
        assert not asking.done()
        waiting = await waits(node, monitor, brings(number, NOTHING))
        assert await asking == NOTHING
        node.outbound.end()
        await waiting


async def test_a_stream_that_is_not_known_yet(node: Node) -> None:
    async with node.client("monitor") as client:
        status, body = await post(client, brings(0, NOTHING, stream=bytes(16)))
        assert (status, decode_cbor(body)["error"]) == (404, "unknown-stream")
    with pytest.raises(UnreachableError, match="does not ask here"):
        await node.outbound.ask(WANTED)


async def test_d2_a_publisher_that_asks_without_end_is_told_to_wait(node: Node) -> None:
    async with node.client("monitor") as client:
        waiting = await waits(node, client, brings(0, NOTHING))
        node.outbound.end()
        await waiting
        status, body = 200, b""
        for _ in range(1000):
            # Something is wanted, so that each is answered at once.
            asking = asyncio.ensure_future(node.outbound.ask(WANTED))
            await asyncio.sleep(0)
            status, body = await post(client, brings(0, NOTHING))
            asking.cancel()
            if status != 200:
                break
    assert (status, decode_cbor(body)["error"]) == (429, "too-many-requests")


USUAL = {
    "channel": CHANNEL, "stream": STREAM, "number": 1, "packets": [b"one"], "oldest": 0, "head": None
}  # fmt: skip


@pytest.mark.parametrize(
    "changed",
    [
        {"number": -1},
        {"number": 2**63},
        {"number": None},
        {"packets": b"one"},
        {"packets": [b"x" * 70_000]},
        {"packets": [b""] * 1025},
        {"stream": bytes(15)},
        {"oldest": None},
    ],
)
async def test_a_body_that_is_none(node: Node, changed: dict[str, object]) -> None:
    async with node.client("monitor") as client:
        status, body = await post(client, cbor2.dumps({**USUAL, **changed}, canonical=True))
    assert (status, decode_cbor(body)["error"]) == (400, "malformed-request")


@pytest.mark.parametrize("answer", [b"", b"\x00", cbor2.dumps({"number": 1, "ranges": [[4, 3]]})])
def test_an_answer_that_is_none(answer: bytes) -> None:
    with pytest.raises(MalformedMessageError):
        WantedAnswer.parse(answer)
