"""`sealcast subscribe`: messages become lines."""

import base64
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
from sealcast.endpoint.events import Alarm, Event, Loss, Refused
from sealcast.errors import IncompleteError


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
    unordered: Annotated[
        bool, typer.Option("--unordered", help="Give each message when it is there, not in order.")
    ] = False,
    site: Site = None,
    keys: Keys = None,
    interface: Interface = None,
    source: Source = None,
    listen: Listen = None,
    as_json: AsJson = False,
) -> None:
    """Receive the messages of a channel: a message is a line. Ends with 9 if anything was lost."""
    device = open_device(folder)
    losses: list[Loss] = []
    subscriber = device.subscriber(
        check_channel(channel),
        site=channel_site(device, site, keys),
        routing=routing(interface, listen=listen, source=source),
        delivery="unordered" if unordered else "reliable",
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
                await write_messages(subscriber.recv_many, line, target, output, count)

    try:
        run(work)
    except KeyboardInterrupt:
        if losses:
            say(f"interrupted: {_count(losses)}")
        raise
    if losses:
        raise IncompleteError(f"{_count(losses)} on channel {channel!r}")


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
            "data": base64.b64encode(message.data).decode(),
        }
        return json.dumps(fields).encode() + b"\n"
    return data_line(message.data, raw=raw, escaped=escaped)


def _tell(event: Event, losses: list[Loss]) -> None:
    if isinstance(event, Loss):
        losses.append(event)
    if isinstance(event, Loss | Alarm | Refused):
        say(str(event))
