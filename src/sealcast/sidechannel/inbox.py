"""The side channel of a device that takes messages: who posts them is judged, then they are stored.

Spec: spec/side-channel.md section 5.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable

from aiohttp import web

from sealcast.pki.names import Role
from sealcast.pki.times import system_time
from sealcast.pki.validator import VerifiedPeer
from sealcast.sidechannel.listener import Listener
from sealcast.sidechannel.messages import CONTENT_TYPE, MAX_PEER_BODY
from sealcast.sidechannel.peer_messages import InboxAnswer, InboxRequest
from sealcast.sidechannel.refusals import Refusal, RefusedError, answer_refusals
from sealcast.sidechannel.tls import Clock, CurrentCrl, TlsIdentity, peer_of

Store = Callable[[VerifiedPeer, InboxRequest], Awaitable[int]]
"""Stores the messages, and returns how many of the first are on the disk."""

IsPaired = Callable[[VerifiedPeer], bool]
"""Whether the peer may send messages here (TR-30)."""

MAX_REQUESTS_PER_PEER = 2
"""At once: one, and another one where a sender has given up the first."""

MAX_REQUESTS = 64
"""At once, of all peers: each may hold a body of 1 MiB in memory."""

BODY_SECONDS = 30.0
"""For a body to come in."""


class InboxServer:
    """Listens for the messages of a device's peers.

    async with InboxServer(identity, store=…, is_paired=…, crl=…) as server:
        host, port = await server.listen("192.0.2.7")

    """

    def __init__(
        self,
        identity: TlsIdentity,
        *,
        store: Store,
        is_paired: IsPaired,
        crl: CurrentCrl,
        clock: Clock = system_time,
    ) -> None:
        """Prepare; nothing listens before `listen`.

        Args:
            identity: the device.
            store: takes messages; when it returns they are on the disk.
            is_paired: judges by the policies.
            crl: the CRL of this moment; it is asked for each request, and nobody is let in without one.
            clock: microseconds since the epoch.
        """
        self._validator = identity.validator()
        self._listener = Listener(identity)
        self._store = store
        self._is_paired = is_paired
        self._crl = crl
        self._clock = clock
        self._requests: Counter[str] = Counter()

    async def __aenter__(self) -> "InboxServer":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def make_application(self) -> web.Application:
        """Every request that is answered here."""
        application = web.Application(middlewares=[answer_refusals], client_max_size=MAX_PEER_BODY)
        application.router.add_post("/v1/inbox", self._serve_inbox)
        return application

    async def listen(self, host: str, port: int = 0) -> tuple[str, int]:
        """Listen on an address of this machine; port 0 takes a free one. Returns, raises: as `Listener`."""
        return await self._listener.listen(self.make_application(), host, port)

    def reload(self, identity: TlsIdentity) -> None:
        """Go on with a renewed certificate, and with new anchors; no connection is dropped."""
        self._validator = identity.validator()
        self._listener.reload(identity)

    async def close(self) -> None:
        """Stop listening, and end what is open."""
        await self._listener.close()

    async def _serve_inbox(self, request: web.Request) -> web.Response:
        peer = self._caller(request)
        key = peer.identity.uri
        if self._requests[key] >= MAX_REQUESTS_PER_PEER:
            raise RefusedError(
                Refusal.TOO_MANY_REQUESTS, f"{MAX_REQUESTS_PER_PEER} requests of this device are open"
            )
        if self._requests.total() >= MAX_REQUESTS:
            raise RefusedError(Refusal.TOO_MANY_REQUESTS, f"{MAX_REQUESTS} requests are open")
        self._requests[key] += 1
        try:
            asked = InboxRequest.parse(await self._body(request))
            # A body may take its time, and its sender may have been removed meanwhile.
            stored = await self._store(self._caller(request), asked)
        finally:
            self._requests[key] -= 1
            if not self._requests[key]:
                del self._requests[key]
        if not stored:
            raise RefusedError(Refusal.INBOX_FULL, "there is no room until the device has taken messages")
        return web.Response(body=InboxAnswer(stored=stored).serialize(), content_type=CONTENT_TYPE)

    def _caller(self, request: web.Request) -> VerifiedPeer:
        # Judged before the body is read: a stranger makes us read no megabyte.
        crl = self._crl()
        if crl is None:
            raise RefusedError(Refusal.INTERNAL, "no revocation list yet")
        peer = peer_of(request, self._validator, Role.DEVICE, self._clock(), crl)
        if not self._is_paired(peer):
            raise RefusedError(
                Refusal.NOT_ALLOWED, f"no channel's policy lists both {peer.identity.uri} and this device"
            )
        return peer

    async def _body(self, request: web.Request) -> bytes:
        try:
            async with asyncio.timeout(BODY_SECONDS):
                return await request.read()
        except TimeoutError:
            raise RefusedError(
                Refusal.MALFORMED_REQUEST, f"the body has not come within {BODY_SECONDS:g} s"
            ) from None
