"""What the measured processes run: `python -m bench.ends ROLE PARAMETERS`.

Orders are lines on standard input, reports lines of JSON on standard output; the end of standard input ends
the process.
"""

from __future__ import annotations

import asyncio
import json
import logging
import resource
import struct
import sys
import time
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack, aclosing
from pathlib import Path
from typing import Any

from sealcast import Device, Subscriber
from sealcast.endpoint.events import Event, Gap, MessageLost, StreamClosed, StreamStarted
from sealcast.errors import SealcastError

BATCH = 256
_WARM_UP = b"warm-up"
_STAMP = struct.Struct("!Qq")


def _say(**report: Any) -> None:
    print(json.dumps(report), flush=True)


_JOINS_AT_ONCE = 16


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


class _Orders:
    """Lines of standard input."""

    def __init__(self) -> None:
        self._reader = asyncio.StreamReader()

    async def open(self) -> None:
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(self._reader), sys.stdin)

    async def next(self) -> str:
        """Wait for an order; empty at the end."""
        return (await self._reader.readline()).decode().strip()


# -- a stream of full packets --------------------------------------------------------------------------------


async def publish(
    orders: _Orders, *, device: str, channel: str, count: int, message_bytes: int, max_block: int
) -> None:
    """Send `count` messages as fast as they are taken."""
    publisher = Device.open(Path(device)).publisher(channel, max_block=max_block, linger=0.0)
    messages = [bytes(message_bytes)] * BATCH
    async with publisher:
        await publisher.send(_WARM_UP)
        _say(ready=True)
        await orders.next()
        before, cpu, start = publisher.counters(), _cpu_seconds(), time.monotonic()
        for first in range(0, count, BATCH):
            await publisher.send_many(messages[: count - first])
        await publisher.drained()
        sent, cpu = time.monotonic(), _cpu_seconds() - cpu
        after = publisher.counters()
        grown = {name: after[name] - before[name] for name in ("packets", "blocks", "bytes")}
        _say(start=start, seconds=sent - start, cpu=cpu, **grown)
        await orders.next()
        _say(repairs_served=publisher.counters()["repairs_served"])


async def subscribe(orders: _Orders, *, device: str, channel: str, count: int, message_bytes: int) -> None:
    """Take `count` messages and check each."""
    lost = 0

    def hear(event: Event) -> None:
        nonlocal lost
        if isinstance(event, Gap):
            lost += 1 if event.last is None else event.last - event.first + 1
        elif isinstance(event, MessageLost):
            lost += 1

    expected = bytes(message_bytes)
    subscriber = Device.open(Path(device)).subscriber(channel, on_event=hear)
    async with subscriber:
        _say(ready=True)
        warm_up = await subscriber.recv()
        _say(heard=True)
        before, cpu = subscriber.counters(), _cpu_seconds()
        received, next_id, wrong, last = 0, warm_up.message_id + 1, 0, 0.0
        while received + lost < count:
            messages = await subscriber.recv_many()
            last = time.monotonic()
            wrong += len(messages) - [message.data for message in messages].count(expected)
            # In order and none twice: then the ends tell of all between.
            first, behind = messages[0].message_id, messages[-1].message_id + 1
            wrong += first != next_id or behind - first != len(messages)
            next_id = behind
            received += len(messages)
        cpu, after = _cpu_seconds() - cpu, subscriber.counters()
        grown = {name: after[name] - before[name] for name in after}
        _say(last=last, received=received, lost=lost, wrong=wrong, cpu=cpu, counters=grown)


# -- lone messages -------------------------------------------------------------------------------------------


async def publish_lone(
    orders: _Orders, *, device: str, channel: str, count: int, interval: float, message_bytes: int
) -> None:
    """Send `count` messages, each alone, with the time in it."""
    publisher = Device.open(Path(device)).publisher(channel, linger=0.0)
    padding = bytes(message_bytes - _STAMP.size)
    async with publisher:
        await publisher.send(_WARM_UP)
        _say(ready=True)
        await orders.next()
        for index in range(count):
            await publisher.send(_STAMP.pack(index, time.time_ns()) + padding)
            await asyncio.sleep(interval)
        await orders.next()


async def subscribe_lone(_: _Orders, *, device: str, channel: str, count: int) -> None:
    """Take `count` messages and say how old each was, in microseconds."""
    subscriber = Device.open(Path(device)).subscriber(channel)
    async with subscriber:
        _say(ready=True)
        await subscriber.recv()
        _say(heard=True)
        ages: list[float] = []
        while len(ages) < count:
            message = await subscriber.recv()
            now = time.time_ns()
            ages.append((now - _STAMP.unpack_from(message.data)[1]) / 1e3)
        _say(ages=ages)


# -- who only stays ------------------------------------------------------------------------------------------


async def idle_subscriber(orders: _Orders, *, device: str, channel: str) -> None:
    """Listen, and hear nothing."""
    async with Device.open(Path(device)).subscriber(channel) as subscriber:
        waiting = asyncio.create_task(subscriber.recv())
        _say(ready=True)
        await orders.next()
        waiting.cancel()


async def idle_publisher(orders: _Orders, *, device: str, channel: str) -> None:
    """Be ready, and say nothing."""
    async with Device.open(Path(device)).publisher(channel, linger=0.0):
        _say(ready=True)
        await orders.next()


# -- a crowd -------------------------------------------------------------------------------------------------


async def publish_to_crowd(orders: _Orders, *, device: str, channel: str) -> None:
    """For each order, `COUNT SECONDS`, send so many small messages, one at a time; say what they took."""
    total = 0
    # No other packet than those of the messages, as far as that can be had.
    async with Device.open(Path(device)).publisher(channel, linger=0.0) as publisher:
        _say(ready=True)
        while order := await orders.next():
            count, interval = order.split()
            before, used = publisher.counters(), resource.getrusage(resource.RUSAGE_SELF)
            for _ in range(int(count)):
                await publisher.send(bytes(100))
                await asyncio.sleep(float(interval))
            await publisher.drained()
            after, using = publisher.counters(), resource.getrusage(resource.RUSAGE_SELF)
            total += int(count)
            grown = {name: after[name] - before[name] for name in ("packets", "blocks", "repairs_served")}
            own, system = using.ru_utime - used.ru_utime, using.ru_stime - used.ru_stime
            _say(total=total, own=own, system=system, **grown)


async def subscribe_as_crowd(orders: _Orders, *, devices: list[str], channel: str) -> None:
    """Subscribe as every one of them; for each order, a number, say when each has had a message of it."""
    async with AsyncExitStack() as stack:
        heard, more = dict.fromkeys(devices, 0), asyncio.Condition()

        async def listen(device: str, subscriber: Subscriber) -> None:
            while True:
                messages = await subscriber.recv_many()
                async with more:
                    heard[device] = messages[-1].message_id
                    more.notify_all()

        subscribers = [Device.open(Path(device)).subscriber(channel) for device in devices]
        # Joins of one moment share a step. All at once they would wait for this machine's cores, which do
        # their own work as well, for longer than a device waits for a connection.
        turn = asyncio.Semaphore(_JOINS_AT_ONCE)

        async def join(subscriber: Subscriber) -> None:
            async with turn:
                await stack.enter_async_context(subscriber)

        await asyncio.gather(*map(join, subscribers))
        pairs = zip(devices, subscribers, strict=True)
        tasks = [asyncio.create_task(listen(device, subscriber)) for device, subscriber in pairs]
        _say(ready=True)
        while order := await orders.next():
            async with more:
                await more.wait_for(lambda wanted=int(order): min(heard.values()) + 1 >= wanted)  # type: ignore[misc]
            _say(heard=min(heard.values()))
        for task in tasks:
            task.cancel()


# -- a file --------------------------------------------------------------------------------------------------


async def send_file(orders: _Orders, *, device: str, channel: str, path: str) -> None:
    """Send a file, with parity for the loss that subscribers tell of."""
    publisher = Device.open(Path(device)).publisher(channel, fec="auto", adaptive_rate=False)
    async with publisher:
        _say(ready=True)
        await orders.next()
        _say(start=time.monotonic())
        await publisher.send_files([path])
        _say(done=True)


async def receive_file(orders: _Orders, *, device: str, channel: str, folder: str) -> None:
    """Take one file."""
    async with Device.open(Path(device)).subscriber(channel) as subscriber:
        async with aclosing(subscriber.receive_files(folder)) as files:
            _say(ready=True)
            await anext(files)
            last = time.monotonic()
        # Only now has the publisher been told.
        _say(last=last)
        await orders.next()


# -- a removal -----------------------------------------------------------------------------------------------


async def publish_steadily(orders: _Orders, *, device: str, channel: str, interval: float) -> None:
    """Send a small message every `interval` seconds until told to stop."""
    async with Device.open(Path(device)).publisher(channel, linger=0.0) as publisher:
        _say(ready=True)
        stop = asyncio.create_task(orders.next())
        while not stop.done():
            await publisher.send(b"steady")
            await asyncio.sleep(interval)


async def watch_generations(orders: _Orders, *, device: str, channel: str) -> None:
    """Take messages; when asked, say for each generation when it was first received and last sealed.

    Times are microseconds since 1970. A device that is removed goes on waiting.
    """
    generations: dict[int, list[int]] = {}
    async with Device.open(Path(device)).subscriber(channel) as subscriber:
        _say(ready=True)

        async def listen() -> None:
            async for message in subscriber:
                seen = generations.setdefault(message.epoch[1], [time.time_ns() // 1000, 0])
                seen[1] = max(seen[1], message.time)

        listening = asyncio.create_task(listen())
        while await orders.next():
            _say(generations=[[generation, *seen] for generation, seen in sorted(generations.items())])
        listening.cancel()


# -- a revocation -------------------------------------------------------------------------------------------


async def publish_many(orders: _Orders, *, devices: list[str], channel: str, interval: float) -> None:
    """Publish from many devices, each until it is refused."""
    async with AsyncExitStack() as stack:
        publishers = [
            await stack.enter_async_context(Device.open(Path(device)).publisher(channel, linger=0.0))
            for device in devices
        ]
        _say(ready=True)
        stop = asyncio.create_task(orders.next())
        while not stop.done() and publishers:
            for publisher in list(publishers):
                try:
                    await publisher.send(b"steady")
                except SealcastError:
                    publishers.remove(publisher)
            await asyncio.sleep(interval)


async def watch_streams(orders: _Orders, *, device: str, channel: str) -> None:
    """Say when a stream begins to be followed, and when one is closed; times are nanoseconds since 1970."""

    def hear(event: Event) -> None:
        if isinstance(event, StreamStarted | StreamClosed):
            what = "started" if isinstance(event, StreamStarted) else "closed"
            _say(what=what, device=event.publisher, at=time.time_ns())

    async with Device.open(Path(device)).subscriber(channel, on_event=hear) as subscriber:
        _say(ready=True)

        async def listen() -> None:
            while True:
                await subscriber.recv_many()

        listening = asyncio.create_task(listen())
        await orders.next()
        listening.cancel()


_ROLES: dict[str, Callable[..., Coroutine[Any, Any, None]]] = {
    role.__name__: role
    for role in (
        publish,
        subscribe,
        publish_lone,
        subscribe_lone,
        idle_subscriber,
        idle_publisher,
        publish_steadily,
        watch_generations,
        publish_many,
        watch_streams,
        publish_to_crowd,
        subscribe_as_crowd,
        send_file,
        receive_file,
    )
}


async def _main(role: str, parameters: dict[str, Any]) -> None:
    orders = _Orders()
    await orders.open()
    await _ROLES[role](orders, **parameters)


if __name__ == "__main__":
    logging.basicConfig()
    asyncio.run(_main(sys.argv[1], json.loads(sys.argv[2])))
