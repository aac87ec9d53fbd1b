"""A process: a receiving device. Decodes the ECG, receives the file, and writes its journal.

    python -m sealcast.cli.demo.subscriber PLAN NAME [--watch] [--keep]

`--watch`: looks at directory and members once a second. `--keep`: keeps for itself what it is given and what
it hears (`keepsakes`); it is the one that will be removed. Runs until both streams have ended, or the end of
standard input.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from array import array
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path

import cbor2

from sealcast import _core
from sealcast.cli.demo.child import orders, run, say
from sealcast.cli.demo.journal import RECEIVED_FOLDER, SAMPLES_FILE, Journal
from sealcast.cli.demo.keepsakes import Keepsakes
from sealcast.cli.demo.plan import CHANNELS, ECG_CHANNEL, FILE_CHANNEL, LOOPBACK, PUBLISHER, REMOVED, Plan
from sealcast.device import DeviceIdentity
from sealcast.endpoint import RoutingOverrides, Subscriber
from sealcast.endpoint.events import Event, Refused, StreamEnded
from sealcast.endpoint.transfer import Progress
from sealcast.errors import SealcastError
from sealcast.pki.certificates import parse_certificate
from sealcast.pki.credential import CredentialBundle
from sealcast.sidechannel.client import KeyServerClient

_STATUS_SECONDS = 0.5
_WATCH_SECONDS = 1.0


class JournaledSubscriber(Subscriber):
    """A subscriber that writes down whatever it hands on, and ends with the publisher's stream."""

    journal: Journal
    outstays = False
    """Goes on listening when the stream has ended, and when it is refused."""
    latest: _core.Epoch | None = None
    messages = 0
    payload_bytes = 0

    async def items(self) -> AsyncIterator[_core.Message | Event]:
        """Iterate over messages and events, in order, up to the end of the stream."""
        async for item in super().items():
            if isinstance(item, _core.Message):
                self.latest = item.epoch
                self.messages += 1
                self.payload_bytes += len(item.data)
                self.journal.message(self.channel, item)
            else:
                self.journal.event(self.channel, item)
            yield item
            if isinstance(item, StreamEnded) and not self.outstays:
                return

    def refusal(self, event: Refused) -> SealcastError | None:
        """Return the error that a refusal is; to one that outstays it is none."""
        return None if self.outstays else super().refusal(event)


class Receiver:
    """One device on both channels."""

    def __init__(self, plan: Plan, name: str, journal: Journal) -> None:
        self._plan = plan
        self._name = name
        self._journal = journal
        self._notes = plan.notes(name)
        self._identity = DeviceIdentity.open(plan.device(name))
        self._subscribers: dict[str, JournaledSubscriber] = {}
        self._samples = array("H")
        self._file_bytes = 0
        self._members: list[str] = []
        self._ended = asyncio.Event()

    async def perform(self, *, watches: bool, keeps: bool) -> None:
        """Receive to the end."""
        others = [asyncio.create_task(self._obey()), asyncio.create_task(self._report())]
        if watches:
            others.append(asyncio.create_task(self._watch()))
        if keeps:
            keepsakes = Keepsakes(self._plan, self._name, self._identity, self._journal)
            others.append(asyncio.create_task(keepsakes.gather()))
        work: asyncio.Task[object] = asyncio.create_task(self._receive())
        ended: asyncio.Task[object] = asyncio.create_task(self._ended.wait())
        try:
            await asyncio.wait([work, ended], return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                # An error of it is this process's error.
                await work
        finally:
            work.cancel()
            for task in (*others, ended):
                task.cancel()
            await asyncio.gather(work, ended, *others, return_exceptions=True)
        self._write_samples()

    async def _receive(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._receive_ecg())
            group.create_task(self._receive_file())

    async def _receive_ecg(self) -> None:
        async with self._open(ECG_CHANNEL) as subscriber:
            async for item in subscriber.items():
                if isinstance(item, _core.Message):
                    self._decode(item.data)
            say(done=ECG_CHANNEL)

    def _decode(self, data: bytes) -> None:
        batch = cbor2.loads(data)
        # In order and complete: a batch stands where those before it end, or the samples are not equal.
        if batch["first"] == len(self._samples):
            self._samples.extend(batch["samples"])

    async def _receive_file(self) -> None:
        folder = self._notes / RECEIVED_FOLDER
        folder.mkdir()
        async with self._open(FILE_CHANNEL) as subscriber:
            received = subscriber.receive_files(folder, on_progress=self._progress)
            async with contextlib.aclosing(received) as files:
                async for file in files:
                    self._journal.write(file=file.path.name, sha256=file.sha256.hex())
            say(done=FILE_CHANNEL)

    def _progress(self, progress: Progress) -> None:
        self._file_bytes = progress.done

    @contextlib.asynccontextmanager
    async def _open(self, channel: str) -> AsyncGenerator[JournaledSubscriber]:
        subscriber = JournaledSubscriber(
            self._identity,
            channel,
            routing=RoutingOverrides(listen=self._plan.heard_on[self._name][channel], interface=LOOPBACK),
        )
        subscriber.journal = self._journal
        subscriber.outstays = self._name == REMOVED
        async with subscriber:
            self._subscribers[channel] = subscriber
            if len(self._subscribers) == len(CHANNELS):
                say(ready=True)
            try:
                yield subscriber
            finally:
                self._journal.write(counters=subscriber.counters(), channel=channel)
                del self._subscribers[channel]

    def _write_samples(self) -> None:
        if sys.byteorder == "big":
            self._samples.byteswap()
        (self._notes / SAMPLES_FILE).write_bytes(self._samples.tobytes())

    # -- beside it -------------------------------------------------------------------------------------------

    async def _obey(self) -> None:
        async for _ in orders():
            pass
        self._ended.set()

    async def _report(self) -> None:
        while True:
            await asyncio.sleep(_STATUS_SECONDS)
            channels = {
                channel: {
                    "epoch": subscriber.latest,
                    "messages": subscriber.messages,
                    "bytes": subscriber.payload_bytes,
                    **subscriber.counters(),
                }
                for channel, subscriber in self._subscribers.items()
            }
            say(
                status={
                    "channels": channels,
                    "samples": len(self._samples),
                    "file_bytes": self._file_bytes,
                    "members": self._members,
                }
            )

    async def _watch(self) -> None:
        async with KeyServerClient(self._identity) as key_server:
            told: dict[str, str] = {}
            while True:
                with contextlib.suppress(SealcastError):
                    serials = {channel: await _serial(key_server, channel) for channel in CHANNELS}
                    if serials != told:
                        told = serials
                        self._journal.write(directory=serials)
                        say(directory=serials)
                    self._members = [
                        entry.device
                        for entry in await key_server.members(ECG_CHANNEL)
                        if entry.role == "subscribe"
                    ]
                await asyncio.sleep(_WATCH_SECONDS)


async def _serial(key_server: KeyServerClient, channel: str) -> str:
    """Return the serial of the certificate behind the publisher's credential, as the directory has it."""
    for entry in await key_server.streams(channel):
        if entry.device == PUBLISHER:
            certificate = CredentialBundle.parse(entry.credential).chain[0]
            return f"{parse_certificate(certificate).serial_number:x}"
    return ""


def main() -> None:
    """Run the process."""
    path, name, *options = sys.argv[1:]
    plan = Plan.load(Path(path))
    with Journal(plan.notes(name)) as journal:
        receiver = Receiver(plan, name, journal)
        run(receiver.perform(watches="--watch" in options, keeps="--keep" in options))


if __name__ == "__main__":
    main()
