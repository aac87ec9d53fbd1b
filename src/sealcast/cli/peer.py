"""`sealcast peer`: send, inbox. Messages from one device to another, kept on the disk until they are there.

Spec: spec/side-channel.md section 5.
"""

import asyncio
import base64
import json
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sealcast.cli import say
from sealcast.cli.data import AsJson, Count, Folder, Keys, channel_site, open_device, run, unattended
from sealcast.cli.output import data_line, open_output, write_messages
from sealcast.cli.source import MessageSource
from sealcast.errors import IncompleteError, OutboxFullError

if TYPE_CHECKING:
    from sealcast.endpoint import Peer, PeerMessage

_Site = Annotated[
    str | None,
    typer.Option(
        "--site",
        metavar="SITE",
        help="Whose policies list both devices, if not this device's own site: by its name in the trust "
        "bundle or its id; with --keys.",
    ),
]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.add_typer(_peer, name="peer")


_peer = typer.Typer(
    help="Messages from one device to another that a channel's policy lists too.", no_args_is_help=True
)


@_peer.command()
def send(
    folder: Folder,
    name: Annotated[
        str,
        typer.Argument(
            help="The other device, as the policy writes it.", metavar="DEVICE", show_default=False
        ),
    ],
    source: Annotated[
        Path, typer.Argument(help="- is standard input.", metavar="[FILE|-]", show_default=False)
    ] = Path("-"),
    raw: Annotated[
        bool, typer.Option("--raw", help="A chunk as it is read is a message, instead of a line.")
    ] = False,
    topic: Annotated[str | None, typer.Option("--topic", metavar="T", help="Topic of the messages.")] = None,
    wait: Annotated[
        str,
        typer.Option(
            "--wait", metavar="TIME", help="How long to wait at the end until all is there; 0: not at all."
        ),
    ] = "30s",
    queued: Annotated[
        bool, typer.Option("--queued", help="Send nothing new: deliver what waits in the outbox.")
    ] = False,
    site: _Site = None,
    keys: Keys = None,
    as_json: AsJson = False,
) -> None:
    """Send messages to one device: a line is a message. Ends with 9 if some are not there yet.

    What is not delivered stays in the outbox on this device's disk, and goes out when messages are sent to
    that device again.
    """
    from sealcast.endpoint.limits import check_topic
    from sealcast.pki.quantities import parse_duration
    from sealcast.sidechannel.peer_messages import MAX_MESSAGE_DATA

    check_topic(topic)
    seconds = parse_duration(wait, may_be_zero=True) / 1e6
    device = open_device(folder)
    peer = device.peer(name, site=channel_site(device, site, keys), linger=0)
    counted = _Counted()

    async def work() -> None:
        messages = MessageSource(source, raw=raw, limit=MAX_MESSAGE_DATA)
        try:
            if not queued:
                await unattended(messages.open)
            async with peer:
                try:
                    while not queued and (batch := await unattended(messages.read)):
                        counted.sent += await _send(peer, batch, topic, seconds)
                    async with asyncio.timeout(seconds):
                        await peer.delivered()
                except TimeoutError:
                    counted.why = "" if peer.failure is None else f": {peer.failure}"
                finally:
                    counted.waiting = await peer.waiting()
        finally:
            messages.close()

    try:
        run(work)
    except KeyboardInterrupt:
        if counted.waiting:
            say(f"interrupted: {counted.waiting} messages for {name} wait in the outbox")
        raise
    if as_json:
        typer.echo(json.dumps({"sent": counted.sent, "waiting": counted.waiting}))
    elif not counted.waiting:
        say(f"{counted.sent} messages sent, nothing waits for {name}")
    elif not seconds:
        say(f"{counted.sent} messages sent, {counted.waiting} wait in the outbox for {name}")
    if counted.waiting and seconds:
        raise IncompleteError(
            f"{counted.waiting} messages for {name!r} are not delivered yet{counted.why}",
            cure="they wait in the outbox; go on with: sealcast peer send DIR DEVICE --queued",
        )


class _Counted:
    """How far a command has come."""

    sent = 0
    waiting = 0
    why = ""


async def _send(peer: "Peer", batch: list[bytes], topic: str | None, seconds: float) -> int:
    """Queue a batch, or wait as long as at the end until there is room. Raises: OutboxFullError."""
    try:
        return len(await peer.send_many(batch, topic=topic))
    except OutboxFullError:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await peer.delivered()
        return len(await peer.send_many(batch, topic=topic))


@_peer.command()
def inbox(
    folder: Folder,
    output: Annotated[
        Path | None, typer.Option("--output", metavar="FILE", help="Write here; by default standard output.")
    ] = None,
    count: Count = None,
    raw: Annotated[bool, typer.Option("--raw", help="Add no line end to a message.")] = False,
    listen: Annotated[
        str | None,
        typer.Option(
            "--listen",
            metavar="ADDR:PORT",
            help="Take messages here; by default a free port of the address towards the key server.",
        ),
    ] = None,
    site: _Site = None,
    keys: Keys = None,
    as_json: AsJson = False,
) -> None:
    """Take the messages that other devices send to this one: a message is a line.

    A message is off this device's disk once it is written: what was not comes again at the next start.
    """
    from sealcast.endpoint.routing import parse_address

    device = open_device(folder)
    box = device.inbox(
        site=channel_site(device, site, keys), listen=None if listen is None else parse_address(listen)
    )

    async def work() -> None:
        async with box:
            # Only now: a device that may take none empties no file.
            target = await unattended(partial(open_output, output))
            with target:
                escaped = output is None and target.isatty() and not raw
                if box.endpoint is not None:
                    host, port = box.endpoint
                    say(f"takes messages at {f'[{host}]' if ':' in host else host}:{port}")
                line = partial(_line, as_json=as_json, raw=raw, escaped=escaped)
                await write_messages(box.recv_many, line, target, output, count)

    run(work)


def _line(message: "PeerMessage", *, as_json: bool, raw: bool, escaped: bool) -> bytes:
    if as_json:
        fields = {
            "sender": message.sender,
            "id": message.id.hex(),
            "time": message.time,
            "topic": message.topic,
            "data": base64.b64encode(message.data).decode(),
        }
        return json.dumps(fields).encode() + b"\n"
    return data_line(message.data, raw=raw, escaped=escaped)
