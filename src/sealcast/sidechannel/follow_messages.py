"""What a subscriber without multicast asks: what comes next of a stream, and when there is another directory.

Spec: spec/side-channel.md SC-44, SC-45.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from sealcast.pki.signed import encode_cbor
from sealcast.sidechannel.fields import SEQUENCE_LIMIT, Fields
from sealcast.sidechannel.messages import RepairNodeEntry, StreamEntry

HOLD_SECONDS = 5.0
"""For so long a request that there is nothing for waits at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FollowRequest:
    """`POST /v1/follow` (SC-44)."""

    channel: bytes
    """Channel id, 32 bytes."""
    stream: bytes
    """16 bytes."""
    first: int
    """The lowest sequence that is wanted."""

    def serialize(self) -> bytes:
        """The body's bytes."""
        return encode_cbor({"channel": self.channel, "stream": self.stream, "from": self.first})

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read the body's bytes."""
        fields = Fields.parse(data, "follow request")
        return cls(
            channel=fields.bytes_("channel", length=32),
            stream=fields.bytes_("stream", length=16),
            first=fields.uint("from", most=SEQUENCE_LIMIT),
        )


def directory_digest(streams: Iterable[StreamEntry], repair_nodes: Iterable[RepairNodeEntry]) -> bytes:
    """What a directory is known by: who sends, vouched for by what, and whom to ask; not how far they are."""
    listed = sorted(
        (entry.stream, hashlib.sha256(entry.credential).digest(), _at(entry.endpoint)) for entry in streams
    )
    nodes = sorted((entry.device, _at(entry.endpoint)) for entry in repair_nodes)
    return hashlib.sha256(encode_cbor([[list(one) for one in listed], [list(one) for one in nodes]])).digest()


def _at(endpoint: tuple[str, int] | None) -> list[str | int]:
    return [] if endpoint is None else list(endpoint)
