"""How a publisher that does not listen serves repair: it asks repair nodes what they want of it, and is told
by their answers what receivers have of its files.

One request waits at each node; the next one brings what was wanted. Spec: spec/side-channel.md SC-50.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Callable
from http import HTTPStatus

from sealcast import _core
from sealcast.endpoint.session import Session
from sealcast.errors import NetworkError, SealcastError, UnreachableError
from sealcast.pki.names import parse_member
from sealcast.sidechannel.client import PeerClient
from sealcast.sidechannel.fields import MalformedMessageError
from sealcast.sidechannel.messages import PollRequest, RepairAnswer, RepairNodeEntry
from sealcast.sidechannel.peer_messages import FileReport
from sealcast.sidechannel.wanted_messages import (
    HOLD_SECONDS,
    MAX_BROUGHT_BYTES,
    WantedAnswer,
    WantedRequest,
)

log = logging.getLogger(__name__)

MAX_NODES = 8
"""Repair nodes that are asked; members get from each what it has of all others."""

_LOOK_SECONDS = 1.0
_FIRST_DELAY_SECONDS, _MAX_DELAY_SECONDS = 0.2, 5.0
_NOTHING = RepairAnswer(packets=(), oldest=0, head=None)


async def serve_outbound(
    engine: _core.SendEngine,
    session: Session,
    channel: str,
    channel_id: bytes,
    site_id: bytes,
    take_report: Callable[[str, FileReport], object],
) -> None:
    """Ask every repair node of a channel, and those that come, until cancelled.

    `take_report`: takes what a device tells of files.
    """
    asking: dict[tuple[str, tuple[str, int]], asyncio.Task[None]] = {}
    try:
        async for nodes in _nodes(session, channel):
            listed = {(node.device, node.endpoint): node for node in nodes[:MAX_NODES]}
            for key in asking.keys() - listed.keys():
                asking.pop(key).cancel()
            for key in listed.keys() - asking.keys():
                node = _Node(engine, session, listed[key], channel_id, site_id, take_report)
                asking[key] = asyncio.create_task(node.serve())
    finally:
        for task in asking.values():
            task.cancel()
        await asyncio.gather(*asking.values(), return_exceptions=True)


async def _nodes(session: Session, channel: str) -> AsyncIterator[tuple[RepairNodeEntry, ...]]:
    """The channel's repair nodes, and again whenever the directory is another one (SC-45)."""
    known, counter = bytes(32), 0
    while True:
        try:
            news = await session.key_server.await_news(channel, PollRequest(counter=counter, directory=known))
            counter = news.counter
            if news.directory != known:
                # What changes later is told by the next answer.
                known = news.directory or bytes(32)
                yield (await session.key_server.directory(channel)).repair_nodes
        except SealcastError as error:
            known = bytes(32)
            log.debug("channel %s: the directory does not answer: %s", channel, error)
        # Nor does a key server that answers at once, as when it ends, make this a flood.
        await asyncio.sleep(_LOOK_SECONDS * random.uniform(0.5, 1.0))  # noqa: S311  # jitter, no secret


class _Node:
    """One repair node, as its publisher asks it."""

    def __init__(
        self,
        engine: _core.SendEngine,
        session: Session,
        entry: RepairNodeEntry,
        channel_id: bytes,
        site_id: bytes,
        take_report: Callable[[str, FileReport], object],
    ) -> None:
        self._take_report = take_report
        self._engine = engine
        self._session = session
        self._entry = entry
        self._channel_id = channel_id
        self._site_id = site_id
        self._delay = _FIRST_DELAY_SECONDS

    async def serve(self) -> None:
        """Go on until cancelled."""
        while True:
            try:
                await self._serve()
            except SealcastError as error:
                log.debug("repair node %s: %s", self._entry.device, error)
            await asyncio.sleep(self._delay * random.uniform(0.5, 1.0))  # noqa: S311  # jitter, no secret
            self._delay = min(self._delay * 2, _MAX_DELAY_SECONDS)

    async def _serve(self) -> None:
        """One request after the other. Raises: SealcastError: the node does not answer, or refuses."""
        session, engine, (host, port) = self._session, self._engine, self._entry.endpoint
        of, device = parse_member(self._site_id, self._entry.device)
        client = PeerClient(
            session.identity,
            host=host,
            port=port,
            device=device,
            site_id=of,
            crl=engine.crl,
            clock=session.date,
        )
        async with client:
            number, brought = 0, _NOTHING
            taken: tuple[int, ...] = ()
            identity = session.identity
            while True:
                if session.identity is not identity:
                    identity = session.identity
                    client.reload(identity)
                # SC-40: the directory is the key server's word alone.
                if not engine.is_member(self._entry.device):
                    raise UnreachableError(self._entry.device, "the policy does not list it")
                body = WantedRequest(
                    channel=self._channel_id,
                    stream=engine.stream_id,
                    number=number,
                    brought=brought,
                    taken=taken,
                )
                status, answer = await client.exchange(
                    "POST", "/v1/wanted", body.serialize(), answer_seconds=2 * HOLD_SECONDS
                )
                if status != HTTPStatus.OK:
                    raise NetworkError(f"repair node {self._entry.device} answers {status}")
                wanted = WantedAnswer.parse(answer)
                self._delay = _FIRST_DELAY_SECONDS
                number, brought, taken = wanted.number, self._packets(wanted), self._reports(wanted)

    def _reports(self, wanted: WantedAnswer) -> tuple[int, ...]:
        """Pass on what receivers tell; the node's word is all there is for who they are. Returns: marks."""
        for passed in wanted.reports:
            try:
                report = FileReport.parse(passed.report)
            except MalformedMessageError as error:
                log.debug("repair node %s passes on what is no report: %s", self._entry.device, error)
                continue
            if self._engine.is_member(passed.device) and report.channel == self._channel_id:
                self._take_report(passed.device, report)
        return tuple(passed.mark for passed in wanted.reports)

    def _packets(self, wanted: WantedAnswer) -> RepairAnswer:
        if not wanted.ranges:
            return _NOTHING
        packets, oldest, head = self._engine.repair(wanted.ranges, self._session.now())
        taken, room = [], MAX_BROUGHT_BYTES
        for packet in packets:
            room -= len(packet)
            if room < 0:
                break
            taken.append(packet)
        return RepairAnswer(packets=tuple(taken), oldest=oldest, head=head)
