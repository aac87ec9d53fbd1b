"""The side channel of a publisher: repair, what comes next, reports on files, for members of its channels.

What is served comes from handlers; this module judges who asks, bounds what is asked, and bounds the answer.

Spec: spec/side-channel.md section 2.
"""

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TypeVar

from aiohttp import web

from sealcast.pki.names import Role
from sealcast.pki.times import system_time
from sealcast.sidechannel.coalescing import Answer, Coalesced
from sealcast.sidechannel.follow_messages import HOLD_SECONDS, FollowRequest
from sealcast.sidechannel.followers import LAG, Followers, FollowSource
from sealcast.sidechannel.listener import Listener
from sealcast.sidechannel.loss_messages import LossAnswer, LossReport
from sealcast.sidechannel.messages import (
    CONTENT_TYPE,
    MAX_PEER_BODY,
    MAX_REPAIR_BYTES,
    MAX_REPAIR_PACKETS,
    EmptyBody,
    RepairAnswer,
    RepairRequest,
)
from sealcast.sidechannel.outbound import Outbound
from sealcast.sidechannel.peer_messages import FileReport
from sealcast.sidechannel.quota import Accounts, Quota
from sealcast.sidechannel.refusals import Refusal, RefusedError, answer_refusals
from sealcast.sidechannel.tls import Clock, CurrentCrl, TlsIdentity, member_name, peer_of
from sealcast.sidechannel.wanted_messages import WantedRequest

Result = TypeVar("Result")

Repaired = tuple[Sequence[bytes], int, bytes | None]
"""Packets, lowest sequence still retained, latest heartbeat."""

Admission = tuple[int, int, int]
"""Generation, step and time of joining (SC-42)."""

RepairHandler = Callable[
    [bytes, bytes, tuple[tuple[int, int], ...], Admission | None],
    Awaitable[Repaired | None] | Repaired | None,
]
"""`(channel id, stream id, ranges, admission)`; None: the stream is not ours. It may stop at the bounds of
SC-8. With an admission only what it covers; without one all that there is.
"""

AdmissionOf = Callable[[bytes, str], Awaitable[Admission]]
"""`(channel id, device as the policy writes it)`."""

FilesHandler = Callable[[str, FileReport], bool | Awaitable[bool]]
"""`(device, report)`; False: the stream is not ours."""

LossHandler = Callable[[str, LossReport], int | None]
"""`(device, report)`: milliseconds after which its next report is wanted; None: none is wanted now."""

IsAllowed = Callable[[bytes, str], bool | None]
"""`(channel id, device as the policy writes it)`: is it in the channel's policy; None: unknown channel.

A wrong yes gives sealed packets to a stranger, who cannot open them; a wrong no leaves a member with a gap.
"""


_REPORT_SECONDS = 2
_KEPT_REPORTING = 2
"""Connections that may be open when a report comes for its own to stay."""


class PeerServer:
    """Listens for the members of one device's channels.

    async with PeerServer(identity, repair=…, files=…, is_allowed=…, crl=…) as server:
        host, port = await server.listen("192.0.2.7")

    """

    def __init__(
        self,
        identity: TlsIdentity,
        *,
        site_id: bytes | None = None,
        repair: RepairHandler,
        files: FilesHandler,
        is_allowed: IsAllowed,
        crl: CurrentCrl,
        clock: Clock = system_time,
        admission: AdmissionOf | None = None,
        quota: Quota | None = None,
        follow: FollowSource | None = None,
        losses: LossHandler | None = None,
        outbound: Callable[[bytes], Outbound] | None = None,
    ) -> None:
        """Prepare; nothing listens before `listen`.

        Args:
            identity: the device.
            site_id: of the channels, which says how devices are written; None: the device's own.
            repair: serves packets.
            files: takes reports on files.
            is_allowed: judges by the policy.
            crl: the CRL of this moment; it is asked for each request.
            clock: microseconds since the epoch.
            admission: from when on a member is served; None: this is the publisher, who opens to nobody what
                it is not entitled to, and serves what it retains.
            quota: what one device may take; None: the usual.
            follow: tells how far there is something that `repair` can give; None: nobody follows here.
            losses: takes reports of losses; None: nobody reports any here.
            outbound: `(channel id)`: what is wanted of publishers that do not listen; None: nothing ever is.
        """
        self._site_id = site_id or identity.site_id
        self._validator = identity.validator()
        self._listener = Listener(identity)
        self._repair = repair
        self._files = files
        self._follow = follow
        self._losses = losses
        self._outbound = outbound
        self.followers = Followers()
        """Those who wait for more: to be told by `take_fresh` when the engine has output."""
        self._is_allowed = is_allowed
        self._crl = crl
        self._clock = clock
        self._admission = admission
        self._accounts = Accounts(quota or Quota())
        self._coalesced = Coalesced()

    async def __aenter__(self) -> "PeerServer":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def make_application(self) -> web.Application:
        """Every request that is answered here."""
        application = web.Application(middlewares=[answer_refusals], client_max_size=MAX_PEER_BODY)
        application.router.add_post("/v1/repair", self._serve_repair)
        if self._follow is not None:
            application.router.add_post("/v1/follow", partial(self._serve_follow, self._follow))
        if self._losses is not None:
            application.router.add_post("/v1/losses", partial(self._take_losses, self._losses))
        if self._outbound is not None:
            application.router.add_post("/v1/wanted", partial(self._serve_wanted, self._outbound))
        application.router.add_post("/v1/files", self._serve_files)
        return application

    async def listen(self, host: str, port: int = 0) -> tuple[str, int]:
        """Listen on an address of this machine; port 0 takes a free one.

        Returns: host and port, as the directory is to name them.

        Raises:
            ConfigError: the address cannot be had.
        """
        return await self._listener.listen(self.make_application(), host, port)

    def reload(self, identity: TlsIdentity) -> None:
        """Go on with a renewed certificate; no connection is dropped."""
        self._validator = identity.validator()
        self._listener.reload(identity)

    async def close(self) -> None:
        """Stop listening, and end what is open."""
        self.followers.end()
        await self._listener.close()

    async def _serve_repair(self, request: web.Request) -> web.Response:
        caller = self._caller(request)
        asked = RepairRequest.parse(await request.read())
        self._authorise(asked.channel, caller)
        if (seconds := await self._accounts.admit(caller)) is not None:
            raise _too_much(caller, seconds)
        answer = await self._read(caller, asked)
        self._accounts.charge_bytes(caller, len(answer.body))
        return _answer(answer.body)

    async def _read(self, caller: str, asked: RepairRequest) -> Answer:
        admission = None if self._admission is None else await self._admission(asked.channel, caller)
        key = asked.channel, asked.stream, asked.ranges
        answer = await self._coalesced.of(key, lambda: self._repaired(asked, None))
        if admission is not None and answer.since is not None and answer.since < admission[:2]:
            # Not all of it is for this one.
            answer = await self._repaired(asked, admission)
        return answer

    async def _serve_follow(self, source: FollowSource, request: web.Request) -> web.StreamResponse:
        caller = self._caller(request)
        asked = FollowRequest.parse(await request.read())
        self._authorise(asked.channel, caller)
        # How often it asks is bounded by how often it is answered.
        if (seconds := self._accounts.overdrawn(caller)) is not None:
            raise _too_much(caller, seconds)
        with self.followers.place(caller):
            end = await self._await_more(source, caller, asked)
            # It may have been removed while it waited.
            caller = self._caller(request)
            self._authorise(asked.channel, caller)
            wanted = RepairRequest(
                channel=asked.channel, stream=asked.stream, ranges=((asked.first, max(asked.first, end - 1)),)
            )
            if end > asked.first:
                answer = await self._read(caller, wanted)
                self.followers.note_given(caller, asked.stream)
            else:
                answer = await self._repaired(wanted, None)
            self._accounts.charge_bytes(caller, len(answer.body))
            return await self.followers.carry(request, caller, answer.body)

    async def _await_more(self, source: FollowSource, caller: str, asked: FollowRequest) -> int:
        """Wait until there is something for a follower, for as long as it is held; return where that ends."""
        loop = asyncio.get_running_loop()
        until, may_gather = loop.time() + HOLD_SECONDS, True
        while True:
            reach = source.reach(asked.channel, asked.stream)
            if reach is None:
                raise _not_ours(asked.stream)
            end, has_ended = reach
            if has_ended or end >= asked.first + LAG or self.followers.has_ended or loop.time() >= until:
                return end
            if end > asked.first:
                pause = self.followers.pause(caller, asked.stream) if may_gather else 0.0
                if not pause:
                    return end
                may_gather = False
                await asyncio.sleep(pause)
                continue
            news = self.followers.news(asked.stream)
            source.await_fresh(asked.channel)
            # What came in between has told nobody.
            if source.reach(asked.channel, asked.stream) == reach:
                await _set_until(news, until)

    async def _repaired(self, asked: RepairRequest, admission: Admission | None) -> Answer:
        found = await _result(self._repair(asked.channel, asked.stream, asked.ranges, admission))
        if found is None:
            raise _not_ours(asked.stream)
        packets, oldest, head = found
        served = _bounded(packets)
        body = RepairAnswer(packets=served, oldest=oldest, head=head).serialize()
        return Answer(
            body=body,
            since=min(map(_membership, served), default=None),
            # Of overlapping ranges there are never so many: such an answer only stands for a shorter time.
            is_whole=len(served) == sum(last - first + 1 for first, last in asked.ranges),
        )

    async def _serve_files(self, request: web.Request) -> web.Response:
        caller = self._caller(request)
        report = FileReport.parse(await request.read())
        self._authorise(report.channel, caller)
        if not await _result(self._files(caller, report)):
            raise _not_ours(report.stream)
        return _answer(EmptyBody().serialize())

    async def _serve_wanted(
        self, outbound_of: Callable[[bytes], Outbound], request: web.Request
    ) -> web.Response:
        caller = self._caller(request)
        asked = WantedRequest.parse(await request.read())
        self._authorise(asked.channel, caller)
        if (seconds := await self._accounts.admit(caller)) is not None:
            raise _too_much(caller, seconds)
        outbound = outbound_of(asked.channel)
        publisher = outbound.publisher_of(asked.stream)
        if publisher is None:
            raise _not_ours(asked.stream)
        if publisher != caller:
            raise RefusedError(
                Refusal.NOT_ALLOWED, f"stream {asked.stream.hex()} is not published by {caller!r}"
            )
        wanted = await outbound.take(asked.stream, asked.number, asked.brought, asked.taken)
        # It may have been removed while it waited.
        self._authorise(asked.channel, self._caller(request))
        return _answer(wanted.serialize())

    async def _take_losses(self, take: LossHandler, request: web.Request) -> web.Response:
        caller = self._caller(request)
        report = LossReport.parse(await request.read())
        self._authorise(report.channel, caller)
        interval = take(caller, report)
        if interval is None:
            raise RefusedError(
                Refusal.TOO_MANY_REQUESTS, "no report is wanted now", retry_after=_REPORT_SECONDS
            )
        answer = _answer(LossAnswer(interval=interval).serialize())
        if self._listener.open_connections > _KEPT_REPORTING:
            # Of a large group every next one is another's: they would be most of a publisher's memory.
            answer.force_close()
        return answer

    def _caller(self, request: web.Request) -> str:
        # Judged before the body is read: a stranger makes us read no megabyte.
        peer = peer_of(request, self._validator, Role.DEVICE, self._clock(), self._crl())
        return member_name(peer, self._site_id)

    def _authorise(self, channel: bytes, caller: str) -> None:
        allowed = self._is_allowed(channel, caller)
        if allowed is None:
            raise RefusedError(Refusal.UNKNOWN_CHANNEL, f"channel {channel.hex()} is not published here")
        if not allowed:
            raise RefusedError(Refusal.NOT_ALLOWED, f"the channel's policy does not list {caller!r}")


def _not_ours(stream: bytes) -> RefusedError:
    return RefusedError(Refusal.UNKNOWN_STREAM, f"stream {stream.hex()} is not published here")


def _too_much(caller: str, seconds: int) -> RefusedError:
    return RefusedError(Refusal.TOO_MANY_REQUESTS, f"{caller!r} asks for too much", retry_after=seconds)


def _answer(body: bytes) -> web.Response:
    return web.Response(body=body, content_type=CONTENT_TYPE)


def _membership(packet: bytes) -> tuple[int, int]:
    """Generation and step in the header of a packet (DP-4)."""
    return int.from_bytes(packet[26:30]), int.from_bytes(packet[25:26])


def _bounded(packets: Sequence[bytes]) -> tuple[bytes, ...]:
    """As many of the first packets as one answer may hold (SC-8)."""
    kept: list[bytes] = []
    room = MAX_REPAIR_BYTES
    for packet in packets[:MAX_REPAIR_PACKETS]:
        room -= len(packet)
        if room < 0:
            break
        kept.append(packet)
    return tuple(kept)


async def _set_until(event: asyncio.Event, until: float) -> None:
    try:
        async with asyncio.timeout_at(until):
            await event.wait()
    except TimeoutError:
        return


async def _result(value: Result | Awaitable[Result]) -> Result:
    return await value if inspect.isawaitable(value) else value
