"""`sealcast publish`: lines or chunks from a file or standard input become messages."""

import json
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sealcast.cli.data import (
    AsJson,
    Channel,
    Folder,
    Instance,
    Interface,
    Keys,
    SendTo,
    Site,
    channel_site,
    check_channel,
    open_device,
    routing,
    run,
    unattended,
)
from sealcast.endpoint.limits import MAX_MESSAGE_BYTES, check_topic
from sealcast.errors import UsageError
from sealcast.pki.files import storage_errors

if TYPE_CHECKING:
    from sealcast.endpoint import Publisher

CHUNK_BYTES = 64 << 10


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
    site: Site = None,
    keys: Keys = None,
    interface: Interface = None,
    send_to: SendTo = None,
    instance: Instance = "",
    as_json: AsJson = False,
) -> None:
    """Publish messages on a channel: a line is a message.

    Ctrl-C ends the stream behind what has gone out, and says how many messages that were.
    """
    from sealcast.authority.quantities import parse_duration

    check_topic(topic)
    device = open_device(folder)
    publisher = device.publisher(
        check_channel(channel),
        site=channel_site(device, site, keys),
        routing=routing(interface, send_to=send_to),
        instance=instance,
        linger=parse_duration(linger, may_be_zero=True) / 1e6,
    )

    async def work() -> dict[str, int]:
        messages = _Messages(source, raw=raw)
        try:
            await unattended(messages.open)
            async with publisher:
                while batch := await unattended(messages.read):
                    await publisher.send_many(batch, topic=topic)
                await publisher.drained()
                return publisher.counters()
        finally:
            messages.close()

    try:
        counters = run(work)
    except KeyboardInterrupt:
        _tell_what_had_gone_out(publisher)
        raise
    if as_json:
        typer.echo(json.dumps(counters))
    else:
        typer.echo(f"{counters['messages']} messages in {counters['packets']} packets", err=True)


def _tell_what_had_gone_out(publisher: "Publisher") -> None:
    with suppress(UsageError):  # It had not come as far as to be opened.
        counters = publisher.counters()
        if abandoned := counters["abandoned"]:
            total = counters["messages"]
            typer.echo(f"sealcast: interrupted: {total - abandoned} of {total} messages sent", err=True)


class _Messages:
    """A file or standard input, cut into messages as it comes.

    Unbuffered, so that a line of a pipe is not held back, and so that a read that never ends holds no lock.
    """

    def __init__(self, source: Path, *, raw: bool) -> None:
        self._source = source
        self._raw = raw
        self._file: FileIO | None = None
        self._begun = bytearray()

    def open(self) -> None:
        """Open the source, which may wait for a writer. Raises: StorageError."""
        with storage_errors(self._source):
            if str(self._source) == "-":
                self._file = FileIO(0, closefd=False)
            else:
                self._file = FileIO(self._source)

    def read(self) -> list[bytes]:
        """Wait for at least one message; none at the end. Raises: StorageError, UsageError."""
        if self._file is None:
            return []
        while True:
            with storage_errors(self._source):
                chunk = self._file.read(CHUNK_BYTES) or b""
            if self._raw:
                return [chunk] if chunk else []
            if not chunk:
                rest, self._begun = bytes(self._begun), bytearray()
                return [_without_end(rest)] if rest else []
            *lines, begun = chunk.split(b"\n")
            if lines:
                lines[0] = bytes(self._begun) + lines[0]
                self._begun = bytearray(begun)
                return [_without_end(line) for line in lines]
            self._begun += begun
            if len(self._begun) > MAX_MESSAGE_BYTES:
                raise UsageError(
                    f"{self._source}: a line of more than {MAX_MESSAGE_BYTES} bytes",
                    cure="publish it in chunks with --raw, or as a file with: sealcast send",
                )

    def close(self) -> None:
        """Close the source."""
        if self._file is not None:
            self._file.close()


def _without_end(line: bytes) -> bytes:
    return line.removesuffix(b"\r")
