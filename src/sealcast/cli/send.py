"""`sealcast send`: files to everyone on a channel, acknowledged (SC-13, SC-14, SC-46)."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sealcast.cli.data import (
    AsJson,
    Channel,
    Dscp,
    Fec,
    FixedRate,
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

if TYPE_CHECKING:
    from sealcast.endpoint.transfer import SentFile

_QUEUE_BYTES = 1 << 20


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(send)


def send(
    folder: Folder,
    channel: Channel,
    paths: Annotated[
        list[Path], typer.Argument(help="Files, and folders.", metavar="PATH...", show_default=False)
    ],
    linger: Annotated[
        str,
        typer.Option(
            "--linger", metavar="TIME", help="How long to wait for acknowledgements after the last byte."
        ),
    ] = "30s",
    site: Site = None,
    keys: Keys = None,
    fec: Fec = None,
    fixed_rate: FixedRate = False,
    no_listen: Annotated[
        bool,
        typer.Option(
            "--no-listen",
            help="Take no connections: repair and acknowledgements go by way of the channel's repair nodes.",
        ),
    ] = False,
    interface: Interface = None,
    ttl: Ttl = 1,
    dscp: Dscp = 0,
    mtu: Mtu = 1500,
    send_to: SendTo = None,
    as_json: AsJson = False,
) -> None:
    """Send files and stay until every subscriber there has them; ends with 9 and names who has not.

    A folder is sent with all below it, under its own name; links are not followed there, hidden entries are
    left out, and both are told. Modes and times are not sent. What a receiver has already is not sent anew to
    it: after an interruption, give the same command again. --no-listen needs a repair node on the channel.
    """
    from sealcast.endpoint.listing import list_files
    from sealcast.errors import IncompleteError, StorageError
    from sealcast.pki.quantities import parse_duration

    listing = list_files(paths)
    device = open_device(folder)
    seconds = parse_duration(linger) / 1e6
    with FileProgress(quiet=as_json) as progress:
        for path, reason in listing.skipped:
            progress.say(f"left out: {path} {reason}")
        publisher = device.publisher(
            check_channel(channel),
            site=channel_site(device, site, keys),
            routing=routing(interface, send_to=send_to, ttl=ttl, dscp=dscp),
            linger=0.0,
            fec=fec,
            mtu=mtu,
            adaptive_rate=not fixed_rate,
            listens=not no_listen,
            # Little, so that the progress is that of the network.
            queue_bytes=_QUEUE_BYTES,
        )

        async def work() -> "tuple[tuple[SentFile, ...], dict[str, int]]":
            sent: tuple[SentFile, ...] = ()
            failure: IncompleteError | StorageError | None = None
            async with publisher:
                try:
                    sent = await publisher.send_files(listing, linger=seconds, on_progress=progress.update)
                except (IncompleteError, StorageError) as error:
                    # Raised only after the block: an error that leaves it leaves the stream without an end.
                    failure = error
                counters = publisher.counters()
            if failure is not None:
                raise failure
            return sent, counters

        try:
            sent, counters = run(work)
        except KeyboardInterrupt:
            if progress.has_begun:
                progress.say("interrupted: the same command sends what receivers do not have yet")
            raise
    if as_json:
        for file in sent:
            fields = {
                "path": str(file.path),
                "name": file.name,
                "size": file.size,
                "sha256": file.sha256.hex(),
                "receivers": file.receivers,
            }
            typer.echo(json.dumps(fields))
        typer.echo(json.dumps(counters))
