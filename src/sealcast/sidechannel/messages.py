"""The bodies of side-channel requests and answers, in deterministic CBOR; both sides use the same types.

`serialize` and `parse` are one pair on each type. `parse` checks every type, range and length, and raises
`MalformedMessageError`; it verifies no signature: that is the engine's part.

Spec: spec/side-channel.md sections 1 and 2.
"""

from dataclasses import dataclass
from typing import Any, Self

from sealcast.errors import UsageError
from sealcast.keys import MemberRole, Secret
from sealcast.pki.bundle import MAX_BUNDLE_BYTES
from sealcast.pki.names import check_channel_name, check_instance_name, is_ascii_host
from sealcast.pki.policy_names import check_member
from sealcast.pki.signed import encode_cbor
from sealcast.sidechannel.fields import SEQUENCE_LIMIT, Fields

CONTENT_TYPE = "application/cbor"

MAX_KEY_SERVER_BODY = 64 * 1024
"""SC-2, bytes."""

MAX_PEER_BODY = 1024 * 1024
"""SC-2, bytes."""

MAX_ANSWER = 64 * 1024 * 1024
"""SC-2, bytes."""

MAX_PEER_ANSWER = 4 * 1024 * 1024
"""SC-2, bytes: an answer with packets (SC-8), and what stands around them."""

MAX_RANGES = 64
"""SC-8: more in one repair request is absurd."""

MAX_REPAIR_PACKETS = 1024
MAX_REPAIR_BYTES = 2 * 1024 * 1024
"""SC-8: the bounds of one repair answer."""

MAX_BUNDLE = 8 * 1204
"""TR-12: bytes of a credential bundle."""

MAX_DATAGRAM = 65_507
MAX_SLOTS = 32
MAX_REPAIR_NODES = 64
MAX_EARLIER = 8
MAX_ISSUERS = 16
MAX_CERTIFICATE = 16 * 1024
MAX_STREAMS = 4096
MAX_CHANNELS = 2**16
MAX_MEMBERS = 2**20
MAX_POLICY = 32 * 1024 * 1024
MAX_CRL = 32 * 1024 * 1024
MAX_VERSION = 2**63 - 1

POLL_SECONDS = 25.0
"""A poll is answered at the latest after this time, with a fresh beacon."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinRequest:
    """`POST …/join`."""

    role: MemberRole

    def serialize(self) -> bytes:
        """The body's bytes."""
        return encode_cbor({"role": str(self.role)})

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read the body's bytes."""
        fields = Fields.parse(data, "join request")
        role = fields.text("role")
        if role not in tuple(MemberRole):
            raise fields.fault("role", "none of publish, subscribe and repair")
        return cls(role=MemberRole(role))


@dataclass(frozen=True, slots=True)
class EmptyBody:
    """`{}`: the body of a keys or leave request, and the answer that only says *done*."""

    def serialize(self) -> bytes:
        """The body's bytes."""
        return encode_cbor({})

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read the body's bytes."""
        Fields.parse(data, "empty body")
        return cls()


@dataclass(frozen=True, slots=True, kw_only=True)
class KeysAnswer:
    """Keys reply (SC-3). The beacon commits to every secret in it (KM-17); the receiver has to check that."""

    beacon: bytes
    """Datagram."""
    slots: tuple[tuple[int, Secret], ...]
    generation: int
    step: int
    secret: Secret
    """Of (generation, step)."""
    time: int
    """Microseconds, by the key server's clock."""
    earlier: tuple[tuple[int, Secret, bytes], ...] = ()
    """Generations that turned since the member's admission: number, secret of step 0, beacon (KM-18)."""

    def serialize(self) -> bytes:
        """The body's bytes."""
        return encode_cbor(self._map())

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read the body's bytes."""
        return cls(**_read_keys(Fields.parse(data, "keys reply")))

    def _map(self) -> dict[str, Any]:
        return {
            "beacon": self.beacon,
            "slots": [[number, secret.reveal()] for number, secret in self.slots],
            "generation": [self.generation, self.step, self.secret.reveal()],
            "time": self.time,
        } | (
            {"earlier": [[number, secret.reveal(), beacon] for number, secret, beacon in self.earlier]}
            if self.earlier
            else {}
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RepairNodeEntry:
    """A repair node of the channel, as a directory lists it (SC-40)."""

    device: str
    """As the channel's policy writes it."""
    endpoint: tuple[str, int]
    """Host and port of its side channel."""

    @classmethod
    def read(cls, value: object) -> Self:
        """Read one entry of an answer."""
        fields = Fields(value, "repair node")
        if (endpoint := read_endpoint(fields)) is None:
            raise fields.fault("endpoint", "missing")
        return cls(device=_device(fields, "device"), endpoint=endpoint)


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamEntry:
    """An entry of the directory (SC-5)."""

    stream: bytes
    """16 bytes."""
    device: str
    instance: str
    credential: bytes
    """Credential bundle (TR-12)."""
    head: bytes | None
    """The latest heartbeat datagram."""
    endpoint: tuple[str, int] | None
    """Host and port of the publisher's side channel."""

    def map(self) -> dict[str, Any]:
        """As it stands in an answer."""
        return {
            "stream": self.stream,
            "device": self.device,
            "instance": self.instance,
            "credential": self.credential,
            "head": self.head,
            "endpoint": None if self.endpoint is None else list(self.endpoint),
        }

    @classmethod
    def read(cls, value: object) -> Self:
        """Read one entry of an answer."""
        fields = Fields(value, "stream entry")
        return cls(
            stream=fields.bytes_("stream", length=16),
            device=_device(fields, "device"),
            instance=_instance(fields),
            credential=fields.bytes_("credential", most=MAX_BUNDLE),
            head=fields.bytes_or_none("head", most=MAX_DATAGRAM),
            endpoint=read_endpoint(fields),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined:
    """What both kinds of join reply tell besides keys."""

    policy: bytes
    """Signed policy (TR-13)."""
    crl: bytes
    """DER."""
    issuers: tuple[bytes, ...]
    """Site CA certificates, DER."""
    key_server: bytes
    """Credential bundle of the control stream."""
    streams: tuple[StreamEntry, ...]
    repair_nodes: tuple[RepairNodeEntry, ...] = ()
    members: int | None = None
    """How many take part, at most; None: it is not told."""

    def rest(self) -> dict[str, Any]:
        """As it stands in a reply."""
        return {
            "policy": self.policy,
            "crl": self.crl,
            "issuers": list(self.issuers),
            "key-server": self.key_server,
            "streams": [entry.map() for entry in self.streams],
            **_nodes_map(self.repair_nodes),
            **({} if self.members is None else {"members": self.members}),
        }

    @staticmethod
    def read_rest(fields: Fields) -> dict[str, Any]:
        """Read the fields of a reply."""
        return {
            "policy": fields.bytes_("policy", most=MAX_POLICY),
            "crl": fields.bytes_("crl", most=MAX_CRL),
            "issuers": _issuers(fields),
            "key_server": fields.bytes_("key-server", most=MAX_BUNDLE),
            "streams": fields.items("streams", StreamEntry.read, most=MAX_STREAMS),
            "repair_nodes": _read_nodes(fields),
            "members": fields.uint("members") if "members" in fields else None,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinAnswer(Joined):
    """Join reply (SC-4)."""

    keys: KeysAnswer

    def serialize(self) -> bytes:
        """The body's bytes."""
        return encode_cbor(self.keys._map() | self.rest())

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read the body's bytes."""
        fields = Fields.parse(data, "join reply")
        return cls(keys=KeysAnswer(**_read_keys(fields)), **cls.read_rest(fields))


@dataclass(frozen=True, slots=True, kw_only=True)
class PollRequest:
    """`POST …/poll`: the counter of the last beacon that the member has."""

    counter: int
    directory: bytes | None = None
    """What it knows the directory by, if it wants to be told of another one (SC-45); 32 bytes."""

    def serialize(self) -> bytes:
        """The body's bytes."""
        known = {} if self.directory is None else {"directory": self.directory}
        return encode_cbor({"counter": self.counter, **known})

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read the body's bytes."""
        fields = Fields.parse(data, "poll request")
        known = fields.bytes_("directory", length=32) if "directory" in fields else None
        return cls(counter=fields.uint("counter"), directory=known)


@dataclass(frozen=True, slots=True, kw_only=True)
class PollAnswer:
    """A beacon datagram, byte for byte (KM-16)."""

    beacon: bytes
    directory: bytes | None = None
    """What the directory is known by, where that was asked for."""

    @property
    def counter(self) -> int:
        """Of the beacon, as it says itself: its body begins with it (KM-15)."""
        return int.from_bytes(self.beacon[64:72])

    def serialize(self) -> bytes:
        """The body's bytes."""
        told = {} if self.directory is None else {"directory": self.directory}
        return encode_cbor({"beacon": self.beacon, **told})

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read the body's bytes."""
        fields = Fields.parse(data, "poll reply")
        told = fields.bytes_("directory", length=32) if "directory" in fields else None
        return cls(beacon=fields.bytes_("beacon", most=MAX_DATAGRAM), directory=told)


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyAnswer:
    """`GET …/policy`: the signed policy and the site CA certificates that may have signed it."""

    policy: bytes
    issuers: tuple[bytes, ...]

    def serialize(self) -> bytes:
        """The body's bytes."""
        return encode_cbor({"policy": self.policy, "issuers": list(self.issuers)})

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read the body's bytes."""
        fields = Fields.parse(data, "policy reply")
        return cls(policy=fields.bytes_("policy", most=MAX_POLICY), issuers=_issuers(fields))


@dataclass(frozen=True, slots=True, kw_only=True)
class CrlAnswer:
    """`GET /v1/crl`."""

    crl: bytes
    issuers: tuple[bytes, ...]

    def serialize(self) -> bytes:
        """The body's bytes."""
        return encode_cbor({"crl": self.crl, "issuers": list(self.issuers)})

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read the body's bytes."""
        fields = Fields.parse(data, "CRL reply")
        return cls(crl=fields.bytes_("crl", most=MAX_CRL), issuers=_issuers(fields))


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelsAnswer:
    """`GET /v1/channels` (SC-32): what there is for a device, by number."""

    crl: tuple[int, bytes]
    """Number and SHA-256 of the CRLs in force, as beacons name them."""
    channels: tuple[tuple[str, int], ...]
    """Name and version of the policy of each channel that lists the device."""

    def serialize(self) -> bytes:
        """The body's bytes."""
        return encode_cbor({"crl": list(self.crl), "channels": [list(channel) for channel in self.channels]})

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read the body's bytes."""
        fields = Fields.parse(data, "channels reply")

        def read(value: object) -> tuple[str, int]:
            name, version = fields.as_tuple(value, "channels", 2)
            try:
                checked = check_channel_name(fields.as_text(name, "channels"))
            except UsageError as error:
                raise fields.fault("channels", error.problem) from None
            return checked, fields.as_uint(version, "channels", most=MAX_VERSION)

        number, digest = fields.tuple_("crl", 2)
        return cls(
            crl=(fields.as_uint(number, "crl"), fields.as_bytes(digest, "crl", length=32)),
            channels=fields.items("channels", read, most=MAX_CHANNELS),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleAnswer:
    """`GET /v1/bundles/<version>` (SC-19)."""

    bundle: bytes
    """A signed trust bundle (TR-16)."""
    latest: int
    """Number of the latest version."""

    def serialize(self) -> bytes:
        """The body's bytes."""
        return encode_cbor({"bundle": self.bundle, "latest": self.latest})

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read the body's bytes."""
        fields = Fields.parse(data, "trust bundle reply")
        return cls(bundle=fields.bytes_("bundle", most=MAX_BUNDLE_BYTES), latest=fields.uint("latest"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """`POST /v1/report` (SC-21): what a device holds."""

    bundle_version: int
    """0: none."""
    bundle_hash: bytes
    """SHA-256 of the signed bundle, 32 bytes; zeros without one."""
    serial: str
    """Hexadecimal: of the certificate that it uses now."""

    def serialize(self) -> bytes:
        """The body's bytes."""
        return encode_cbor({"bundle": [self.bundle_version, self.bundle_hash], "serial": self.serial})

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read the body's bytes."""
        fields = Fields.parse(data, "report")
        version, digest = fields.tuple_("bundle", 2)
        return cls(
            bundle_version=fields.as_uint(version, "bundle", most=MAX_VERSION),
            bundle_hash=fields.as_bytes(digest, "bundle", length=32),
            serial=fields.text("serial", most=40),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamsAnswer:
    """`GET …/streams`."""

    streams: tuple[StreamEntry, ...]
    repair_nodes: tuple[RepairNodeEntry, ...] = ()

    def serialize(self) -> bytes:
        """The body's bytes."""
        return encode_cbor(
            {"streams": [entry.map() for entry in self.streams], **_nodes_map(self.repair_nodes)}
        )

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read the body's bytes."""
        fields = Fields.parse(data, "streams reply")
        return cls(
            streams=fields.items("streams", StreamEntry.read, most=MAX_STREAMS),
            repair_nodes=_read_nodes(fields),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamUpdate:
    """`PUT …/streams/<stream id>`: what a publisher says of its own stream."""

    credential: bytes
    head: bytes | None = None
    endpoint: tuple[str, int] | None = None

    def serialize(self) -> bytes:
        """The body's bytes."""
        return encode_cbor(
            {
                "credential": self.credential,
                "head": self.head,
                "endpoint": None if self.endpoint is None else list(self.endpoint),
            }
        )

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read the body's bytes."""
        fields = Fields.parse(data, "stream update")
        return cls(
            credential=fields.bytes_("credential", most=MAX_BUNDLE),
            head=fields.bytes_or_none("head", most=MAX_DATAGRAM),
            endpoint=read_endpoint(fields),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberEntry:
    """One line of the members reply."""

    device: str
    role: MemberRole


@dataclass(frozen=True, slots=True, kw_only=True)
class MembersAnswer:
    """`GET …/members`: those that joined and are still allowed."""

    members: tuple[MemberEntry, ...]

    def serialize(self) -> bytes:
        """The body's bytes."""
        return encode_cbor(
            {"members": [{"device": entry.device, "role": str(entry.role)} for entry in self.members]}
        )

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read the body's bytes."""
        fields = Fields.parse(data, "members reply")

        def read(value: object) -> MemberEntry:
            entry = Fields(value, "member")
            role = entry.text("role")
            if role not in tuple(MemberRole):
                raise entry.fault("role", "none of publish, subscribe and repair")
            return MemberEntry(device=_device(entry, "device"), role=MemberRole(role))

        return cls(members=fields.items("members", read, most=MAX_MEMBERS))


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeAnswer:
    """`GET /v1/time`."""

    time: int
    """Microseconds, by the key server's clock."""

    def serialize(self) -> bytes:
        """The body's bytes."""
        return encode_cbor({"time": self.time})

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read the body's bytes."""
        return cls(time=Fields.parse(data, "time reply").uint("time"))


@dataclass(frozen=True, slots=True, kw_only=True)
class RepairRequest:
    """`POST /v1/repair` (SC-8)."""

    channel: bytes
    """Channel id, 32 bytes."""
    stream: bytes
    """16 bytes."""
    ranges: tuple[tuple[int, int], ...]
    """First and last sequence of each, last included; 1 to 64 of them."""

    def serialize(self) -> bytes:
        """The body's bytes."""
        return encode_cbor(
            {
                "channel": self.channel,
                "stream": self.stream,
                "ranges": [[first, last] for first, last in self.ranges],
            }
        )

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read the body's bytes."""
        fields = Fields.parse(data, "repair request")

        return cls(
            channel=fields.bytes_("channel", length=32),
            stream=fields.bytes_("stream", length=16),
            ranges=read_ranges(fields),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RepairAnswer:
    """Packets as they were sent, and what the publisher still retains (SC-8)."""

    packets: tuple[bytes, ...]
    oldest: int
    """Lowest sequence still retained."""
    head: bytes | None
    """The latest heartbeat datagram."""

    def serialize(self) -> bytes:
        """The body's bytes."""
        return encode_cbor(self.as_map())

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read the body's bytes."""
        return cls.read(Fields.parse(data, "repair reply"))

    def as_map(self) -> dict[str, Any]:
        """Its fields, as they stand in a body."""
        return {"packets": list(self.packets), "oldest": self.oldest, "head": self.head}

    @classmethod
    def read(cls, fields: Fields) -> Self:
        """Read its fields out of a body."""

        def read(value: object) -> bytes:
            return fields.as_bytes(value, "packets", most=MAX_DATAGRAM)

        return cls(
            packets=fields.items("packets", read, most=MAX_REPAIR_PACKETS),
            oldest=fields.uint("oldest", most=SEQUENCE_LIMIT),
            head=fields.bytes_or_none("head", most=MAX_DATAGRAM),
        )


def _read_keys(fields: Fields) -> dict[str, Any]:
    def read_slot(value: object) -> tuple[int, Secret]:
        number, secret = fields.as_tuple(value, "slots", 2)
        return (
            fields.as_uint(number, "slots", most=2**24 - 1),
            Secret(fields.as_bytes(secret, "slots", length=32)),
        )

    def read_earlier(value: object) -> tuple[int, Secret, bytes]:
        number, first, beacon = fields.as_tuple(value, "earlier", 3)
        return (
            fields.as_uint(number, "earlier", most=2**32 - 1),
            Secret(fields.as_bytes(first, "earlier", length=32)),
            fields.as_bytes(beacon, "earlier", most=MAX_DATAGRAM),
        )

    generation, step, secret = fields.tuple_("generation", 3)
    return {
        "beacon": fields.bytes_("beacon", most=MAX_DATAGRAM),
        "slots": fields.items("slots", read_slot, most=MAX_SLOTS),
        "generation": fields.as_uint(generation, "generation", most=2**32 - 1),
        "step": fields.as_uint(step, "generation", most=255),
        "secret": Secret(fields.as_bytes(secret, "generation", length=32)),
        "time": fields.uint("time"),
        "earlier": fields.items("earlier", read_earlier, most=MAX_EARLIER) if "earlier" in fields else (),
    }


def _nodes_map(nodes: tuple[RepairNodeEntry, ...]) -> dict[str, Any]:
    listed = [{"device": node.device, "endpoint": list(node.endpoint)} for node in nodes]
    return {"repair-nodes": listed} if listed else {}


def _read_nodes(fields: Fields) -> tuple[RepairNodeEntry, ...]:
    if "repair-nodes" not in fields:
        return ()
    return fields.items("repair-nodes", RepairNodeEntry.read, most=MAX_REPAIR_NODES)


def _issuers(fields: Fields) -> tuple[bytes, ...]:
    def read(value: object) -> bytes:
        return fields.as_bytes(value, "issuers", most=MAX_CERTIFICATE)

    return fields.items("issuers", read, most=MAX_ISSUERS)


def read_ranges(fields: Fields) -> tuple[tuple[int, int], ...]:
    """Read the field `ranges`: first and last of each."""

    def read(value: object) -> tuple[int, int]:
        first, last = fields.as_tuple(value, "ranges", 2)
        first = fields.as_uint(first, "ranges", most=SEQUENCE_LIMIT - 1)
        last = fields.as_uint(last, "ranges", most=SEQUENCE_LIMIT - 1)
        if first > last:
            raise fields.fault("ranges", f"first {first} is above last {last}")
        return first, last

    return fields.items("ranges", read, most=MAX_RANGES)


def read_endpoint(fields: Fields) -> tuple[str, int] | None:
    """Read the field `endpoint`: host and port, or null."""
    value = fields.tuple_or_none("endpoint", 2)
    if value is None:
        return None
    host = fields.as_text(value[0], "endpoint")
    port = fields.as_uint(value[1], "endpoint", most=65_535)
    # It goes into a URL of whoever reads the directory: nothing but a name or an address may stand here.
    if not port or not is_ascii_host(host):
        raise fields.fault("endpoint", "not a host and a port")
    return host, port


def _device(fields: Fields, name: str) -> str:
    device = fields.text(name, most=128)
    try:
        # A device of another site is written `<site id>:<name>` (TR-13).
        check_member(device)
    except UsageError as error:
        raise fields.fault(name, error.problem) from None
    return device


def _instance(fields: Fields) -> str:
    try:
        return check_instance_name(fields.text("instance", most=63))
    except UsageError as error:
        raise fields.fault("instance", error.problem) from None
