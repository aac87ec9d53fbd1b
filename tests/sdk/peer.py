"""The peer of sdk/scenarios, in Python: who the other languages meet, and who the scenarios are tried on."""

from __future__ import annotations

import asyncio
import re
import sys
from argparse import ArgumentParser, Namespace
from contextlib import suppress

from sealcast.endpoint import Device, RoutingOverrides
from sealcast.endpoint.events import Event, Gap, MessageLost
from sealcast.endpoint.routing import parse_address
from sealcast.errors import SealcastError


def say(*words: object) -> None:
    print(*words, flush=True)


def tell(event: Event) -> None:
    kind = re.sub(r"(?<!^)(?=[A-Z])", "-", type(event).__name__).lower()
    first, last = 0, 0
    if isinstance(event, Gap):
        first, last = event.first, 2**64 - 1 if event.last is None else event.last
    elif isinstance(event, MessageLost):
        first = last = event.message_id
    say("event", kind, first, last, getattr(event, "publisher", "") or "-")


async def lines() -> asyncio.StreamReader:
    reader = asyncio.StreamReader(limit=16 << 20)
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    return reader


async def subscribe(arguments: Namespace) -> None:
    listen = parse_address(arguments.listen) if arguments.listen else None
    device = Device.open(arguments.folder)
    routing = RoutingOverrides(listen=listen)
    async with device.subscriber(
        arguments.channel, start=arguments.start, routing=routing, on_event=tell
    ) as subscriber:
        say("joined")

        async def receive() -> None:
            async for message in subscriber:
                say("message", message.publisher, message.topic or "-", message.data.decode())

        receiving = asyncio.create_task(receive())
        leaving = asyncio.create_task(until_leave(await lines()))
        await asyncio.wait((receiving, leaving), return_when=asyncio.FIRST_COMPLETED)
        for task in (receiving, leaving):
            task.cancel()
        with suppress(asyncio.CancelledError):
            await receiving
        say("rejected", subscriber.counters()["signature"])
    say("left")


async def until_leave(reader: asyncio.StreamReader) -> None:
    while (line := await reader.readline()) and line != b"leave\n":
        pass


async def publish(arguments: Namespace) -> None:
    send_to = parse_address(arguments.send_to) if arguments.send_to else None
    device, sent, reader = Device.open(arguments.folder), 0, await lines()
    routing = RoutingOverrides(send_to=send_to)
    async with device.publisher(arguments.channel, routing=routing, linger=0.3, on_event=tell) as publisher:
        say("joined")
        while line := (await reader.readline()).decode().rstrip("\n"):
            word, _, rest = line.partition(" ")
            if word != "send":
                break
            topic, _, text = rest.partition(" ")
            await publisher.send(text.encode(), topic=None if topic == "-" else topic)
            sent += 1
            say("sent", sent)
    # The end of the block has said the end, and has mended for a while.
    say("finished")


def main() -> int:
    parser = ArgumentParser()
    parser.add_argument("role", choices=("subscribe", "publish"))
    parser.add_argument("folder")
    parser.add_argument("channel")
    parser.add_argument("--start", default="now")
    parser.add_argument("--listen")
    parser.add_argument("--send-to")
    arguments = parser.parse_args()
    try:
        asyncio.run((subscribe if arguments.role == "subscribe" else publish)(arguments))
    except SealcastError as error:
        reason = getattr(error, "reason", "") or re.sub(r"(?<!^)(?=[A-Z])", "-", type(error).__name__).lower()
        say("error", reason.removesuffix("-error"), error)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
