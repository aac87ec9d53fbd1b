"""`sealcast send`: files to everyone on a channel, acknowledged (SC-13, SC-14)."""

import json
from pathlib import Path
from typing import Annotated

import typer

from sealcast.cli.data import (
    AsJson,
    Channel,
    Dscp,
    Fec,
    Folder,
    Interface,
    Keys,
    Mtu,
    SendTo,
    Site,
    Ttl,
    channel_site,
    check_channel,
    open_device,
    routing,
    run,
)
from sealcast.cli.progress import FileProgress

_QUEUE_BYTES = 1 << 20


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(send)


def send(
    folder: Folder,
    channel: Channel,
    files: Annotated[list[Path], typer.Argument(help="The files.", metavar="FILE...", show_default=False)],
    linger: Annotated[
        str,
        typer.Option(
            "--linger", metavar="TIME", help="How long to wait for acknowledgements after the last byte."
        ),
    ] = "30s",
    site: Site = None,
    keys: Keys = None,
    fec: Fec = None,
    interface: Interface = None,
    ttl: Ttl = 1,
    dscp: Dscp = 0,
    mtu: Mtu = 1500,
    send_to: SendTo = None,
    as_json: AsJson = False,
) -> None:
    """Send files and stay until every subscriber there has them; ends with 9 and names who has not.

    A receiver takes files by their names alone, without folders: two of one name are refused.
    """
    from sealcast.endpoint.transfer import FileSender, check_names
    from sealcast.errors import IncompleteError, StorageError
    from sealcast.pki.quantities import parse_duration

    check_names(files)
    device = open_device(folder)
    seconds = parse_duration(linger) / 1e6
    with FileProgress(quiet=as_json) as progress:
        sender = FileSender(progress.update)
        publisher = device.publisher(
            check_channel(channel),
            site=channel_site(device, site, keys),
            routing=routing(interface, send_to=send_to, ttl=ttl, dscp=dscp),
            linger=0.0,
            fec=fec,
            mtu=mtu,
            # Little, so that the progress is that of the network.
            queue_bytes=_QUEUE_BYTES,
            on_acknowledgement=sender.acknowledged,
        )

        async def work() -> dict[str, int]:
            failure: IncompleteError | StorageError | None = None
            async with publisher:
                try:
                    await sender.send(publisher, files, linger=seconds)
                except (IncompleteError, StorageError) as error:
                    # Raised only after the block: an error that leaves it leaves the stream without an end.
                    failure = error
                counters = publisher.counters()
            if failure is not None:
                raise failure
            return counters

        counters = run(work)
    if as_json:
        typer.echo(json.dumps(counters))
