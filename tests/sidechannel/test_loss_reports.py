"""Reports of losses over real sockets: who may, what is absurd, and when there are too many. SC-49."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import cbor2
import pytest

from sealcast.pki.signed import decode_cbor
from sealcast.sidechannel import PeerClient, PeerServer
from sealcast.sidechannel.loss_messages import LossAnswer, LossReport
from tests.est.site import Site
from tests.sidechannel.identities import identity_of

CHANNEL, STREAM = bytes([1] * 32), bytes(range(16))


class Publisher:
    """A peer server that takes reports."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.taken: list[tuple[str, int, int]] = []
        self.interval: int | None = 2000
        self.port = 0

    def _take(self, device: str, report: LossReport) -> int | None:
        self.taken.append((device, report.lost, report.sent))
        return self.interval

    def server(self) -> PeerServer:
        return PeerServer(
            identity_of(self.site, "monitor"),
            repair=lambda *_: None,
            files=lambda *_: False,
            losses=self._take,
            is_allowed=lambda _, device: device != "stranger",
            crl=lambda: None,
        )

    async def post(self, device: str, body: bytes) -> tuple[int, bytes]:
        client = PeerClient(
            identity_of(self.site, device), host="127.0.0.1", port=self.port, device="monitor"
        )
        async with client:
            return await client.exchange("POST", "/v1/losses", body, answer_seconds=10)


@pytest.fixture
async def publisher(tmp_path: Path) -> AsyncIterator[Publisher]:
    publisher = Publisher(Site(tmp_path))
    async with publisher.server() as server:
        _, publisher.port = await server.listen("127.0.0.1")
        yield publisher


USUAL = {"channel": CHANNEL, "stream": STREAM, "lost": 3, "sent": 1000}


async def test_a_member_reports_and_is_told_when_to_come_again(publisher: Publisher) -> None:
    body = LossReport(channel=CHANNEL, stream=STREAM, lost=3, sent=1000).serialize()
    status, answer = await publisher.post("bed1", body)
    assert (status, LossAnswer.parse(answer).interval) == (200, 2000)
    assert publisher.taken == [("bed1", 3, 1000)]


async def test_of_many_who_report_few_leave_a_connection(publisher: Publisher) -> None:
    context = identity_of(publisher.site, "bed1").ssl_context_client()
    body = cbor2.dumps(USUAL, canonical=True)
    request = b"POST /v1/losses HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    closes, writers = [], []
    for _ in range(4):
        reader, writer = await asyncio.open_connection("127.0.0.1", publisher.port, ssl=context)
        writers.append(writer)
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        closes.append(b"connection: close" in head.lower())
        if closes[-1]:
            # Its end.
            await asyncio.wait_for(reader.read(), 10)
    assert closes == [False, False, True, True]
    for writer in writers:
        writer.close()


async def test_d2_too_many_are_refused(publisher: Publisher) -> None:
    publisher.interval = None
    status, answer = await publisher.post("bed1", cbor2.dumps(USUAL, canonical=True))
    assert (status, decode_cbor(answer)["retry-after"]) == (429, 2)


async def test_whom_the_policy_does_not_list_reports_nothing(publisher: Publisher) -> None:
    status, answer = await publisher.post("stranger", cbor2.dumps(USUAL, canonical=True))
    assert (status, decode_cbor(answer)["error"]) == (403, "not-allowed")
    assert not publisher.taken


@pytest.mark.parametrize(
    "wrong",
    [{"lost": 1001}, {"lost": -1}, {"sent": 2**62 + 1}, {"sent": "9"}, {"stream": b""}, {"channel": b"x"}],
    ids=["more than sent", "negative", "beyond 62 bits", "text", "no stream", "no channel"],
)
async def test_d5_absurd_reports_are_refused(publisher: Publisher, wrong: dict[str, object]) -> None:
    status, answer = await publisher.post("bed1", cbor2.dumps(USUAL | wrong, canonical=True))
    assert (status, decode_cbor(answer)["error"]) == (400, "malformed-request")
    assert not publisher.taken
