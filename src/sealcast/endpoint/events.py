"""What a subscriber or publisher is told besides messages: facts, as frozen values.

What was lost is always among them (spec/wire.md DP-33).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from sealcast._core import Message

if TYPE_CHECKING:
    from sealcast._core import Epoch

Evidence = tuple[bytes, bytes, int, bytes]
"""A signed statement with its context, its Ed25519 signature, the place of the packet in the block, and the
clear body of a heartbeat."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined:
    """The key server has taken us in."""

    epoch: Epoch


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochChanged:
    """Slot, generation or step have turned."""

    epoch: Epoch


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """Packets that are lost for good."""

    publisher: str
    """Device name."""
    instance: str
    stream_id: bytes
    first: int
    """First lost sequence."""
    last: int | None
    """Last lost sequence; None: the publisher ended without a word, how many is not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageLost:
    """One message that will not be delivered."""

    publisher: str
    instance: str
    stream_id: bytes
    message_id: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamStarted:
    """A publisher's stream has been verified and is followed from now on."""

    publisher: str
    instance: str
    stream_id: bytes
    succeeds: bytes | None
    """The stream that it continues, if any."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamEnded:
    """A publisher has signed the end of its stream, and everything before it is here or was reported."""

    publisher: str
    instance: str
    stream_id: bytes
    next_sequence: int
    """One above the last sequence."""
    successor: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamClosed:
    """A running stream is not accepted any more, for example because its device was revoked."""

    publisher: str
    instance: str
    stream_id: bytes
    reason: str


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


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitmentMismatch:
    """The key server handed out a secret other than it signed for; nothing is opened under it."""

    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyChanged:
    """A new policy is in force."""

    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """The key server refuses this device; `reason` is of spec/registry.md, for example `revoked`."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OutOfContact:
    """The key server has been silent for long: removals and new policies may be unknown here."""

    since: int
    """Its last verified word, microseconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocked:
    """A publisher cannot seal just now; it goes on by itself once the cause is gone."""

    reason: str


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
    | Blocked
)

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
    "blocked": Blocked,
}


def parse_event(name: str, values: Mapping[str, Any]) -> Event:
    """Return the event that the engine names, with its fields."""
    kind = _KINDS[name]
    return kind(**{field.name: values[field.name] for field in fields(kind)})


__all__ = [
    "Blocked",
    "CommitmentMismatch",
    "EpochChanged",
    "Equivocation",
    "Event",
    "Evidence",
    "Gap",
    "Joined",
    "Message",
    "MessageLost",
    "OutOfContact",
    "PolicyChanged",
    "Refused",
    "StreamClosed",
    "StreamEnded",
    "StreamStarted",
    "SuccessionConflict",
    "parse_event",
]
