"""The receiving end: from datagrams to messages in `reliable` order. Spec: wire.md sections 5 to 10.

What it leaves out, being a check of the rules and no receiver to run: budgets (DP-21, KM-14), timers, the end
of retention and of old generations (KM-12), succession. A stream starts at 0 or where `add_stream` says.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from cryptography.exceptions import InvalidTag

from tests.reference import credential, ed25519, frames, schedule, seal, tree, trust
from tests.reference.bodies import Beacon, Heartbeat
from tests.reference.parity import MAX_PARITY_COUNT, Parity
from tests.reference.wire import Datagram, Epoch, Header, MalformedError, PacketType

MAX_STEPS_AHEAD = 4
RETAINED_PACKETS = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    stream_id: bytes
    message_id: int
    data: bytes
    topic: str | None
    retained: frames.RetainedOrigin | None
    sequence: int
    """Of the packet with the last byte; `time` likewise."""
    time: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """Packets from `first` to `last`, both included, will not come; or came and could not be opened."""

    stream_id: bytes
    first: int
    last: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LostMessage:
    stream_id: bytes
    message_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MalformedFrames:
    stream_id: bytes
    sequence: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Conflict:
    """Two signed packets for one sequence, or a packet and an end of the stream before it (DP-19)."""

    stream_id: bytes
    sequence: int
    first: bytes
    second: bytes


@dataclass(slots=True, kw_only=True)
class _Partial:
    total: int
    first: frames.Frame
    data: bytes = b""


@dataclass(slots=True, kw_only=True)
class _Stream:
    stream_id: bytes
    public_key: bytes
    control: bool
    next_sequence: int
    """The first one that was not delivered yet."""
    start: int
    head: int = 0
    counter: int = -1
    """Of the last heartbeat or beacon."""
    end: tuple[int, bytes] | None = None
    """The final next sequence, and the datagram that says so."""
    leaves: dict[int, tuple[bytes, bytes]] = field(default_factory=dict)
    """Sequence to leaf hash and datagram."""
    opened: dict[int, tuple[bytes | None, int]] = field(default_factory=dict)
    """Sequence to plaintext, or None if it did not open, and time; what waits for its turn."""
    partial: dict[int, _Partial] = field(default_factory=dict)


class Receiver:
    """Feed it with `receive`; read `messages`, `reports`, `beacons` and `refusals`.

    `policy`, `anchors` (DER) are for streams that make themselves known by credential packets.
    """

    def __init__(
        self,
        suite: int,
        channel_id: bytes,
        *,
        policy: credential.Policy | None = None,
        anchors: Sequence[bytes] = (),
    ) -> None:
        self.messages: list[Message] = []
        self.reports: list[Gap | LostMessage | MalformedFrames | Conflict] = []
        self.beacons: list[Beacon] = []
        self.refusals: Counter[str] = Counter()
        self.streams: dict[bytes, _Stream] = {}
        self._suite, self._channel_id = suite, channel_id
        self._policy, self._anchors = policy, anchors
        self._slots: dict[int, bytes] = {}
        self._steps: dict[tuple[int, int], bytes] = {}
        self._announced: tuple[int, int] | None = None
        self._sealed: list[tuple[bytes, int]] = []
        self._parts: dict[tuple[Header, bytes, bytes], dict[int, bytes]] = {}

    # What a member is told over the side channel.

    def add_stream(self, public_key: bytes, *, control: bool = False, start: int = 0) -> None:
        stream_id = schedule.stream_id(public_key)
        stream = _Stream(
            stream_id=stream_id, public_key=public_key, control=control, next_sequence=start, start=start
        )
        self.streams.setdefault(stream_id, stream)

    def add_slot(self, number: int, secret: bytes, commitment: bytes | None = None) -> None:
        """KM-8: a secret that does not fit its commitment, or a second one for a number, is not taken."""
        if commitment not in (None, schedule.slot_commitment(secret, self._channel_id, number)):
            raise trust.RefusedError("commitment")
        if self._slots.setdefault(number, secret) != secret:
            raise trust.RefusedError("second secret")
        self._retry()

    def add_generation(
        self, generation: int, step: int, secret: bytes, commitment: bytes | None = None
    ) -> None:
        committed = schedule.generation_commitment(secret, self._channel_id, generation, step)
        if commitment not in (None, committed):
            raise trust.RefusedError("commitment")
        if self._steps.setdefault((generation, step), secret) != secret:
            raise trust.RefusedError("second secret")
        self._retry()

    def abandon(self, stream_id: bytes, below: int) -> None:
        """Retention is over for what is missing below a sequence: report it and go on (DP-33)."""
        stream = self.streams[stream_id]
        for first, last in list(self.missing(stream_id, below)):
            self.reports.append(Gap(stream_id=stream_id, first=first, last=last))
            for sequence in range(first, last + 1):
                stream.opened[sequence] = (b"", 0)
        self._deliver(stream)

    def missing(self, stream_id: bytes, below: int | None = None) -> Iterator[tuple[int, int]]:
        """The ranges, last included, that repair has to ask for."""
        stream = self.streams[stream_id]
        first = None
        end = stream.head if below is None else below
        for sequence in range(stream.next_sequence, end + 1):
            absent = sequence < end and sequence not in stream.opened
            if absent and first is None:
                first = sequence
            elif not absent and first is not None:
                yield first, sequence - 1
                first = None

    # The path of a datagram (DP-18).

    def receive(self, data: bytes, now: int = 0, *, over_side_channel: bool = False) -> str | None:
        """None if the datagram was taken, else the reason why not."""
        reason = self._receive(data, now, over_side_channel)
        if reason is not None:
            self.refusals[reason] += 1
        return reason

    def _receive(self, data: bytes, now: int, over_side_channel: bool) -> str | None:
        try:
            packet = Datagram.parse(data)
            body = _parse_clear_body(packet)
        except MalformedError:
            return "malformed"
        header = packet.header
        if header.type in (PacketType.DATA, PacketType.HEARTBEAT, PacketType.BEACON):
            stream = self.streams.get(header.stream_id)
            if stream is None or stream.control != (header.type == PacketType.BEACON):
                return "unknown-stream"
        elif header.type == PacketType.CREDENTIAL:
            return self._receive_credential(packet, now, over_side_channel)
        else:
            return "unknown-type"

        is_data = header.type == PacketType.DATA
        if is_data and header.sequence < max(stream.start, stream.next_sequence - RETAINED_PACKETS):
            return "window"
        leaf = self._leaf(packet)
        first = stream.leaves.get(header.sequence) if is_data else None
        if first is not None and first[0] == leaf:
            return "duplicate"
        gate_key = self._gate_key(header)
        if gate_key is None and not self._is_ahead(header.epoch):
            return "unknown-epoch"
        if (
            gate_key is not None
            and not over_side_channel
            and not _gate_holds(self._suite, gate_key, packet, leaf)
        ):
            return "gate"
        if not self._signature_holds(packet, leaf, stream.public_key):
            return "signature"
        if first is not None:
            return self._conflict(stream, header.sequence, first[1], data)
        if is_data and stream.end is not None and header.sequence >= stream.end[0]:
            return self._conflict(stream, header.sequence, stream.end[1], data)
        if isinstance(body, Heartbeat):
            return self._obey_heartbeat(stream, body, data)
        if isinstance(body, Beacon):
            return self._obey_beacon(stream, header, body)
        if self._epoch_secret(header.epoch) is None:
            self._sealed.append((data, now))
            return None
        return self._take_data(stream, packet, leaf, data)

    def _take_data(self, stream: _Stream, packet: Datagram, leaf: bytes, data: bytes) -> str | None:
        sequence = packet.header.sequence
        if sequence < stream.next_sequence:
            return "window"  # it was reported as lost, and stays so
        plaintext = self.open(packet)
        stream.leaves[sequence] = (leaf, data)
        stream.opened[sequence] = (plaintext, packet.header.time)
        stream.head = max(stream.head, sequence + 1)
        self._deliver(stream)
        return None if plaintext is not None else "open"

    def open(self, packet: Datagram) -> bytes | None:
        """The plaintext of a data or credential packet, whose signature is the caller's to check."""
        header = packet.header
        secret = self._epoch_secret(header.epoch)
        if secret is None:
            return None
        if header.type == PacketType.DATA:
            key = schedule.block_key(secret, self._suite, self._channel_id, header.stream_id, header.block_id)
        else:
            general = schedule.credential_key(secret, self._suite, self._channel_id)
            key = schedule.credential_block_key(general, header.stream_id, header.block_id)
        try:
            return seal.aead(self._suite, key).decrypt(
                seal.nonce(header.index), packet.body, header.serialize() + self._channel_id
            )
        except InvalidTag:
            return None

    def _obey_heartbeat(self, stream: _Stream, body: Heartbeat, data: bytes) -> str | None:
        """DP-27."""
        if body.counter <= stream.counter or stream.end is not None:
            return "counter"
        if body.ended:
            if body.next_sequence < stream.head:
                last = stream.head - 1
                return self._conflict(stream, last, stream.leaves.get(last, (b"", b""))[1], data)
            stream.end = (body.next_sequence, data)
        stream.counter = body.counter
        stream.head = max(stream.head, body.next_sequence)
        return None

    def _conflict(self, stream: _Stream, sequence: int, first: bytes, second: bytes) -> str:
        """The first stands."""
        self.reports.append(
            Conflict(stream_id=stream.stream_id, sequence=sequence, first=first, second=second)
        )
        return "conflict"

    def _obey_beacon(self, stream: _Stream, header: Header, body: Beacon) -> str | None:
        """KM-16."""
        present = (header.epoch.generation, header.epoch.step)
        if body.counter <= stream.counter or (self._announced is not None and present < self._announced):
            return "counter"
        stream.counter, self._announced = body.counter, present
        self.beacons.append(body)
        return None

    def _receive_credential(self, packet: Datagram, now: int, over_side_channel: bool) -> str | None:
        """DP-30: opened and put together before anything is known of the stream, believed afterwards."""
        header, leaf = packet.header, self._leaf(packet)
        gate_key = self._gate_key(header)
        if gate_key is None:
            return "unknown-epoch"
        if not over_side_channel and not _gate_holds(self._suite, gate_key, packet, leaf):
            return "gate"
        part = self.open(packet)
        if part is None:
            return "open"
        known = self.streams.get(header.stream_id)
        if known is not None:
            return None if self._signature_holds(packet, leaf, known.public_key) else "signature"
        # Root and signature are part of the place, so that a member cannot spoil the block of another.
        root = tree.root_of(self._suite, header.block_id, header.index, header.count, leaf, packet.path)
        place = (replace(header, index=0), root, packet.signature)
        parts = self._parts.setdefault(place, {})
        parts[header.index] = part
        if len(parts) < header.count or self._policy is None:
            return None
        del self._parts[place]
        bundle = b"".join(parts[index] for index in range(header.count))
        try:
            stated = trust.accept_stream(
                bundle,
                stream_id=header.stream_id,
                policy=self._policy,
                anchors=self._anchors,
                role="device",
                now=now,
                packet_time=header.time,
            )
        except (MalformedError, trust.RefusedError):
            return "credential"
        if not self._signature_holds(packet, leaf, stated.public_key):
            return "signature"
        self.add_stream(stated.public_key)
        return None

    # Keys.

    def _epoch_secret(self, epoch: Epoch) -> bytes | None:
        slot_secret, step_secret = self._slots.get(epoch.slot), self._step_secret(epoch)
        if slot_secret is None or step_secret is None:
            return None
        return schedule.epoch_secret(self._suite, self._channel_id, epoch, slot_secret, step_secret)

    def _step_secret(self, epoch: Epoch) -> bytes | None:
        """KM-9: own steps reach only a little beyond what the key server has announced."""
        announced = self._announced
        for step in range(epoch.step, -1, -1):
            secret = self._steps.get((epoch.generation, step))
            if secret is None:
                continue
            beyond = announced is None or announced[0] != epoch.generation
            if step < epoch.step and (beyond or epoch.step > (announced or (0, 0))[1] + MAX_STEPS_AHEAD):
                return None
            for passed in range(step, epoch.step):
                secret = schedule.next_step(secret, self._channel_id, epoch.generation, passed)
            return secret
        return None

    def _gate_key(self, header: Header) -> bytes | None:
        if header.type == PacketType.BEACON:
            slot_secret = self._slots.get(header.epoch.slot)
            if slot_secret is None:
                return None
            return schedule.control_gate_key(slot_secret, self._suite, self._channel_id, header.epoch.slot)
        secret = self._epoch_secret(header.epoch)
        return None if secret is None else schedule.gate_key(secret, self._suite, self._channel_id)

    def _is_ahead(self, epoch: Epoch) -> bool:
        """KM-14."""
        newest = max(self._steps, default=(0, 0))
        return epoch.slot > max(self._slots, default=0) or (epoch.generation, epoch.step) > newest

    def _retry(self) -> None:
        """What verified while its key was unknown goes the way again; its gate has nothing to add (KM-14)."""
        waiting, self._sealed = self._sealed, []
        for data, now in waiting:
            self.receive(data, now, over_side_channel=True)

    # Authenticity.

    def _leaf(self, packet: Datagram) -> bytes:
        header = packet.header
        return tree.leaf(self._suite, header.block_id, header.index, header.serialize(), packet.body)

    def _signature_holds(self, packet: Datagram, leaf: bytes, public_key: bytes) -> bool:
        header = packet.header
        root = tree.root_of(self._suite, header.block_id, header.index, header.count, leaf, packet.path)
        message = seal.block_sign_input(self._suite, self._channel_id, header, root)
        return ed25519.verify(public_key, message, packet.signature)

    # Delivery.

    def _deliver(self, stream: _Stream) -> None:
        """DP-25, DP-33."""
        while stream.next_sequence in stream.opened:
            sequence = stream.next_sequence
            plaintext, time = stream.opened.pop(sequence)
            stream.next_sequence += 1
            if plaintext is None:
                self.reports.append(Gap(stream_id=stream.stream_id, first=sequence, last=sequence))
                continue
            found, well_formed = frames.parse(plaintext)
            for frame in found:
                self._take_frame(stream, frame, sequence, time)
            if not well_formed:
                self.reports.append(MalformedFrames(stream_id=stream.stream_id, sequence=sequence))

    def _take_frame(self, stream: _Stream, frame: frames.Frame, sequence: int, time: int) -> None:
        first, data = frame, frame.data
        if frame.total is not None:
            partial = stream.partial.pop(frame.message_id, None)
            if partial is None:
                partial = _Partial(total=frame.total, first=frame)
            if frame.offset != len(partial.data) or frame.total != partial.total:
                lost = LostMessage(stream_id=stream.stream_id, message_id=frame.message_id)
                if lost not in self.reports:
                    self.reports.append(lost)
                return
            partial.data += frame.data
            if len(partial.data) < partial.total:
                stream.partial[frame.message_id] = partial
                return
            first, data = partial.first, partial.data
        self.messages.append(
            Message(
                stream_id=stream.stream_id,
                message_id=frame.message_id,
                data=data,
                topic=first.topic,
                retained=first.retained,
                sequence=sequence,
                time=time,
            )
        )


def _parse_clear_body(packet: Datagram) -> Heartbeat | Beacon | None:
    if packet.header.type == PacketType.PARITY:
        # It mends nothing, but knows what is no parity.
        if packet.header.count > MAX_PARITY_COUNT:
            raise MalformedError("a parity block that is too large")
        Parity.parse(packet.body)
    if packet.header.type == PacketType.HEARTBEAT:
        return Heartbeat.parse(packet.body)
    if packet.header.type == PacketType.BEACON:
        return Beacon.parse(packet.body)
    return None


def _gate_holds(suite: int, key: bytes, packet: Datagram, leaf: bytes) -> bool:
    return seal.gate_tag(suite, key, leaf, packet.path, packet.signature) == packet.gate_tag
