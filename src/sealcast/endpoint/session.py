"""The I/O around one engine: makes its requests, feeds it the answers, wakes who waits.

The engine decides everything; this file moves bytes. Spec: spec/side-channel.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from http import HTTPStatus
from typing import Any, Protocol

from sealcast import _core
from sealcast.device.documents import take_crl
from sealcast.device.floors import Floors, raise_floors, take_signed_time
from sealcast.device.folder import stamp
from sealcast.device.identity import DeviceIdentity
from sealcast.endpoint.site import ChannelSite
from sealcast.errors import (
    CertificateError,
    NetworkError,
    NotAllowedError,
    SealcastError,
    StorageError,
    UnknownChannelError,
    UnreachableError,
    UsageError,
)
from sealcast.pki.names import channel_id
from sealcast.pki.times import system_time
from sealcast.sidechannel.client import KeyServerClient, PeerClient
from sealcast.sidechannel.refusals import Refusal

log = logging.getLogger(__name__)

MICROSECONDS = 1_000_000
FOLDER_INTERVAL_SECONDS = 1.0
"""How often the device's folder is looked at for renewed credentials."""

_EVENTS_AT_ONCE = 512

_MAX_PEERS = 64
"""Connections kept to sources of repair: as many as the engine follows streams."""

_TELLS_CRL = ("/join", "/v1/crl")
"""Ends of requests whose answer brings the CRLs."""

_Peer = tuple[bytes, str, str, int]
"""Site id, device, host, port."""

JOIN_PATIENCE_SECONDS = 20.0
"""For a first join where connections are taken: when power returns, all of a site comes at once."""

_LOOK_SECONDS = 0.05
"""How long the engine's requests wait at most while the application does not take what it is told."""


class Engine(Protocol):
    """What SendEngine and ReceiveEngine have in common."""

    def poll_events(self, limit: int) -> list[_core.Event]: ...
    def poll_commands(self) -> list[_core.Command]: ...
    def handle_response(self, id: int, status: int | None, body: bytes, now: int) -> None: ...
    def next_deadline(self) -> int | None: ...
    def policy(self) -> _core.Policy | None: ...
    def crl(self) -> bytes | None: ...
    def floors(self) -> tuple[int, int, int]: ...
    def set_wall(self, now: int, wall: int) -> None: ...
    def date(self, now: int) -> int: ...
    def signed_time(self) -> int: ...
    def set_trust(self, anchors: Sequence[_core.Anchor], issuers: Sequence[bytes], now: int) -> None: ...


class Driver(Protocol):
    """What SendDriver and ReceiveDriver have in common."""

    def rearm(self) -> None: ...
    def wake(self) -> None: ...
    def stop(self) -> None: ...


KEEP_PACKETS = "keep packets"
_CURES = {
    KEEP_PACKETS: "have the operator list it as a subscriber, and give it the role: "
    "sealcast authority device set SITE NAME --role repair-node"
}


class Session:
    """One engine's life on an event loop, from the join to the end."""

    def __init__(
        self,
        engine: Engine,
        identity: DeviceIdentity,
        site: ChannelSite,
        channel: str,
        handle_deadline: Callable[[int], None],
        purpose: str,
    ) -> None:
        """Take the engine; `handle_deadline` does what is due until a driver's thread does it.

        `purpose`: what this device means to do on the channel: publish, subscribe, or KEEP_PACKETS.
        """
        self.identity = identity
        self.site = site
        self.on_renewal: Callable[[DeviceIdentity], None] = lambda _identity: None
        self.on_output: Callable[[], None] = lambda: None
        """Is called when a driver says that its engine has something to tell."""
        self.ask_outbound: Callable[[str, bytes], Awaitable[bytes]] | None = None
        """Asks a publisher that does not listen: path and body of a request, body of its answer (SC-50)."""
        self._engine = engine
        self._channel = channel
        self._purpose = purpose
        self._handle_deadline = handle_deadline
        self._key_server = KeyServerClient(
            identity, url=site.keys_url, site_id=site.site_id, crl=engine.crl, clock=self.date
        )
        # The one used last stands last.
        self._peers: OrderedDict[_Peer, PeerClient] = OrderedDict()
        self._driver: Driver | None = None
        self._floors = Floors(*engine.floors())
        self._signed_time = engine.signed_time()
        self._crl = engine.crl()
        self._tasks: set[asyncio.Task[None]] = set()
        self._reader, self._signal = socket.socketpair()
        self._reader.setblocking(False)
        self._signal.setblocking(False)
        self._ready = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._look: asyncio.TimerHandle | None = None
        self._failure: SealcastError | None = None
        self._stopped = False

    @property
    def notify(self) -> int:
        """The descriptor that a driver signals on."""
        return self._signal.fileno()

    @property
    def key_server(self) -> KeyServerClient:
        """For requests beside the engine's own."""
        return self._key_server

    def now(self) -> int:
        """The engine's time, of a clock that is never set; the engine is told what the wall clock says."""
        now = _core.steady_time()
        self._engine.set_wall(now, system_time())
        return now

    def date(self) -> int:
        """What validity goes by, whatever becomes of the clock (TR-27)."""
        return self._engine.date(self.now())

    def start(self) -> None:
        """Begin: the engine's first request is the join."""
        loop = asyncio.get_running_loop()
        try:
            loop.add_reader(self._reader.fileno(), self._signalled)
        except NotImplementedError:
            raise UsageError(
                "the running event loop watches no sockets",
                cure="on Windows: asyncio.Runner(loop_factory=asyncio.SelectorEventLoop)",
            ) from None
        self.spawn(self._watch_folder())
        self._tick()

    def attach(self, driver: Driver) -> None:
        """From now on the driver's thread does what is due."""
        self._driver = driver
        if self._timer is not None:
            self._timer.cancel()
        driver.wake()

    def wake(self) -> None:
        """Have the driver's thread look at what has changed, where there is one."""
        if self._driver is not None:
            self._driver.wake()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` until it ends or the session does."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def take_events(self) -> list[_core.Event]:
        """Take what the engine has to tell; it signals anew after this."""
        self.expect_more()
        return self._engine.poll_events(_EVENTS_AT_ONCE)

    def expect_more(self) -> None:
        """What the engine has to tell is taken now; it signals anew after this."""
        self._ready.clear()
        if self._driver is not None:
            self._driver.rearm()
        self._carry_out()

    async def wait(self) -> None:
        """Wait until the engine has something to tell."""
        await self._ready.wait()

    async def joined(self) -> _core.Policy:
        """Wait for the first join; try it again for a while where the key server only has too much to do.

        Raises: UnreachableError, CertificateError, NotAllowedError, UnknownChannelError, NetworkError.
        """
        self.identity.check_roots(self.date())
        if self.date() >= self.identity.not_after:
            # TLS tells too late for a client to see why it is refused.
            raise CertificateError(
                f"the certificate of device {self.identity.name!r} has expired",
                reason="expired",
                cure="enrol it again with a new token: sealcast device enroll",
            )
        loop = asyncio.get_running_loop()
        patient_until = loop.time() + JOIN_PATIENCE_SECONDS
        while (policy := self._engine.policy()) is None:
            failure, self._failure = self._failure, None
            if failure is not None:
                is_busy = isinstance(failure, UnreachableError) and failure.is_busy
                if not is_busy or loop.time() >= patient_until:
                    raise failure
                log.warning("channel %s: %s; trying again", self._channel, failure)
            await self.wait()
            if self._engine.policy() is None:
                for event in self.take_events():
                    if isinstance(event, tuple) and event[0] == "refused":
                        reason = str(event[1]["reason"])
                        raise self.refusal(reason) or self._not_joined(reason)
        return policy

    def refusal(self, reason: str) -> SealcastError | None:
        """Return the error behind a key server's refusal; None if it is no final word about this device."""
        match reason:
            case "unknown-channel":
                return UnknownChannelError(self._channel)
            case "not-allowed":
                device, cure = self.identity.name, _CURES.get(self._purpose, "")
                return NotAllowedError(self._channel, device=device, action=self._purpose, cure=cure)
            case "revoked":
                return CertificateError(
                    f"device {self.identity.name!r} is revoked",
                    reason="revoked",
                    cure="enrol it anew with a token if that was a mistake",
                )
            case _:
                return None

    def _not_joined(self, reason: str) -> SealcastError:
        """What else keeps this device from a first join; one that runs goes on, and is told of it."""
        url = self.site.keys_url
        if reason != "not-authenticated":
            return NetworkError(f"the key server at {url} is not accepted: {reason}")
        if self.site.site_id == self.identity.site_id:
            cure = "renew it, or enrol again with a token"
        else:
            cure = "see whether that site's trust bundle lists ours, and has our CRL: authority crl list"
        return CertificateError(
            f"the key server at {url} does not accept the certificate of device {self.identity.name!r}",
            reason=reason,
            cure=cure,
        )

    async def close(self) -> None:
        """End every request and connection."""
        self._stopped = True
        for timer in (self._timer, self._look):
            if timer is not None:
                timer.cancel()
        if self._driver is not None:
            await asyncio.get_running_loop().run_in_executor(None, self._driver.stop)
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        with contextlib.suppress(ValueError):
            asyncio.get_running_loop().remove_reader(self._reader.fileno())
        self._reader.close()
        self._signal.close()
        await asyncio.gather(self._key_server.close(), *(peer.close() for peer in self._peers.values()))

    # -- inside ----------------------------------------------------------------------------------------------

    def _signalled(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._reader.recv(4096):
                pass
        self.on_output()
        self._carry_out()
        self._ready.set()
        # The driver signals once until it is told that we look. An application that is busy must not hold up
        # keys and repairs, so after a moment we look on our own.
        if self._look is None:
            self._look = asyncio.get_running_loop().call_later(_LOOK_SECONDS, self._look_again)

    def _look_again(self) -> None:
        self._look = None
        if self._driver is not None and not self._stopped:
            self._driver.rearm()

    def _tick(self) -> None:
        """Do what is due while there is no driver, or for good where nothing comes but answers."""
        if self._stopped or self._driver is not None:
            return
        if self._timer is not None:
            self._timer.cancel()
        now = self.now()
        self._handle_deadline(now)
        self._carry_out()
        self._ready.set()
        deadline = self._engine.next_deadline()
        wait = 1.0 if deadline is None else min(max(deadline - now, 0) / MICROSECONDS, 1.0)
        self._timer = asyncio.get_running_loop().call_later(wait, self._tick)

    def _carry_out(self) -> None:
        for command in self._engine.poll_commands():
            self.spawn(self._ask(command))

    async def _ask(self, command: _core.Command) -> None:
        status, body = None, b""
        try:
            async with asyncio.timeout(command.timeout / MICROSECONDS):
                if command.peers is None:
                    status, body = await self._ask_key_server(command)
                else:
                    status, body = await self._ask_peers(command, command.peers)
        except TimeoutError:
            self._note(UnreachableError(self.site.keys_url, "no answer in time", is_busy=True), command)
        except SealcastError as error:
            self._note(error, command)
        except Exception:  # the engine has to hear of every end, or it would wait for this answer for ever
            log.exception("%s %s", command.method, command.path)
        if self._stopped:
            return
        self._engine.handle_response(command.id, status, body, self.now())
        self._store_floors()
        if status == HTTPStatus.OK and command.path.endswith(_TELLS_CRL):
            self._store_crl()
        if self._driver is not None:
            self._driver.wake()
            self._carry_out()
            self._ready.set()
        else:
            self._tick()

    async def _ask_key_server(self, command: _core.Command) -> tuple[int, bytes]:
        """Ask, and once more where the certificate that the request began with is not ours any more.

        A poll waits for as long as a rotation may need to retire it; what the key server says of it then is
        not about us.
        """
        shown = self.identity.serial
        while True:
            status, body = await self._key_server.exchange(
                command.method, command.path, command.body or None, answer_seconds=60
            )
            if status != Refusal.NOT_AUTHENTICATED.status:
                return status, body
            self._read_folder()
            if shown == self.identity.serial:
                return status, body
            shown = self.identity.serial

    async def _ask_peers(self, command: _core.Command, peers: list[_Peer]) -> tuple[int | None, bytes]:
        """Ask the peers in order until one has what is asked for; else the last one's word is the answer."""
        refused: tuple[int | None, bytes] = (None, b"")
        for peer in peers:
            try:
                status, body = await self._exchange(command, peer)
            except SealcastError as error:
                log.debug("repair from %s at %s:%d: %s", *peer[1:], error)
                continue
            refused = status, body
            if status == 200:
                break
        return refused

    async def _exchange(self, command: _core.Command, peer: _Peer) -> tuple[int, bytes]:
        _, device, host, _ = peer
        if not host:
            if self.ask_outbound is None:
                raise UnreachableError(device, "it does not listen")
            return HTTPStatus.OK, await self.ask_outbound(command.path, command.body)
        return await self._peer(peer).exchange(command.method, command.path, command.body, answer_seconds=30)

    def _peer(self, peer: _Peer) -> PeerClient:
        client = self._peers.get(peer)
        if client is None:
            site_id, device, host, port = peer
            client = PeerClient(
                self.identity,
                host=host,
                port=port,
                device=device,
                site_id=site_id,
                crl=self._engine.crl,
                clock=self.date,
            )
            self._peers[peer] = client
            if len(self._peers) > _MAX_PEERS:
                _, oldest = self._peers.popitem(last=False)
                self.spawn(oldest.close())
        self._peers.move_to_end(peer)
        return client

    def _store_floors(self) -> None:
        """What was seen must not be taken back by a restart (invariant 8)."""
        seen, signed = Floors(*self._engine.floors()), self._engine.signed_time()
        if (seen, signed) == (self._floors, self._signed_time):
            return
        try:
            raise_floors(self.identity.path, channel_id(self.site.site_id, self._channel), seen)
            take_signed_time(self.identity.path, signed, system_time())
        except StorageError as error:
            log.warning("channel %s: what was seen cannot be stored: %s", self._channel, error)
        self._floors, self._signed_time = seen, signed

    def _store_crl(self) -> None:
        """For the next start, and so that no number of any issuer is taken back by it (TR-29)."""
        document = self._engine.crl()
        if document is None or document == self._crl:
            return
        authorities = (*self.identity.issuers, *self.identity.chain[1:])
        try:
            take_crl(self.identity.path, self.site.site_id, document, authorities)
        except CertificateError as error:
            # Signed by a site CA that the folder is yet to hear of; or another process holds a later one.
            log.debug("channel %s: the CRL is not stored: %s", self._channel, error)
        except StorageError as error:
            log.warning("channel %s: the CRL cannot be stored: %s", self._channel, error)
        self._crl = document

    def _note(self, error: SealcastError, command: _core.Command) -> None:
        log.debug("%s %s: %s", command.method, command.path, error)
        if command.peers is None and self._engine.policy() is None:
            self._failure = error

    async def _watch_folder(self) -> None:
        while True:
            await asyncio.sleep(FOLDER_INTERVAL_SECONDS)
            self._read_folder()

    def _read_folder(self) -> None:
        """Go on with renewed credentials and with a new trust bundle, whoever brought them."""
        try:
            if stamp(self.identity.path) == self.identity.stamp:
                return
            renewed = DeviceIdentity.open(self.identity.path)
        except SealcastError as error:
            log.warning("the device's folder cannot be read, going on with what is known: %s", error)
            return
        if renewed.bundle != self.identity.bundle:
            self._engine.set_trust(renewed.anchors, renewed.issuers, self.now())
            self._signalled()
        self.identity = renewed
        self._key_server.reload(renewed)
        for peer in self._peers.values():
            peer.reload(renewed)
        self.on_renewal(renewed)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a task of channel %s has ended", self._channel, exc_info=error)
