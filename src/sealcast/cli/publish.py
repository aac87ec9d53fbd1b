"""`sealcast publish`: lines or chunks from a file or standard input become messages."""

import json
from contextlib import suppress
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
    Instance,
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
    unattended,
)
from sealcast.cli.source import MessageSource
from sealcast.endpoint.limits import MAX_MESSAGE_BYTES, MAX_RETAIN_TOPICS, check_topic
from sealcast.errors import UsageError

if TYPE_CHECKING:
    from sealcast.endpoint import Publisher


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
    retain_topics: Annotated[
        int,
        typer.Option(
            "--retain-topics",
            metavar="N",
            min=0,
            max=MAX_RETAIN_TOPICS,
            help="Send the last value of up to N topics again to who joins later, though it is older.",
        ),
    ] = 0,
    site: Site = None,
    keys: Keys = None,
    fec: Fec = None,
    fixed_rate: FixedRate = False,
    no_listen: Annotated[
        bool,
        typer.Option(
            "--no-listen",
            help="Take no connections: repair goes by requests of its own to the channel's repair nodes.",
        ),
    ] = False,
    interface: Interface = None,
    ttl: Ttl = 1,
    dscp: Dscp = 0,
    mtu: Mtu = 1500,
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
        routing=routing(interface, send_to=send_to, ttl=ttl, dscp=dscp),
        instance=instance,
        fec=fec,
        mtu=mtu,
        adaptive_rate=not fixed_rate,
        listens=not no_listen,
        retain_topics=retain_topics,
        linger=parse_duration(linger, may_be_zero=True) / 1e6,
    )

    async def work() -> dict[str, int]:
        messages = MessageSource(source, raw=raw, limit=MAX_MESSAGE_BYTES)
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
