"""The publishers of a simulation: what `sealcast.endpoint.Publisher` does, without I/O."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import partial

from sealcast import _core
from sealcast.endpoint.events import parse_event
from sealcast.errors import InternalError
from sealcast.pki import Context, SignedObject, Validator
from sealcast.pki.fec import Fec
from sealcast.pki.validator import Anchor
from sealcast.sidechannel.fields import MalformedMessageError
from sealcast.sidechannel.follow_messages import FollowRequest
from sealcast.sidechannel.loss_messages import LossAnswer, LossReport
from sealcast.sidechannel.messages import (
    MAX_REPAIR_BYTES,
    MAX_REPAIR_PACKETS,
    RepairAnswer,
    RepairRequest,
)
from sealcast.sidechannel.refusals import ErrorAnswer, Refusal
from sealcast.testing.clock import SECOND
from sealcast.testing.following import Following, open_range
from sealcast.testing.hosts import TAKE_ALL, Engine, Host, Sent, StreamRecord, Surroundings
from sealcast.testing.side_channel import Respond
from sealcast.testing.site import PeerJudge, SiteCertificate

CREDENTIAL_LIFE = 24 * 3600 * SECOND
"""Microseconds, as in `sealcast.endpoint`."""

_FIRST_PORT = 7000
_REQUESTS: dict[str, type[RepairRequest | FollowRequest | LossReport]] = {
    "/v1/repair": RepairRequest,
    "/v1/follow": FollowRequest,
    "/v1/losses": LossReport,
}


class SimulatedPublisher(Host):
    """A publisher; `send` is what its application does."""

    def __init__(
        self,
        around: Surroundings,
        identity: SiteCertificate,
        *,
        instance: str = "",
        skew: int = 0,
        mtu: int = 1500,
        max_block: int = 64,
        fec: Fec | None = None,
        credential_life: int = CREDENTIAL_LIFE,
    ) -> None:
        """Prepare; `start` starts. `credential_life`: of each stream credential, microseconds."""
        super().__init__(around, identity, f"publisher {identity.name}/{instance}", skew)
        self.instance = instance
        self.streams: list[StreamRecord] = []
        """One for each start."""
        self._mtu = mtu
        self._max_block = max_block
        self._fec = fec
        self._credential_life = credential_life
        self._engine: _core.SendEngine | None = None
        self._judge = PeerJudge(around.site.validator())
        self._following = Following(around.timeline)
        self.reports = 0
        """Reports of losses that came."""
        self._succeeds: bytes | None = None
        self._is_certified = False
        self._free = 0
        self._wakes = 0

    # -- life ------------------------------------------------------------------------------------------------

    @property
    def is_up(self) -> bool:
        """Whether the process runs."""
        return self._engine is not None

    @property
    def _running(self) -> Engine | None:
        return self._engine

    @property
    def engine(self) -> _core.SendEngine:
        """The engine of this start."""
        if self._engine is None:
            raise RuntimeError(f"publisher {self.name} is not running")
        return self._engine

    @property
    def stream(self) -> StreamRecord:
        """The stream of the latest start."""
        return self.streams[-1]

    def start(self) -> None:
        """Start the process: a fresh stream key, hence a new stream (DP-2)."""
        around, now = self._around, self.now
        self.starts += 1
        self._is_certified, self._timer, self._free = False, None, 0
        engine = _core.SendEngine(
            site_id=around.site.site_id,
            channel=around.channel,
            device_site_id=around.site.site_id,
            device=self.name,
            anchors=[around.site.root],
            issuers=[around.site.ca],
            signed_time=self.signed_time,
            now=now,
            jitter_seed=self._random.getrandbits(64),
            seed=self._random.randbytes(32),
            start_nonce=self._random.randbytes(16),
            instance=self.instance,
            mtu=self._mtu,
            max_block=self._max_block,
            fec=self._fec,
        )
        self._engine = engine
        record = StreamRecord(self.name, self.instance, bytes(engine.stream_id), around.timeline.now)
        self.streams.append(record)
        around.streams[record.stream_id] = record
        host, port = self._address()
        engine.set_endpoint(host, port)
        around.side_channel.listen(host, port, self.name, self._serve)
        self.touch()

    def crash(self) -> None:
        """Die without a word; what is queued is lost."""
        engine, record = self.engine, self.stream
        record.crashed = self._around.timeline.now
        record.sealed = len(record.sent)
        queued = engine.counters()["queued_bytes"]
        while queued > 0 and record.sealed > 0:
            record.sealed -= 1
            # As the engine counts: the data and one byte for each message.
            queued -= len(record.sent[record.sealed].data) + 1
        self._end()

    def restart(self) -> None:
        """Crash, if it still runs, and start again."""
        if self.is_up:
            self.crash()
        self.start()

    def finish(self) -> None:
        """Sign the end of the stream once everything is sealed (DP-26); it goes on serving repairs."""
        self.engine.finish(self.now)
        self.touch()

    def stop(self) -> None:
        """End the process; after `finish`, and what its application calls linger."""
        self._end()

    def renew(self) -> SiteCertificate:
        """Go on with a renewed certificate and a new device key; return the old certificate."""
        old = self.identity
        self.adopt(self._around.site.issue_device(self.name, self._around.timeline.now))
        return old

    def adopt(self, identity: SiteCertificate) -> None:
        """Go on with a certificate of the device, under a credential that begins now."""
        self.identity = identity
        if self._is_certified:
            self._certify(self.engine)

    def trust(self, anchors: Sequence[Anchor], issuers: Sequence[bytes]) -> None:
        """As `Host.trust`; who asks for repairs is judged by them too."""
        super().trust(anchors, issuers)
        self._judge = PeerJudge(Validator(anchors, issuers))

    def _end(self) -> None:
        self._engine = None
        self._around.side_channel.close(*self._address())
        self._following.end()

    def _address(self) -> tuple[str, int]:
        # A port of its own for each start: whoever asks the old one finds nobody.
        return f"{self.name}.{self.instance or 'main'}", _FIRST_PORT + self.starts % 50_000

    # -- sending ---------------------------------------------------------------------------------------------

    @property
    def is_ready(self) -> bool:
        """Whether the directory lists the stream: who joins from now on is told of it."""
        return self._engine is not None and self._engine.is_registered

    def send(self, data: bytes, topic: str | None = None) -> int:
        """Queue one message; return its id. Raises: _core.SendError."""
        message_id = self.engine.send(data, topic)
        self.stream.sent.append(Sent(self._around.timeline.now, data, topic))
        self.touch()
        return message_id

    def send_numbered(self, count: int = 1, size: int = 200) -> None:
        """Queue messages of `size` bytes, each different from every other one of the simulation."""
        for _ in range(count):
            self.send(numbered(self.stream.stream_id, len(self.stream.sent), size))

    def send_every(self, interval: int, count: int, size: int = 200, burst: int = 1) -> None:
        """Queue `burst` messages every `interval` microseconds, `count` times, from now on.

        Stops when the process ends; goes on with the next one is up to the caller.
        """
        start = self.starts

        def tick(left: int) -> None:
            if start != self.starts or self._engine is None:
                return
            self.send_numbered(burst, size)
            if left > 1:
                self._around.timeline.after(interval, lambda: tick(left - 1))

        tick(count)

    def _feed(self) -> None:
        engine, now = self.engine, self.now
        deadline = engine.next_deadline()
        if deadline is not None and deadline <= now:
            engine.handle_deadline(now, self._random.randbytes(32))
        for item in engine.poll_events(TAKE_ALL):
            if isinstance(item, tuple):
                self._tell(parse_event(*item))
        policy = engine.policy()
        if policy is None:
            return
        if not self._is_certified:
            self._succeeds = engine.predecessor()
            self._certify(engine)
        self._transmit(engine, policy["rate"] * engine.pace // 1000)
        self._following.look(self._reach)
        epoch = engine.epoch(now)
        epochs = self.stream.epochs
        if epoch is not None and (not epochs or epochs[-1][1] != epoch[1:]):
            epochs.append((self._around.timeline.now, epoch[1:]))

    def _transmit(self, engine: _core.SendEngine, rate: int) -> None:
        """Hand over what is ready, block by block, no faster than the policy's rate."""
        now = self.now
        while engine.has_queued and now >= self._free:
            if not (datagrams := engine.poll_transmit(TAKE_ALL)):
                engine.seal_block(now, self._random.randbytes(16))
                datagrams = engine.poll_transmit(TAKE_ALL)
            if not datagrams:
                # Blocked: the engine says so in an event, and goes on after an answer.
                return
            self._free = now + 8 * SECOND * sum(map(len, datagrams)) // rate
            self._around.network.send(self.name, datagrams)
        if engine.has_queued:
            self._around.timeline.at(self._free - self.skew, self.touch)

    def _certify(self, engine: _core.SendEngine) -> None:
        """Let the device key vouch for the stream key (TR-11), as `sealcast.endpoint.Publisher` does."""
        identity, now = self.identity, self.now
        date = engine.sealing_date(now)
        not_after = min(identity.not_after, date + self._credential_life)
        tbs = engine.credential_tbs(
            site_id=self._around.site.site_id,
            name=self.name,
            certificate_hash=identity.certificate_hash,
            not_before=max(identity.not_before, date - 60 * SECOND),
            not_after=not_after,
            succeeds=self._succeeds,
        )
        if tbs is None:
            raise InternalError("a stream credential was asked for before the join")
        signed = SignedObject.sign(Context.STREAM_CREDENTIAL, tbs, identity.signer).serialize()
        engine.set_credential(signed, list(identity.chain), not_after, now)
        self._is_certified = True
        start = self.starts
        self._around.timeline.after(self._credential_life // 2, lambda: self._recertify(start))
        self.touch()

    def _recertify(self, start: int) -> None:
        if start == self.starts and self._engine is not None:
            self._certify(self._engine)

    def _serve(
        self, device: str, certificate: bytes, method: str, path: str, body: bytes, respond: Respond
    ) -> None:
        """Answer a peer (side-channel.md section 2), judged as `sealcast.sidechannel.PeerServer` does."""
        engine = self._engine
        if engine is None:
            respond(None, b"")
            return
        refusal: Refusal | None = None
        try:
            asked = _REQUESTS.get(path, RepairRequest).parse(body)
        except MalformedMessageError:
            refusal = Refusal.MALFORMED_REQUEST
        else:
            reason = self._judge.why_refused(certificate, engine.crl(), engine.date(self.now))
            if reason is not None:
                refusal = Refusal.REVOKED if reason == "revoked" else Refusal.NOT_AUTHENTICATED
            elif method != "POST" or path not in _REQUESTS:
                refusal = Refusal.MALFORMED_REQUEST
            elif asked.channel != self._around.channel_id:
                refusal = Refusal.UNKNOWN_CHANNEL
            elif not engine.is_member(device):
                refusal = Refusal.NOT_ALLOWED
            elif asked.stream != engine.stream_id:
                refusal = Refusal.UNKNOWN_STREAM
            elif isinstance(asked, LossReport):
                self.reports += 1
                interval = engine.take_report(device, asked.lost, asked.sent, self.now)
                if interval is not None:
                    respond(200, LossAnswer(interval=interval).serialize())
                    return
                refusal = Refusal.TOO_MANY_REQUESTS
            elif isinstance(asked, FollowRequest):
                give = partial(self._give, asked.stream, open_range(asked), respond)
                self._following.take(asked, give, self._reach)
                return
            else:
                self._give(asked.stream, asked.ranges, respond)
                return
        respond(refusal.status, ErrorAnswer(error=refusal.code, detail="").serialize())

    def _reach(self, stream: bytes) -> tuple[int, bool] | None:
        engine = self._engine
        return engine.reach() if engine is not None and stream == engine.stream_id else None

    def _give(self, stream: bytes, ranges: tuple[tuple[int, int], ...], respond: Respond) -> None:
        engine = self._engine
        if engine is None or stream != engine.stream_id:
            respond(None, b"")
            return
        packets, oldest, head = engine.repair(ranges, self.now)
        respond(200, RepairAnswer(packets=bounded(packets), oldest=oldest, head=head).serialize())


def numbered(stream_id: bytes, message_id: int, size: int) -> bytes:
    """Return `size` bytes (8 at least) that no other message of a simulation has."""
    head = stream_id[:4] + message_id.to_bytes(4)
    return head + hashlib.shake_128(head).digest(max(size - len(head), 0))


def bounded(packets: Sequence[bytes]) -> tuple[bytes, ...]:
    """As many of the first packets as one repair answer may hold (SC-8)."""
    kept, room = [], MAX_REPAIR_BYTES
    for packet in packets[:MAX_REPAIR_PACKETS]:
        room -= len(packet)
        if room < 0:
            break
        kept.append(packet)
    return tuple(kept)
