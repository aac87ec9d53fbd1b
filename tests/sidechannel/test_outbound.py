"""Publishers that do not listen, at a repair node over real TLS: who may, and what is heeded. SC-50."""

import asyncio
from collections.abc import AsyncIterator, Collection
from pathlib import Path

import cbor2
import pytest

from sealcast.errors import ChannelError, UnreachableError
from sealcast.pki.signed import decode_cbor
from sealcast.sidechannel import (
    MalformedMessageError,
    PeerClient,
    PeerServer,
    RepairAnswer,
    RepairRequest,
)
from sealcast.sidechannel.outbound import Outbound
from sealcast.sidechannel.peer_messages import FileReport
from sealcast.sidechannel.quota import Quota
from sealcast.sidechannel.refusals import RefusedError
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

    async def take(
        self, stream_id: bytes, number: int, brought: RepairAnswer, taken: Collection[int] = ()
    ) -> WantedAnswer:
        self.came.put_nowait(stream_id)
        return await super().take(stream_id, number, brought, taken)


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
            files=lambda device, report: self.outbound.report(report.stream, device, report.serialize()),
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


def reports(round: int, stream: bytes = STREAM) -> FileReport:
    return FileReport(channel=CHANNEL, stream=stream, round=round)


async def test_what_receivers_tell_of_files_is_passed_on_until_it_is_taken(node: Node) -> None:
    """The latest of each, by its mark; an answer that was lost is given again."""
    async with node.client("monitor") as publisher, node.client("bed1") as bed1, node.client("bed2") as bed2:
        with pytest.raises(ChannelError, match="is not published here"):
            await bed1.report_files(reports(1))
        waiting = await waits(node, publisher, brings(0, NOTHING))
        await bed1.report_files(reports(1))
        told = WantedAnswer.parse((await waiting)[1])
        assert (told.number, [each.device for each in told.reports]) == (0, ["bed1"])
        await bed1.report_files(reports(2))
        await bed2.report_files(reports(2))
        again = WantedAnswer.parse((await post(publisher, brings(0, NOTHING)))[1])
        assert [(each.device, FileReport.parse(each.report).round) for each in again.reports] == [
            ("bed1", 2),
            ("bed2", 2),
        ]
        # The first mark is of a report that another has taken the place of.
        taken = (told.reports[0].mark, again.reports[1].mark)
        body = WantedRequest(channel=CHANNEL, stream=STREAM, number=0, brought=NOTHING, taken=taken)
        last = WantedAnswer.parse((await post(publisher, body.serialize()))[1])
        assert last.reports == again.reports[:1]


async def test_d6_reports_on_files_that_nobody_comes_for_are_bounded(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = len(reports(1).serialize())
    monkeypatch.setattr("sealcast.sidechannel.outbound.MAX_KEPT_BYTES", 3 * size)
    async with node.client("monitor") as publisher:
        waiting = await waits(node, publisher, brings(0, NOTHING))
        for number in range(3):
            for _ in range(2):
                assert node.outbound.report(STREAM, f"bed{number}", reports(1).serialize())
        with pytest.raises(RefusedError, match="too many reports"):
            node.outbound.report(STREAM, "bed3", reports(1).serialize())
        with pytest.raises(RefusedError, match="a report on files of 300000 bytes"):
            node.outbound.report(STREAM, "bed0", bytes(300_000))
        assert len(WantedAnswer.parse((await waiting)[1]).reports) == 3
        # One that has gone away comes for nothing more.
        monkeypatch.setattr("sealcast.sidechannel.outbound._GONE_SECONDS", 0.0)
        assert not node.outbound.report(STREAM, "bed0", reports(1).serialize())
