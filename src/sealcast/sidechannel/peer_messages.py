"""The bodies of what two devices tell each other, and of how they find each other, in deterministic CBOR.

Spec: spec/side-channel.md sections 1 and 2, SC-33 and later.
"""

from dataclasses import dataclass
from typing import Self

from sealcast.pki.signed import encode_cbor
from sealcast.sidechannel.fields import Fields
from sealcast.sidechannel.messages import MAX_PEER_BODY, read_endpoint

MAX_MESSAGES = 1024
"""In one request (SC-35)."""

MAX_MESSAGE_DATA = MAX_PEER_BODY - 1024
"""Bytes of one message (SC-35): with its topic and its fields it fits the body of a request."""

MAX_MESSAGES_BYTES = MAX_PEER_BODY - 512
"""What the messages of one request may take together: `size` and `MESSAGE_FIELDS` of each."""

MESSAGE_FIELDS = 48
"""Bytes of a body that a message takes besides topic and data, at the most."""

_MAX_TOPIC_BYTES = 255
_MAX_TIME = 2**63 - 1
"""What a database holds."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class PostedMessage:
    """One message of a device to another (SC-35)."""

    id: bytes
    """16 random bytes; the same at each try."""
    topic: str | None
    time: int
    """When it was queued, by the sender's clock, microseconds."""
    data: bytes

    @property
    def size(self) -> int:
        """Bytes of topic and data."""
        return len(self.data) + len((self.topic or "").encode())


@dataclass(frozen=True, slots=True, kw_only=True)
class InboxRequest:
    """`POST /v1/inbox`: messages in the order in which they were sent."""

    messages: tuple[PostedMessage, ...]
    """1 to 1,024."""

    def serialize(self) -> bytes:
        """The body's bytes."""
        return encode_cbor(
            {"messages": [[each.id, each.topic, each.time, each.data] for each in self.messages]}
        )

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read the body's bytes."""
        fields = Fields.parse(data, "inbox request")

        def read(value: object) -> PostedMessage:
            id, topic, time, content = fields.as_tuple(value, "messages", 4)
            if topic is not None:
                text = fields.as_text(topic, "messages", most=_MAX_TOPIC_BYTES)
                if len(text.encode()) > _MAX_TOPIC_BYTES:
                    raise fields.fault("messages", f"a topic of more than {_MAX_TOPIC_BYTES} bytes")
            return PostedMessage(
                id=fields.as_bytes(id, "messages", length=16),
                topic=topic,
                time=fields.as_uint(time, "messages", most=_MAX_TIME),
                data=fields.as_bytes(content, "messages", most=MAX_MESSAGE_DATA),
            )

        messages = fields.items("messages", read, most=MAX_MESSAGES)
        if not messages:
            raise fields.fault("messages", "none")
        return cls(messages=messages)


@dataclass(frozen=True, slots=True, kw_only=True)
class InboxAnswer:
    """How many of the first messages of a request are on the disk, now or since an earlier request."""

    stored: int
    """At least 1."""

    def serialize(self) -> bytes:
        """The body's bytes."""
        return encode_cbor({"stored": self.stored})

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read the body's bytes."""
        fields = Fields.parse(data, "inbox reply")
        stored = fields.uint("stored", most=MAX_MESSAGES)
        if not stored:
            raise fields.fault("stored", "none")
        return cls(stored=stored)
