"""`sealcast publish`: lines or chunks from a file or standard input become messages."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from sealcast.cli.data import (
    AsJson,
    Channel,
    Folder,
    Instance,
    Interface,
    SendTo,
    check_channel,
    open_device,
    routing,
    run,
)
from sealcast.pki.files import storage_errors

CHUNK_BYTES = 64 << 10
BATCH = 256


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(publish)


def publish(
    folder: Folder,
    channel: Channel,
    source: Annotated[
        Path,
        typer.Argument(help="- is standard input.", metavar="[FILE|-]", show_default=False),
    ] = Path("-"),
    raw: Annotated[
        bool, typer.Option("--raw", help="A chunk as it is read is a message, instead of a line.")
    ] = False,
    topic: Annotated[str | None, typer.Option("--topic", metavar="T", help="Topic of the messages.")] = None,
    linger: Annotated[
        str, typer.Option("--linger", metavar="TIME", help="How long to serve repairs after the end.")
    ] = "2s",
    interface: Interface = None,
    send_to: SendTo = None,
    instance: Instance = "",
    as_json: AsJson = False,
) -> None:
    """Publish messages on a channel: a line is a message."""
    from sealcast.authority.quantities import parse_duration

    device = open_device(folder)
    publisher = device.publisher(
        check_channel(channel),
        routing=routing(interface, send_to=send_to),
        instance=instance,
        linger=parse_duration(linger) / 1e6,
    )

    async def work() -> dict[str, int]:
        with storage_errors(source):
            file: BinaryIO = sys.stdin.buffer if str(source) == "-" else source.open("rb")
        with file:
            async with publisher:
                while messages := await asyncio.to_thread(_read, file, source, raw):
                    await publisher.send_many(messages, topic=topic)
                await publisher.drained()
                return publisher.counters()

    counters = run(work)
    if as_json:
        typer.echo(json.dumps(counters))
    else:
        typer.echo(f"{counters['messages']} messages in {counters['packets']} packets", err=True)


def _read(file: BinaryIO, source: Path, raw: bool) -> list[bytes]:
    """The next messages; none at the end. A pipe gives what it has, so that a line is not held back."""
    with storage_errors(source):
        if raw:
            chunk = file.read1(CHUNK_BYTES) if hasattr(file, "read1") else file.read(CHUNK_BYTES)
            return [chunk] if chunk else []
        first = file.readline()
        if not first:
            return []
        lines = [first]
        # What is in the buffer already can go along.
        while len(lines) < BATCH and hasattr(file, "peek") and b"\n" in file.peek():
            lines.append(file.readline())
        return [line.rstrip(b"\r\n") for line in lines]
