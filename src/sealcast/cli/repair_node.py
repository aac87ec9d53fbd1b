"""`sealcast repair-node`: keep the packets of channels for members that lost some."""

import json
from pathlib import Path
from typing import Annotated

import typer

from sealcast.cli import say
from sealcast.cli.data import (
    AsJson,
    Folder,
    Interface,
    Keys,
    Listen,
    Site,
    channel_site,
    check_channel,
    open_device,
    routing,
    run,
)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("repair-node")(repair_node)


def repair_node(
    folder: Folder,
    channels: Annotated[
        list[str], typer.Argument(help="The channels' names.", metavar="CHANNEL...", show_default=False)
    ],
    keep: Annotated[
        str, typer.Option("--keep", metavar="SIZE", help="What the packets of each channel may take.")
    ] = "256M",
    keep_for: Annotated[
        str, typer.Option("--keep-for", metavar="D", help="How long a packet is kept at most.")
    ] = "60s",
    store: Annotated[
        Path | None,
        typer.Option(
            "--store",
            metavar="STORE",
            help="Keep the packets in this folder, also over a restart, instead of in memory.",
        ),
    ] = None,
    member_bytes: Annotated[
        str,
        typer.Option(
            "--member-bytes",
            metavar="SIZE",
            help="What one member is served in a second; who asks for more is told when to come again.",
        ),
    ] = "32M",
    member_requests: Annotated[
        int,
        typer.Option("--member-requests", metavar="N", help="Requests of one member in a second."),
    ] = 100,
    serve: Annotated[
        str | None,
        typer.Option(
            "--serve", metavar="ADDR:PORT", help="Answer members here; by default on any free port."
        ),
    ] = None,
    site: Site = None,
    keys: Keys = None,
    interface: Interface = None,
    listen: Listen = None,
    as_json: AsJson = False,
) -> None:
    """Keep the packets of channels for members that lost some; the device needs the role repair-node.

    It verifies every packet and can open none: the key server gives such a device no key for that. With
    --json it writes where it serves, and at its end what it has counted.
    """
    from sealcast.endpoint.routing import parse_address
    from sealcast.pki.quantities import parse_duration, parse_size
    from sealcast.repair import RepairNode
    from sealcast.sidechannel.quota import Quota

    device = open_device(folder)
    node = RepairNode(
        device.identity,
        [check_channel(channel) for channel in channels],
        keep_bytes=parse_size(keep),
        keep_seconds=parse_duration(keep_for) / 1e6,
        store=store,
        quota=Quota(bytes_per_second=parse_size(member_bytes), requests_per_second=member_requests),
        site=channel_site(device, site, keys),
        routing=routing(interface, listen=listen),
        listen=None if serve is None else parse_address(serve),
    )

    async def work() -> None:
        async with node:
            host, port = node.endpoint
            if as_json:
                typer.echo(json.dumps({"channels": channels, "host": host, "port": port}))
            say(f"keeping {', '.join(channels)}; serving at {host}:{port}")
            try:
                await node.run()
            finally:
                if as_json:
                    typer.echo(json.dumps({"counters": node.counters()}))

    run(work)
