"""`sealcast subscribe`: messages become lines."""

import base64
import enum
import json
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from sealcast._core import Message
from sealcast.cli import say
from sealcast.cli.data import (
    AsJson,
    Channel,
    Count,
    Folder,
    Interface,
    Keys,
    Listen,
    Site,
    Source,
    channel_site,
    check_channel,
    open_device,
    routing,
    run,
    unattended,
)
from sealcast.cli.output import data_line, open_output, write_messages
from sealcast.endpoint.events import Alarm, Event, Loss, MulticastSilent, Refused
from sealcast.endpoint.limits import MAX_MESSAGE_BYTES
from sealcast.endpoint.subscriber import Subscriber
from sealcast.endpoint.transfer import TOPIC as FILE_TOPIC
from sealcast.errors import IncompleteError


class Order(enum.Enum):
    """Modes of delivery, as `Subscriber` has them."""

    RELIABLE = "reliable"
    REALTIME = "realtime"
    UNORDERED = "unordered"


class From(enum.Enum):
    """From where on, as `Subscriber` has it."""

    NOW = "now"
    LAST = "last"
    START = "start"


class Way(enum.Enum):
    """How packets come, as `Subscriber` has it."""

    MULTICAST = "multicast"
    SIDE_CHANNEL = "side-channel"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(subscribe)


def subscribe(
    folder: Folder,
    channel: Channel,
    output: Annotated[
        Path | None, typer.Option("--output", metavar="FILE", help="Write here; by default standard output.")
    ] = None,
    count: Count = None,
    raw: Annotated[bool, typer.Option("--raw", help="Add no line end to a message.")] = False,
    delivery: Annotated[
        Order,
        typer.Option(
            "--delivery",
            help="In order and complete; in order, what is late left out; or each message when it is there.",
        ),
    ] = Order.RELIABLE,
    deadline: Annotated[
        str | None,
        typer.Option("--deadline", metavar="TIME", help="With realtime: how late is too late, such as 50ms."),
    ] = None,
    start: Annotated[
        From,
        typer.Option(
            "--from",
            help="Of what was published before: nothing, the last of each topic, or all that is retained "
            "since this device was admitted: it joined, and has not left but by a crash.",
        ),
    ] = From.NOW,
    path: Annotated[
        Way,
        typer.Option(
            "--path",
            help="How packets come: by multicast; or, where there is none, from a repair node or publisher.",
        ),
    ] = Way.MULTICAST,
    max_message: Annotated[
        str | None,
        typer.Option("--max-message", metavar="SIZE", help="Take messages up to this; by default 16MiB."),
    ] = None,
    site: Site = None,
    keys: Keys = None,
    interface: Interface = None,
    source: Source = None,
    listen: Listen = None,
    as_json: AsJson = False,
) -> None:
    """Receive the messages of a channel: a message is a line. Ends with 9 if anything was lost."""
    from sealcast.pki.quantities import parse_duration, parse_size

    device = open_device(folder)
    losses: list[Loss] = []
    subscriber = device.subscriber(
        check_channel(channel),
        site=channel_site(device, site, keys),
        routing=routing(interface, listen=listen, source=source),
        delivery=delivery.value,
        start=start.value,
        path=path.value,
        max_message_bytes=MAX_MESSAGE_BYTES if max_message is None else parse_size(max_message),
        deadline=None if deadline is None else parse_duration(deadline) / 1e6,
        on_event=lambda event: _tell(event, losses),
    )

    async def work() -> None:
        async with subscriber:
            # Only now: a channel that nobody may join empties no file.
            target = await unattended(partial(open_output, output))
            with target:
                escaped = output is None and target.isatty() and not raw
                say(f"joined channel {channel}")
                line = partial(_line, as_json=as_json, raw=raw, escaped=escaped)
                await write_messages(_Messages(subscriber).take, line, target, output, count)

    try:
        run(work)
    except KeyboardInterrupt:
        if losses:
            say(f"interrupted: {_count(losses)}")
        raise
    if losses:
        raise IncompleteError(f"{_count(losses)} on channel {channel!r}")


class _Messages:
    """What a subscriber receives, but for the pieces of files."""

    def __init__(self, subscriber: Subscriber) -> None:
        self._subscriber = subscriber
        self._is_told = False

    async def take(self, most: int) -> list[Message]:
        """Wait for messages; return so many at most. Raises: what `Subscriber.recv_many` raises."""
        while True:
            received = await self._subscriber.recv_many(most)
            messages = [message for message in received if message.topic != FILE_TOPIC]
            if len(messages) < len(received) and not self._is_told:
                self._is_told = True
                say("files are sent on this channel, too: `sealcast receive` takes them")
            if messages:
                return messages


def _count(losses: list[Loss]) -> str:
    return f"{len(losses)} loss{'es were' if len(losses) > 1 else ' was'} reported"


def _line(message: Message, *, as_json: bool, raw: bool, escaped: bool) -> bytes:
    if as_json:
        fields = {
            "publisher": message.publisher,
            "instance": message.instance,
            "stream": message.stream_id.hex(),
            "sequence": message.sequence,
            "time": message.time,
            "epoch": message.epoch,
            "topic": message.topic,
            "origin": None if message.origin is None else _origin(*message.origin),
            "data": base64.b64encode(message.data).decode(),
        }
        return json.dumps(fields).encode() + b"\n"
    return data_line(message.data, raw=raw, escaped=escaped)


def _origin(stream: bytes, sequence: int, time: int) -> dict[str, str | int]:
    return {"stream": stream.hex(), "sequence": sequence, "time": time}


def _tell(event: Event, losses: list[Loss]) -> None:
    if isinstance(event, Loss):
        losses.append(event)
    if isinstance(event, Loss | Alarm | MulticastSilent | Refused):
        say(str(event))
