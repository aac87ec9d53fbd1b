"""What a subscriber writes down while it receives: one JSON object a line, in its own folder.

{"message": channel, "epoch": [slot, generation, step], "time": µs, "sequence": n, "bytes": n}
{"event": name, "channel": channel, …}
{"directory": {channel: serial of the publisher's certificate}}
{"file": name, "sha256": hex}
{"keys": channel, "given": bool}                               the removed one's own requests
{"counters": {channel: {…}}, "samples": n}                     the last line
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import TracebackType
from typing import Self

from sealcast import _core
from sealcast.endpoint.events import Event

JOURNAL_FILE = "journal.jsonl"
SAMPLES_FILE = "ecg.u16le"
RECEIVED_FOLDER = "received"


class Journal:
    """Appends to the file; every entry is whole once the block is left."""

    def __init__(self, folder: Path) -> None:
        self._file = (folder / JOURNAL_FILE).open("w", encoding="utf-8")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()

    def write(self, **entry: object) -> None:
        """Write one entry."""
        self._file.write(json.dumps(entry) + "\n")

    def message(self, channel: str, message: _core.Message) -> None:
        """Write down that a message was delivered."""
        self.write(
            message=channel,
            epoch=list(message.epoch),
            time=message.time,
            sequence=message.sequence,
            bytes=len(message.data),
        )

    def event(self, channel: str, event: Event) -> None:
        """Write down what was told besides messages."""
        fields = {
            field.name: value.hex() if isinstance(value := getattr(event, field.name), bytes) else repr(value)
            for field in dataclasses.fields(event)
        }
        self.write(event=type(event).__name__, channel=channel, fields=fields)
