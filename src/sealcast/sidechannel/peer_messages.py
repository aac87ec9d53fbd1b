"""The bodies of what two devices tell each other, and of how they find each other, in deterministic CBOR.

Spec: spec/side-channel.md sections 1, 2 and 4, SC-33 and later.
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

MAX_REPORTED = 1024
"""Files in one report (SC-48)."""

MAX_MISSING_RANGES = 1024
"""Of one file in one report (SC-48)."""

MAX_REASON = 80
"""Characters in which a receiver says why it refuses a file."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class FileReport:
    """`POST /v1/files` (SC-48): which of a publisher's files a receiver has, what it lacks of the others."""

    channel: bytes
    """Channel id, 32 bytes."""
    stream: bytes
    """16 bytes."""
    round: int
    """Of the question that it answers."""
    is_busy: bool = False
    """It reads what it has, and says more when it knows."""
    whole: tuple[bytes, ...] = ()
    """Ids of files that it has whole, 16 bytes each."""
    refused: tuple[tuple[bytes, str], ...] = ()
    """Ids of files that it does not take, and why."""
    missing: tuple[tuple[bytes, tuple[tuple[int, int], ...]], ...] = ()
    """Ids of files of which it lacks pieces: first and last of each run, last included."""

    def serialize(self) -> bytes:
        """The body's bytes."""
        return encode_cbor(
            {
                "channel": self.channel,
                "stream": self.stream,
                "round": self.round,
                "whole": list(self.whole),
                "refused": [[file, reason] for file, reason in self.refused],
                "missing": [
                    [file, [[first, last] for first, last in ranges]] for file, ranges in self.missing
                ],
                "busy": self.is_busy,
            }
        )

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read the body's bytes."""
        fields = Fields.parse(data, "file report")

        def read_id(value: object) -> bytes:
            return fields.as_bytes(value, "id", length=16)

        def read_refused(value: object) -> tuple[bytes, str]:
            file, reason = fields.as_tuple(value, "refused", 2)
            return read_id(file), fields.as_text(reason, "refused", most=MAX_REASON)

        def read_range(value: object) -> tuple[int, int]:
            first, last = fields.as_tuple(value, "missing", 2)
            first, last = fields.as_uint(first, "missing"), fields.as_uint(last, "missing")
            if first > last:
                raise fields.fault("missing", f"first {first} is above last {last}")
            return first, last

        def read_missing(value: object) -> tuple[bytes, tuple[tuple[int, int], ...]]:
            file, ranges = fields.as_tuple(value, "missing", 2)
            if not isinstance(ranges, list) or not 0 < len(ranges) <= MAX_MISSING_RANGES:
                raise fields.fault("missing", f"not an array of 1 to {MAX_MISSING_RANGES} ranges")
            return read_id(file), tuple(map(read_range, ranges))

        return cls(
            channel=fields.bytes_("channel", length=32),
            stream=fields.bytes_("stream", length=16),
            round=fields.uint("round"),
            is_busy=fields.flag("busy"),
            whole=fields.items("whole", read_id, most=MAX_REPORTED),
            refused=fields.items("refused", read_refused, most=MAX_REPORTED),
            missing=fields.items("missing", read_missing, most=MAX_REPORTED),
        )
