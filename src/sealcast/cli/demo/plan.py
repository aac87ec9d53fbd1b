"""Who takes part in the demo, and how much of everything: written once, read by every process."""

from __future__ import annotations

import json
import os
import socket
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

PUBLISHER = "bedside-monitor"
MEMBERS = ("central-station", "recorder")
"""Subscribers that stay to the end."""
REMOVED = "tablet"
"""The subscriber that is removed half-way, and goes on listening."""
SUBSCRIBERS = (*MEMBERS, REMOVED)

ECG_CHANNEL = "ward/ecg"
FILE_CHANNEL = "ward/file"
CHANNELS = (ECG_CHANNEL, FILE_CHANNEL)

LOOPBACK = "127.0.0.1"

SAMPLES_A_BATCH = 18
"""A twentieth of a second at 360 Hz: about what fits a monitor's refresh."""
SAMPLE_BYTES = 2
FILE_MESSAGE_BYTES = 256 << 10

PLAN_FILE = "plan.json"
ECG_FILE = "ecg_mlii_360hz.u16le"

_WIRE_BYTES_A_PAYLOAD_BYTE = 1.208
"""1,452 of 1,204 bytes (spec/wire.md DP-6), and frames."""

Address = tuple[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How much and how fast. The ECG plays faster than it was recorded, so that all of it passes."""

    stream_seconds: float = 25.0
    """In which both channels send all they have."""
    file_bytes: int = 64 << 20
    slot_seconds: float = 4.0
    slots_ahead: int = 8
    """Prefetched: the removed subscriber holds the slots of all that is still to come."""
    loss: float = 0.05
    renewal_at: float = 0.25
    """Part of the stream after which the publisher's certificate is renewed."""
    removal_at: float = 0.48
    """Half-way, less the time that the command takes."""

    @property
    def file_rate(self) -> int:
        """Bit/s on the wire."""
        return int(self.file_bytes * 8 * _WIRE_BYTES_A_PAYLOAD_BYTE / self.stream_seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One run."""

    folder: Path
    seed: int
    scale: Scale
    ecg: Path
    """The recording that is streamed."""
    sent_to: dict[str, Address]
    """By channel: the group that the publisher sends to, and the switch listens on."""
    heard_on: dict[str, dict[str, Address]]
    """By subscriber and channel: the group that the switch forwards to."""

    @classmethod
    def make(cls, folder: Path, *, seed: int, scale: Scale, ecg: Path) -> Self:
        """Choose groups and free ports; two demos on one machine do not meet."""
        high, low = os.urandom(2)
        groups = iter(f"239.255.{high}.{(low + offset) % 256}" for offset in range(256))
        return cls(
            folder=folder,
            seed=seed,
            scale=scale,
            ecg=ecg,
            sent_to={channel: (next(groups), free_port()) for channel in CHANNELS},
            heard_on={
                name: {channel: (next(groups), free_port()) for channel in CHANNELS} for name in SUBSCRIBERS
            },
        )

    @property
    def authority(self) -> Path:
        """The authority's folder."""
        return self.folder / "authority"

    @property
    def file(self) -> Path:
        """The file that is sent."""
        return self.folder / "file.bin"

    def device(self, name: str) -> Path:
        """A device's folder."""
        return self.folder / name / "device"

    def notes(self, name: str) -> Path:
        """Where a process writes its journal and what it received."""
        return self.folder / name

    def save(self) -> Path:
        """Write the plan for the other processes; return where."""
        values = asdict(self)
        values["folder"], values["ecg"] = str(self.folder), str(self.ecg)
        path = self.folder / PLAN_FILE
        path.write_text(json.dumps(values, indent=2))
        return path

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` has written."""
        values: dict[str, Any] = json.loads(path.read_text())
        return cls(
            folder=Path(values["folder"]),
            seed=values["seed"],
            scale=Scale(**{field.name: values["scale"][field.name] for field in fields(Scale)}),
            ecg=Path(values["ecg"]),
            sent_to={channel: _address(value) for channel, value in values["sent_to"].items()},
            heard_on={
                name: {channel: _address(value) for channel, value in channels.items()}
                for name, channels in values["heard_on"].items()
            },
        )


def free_port() -> int:
    """Return a UDP port that nobody uses at the moment."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def _address(value: list[Any]) -> Address:
    return str(value[0]), int(value[1])
