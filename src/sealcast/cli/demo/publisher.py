"""A process: the bedside monitor. Sends the ECG on one channel and the file on the other.

    python -m sealcast.cli.demo.publisher PLAN

Orders: {"do": "start"}, then the end of standard input. Nothing of what it reports is used for the verdict.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from array import array
from collections.abc import Iterator
from pathlib import Path

import cbor2

from sealcast.cli.demo.child import orders, run, say
from sealcast.cli.demo.plan import (
    ECG_CHANNEL,
    FILE_CHANNEL,
    LOOPBACK,
    PUBLISHER,
    SAMPLES_A_BATCH,
    Plan,
)
from sealcast.endpoint import Device, Publisher, RoutingOverrides
from sealcast.endpoint.transfer import Progress

_LINGER_SECONDS = 1.0
"""After the last word. Everyone has everything by then."""
_ACKNOWLEDGEMENT_SECONDS = 60.0
_STATUS_SECONDS = 0.5


class Monitor:
    """Both channels, from one start to the end."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._device = Device.open(plan.device(PUBLISHER))
        self._start = asyncio.Event()
        self._end = asyncio.Event()
        self._ready: set[str] = set()
        self._file_bytes = 0

    async def perform(self) -> None:
        """Send everything, wait for the order to end, say good-bye on both channels."""
        control = asyncio.create_task(self._obey())
        status = asyncio.create_task(self._report())
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._send_ecg())
                group.create_task(self._send_file())
        finally:
            control.cancel()
            status.cancel()

    async def _send_ecg(self) -> None:
        async with self._publisher(ECG_CHANNEL) as publisher:
            await self._begin(ECG_CHANNEL)
            samples = read_samples(self._plan.ecg)
            loop = asyncio.get_running_loop()
            started, seconds = loop.time(), self._plan.scale.stream_seconds / len(samples)
            for first, message in batches(samples):
                await asyncio.sleep(started + first * seconds - loop.time())
                await publisher.send(message, topic="mlii")
            await publisher.drained()
            await self._end.wait()

    async def _send_file(self) -> None:
        async with self._publisher(FILE_CHANNEL) as publisher:
            await self._begin(FILE_CHANNEL)
            await publisher.send_files(
                [self._plan.file], linger=_ACKNOWLEDGEMENT_SECONDS, on_progress=self._progress
            )
            say(acknowledged=True)
            await self._end.wait()

    def _publisher(self, channel: str) -> Publisher:
        return self._device.publisher(
            channel,
            routing=RoutingOverrides(send_to=self._plan.sent_to[channel], interface=LOOPBACK),
            linger=_LINGER_SECONDS,
        )

    async def _begin(self, channel: str) -> None:
        self._ready.add(channel)
        say(ready=sorted(self._ready))
        await self._start.wait()

    def _progress(self, progress: Progress) -> None:
        self._file_bytes = progress.done

    async def _obey(self) -> None:
        async for _ in orders():
            self._start.set()
        self._end.set()
        self._start.set()

    async def _report(self) -> None:
        await self._start.wait()
        while True:
            await asyncio.sleep(_STATUS_SECONDS)
            say(status={"file_bytes": self._file_bytes})


def read_samples(path: Path) -> array[int]:
    """Return the recording's samples."""
    samples = array("H")
    samples.frombytes(path.read_bytes())
    if sys.byteorder == "big":
        samples.byteswap()
    return samples


def batches(samples: array[int]) -> Iterator[tuple[int, bytes]]:
    """Iterate over (number of the first sample, message), as a monitor would send them."""
    for first in range(0, len(samples), SAMPLES_A_BATCH):
        values = samples[first : first + SAMPLES_A_BATCH].tolist()
        yield first, cbor2.dumps({"lead": "MLII", "hz": 360, "first": first, "samples": values})


def main() -> None:
    """Run the process."""
    with contextlib.suppress(KeyboardInterrupt):
        run(Monitor(Plan.load(Path(sys.argv[1]))).perform())


if __name__ == "__main__":
    main()
