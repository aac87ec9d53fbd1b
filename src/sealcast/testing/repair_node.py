"""The repair nodes of a simulation: what `sealcast.repair` does, without I/O."""

from collections.abc import Callable
from functools import partial

from sealcast.sidechannel.fields import MalformedMessageError
from sealcast.sidechannel.follow_messages import FollowRequest
from sealcast.sidechannel.messages import RepairAnswer, RepairRequest
from sealcast.sidechannel.refusals import ErrorAnswer, Refusal, RefusedError
from sealcast.testing.following import Following, open_range
from sealcast.testing.hosts import Surroundings
from sealcast.testing.side_channel import Respond
from sealcast.testing.site import PeerJudge, SiteCertificate
from sealcast.testing.subscriber import SimulatedSubscriber

KEEP_BYTES, KEEP_MICROSECONDS = 64 << 20, 60_000_000

Admission = tuple[int, int, int]


class SimulatedRepairNode(SimulatedSubscriber):
    """A repair node, which answers members as long as it runs."""

    def __init__(
        self,
        around: Surroundings,
        identity: SiteCertificate,
        admission: Callable[[str], Admission | None],
        *,
        keep: tuple[int, int] = (KEEP_BYTES, KEEP_MICROSECONDS),
    ) -> None:
        """Prepare; `start` starts. `admission`: what the key server says of a member."""
        super().__init__(around, identity)
        self._keep = keep
        self._admission = admission
        self._judge = PeerJudge(around.site.validator())
        self._following = Following(around.timeline)
        self.endpoint = f"{identity.name}.example", 443
        self.withheld: set[int] = set()
        """Sequences that it says nothing of, though it has them."""
        self.poison: Callable[[bytes], bytes] = bytes
        """What becomes of the body of an answer."""
        self.retry_after: int | None = None
        """Seconds: whoever asks has asked for too much."""
        self.is_mute = False
        """Whether it says nothing of how far a stream is."""
        self.served = 0
        """Requests that it has answered with what it keeps."""
        around.side_channel.listen(*self.endpoint, identity.name, self.answer)

    def answer(
        self, device: str, certificate: bytes, method: str, path: str, body: bytes, respond: Respond
    ) -> None:
        """Answer a peer, judged as `sealcast.sidechannel.PeerServer` does."""
        engine = self._engine
        if engine is None:
            respond(None, b"")
            return
        if self.retry_after is not None:
            busy = RefusedError(Refusal.TOO_MANY_REQUESTS, "", retry_after=self.retry_after)
            respond(busy.refusal.status, busy.answer().serialize())
            return
        refusal = Refusal.NOT_ALLOWED
        try:
            parse = FollowRequest.parse if path == "/v1/follow" else RepairRequest.parse
            asked = parse(body)
        except MalformedMessageError:
            refusal = Refusal.MALFORMED_REQUEST
        else:
            admission = self._admission(device)
            reason = self._judge.why_refused(certificate, engine.crl(), engine.date(self.now))
            if reason is not None:
                refusal = Refusal.REVOKED if reason == "revoked" else Refusal.NOT_AUTHENTICATED
            elif method != "POST" or path not in ("/v1/repair", "/v1/follow"):
                refusal = Refusal.MALFORMED_REQUEST
            elif asked.channel != self._around.channel_id:
                refusal = Refusal.UNKNOWN_CHANNEL
            elif engine.is_member(device) and admission is not None:
                if engine.reach(asked.stream) is None:
                    refusal = Refusal.UNKNOWN_STREAM
                elif isinstance(asked, FollowRequest):
                    give = partial(self._give, asked.stream, open_range(asked), admission, respond)
                    self._following.take(asked, give, self._reach)
                    return
                else:
                    self._give(asked.stream, asked.ranges, admission, respond)
                    return
        respond(refusal.status, ErrorAnswer(error=refusal.code, detail="").serialize())

    def crash(self) -> None:
        """As `SimulatedSubscriber.crash`; whoever waits here is answered by nobody."""
        super().crash()
        self._following.end()

    def _feed(self) -> None:
        super()._feed()
        self._following.look(self._reach)

    def _reach(self, stream: bytes) -> tuple[int, bool] | None:
        return None if self._engine is None else self._engine.reach(stream)

    def _give(
        self, stream: bytes, ranges: tuple[tuple[int, int], ...], admission: Admission, respond: Respond
    ) -> None:
        engine = self._engine
        served = None if engine is None else engine.served(stream, ranges, admission, self.now)
        if served is None:
            respond(None, b"")
            return
        packets, oldest, head = served
        self.served += 1
        told = tuple(packet for packet in packets if _sequence(packet) not in self.withheld)
        answer = RepairAnswer(packets=told, oldest=oldest, head=None if self.is_mute else head)
        respond(200, self.poison(answer.serialize()))


def _sequence(packet: bytes) -> int:
    """DP-5, by the table of DP-4."""
    return int.from_bytes(packet[46:54]) + packet[54]
