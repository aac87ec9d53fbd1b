"""The bodies of what two devices tell each other, and of how they find each other, in deterministic CBOR.

Spec: spec/side-channel.md sections 1 and 2, SC-33 and later.
"""

from dataclasses import dataclass
from typing import Self

from sealcast.pki.signed import encode_cbor
from sealcast.sidechannel.fields import Fields
from sealcast.sidechannel.messages import read_endpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelsRequest:
    """`POST /v1/channels` (SC-33): wait for another answer than is known."""

    known: bytes
    """SHA-256 of the latest answer, 32 bytes; zeros without one."""

    def serialize(self) -> bytes:
        """The body's bytes."""
        return encode_cbor({"known": self.known})

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read the body's bytes."""
        return cls(known=Fields.parse(data, "channels request").bytes_("known", length=32))


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointBody:
    """`PUT /v1/endpoint`, and the answer of `GET /v1/endpoints/<device>` (SC-34)."""

    endpoint: tuple[str, int] | None
    """Host and port where the device takes messages; None: it does not listen."""

    def serialize(self) -> bytes:
        """The body's bytes."""
        return encode_cbor({"endpoint": None if self.endpoint is None else list(self.endpoint)})

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read the body's bytes."""
        return cls(endpoint=read_endpoint(Fields.parse(data, "endpoint")))
