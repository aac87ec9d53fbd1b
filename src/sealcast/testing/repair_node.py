"""The repair nodes of a simulation: what `sealcast.repair` does, without I/O."""

from collections.abc import Callable

from sealcast.sidechannel.fields import MalformedMessageError
from sealcast.sidechannel.messages import RepairAnswer, RepairRequest
from sealcast.sidechannel.refusals import ErrorAnswer, Refusal, RefusedError
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
        self.endpoint = f"{identity.name}.example", 443
        self.withheld: set[int] = set()
        """Sequences that it says nothing of, though it has them."""
        self.poison: Callable[[bytes], bytes] = bytes
        """What becomes of the body of an answer."""
        self.retry_after: int | None = None
        """Seconds: whoever asks has asked for too much."""
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
            asked = RepairRequest.parse(body)
        except MalformedMessageError:
            refusal = Refusal.MALFORMED_REQUEST
        else:
            admission = self._admission(device)
            reason = self._judge.why_refused(certificate, engine.crl(), engine.date(self.now))
            if reason is not None:
                refusal = Refusal.REVOKED if reason == "revoked" else Refusal.NOT_AUTHENTICATED
            elif (method, path) != ("POST", "/v1/repair") or asked.channel != self._around.channel_id:
                refusal = Refusal.UNKNOWN_CHANNEL
            elif engine.is_member(device) and admission is not None:
                served = engine.served(asked.stream, asked.ranges, admission, self.now)
                if served is not None:
                    packets, oldest, head = served
                    self.served += 1
                    told = [packet for packet in packets if _sequence(packet) not in self.withheld]
                    answer = RepairAnswer(packets=tuple(told), oldest=oldest, head=head)
                    respond(200, self.poison(answer.serialize()))
                    return
                refusal = Refusal.UNKNOWN_STREAM
        respond(refusal.status, ErrorAnswer(error=refusal.code, detail="").serialize())


def _sequence(packet: bytes) -> int:
    """DP-5, by the table of DP-4."""
    return int.from_bytes(packet[46:54]) + packet[54]
