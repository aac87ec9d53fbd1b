"""The bodies of requests and answers of repair nodes; see `messages`.

Spec: spec/keys.md KM-21; spec/side-channel.md SC-39 to SC-42.
"""

from dataclasses import dataclass
from typing import Any, Self

from sealcast.keys import GateGrant, Secret
from sealcast.pki.signed import encode_cbor
from sealcast.sidechannel.fields import Fields
from sealcast.sidechannel.messages import MAX_DATAGRAM, Joined, read_endpoint

MAX_GATES = 320


@dataclass(frozen=True, slots=True, kw_only=True)
class GatesAnswer:
    """Keys reply to a repair node (SC-39): gate keys and credential keys, from which no other key follows."""

    beacon: bytes
    """Datagram."""
    generation: int
    gates: tuple[GateGrant, ...]
    time: int
    """Microseconds, by the key server's clock."""

    def serialize(self) -> bytes:
        """The body's bytes."""
        return encode_cbor(self.map())

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read the body's bytes."""
        return cls.read(Fields.parse(data, "gates reply"))

    @classmethod
    def read(cls, fields: Fields) -> Self:
        """Read the fields of this or a longer reply."""

        def read(value: object) -> GateGrant:
            slot, step, gate, credential = fields.as_tuple(value, "gates", 4)
            return GateGrant(
                slot=fields.as_uint(slot, "gates", most=2**24 - 1),
                step=fields.as_uint(step, "gates", most=255),
                gate=Secret(fields.as_bytes(gate, "gates", length=32)),
                credential=Secret(fields.as_bytes(credential, "gates", length=32)),
            )

        generation, gates = fields.tuple_("gates", 2)
        return cls(
            beacon=fields.bytes_("beacon", most=MAX_DATAGRAM),
            generation=fields.as_uint(generation, "gates", most=2**32 - 1),
            gates=Fields({"gates": gates}, "gates reply").items("gates", read, most=MAX_GATES),
            time=fields.uint("time"),
        )

    def map(self) -> dict[str, Any]:
        """As it stands in a reply."""
        return {
            "beacon": self.beacon,
            "gates": [
                self.generation,
                [
                    [grant.slot, grant.step, grant.gate.reveal(), grant.credential.reveal()]
                    for grant in self.gates
                ],
            ],
            "time": self.time,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeJoinAnswer(Joined):
    """Join reply to a repair node (SC-39)."""

    gates: GatesAnswer

    def serialize(self) -> bytes:
        """The body's bytes."""
        return encode_cbor(self.gates.map() | self.rest())

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read the body's bytes."""
        fields = Fields.parse(data, "join reply")
        return cls(gates=GatesAnswer.read(fields), **cls.read_rest(fields))


@dataclass(frozen=True, slots=True, kw_only=True)
class RepairNodeUpdate:
    """`PUT …/repair-node`: where a repair node listens; None: it serves no more."""

    endpoint: tuple[str, int] | None

    def serialize(self) -> bytes:
        """The body's bytes."""
        return encode_cbor({"endpoint": None if self.endpoint is None else list(self.endpoint)})

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read the body's bytes."""
        return cls(endpoint=read_endpoint(Fields.parse(data, "repair node")))


@dataclass(frozen=True, slots=True, kw_only=True)
class AdmissionAnswer:
    """`GET …/members/<device>` (SC-42): from when on a member may be served packets."""

    generation: int
    step: int
    joined: int
    """Microseconds."""

    def serialize(self) -> bytes:
        """The body's bytes."""
        return encode_cbor({"admission": [self.generation, self.step, self.joined]})

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read the body's bytes."""
        fields = Fields.parse(data, "admission")
        generation, step, joined = fields.tuple_("admission", 3)
        return cls(
            generation=fields.as_uint(generation, "admission", most=2**32 - 1),
            step=fields.as_uint(step, "admission", most=255),
            joined=fields.as_uint(joined, "admission"),
        )
