"""What a subscriber or publisher is told besides messages: facts, as frozen values.

What was lost is always among them (spec/wire.md DP-33). `str` of an event is a line for people.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from sealcast._core import Message
from sealcast.pki.times import to_datetime

if TYPE_CHECKING:
    from sealcast._core import Epoch

Evidence = tuple[bytes, bytes, int, bytes]
"""A signed statement with its context, its Ed25519 signature, the place of the packet in the block, and the
clear body of a heartbeat."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined:
    """The key server has taken us in."""

    epoch: Epoch

    def __str__(self) -> str:
        return f"joined in {_epoch(self.epoch)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochChanged:
    """Slot, generation or step have turned."""

    epoch: Epoch

    def __str__(self) -> str:
        return f"keys have turned: {_epoch(self.epoch)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """Packets that are lost for good."""

    publisher: str
    """As the channel's policy writes it: a name, or `<site id>:<name>` of another site."""
    instance: str
    stream_id: bytes
    first: int
    """First lost sequence."""
    last: int | None
    """Last lost sequence; None: the publisher ended without a word, how many is not known."""

    def __str__(self) -> str:
        last = "an unknown end" if self.last is None else self.last
        return f"lost: packets {self.first} to {last} of {_name(self.publisher, self.instance)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageLost:
    """One message that will not be delivered."""

    publisher: str
    instance: str
    stream_id: bytes
    message_id: int
    reason: str

    def __str__(self) -> str:
        return f"lost: message {self.message_id} of {_name(self.publisher, self.instance)}: {self.reason}"


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamStarted:
    """A publisher's stream has been verified and is followed from now on."""

    publisher: str
    instance: str
    stream_id: bytes
    succeeds: bytes | None
    """The stream that it continues, if any."""

    def __str__(self) -> str:
        return f"{_name(self.publisher, self.instance)} has begun a stream"


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamEnded:
    """A publisher has signed the end of its stream, and everything before it is here or was reported."""

    publisher: str
    instance: str
    stream_id: bytes
    next_sequence: int
    """One above the last sequence."""
    successor: bytes | None

    def __str__(self) -> str:
        return f"{_name(self.publisher, self.instance)} has ended its stream"


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamClosed:
    """A running stream is not accepted any more, for example because its device was revoked."""

    publisher: str
    instance: str
    stream_id: bytes
    reason: str

    def __str__(self) -> str:
        return f"{_name(self.publisher, self.instance)} is no longer accepted: {self.reason}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Equivocation:
    """A publisher signed two packets for one sequence, or a packet and an end before it; the first stands.

    Both sides are proof.
    """

    publisher: str
    instance: str
    stream_id: bytes
    sequence: int
    first: Evidence | None
    """None if the first block is so long ago that only the hash of its packet was kept."""
    second: Evidence

    def __str__(self) -> str:
        name = _name(self.publisher, self.instance)
        return f"{name} has signed twice for sequence {self.sequence}; the first stands"


@dataclass(frozen=True, slots=True, kw_only=True)
class SuccessionConflict:
    """Two streams claim to continue one; the first stands, or whom the end of their predecessor names.

    Both credentials are signed by the device: together they are proof.
    """

    predecessor: bytes
    first: bytes
    first_credential: bytes | None
    """The credential bundle (TR-12); None if it is not here (any more)."""
    second: bytes
    second_credential: bytes | None

    def __str__(self) -> str:
        first, second, before = (id.hex()[:8] for id in (self.first, self.second, self.predecessor))
        return f"two streams, {first}… and {second}…, claim to continue {before}…; the first stands"


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitmentMismatch:
    """The key server handed out a secret other than it signed for; nothing is opened under it."""

    detail: str

    def __str__(self) -> str:
        return f"the key server signed for another secret than it handed out: {self.detail}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyChanged:
    """A new policy is in force."""

    version: int

    def __str__(self) -> str:
        return f"policy {self.version} is in force"


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """The key server refuses this device; `reason` is of spec/registry.md, for example `revoked`."""

    reason: str

    def __str__(self) -> str:
        return f"the key server refuses this device: {self.reason}"


@dataclass(frozen=True, slots=True, kw_only=True)
class OutOfContact:
    """The key server has been silent for long: removals and new policies may be unknown here."""

    since: int
    """Its last verified word, microseconds."""

    def __str__(self) -> str:
        return f"nothing from the key server since {to_datetime(self.since):%Y-%m-%d %H:%M:%S} UTC"


@dataclass(frozen=True, slots=True, kw_only=True)
class SourcePassedOver:
    """A source of repair did not give what it was asked for, and another one was asked."""

    source: str
    """As the channel's policy writes it."""
    endpoint: tuple[str, int]
    reason: str
    """`no-answer`, `refused`, `busy`, `bad-packets`; `withheld`: another source had what it did not give."""

    def __str__(self) -> str:
        host, port = self.endpoint
        return f"{self.source} at {host}:{port} was passed over for repair: {self.reason}"


@dataclass(frozen=True, slots=True, kw_only=True)
class MulticastSilent:
    """Hardly anything comes by multicast, and much by repair: the network keeps the group's packets away."""

    repaired: int
    """Packets that came by repair within `seconds`."""
    seconds: float

    def __str__(self) -> str:
        return f"multicast is silent, repair is busy: {self.repaired} packets in {self.seconds:g} s"


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocked:
    """A publisher cannot seal just now; it goes on by itself once the cause is gone."""

    reason: str

    def __str__(self) -> str:
        return f"nothing can be sealed: {self.reason}"


Event = (
    Joined
    | EpochChanged
    | Gap
    | MessageLost
    | StreamStarted
    | StreamEnded
    | StreamClosed
    | Equivocation
    | SuccessionConflict
    | CommitmentMismatch
    | PolicyChanged
    | Refused
    | OutOfContact
    | SourcePassedOver
    | MulticastSilent
    | Blocked
)

Loss = Gap | MessageLost | StreamClosed
"""Something that was, or will be, published and is not delivered."""

Alarm = Equivocation | SuccessionConflict | CommitmentMismatch
"""Somebody who holds keys does not keep to the rules; nothing is lost by it."""

_KINDS: Mapping[str, type[Event]] = {
    "joined": Joined,
    "epoch-changed": EpochChanged,
    "gap": Gap,
    "message-lost": MessageLost,
    "stream-started": StreamStarted,
    "stream-ended": StreamEnded,
    "stream-closed": StreamClosed,
    "equivocation": Equivocation,
    "succession-conflict": SuccessionConflict,
    "commitment-mismatch": CommitmentMismatch,
    "policy-changed": PolicyChanged,
    "refused": Refused,
    "out-of-contact": OutOfContact,
    "source-passed-over": SourcePassedOver,
    "blocked": Blocked,
}


def parse_event(name: str, values: Mapping[str, Any]) -> Event:
    """Return the event that the engine names, with its fields."""
    kind = _KINDS[name]
    return kind(**{field.name: values[field.name] for field in fields(kind)})


def _name(publisher: str, instance: str) -> str:
    return f"{publisher}/{instance}" if instance else publisher


def _epoch(epoch: Epoch) -> str:
    slot, generation, step = epoch
    return f"slot {slot}, generation {generation}, step {step}"


__all__ = [
    "Alarm",
    "Blocked",
    "CommitmentMismatch",
    "EpochChanged",
    "Equivocation",
    "Event",
    "Evidence",
    "Gap",
    "Joined",
    "Loss",
    "Message",
    "MessageLost",
    "MulticastSilent",
    "OutOfContact",
    "PolicyChanged",
    "Refused",
    "SourcePassedOver",
    "StreamClosed",
    "StreamEnded",
    "StreamStarted",
    "SuccessionConflict",
    "parse_event",
]
