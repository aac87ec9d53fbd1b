"""The same API for code without an event loop: same names, plain `with` and `for`.

    from sealcast.sync import Device

    with Device.open("/var/lib/sealcast/bed12").subscriber("icu3/vitals") as subscriber:
        for message in subscriber:
            print(message.publisher, message.data)

One event loop in a thread of its own serves all ends of a process; calls may come from any thread.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Generator, Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, Unpack

from sealcast import endpoint, system
from sealcast._core import Message
from sealcast.device.identity import DeviceIdentity
from sealcast.endpoint.inbox import InboxOptions
from sealcast.endpoint.peer import PeerOptions
from sealcast.endpoint.publisher import PublisherOptions
from sealcast.endpoint.subscriber import SubscriberOptions

if TYPE_CHECKING:
    from sealcast._core import Epoch
    from sealcast.endpoint.transfer import OnLoss, OnProgress, ReceivedFile, SentFile

Result = TypeVar("Result")


class _Loop:
    """The event loop of the process's blocking ends; started at first use."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    def run(self, work: Coroutine[Any, Any, Result], timeout: float | None = None) -> Result:
        """Run `work` to its end, at most `timeout` seconds. Raises: TimeoutError, and what `work` raises."""
        future = asyncio.run_coroutine_threadsafe(asyncio.wait_for(work, timeout), self._started())
        try:
            return future.result()
        except BaseException:
            # Ctrl-C while waiting: what was asked for is not wanted any more.
            future.cancel()
            raise

    def _started(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = system.new_event_loop()
                threading.Thread(target=self._loop.run_forever, name="sealcast-loop", daemon=True).start()
            return self._loop


_loop = _Loop()


class Publisher:
    """Blocking face of `sealcast.endpoint.Publisher`."""

    def __init__(self, publisher: endpoint.Publisher) -> None:
        """Take the asynchronous end."""
        self._publisher = publisher

    def __enter__(self) -> Self:
        _loop.run(self._publisher.__aenter__())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        _loop.run(self._publisher.__aexit__(kind, error, traceback))

    def send(self, message: bytes, *, topic: str | None = None) -> int:
        """Queue one message; return its id."""
        return _loop.run(self._publisher.send(message, topic=topic))

    def send_many(self, messages: Iterable[bytes], *, topic: str | None = None) -> None:
        """Queue many messages at once, in order."""
        _loop.run(self._publisher.send_many(messages, topic=topic))

    def send_files(
        self,
        paths: Sequence[Path | str],
        *,
        linger: float = 30.0,
        on_progress: OnProgress | None = None,
    ) -> tuple[SentFile, ...]:
        """Send files and folders, and stay until every subscriber has them; tells progress in its thread."""
        return _loop.run(self._publisher.send_files(paths, linger=linger, on_progress=on_progress))

    def drained(self) -> None:
        """Wait until everything that was queued has been handed to the network."""
        _loop.run(self._publisher.drained())

    def members(self) -> list[str]:
        """Names of the devices that have joined the channel as subscribers."""
        return _loop.run(self._publisher.members())

    def counters(self) -> dict[str, int]:
        """What has been counted since the start."""
        return self._publisher.counters()

    @property
    def stream_id(self) -> bytes:
        """16 bytes."""
        return self._publisher.stream_id

    @property
    def epoch(self) -> Epoch | None:
        """Slot, generation and step that would be sealed under now."""
        return self._publisher.epoch


class Subscriber:
    """Blocking face of `sealcast.endpoint.Subscriber`."""

    def __init__(self, subscriber: endpoint.Subscriber) -> None:
        """Take the asynchronous end."""
        self._subscriber = subscriber

    def __enter__(self) -> Self:
        _loop.run(self._subscriber.__aenter__())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        _loop.run(self._subscriber.__aexit__(kind, error, traceback))

    def recv(self, timeout: float | None = None) -> Message:
        """Wait for the next message, at most `timeout` seconds. Raises: TimeoutError."""
        return _loop.run(self._subscriber.recv(), timeout)

    def recv_many(self, limit: int = 512, timeout: float | None = None) -> list[Message]:
        """Wait for at least one message and return what is there. Raises: TimeoutError."""
        return _loop.run(self._subscriber.recv_many(limit), timeout)

    def __iter__(self) -> Iterator[Message]:
        while True:
            yield from self.recv_many()

    def receive_files(
        self,
        folder: Path | str,
        *,
        overwrite: bool = False,
        on_progress: OnProgress | None = None,
        on_loss: OnLoss | None = None,
    ) -> Generator[ReceivedFile]:
        """Iterate over the files that come in, each in its place below `folder`; tells in its thread.

        Closed, or at its end, it tells publishers what is here.
        """
        files = self._subscriber.receive_files(
            folder, overwrite=overwrite, on_progress=on_progress, on_loss=on_loss
        )

        async def following() -> ReceivedFile:
            return await anext(files)

        try:
            while True:
                yield _loop.run(following())
        finally:
            _loop.run(files.aclose())

    def counters(self) -> dict[str, int]:
        """What has been counted since the start."""
        return self._subscriber.counters()

    @property
    def epoch(self) -> Epoch | None:
        """Slot, generation and step as far as announced."""
        return self._subscriber.epoch


class Peer:
    """Blocking face of `sealcast.endpoint.Peer`."""

    def __init__(self, peer: endpoint.Peer) -> None:
        """Take the asynchronous one."""
        self._peer = peer

    def __enter__(self) -> Self:
        _loop.run(self._peer.__aenter__())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        _loop.run(self._peer.__aexit__(kind, error, traceback))

    def send(self, message: bytes, *, topic: str | None = None) -> bytes:
        """Queue one message on the disk; return its id."""
        return _loop.run(self._peer.send(message, topic=topic))

    def send_many(self, messages: Iterable[bytes], *, topic: str | None = None) -> list[bytes]:
        """Queue many messages at once, in order; return their ids."""
        return _loop.run(self._peer.send_many(messages, topic=topic))

    def delivered(self, timeout: float | None = None) -> None:
        """Wait until the peer has acknowledged all, at most `timeout` seconds. Raises: TimeoutError."""
        _loop.run(self._peer.delivered(), timeout)

    def waiting(self) -> int:
        """How many messages the peer has not acknowledged yet."""
        return _loop.run(self._peer.waiting())


class Inbox:
    """Blocking face of `sealcast.endpoint.Inbox`."""

    def __init__(self, inbox: endpoint.Inbox) -> None:
        """Take the asynchronous one."""
        self._inbox = inbox

    def __enter__(self) -> Self:
        _loop.run(self._inbox.__aenter__())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        _loop.run(self._inbox.__aexit__(kind, error, traceback))

    def recv(self, timeout: float | None = None) -> endpoint.PeerMessage:
        """Wait for the next message, at most `timeout` seconds. Raises: TimeoutError."""
        return _loop.run(self._inbox.recv(), timeout)

    def recv_many(self, limit: int = 512, timeout: float | None = None) -> list[endpoint.PeerMessage]:
        """Wait for at least one message and return what is there. Raises: TimeoutError."""
        return _loop.run(self._inbox.recv_many(limit), timeout)

    def __iter__(self) -> Iterator[endpoint.PeerMessage]:
        while True:
            yield self.recv()


class Device:
    """Blocking face of `sealcast.endpoint.Device`."""

    def __init__(self, identity: DeviceIdentity) -> None:
        """Take what `DeviceIdentity.open` has read."""
        self._device = endpoint.Device(identity)

    @classmethod
    def open(cls, path: Path | str) -> Self:
        """Read a device's folder. Raises: StorageError, CertificateError."""
        return cls(DeviceIdentity.open(path))

    @property
    def name(self) -> str:
        """The device's name."""
        return self._device.name

    def close(self) -> None:
        """Close the peers that were sent to outside of a block."""
        _loop.run(self._device.close())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def publisher(self, channel: str, **options: Unpack[PublisherOptions]) -> Publisher:
        """Return a publisher on `channel`; options as those of `sealcast.endpoint.Publisher`."""
        return Publisher(self._device.publisher(channel, **options))

    def subscriber(self, channel: str, **options: Unpack[SubscriberOptions]) -> Subscriber:
        """Return a subscriber to `channel`; options as those of `sealcast.endpoint.Subscriber`."""
        return Subscriber(self._device.subscriber(channel, **options))

    def peer(
        self, name: str, *, site: endpoint.ChannelSite | None = None, **options: Unpack[PeerOptions]
    ) -> Peer:
        """Return a peer to send messages to; arguments as those of `sealcast.endpoint.Device.peer`."""
        return Peer(self._device.peer(name, site=site, **options))

    def inbox(self, *, site: endpoint.ChannelSite | None = None, **options: Unpack[InboxOptions]) -> Inbox:
        """Return the inbox; arguments as those of `sealcast.endpoint.Device.inbox`."""
        return Inbox(self._device.inbox(site=site, **options))
