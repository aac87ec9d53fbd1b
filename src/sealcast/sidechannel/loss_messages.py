"""What a subscriber reports of the packets that multicast has lost on the way to it.

Spec: spec/side-channel.md SC-49.
"""

from dataclasses import dataclass
from typing import Self

from sealcast.pki.signed import encode_cbor
from sealcast.sidechannel.fields import SEQUENCE_LIMIT, Fields

MAX_INTERVAL = 24 * 3600 * 1000
"""Milliseconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LossReport:
    """`POST /v1/losses`."""

    channel: bytes
    """Channel id, 32 bytes."""
    stream: bytes
    """16 bytes."""
    lost: int
    """Of the packets that were sent meanwhile, those that have not come by multicast; at most `sent`."""
    sent: int

    def serialize(self) -> bytes:
        """The body's bytes."""
        return encode_cbor(
            {"channel": self.channel, "stream": self.stream, "lost": self.lost, "sent": self.sent}
        )

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read the body's bytes."""
        fields = Fields.parse(data, "loss report")
        sent = fields.uint("sent", most=SEQUENCE_LIMIT)
        return cls(
            channel=fields.bytes_("channel", length=32),
            stream=fields.bytes_("stream", length=16),
            lost=fields.uint("lost", most=sent),
            sent=sent,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LossAnswer:
    """When the publisher wants the next report of this subscriber."""

    interval: int
    """Milliseconds."""

    def serialize(self) -> bytes:
        """The body's bytes."""
        return encode_cbor({"interval": self.interval})

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read the body's bytes."""
        return cls(interval=Fields.parse(data, "loss reply").uint("interval", most=MAX_INTERVAL))
