"""`sealcast authority channel`: add, set, list."""

import json
from typing import Annotated

import typer

from sealcast.cli import escape
from sealcast.cli.authority.place import AdminFolder, Folder, Json, Place, PlacedCommand, Url
from sealcast.errors import UsageError

_Channel = Annotated[str, typer.Argument(help="The channel's name.", metavar="CHANNEL", show_default=False)]

_channels = typer.Typer(help="Channels of the site.", no_args_is_help=True)


def register(authority: typer.Typer) -> None:
    """Add the group."""
    authority.add_typer(_channels, name="channel")


@_channels.command("add", cls=PlacedCommand)
def channel_add(
    folder: Folder,
    channel: _Channel,
    group: Annotated[str, typer.Option("--group", metavar="ADDR", help="IPv4 or IPv6 multicast address.")],
    port: Annotated[int, typer.Option("--port", metavar="N", help="UDP port.")],
    publish: Annotated[
        list[str],
        typer.Option(
            "--publish", metavar="GLOB", help="Devices that may publish; more than once if need be."
        ),
    ],
    subscribe: Annotated[
        list[str],
        typer.Option(
            "--subscribe", metavar="GLOB", help="Devices that may subscribe; more than once if need be."
        ),
    ],
    interface: Annotated[
        str | None, typer.Option("--interface", metavar="I", help="Network interface of the data path.")
    ] = None,
    rate: Annotated[
        str, typer.Option("--rate", metavar="R", help="Most that one publisher sends.")
    ] = "20Mbit/s",
    slot: Annotated[str, typer.Option("--slot", metavar="TIME", help="How often slot keys turn.")] = "1h",
    slots_ahead: Annotated[
        int, typer.Option("--slots-ahead", metavar="N", help="Slots that members may fetch ahead, 1 to 30.")
    ] = 24,
    suite: Annotated[
        int,
        typer.Option(
            "--suite",
            metavar="N",
            help="1: AES, SHA-256; 2: ChaCha20, SHA-256; 3: AES, BLAKE3.",
        ),
    ] = 3,
    retention: Annotated[
        str, typer.Option("--retention", metavar="TIME", help="How long publishers keep packets for repair.")
    ] = "60s",
    retention_bytes: Annotated[
        str, typer.Option("--retention-bytes", metavar="SIZE", help="How much they keep.")
    ] = "256M",
    publisher_limit: Annotated[
        str,
        typer.Option(
            "--publisher-limit",
            metavar="TIME",
            help="How long after a removal packets of the old generation may still be sealed.",
        ),
    ] = "30s",
    fec: Annotated[
        str,
        typer.Option(
            "--fec",
            metavar="K+M|P%",
            help="Parity of publishers that give no --fec of their own: M packets after K, a share of all, "
            "auto, or off.",
        ),
    ] = "off",
    url: Url = None,
    admin: AdminFolder = None,
) -> None:
    """Add a channel. The globs match names of enrolled devices, now and later."""
    from dataclasses import asdict

    from sealcast.pki.channel_settings import ChannelSettings
    from sealcast.pki.fec import format_fec, parse_fec
    from sealcast.pki.quantities import parse_duration, parse_rate, parse_size

    # Checked here first: an error then speaks of options, not of members of a request.
    settings = ChannelSettings(
        name=channel,
        group=group,
        port=port,
        publish=tuple(publish),
        subscribe=tuple(subscribe),
        interface=interface,
        rate=parse_rate(rate),
        suite=suite,
        slot=parse_duration(slot),
        slots_ahead=slots_ahead,
        retention=parse_duration(retention),
        retention_bytes=parse_size(retention_bytes),
        publisher_limit=parse_duration(publisher_limit),
        fec=format_fec(parse_fec(fec)),
    )
    in_microseconds = ("slot", "retention", "publisher_limit")
    body = {f"{key}_us" if key in in_microseconds else key: value for key, value in asdict(settings).items()}
    Place(folder, url, admin).change("POST", "channels", body=body)


@_channels.command("set", cls=PlacedCommand)
def channel_set(
    folder: Folder,
    channel: _Channel,
    publish: Annotated[
        list[str] | None, typer.Option("--publish", metavar="GLOB", help="Replaces all publish globs.")
    ] = None,
    subscribe: Annotated[
        list[str] | None, typer.Option("--subscribe", metavar="GLOB", help="Replaces all subscribe globs.")
    ] = None,
    url: Url = None,
    admin: AdminFolder = None,
) -> None:
    """Change who may publish and subscribe; members that no longer match are removed at once."""
    given = {"publish": publish, "subscribe": subscribe}
    body = {word: globs for word, globs in given.items() if globs is not None}
    if not body:
        raise UsageError("nothing to change", cure="give --publish or --subscribe")
    Place(folder, url, admin).change("PATCH", "channels", channel, "members", body=body)


@_channels.command("list", cls=PlacedCommand)
def channel_list(folder: Folder, url: Url = None, admin: AdminFolder = None, as_json: Json = False) -> None:
    """List the channels, with who may do what on them: the globs, and whom they match."""
    from sealcast.pki.quantities import format_rate

    listed = list(Place(folder, url, admin).all("channels"))
    if as_json:
        typer.echo(json.dumps(listed, indent=2))
        return
    for entry in listed:
        place = f"{entry['group']}:{entry['port']} interface {entry['interface'] or '-'}"
        parity = f" fec {entry['fec']}" if entry["fec"] != "off" else ""
        typer.echo(escape(f"{entry['name']:<24} {place} {format_rate(entry['rate'])}{parity}"))
        for what, who in (("publish", "publisher"), ("subscribe", "subscriber")):
            names, count = entry[f"{who}s"], entry[f"{who}_count"]
            more = f" and {count - len(names)} more" if count > len(names) else ""
            shown = (" ".join(each) or "-" for each in (entry[what], names))
            typer.echo(escape(f"  {what:<10} {': '.join(shown)}{more}"))
