"""What a publisher that does not listen asks a repair node: what it wants, and who has told it what of files;
and brings: what it wanted before.

Spec: spec/side-channel.md SC-50.
"""

from dataclasses import dataclass
from typing import Self

from sealcast.pki.signed import encode_cbor
from sealcast.sidechannel.fields import Fields
from sealcast.sidechannel.messages import RepairAnswer, read_ranges

HOLD_SECONDS = 5.0
"""For so long a request waits at most where nothing is wanted."""

MAX_REPORTS = 64
MAX_REPORT_BYTES = 256 << 10
"""Of one report on files that a node passes on: twice what one of all that SC-48 allows has."""

_MAX_NUMBER = 2**63 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class PassedReport:
    """A report on files of a device (SC-48), as a repair node passes it on."""

    mark: int
    """By which the publisher says that it has it."""
    device: str
    """As the policy writes it; the node has judged its certificate."""
    report: bytes
    """The body, as it came."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedRequest:
    """`POST /v1/wanted`."""

    channel: bytes
    """Channel id, 32 bytes."""
    stream: bytes
    """16 bytes."""
    number: int
    """Of the answer which this one answers; 0: of none."""
    brought: RepairAnswer
    """What was wanted in that one."""
    taken: tuple[int, ...] = ()
    """Marks of the reports in that one."""

    def serialize(self) -> bytes:
        """The body's bytes."""
        return encode_cbor(
            {
                "channel": self.channel,
                "stream": self.stream,
                "number": self.number,
                **self.brought.as_map(),
                **({"taken": list(self.taken)} if self.taken else {}),
            }
        )

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read the body's bytes."""
        fields = Fields.parse(data, "wanted request")

        return cls(
            channel=fields.bytes_("channel", length=32),
            stream=fields.bytes_("stream", length=16),
            number=fields.uint("number", most=_MAX_NUMBER),
            brought=RepairAnswer.read(fields),
            taken=fields.items(
                "taken", lambda mark: fields.as_uint(mark, "taken", most=_MAX_NUMBER), most=MAX_REPORTS
            )
            if "taken" in fields
            else (),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedAnswer:
    """What the repair node wants."""

    number: int
    """Above 0, and another one each time; 0: nothing is wanted now."""
    ranges: tuple[tuple[int, int], ...] = ()
    """As in a repair request; none with number 0."""
    reports: tuple[PassedReport, ...] = ()

    def serialize(self) -> bytes:
        """The body's bytes."""
        reports = [[each.mark, each.device, each.report] for each in self.reports]
        return encode_cbor(
            {
                "number": self.number,
                "ranges": [list(one) for one in self.ranges],
                **({"reports": reports} if reports else {}),
            }
        )

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read the body's bytes."""
        fields = Fields.parse(data, "wanted reply")

        def read_report(value: object) -> PassedReport:
            mark, device, report = fields.as_tuple(value, "reports", 3)
            return PassedReport(
                mark=fields.as_uint(mark, "reports", most=_MAX_NUMBER),
                device=fields.as_text(device, "reports"),
                report=fields.as_bytes(report, "reports", most=MAX_REPORT_BYTES),
            )

        return cls(
            number=fields.uint("number", most=_MAX_NUMBER),
            ranges=read_ranges(fields),
            reports=fields.items("reports", read_report, most=MAX_REPORTS) if "reports" in fields else (),
        )
