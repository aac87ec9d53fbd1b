"""`sealcast receive`: files from a channel into a folder, whole or not at all (SC-13, SC-14)."""

import json
from pathlib import Path
from typing import Annotated

import typer

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
    check_folder,
    open_device,
    routing,
    run,
)
from sealcast.cli.progress import FileProgress

_BUFFER_BYTES = 24 << 20
"""For what waits for a gap, and as much for what waits for the disk; what does not fit is asked for again."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(receive)


def receive(
    folder: Folder,
    channel: Channel,
    output: Annotated[
        Path, typer.Option("--output", "--into", metavar="DIR", help="The folder to write into.")
    ],
    count: Count = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a file that is there, whoever it is from.")
    ] = False,
    site: Site = None,
    keys: Keys = None,
    interface: Interface = None,
    source: Source = None,
    listen: Listen = None,
    as_json: AsJson = False,
) -> None:
    """Receive files: each appears under its name once it is whole.

    A file that is there is kept, and the new one counts as lost; but a publisher may replace what it has sent
    since this command began, and a file that is there byte for byte counts as received. After an
    interruption, also of the sender, the same command goes on with what has come. Ends with 9 if a file was
    lost, or anything that may have been one.
    """
    from sealcast.endpoint.file_receiver import FileReceiver
    from sealcast.errors import IncompleteError

    device = open_device(folder)
    target = check_folder(output)
    with FileProgress(quiet=as_json) as progress:
        receiver = FileReceiver(target, progress.update, progress.say, overwrite=overwrite)
        subscriber = device.subscriber(
            check_channel(channel),
            site=channel_site(device, site, keys),
            routing=routing(interface, listen=listen, source=source),
            buffer_bytes=_BUFFER_BYTES,
        )

        async def work() -> None:
            left = count
            async with subscriber:
                progress.say(f"joined channel {channel}")
                files = receiver.receive(subscriber)
                try:
                    async for file in files:
                        if as_json:
                            fields = {
                                "path": str(file.path),
                                "size": file.size,
                                "sha256": file.sha256.hex(),
                                "publisher": file.publisher,
                            }
                            typer.echo(json.dumps(fields))
                        else:
                            was_there = ", was there" if file.was_there else ""
                            progress.say(
                                f"{file.path} from {file.publisher}, {file.size} bytes, hash right{was_there}"
                            )
                        left = None if left is None else left - 1
                        if left == 0:
                            break
                finally:
                    await files.aclose()

        try:
            run(work)
        except KeyboardInterrupt:
            for name, done, size in receiver.unfinished():
                progress.say(
                    f"interrupted: {done} of {size} bytes of {name!r} are kept; the same command goes on"
                )
            raise
    losses = []
    if receiver.lost:
        losses.append(f"lost in part: {', '.join(repr(name) for name in dict.fromkeys(receiver.lost))}")
    if receiver.unnamed_losses:
        losses.append(f"{receiver.unnamed_losses} losses that may have been files")
    if losses:
        raise IncompleteError(
            ", and ".join(losses),
            cure="see above; have it sent again, or raise the channel's retention",
        )
