"""What is read afterwards: the subscribers' journals and files, the switch's counters, the attempt's report.

Nothing here comes from the publisher.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sealcast.cli.demo.journal import JOURNAL_FILE, RECEIVED_FOLDER, SAMPLES_FILE
from sealcast.cli.demo.plan import CHANNELS, SAMPLE_BYTES, SUBSCRIBERS, Plan

LOSSES = frozenset({"Gap", "MessageLost", "StreamClosed", "Equivocation", "CommitmentMismatch"})
"""Events that a subscriber who stays must not have seen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """What one subscriber has received, by its own account."""

    name: str
    samples: int
    """Decoded, in order."""
    samples_equal: bool
    """Whether they are those of the recording."""
    file_sha256: str | None
    """Of the file as it lies in its folder; None: it is not there."""
    sha256_noted: str | None
    """What its journal says of the file."""
    lost: int
    """Packets given up."""
    loss_events: tuple[str, ...] = ()
    ended: frozenset[str] = frozenset()
    """Channels whose end, signed by the publisher, it has seen."""
    repaired: int = 0
    messages: Mapping[str, Mapping[int, int]] = field(default_factory=dict)
    """By channel: messages by slot."""
    generations: Mapping[str, Mapping[int, tuple[int, int]]] = field(default_factory=dict)
    """By channel: messages, and time of sealing of the last, by generation."""
    serials: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """By channel: the serials of the publisher's certificate that the directory had, one after the other."""
    refused_keys: frozenset[str] = frozenset()
    """Channels whose keys it was at last refused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """What the switch did with one subscriber's packets of one channel."""

    forwarded: int
    dropped: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempted:
    """What the removed subscriber has tried."""

    heard: int
    """Datagrams of every kind, from the first to the last: `packets`, `clear` and `old`."""
    packets: int
    """Sealed under a generation that it was not given: tried."""
    clear: int
    """Of such a generation, with nothing sealed in them."""
    old: int
    opened: int
    attempts: int
    keys: int
    """Held, or within four steps of one held: each packet is tried with all of them."""
    blocks: int
    """Tried with every step besides, on one of their packets: those of a block share a key."""
    steps: int
    control_packets: int
    control_opened: int
    old_packets: int
    old_span: int
    """Microseconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """All of it."""

    sample_count: int
    """In the recording."""
    file_sha256: str
    """Of the file that was to be sent, computed before."""
    loss: float
    """That the switch was told to make."""
    observed: Mapping[str, Observed]
    links: Mapping[str, Mapping[str, Link]]
    """By subscriber and channel."""
    overrun: int | None
    """Packets that the system dropped before the switch, and so for everyone; None: it does not tell."""
    folder_serials: tuple[str, str]
    """Of the certificate in the publisher's folder, before and after the renewal."""
    removed_at: int
    """When the removal had returned, microseconds."""
    attempted: Attempted


def read_observed(plan: Plan, name: str) -> Observed:
    """Read what one subscriber has left in its folder."""
    folder = plan.notes(name)
    slots: dict[str, Counter[int]] = {channel: Counter() for channel in CHANNELS}
    generations: dict[str, dict[int, tuple[int, int]]] = {channel: {} for channel in CHANNELS}
    serials: dict[str, list[str]] = {channel: [] for channel in CHANNELS}
    events: list[str] = []
    ended: set[str] = set()
    refused: set[str] = set()
    noted: str | None = None
    lost = repaired = 0
    for line in (folder / JOURNAL_FILE).read_text().splitlines():
        match json.loads(line):
            case {"message": str(channel), "epoch": [int(slot), int(generation), int()], "time": int(time)}:
                slots[channel][slot] += 1
                count, last = generations[channel].get(generation, (0, 0))
                generations[channel][generation] = count + 1, max(last, time)
            case {"event": "StreamEnded", "channel": str(channel)}:
                ended.add(channel)
            case {"event": str(event)} if event in LOSSES:
                events.append(str(event))
            case {"directory": directory}:
                for channel, serial in directory.items():
                    if serial and serial not in serials[channel]:
                        serials[channel].append(serial)
            case {"file": str(), "sha256": str(digest)}:
                noted = digest
            case {"keys": str(channel), "given": bool(given)}:
                (refused.discard if given else refused.add)(channel)
            case {"counters": {"lost": int(more_lost), "repaired": int(more_repaired)}}:
                lost, repaired = lost + more_lost, repaired + more_repaired
            case _:
                pass
    samples = _read(folder / SAMPLES_FILE)
    file = folder / RECEIVED_FOLDER / plan.file.name
    return Observed(
        name=name,
        samples=len(samples) // SAMPLE_BYTES,
        samples_equal=samples == plan.ecg.read_bytes(),
        file_sha256=hash_file(file) if file.exists() else None,
        sha256_noted=noted,
        lost=lost,
        loss_events=tuple(events),
        ended=frozenset(ended),
        repaired=repaired,
        messages=slots,
        generations=generations,
        serials={channel: tuple(found) for channel, found in serials.items()},
        refused_keys=frozenset(refused),
    )


def read_links(report: Mapping[str, Any]) -> tuple[dict[str, dict[str, Link]], int | None]:
    """Read the switch's counters; return what it did by subscriber and channel, and its overrun."""
    links = {
        name: {channel: Link(**link["subscribers"][name]) for channel, link in report.items()}
        for name in SUBSCRIBERS
    }
    overruns = [link["overrun"] for link in report.values()]
    return links, None if None in overruns else sum(overruns)


def read_evidence(
    plan: Plan,
    *,
    file_sha256: str,
    switch: Mapping[str, Any],
    folder_serials: tuple[str, str],
    removed_at: int,
    attempted: Mapping[str, int],
) -> Evidence:
    """Gather everything."""
    links, overrun = read_links(switch)
    return Evidence(
        sample_count=plan.ecg.stat().st_size // SAMPLE_BYTES,
        file_sha256=file_sha256,
        loss=plan.scale.loss,
        observed={name: read_observed(plan, name) for name in SUBSCRIBERS},
        links=links,
        overrun=overrun,
        folder_serials=folder_serials,
        removed_at=removed_at,
        attempted=Attempted(**attempted),
    )


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read(path: Path) -> bytes:
    return path.read_bytes() if path.exists() else b""
