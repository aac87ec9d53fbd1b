"""What the four data commands share: their options, and how they run.

Spec: routing is no identity (spec/wire.md DP-3), so an operator may override it.
"""

import asyncio
import sys
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar, cast

import typer

from sealcast import system
from sealcast.errors import StorageError, UsageError

if TYPE_CHECKING:
    from sealcast.endpoint import ChannelSite, Device, RoutingOverrides

Result = TypeVar("Result")

Folder = Annotated[Path, typer.Argument(help="The device's folder.", metavar="DIR", show_default=False)]
Channel = Annotated[str, typer.Argument(help="The channel's name.", metavar="CHANNEL", show_default=False)]
Site = Annotated[
    str | None,
    typer.Option(
        "--site",
        metavar="SITE",
        help="The channel is of this other site, by its name in the trust bundle or its id; with --keys.",
    ),
]
Keys = Annotated[
    str | None,
    typer.Option("--keys", metavar="URL", help="That site's key server: https://HOST:PORT."),
]
Interface = Annotated[
    str | None,
    typer.Option(
        "--interface",
        metavar="I",
        envvar="SEALCAST_INTERFACE",
        help="Network interface, by name or address; by default the channel's.",
    ),
]
SendTo = Annotated[
    str | None,
    typer.Option("--send-to", metavar="ADDR:PORT", help="Send here instead of the channel's group."),
]
Listen = Annotated[
    str | None,
    typer.Option("--listen", metavar="ADDR:PORT", help="Receive here instead of on the channel's group."),
]
Source = Annotated[
    str | None,
    typer.Option(
        "--source",
        metavar="ADDR",
        help="Listen to this host alone: source-specific multicast.",
    ),
]
Ttl = Annotated[
    int, typer.Option("--ttl", metavar="N", min=1, max=255, help="Routers that packets may pass, plus 1.")
]
Dscp = Annotated[
    int, typer.Option("--dscp", metavar="N", min=0, max=63, help="Code point of the packets, for routers.")
]
Instance = Annotated[
    str,
    typer.Option("--instance", metavar="NAME", help="One of several publishers of this device."),
]
Fec = Annotated[
    str | None,
    typer.Option(
        "--fec",
        metavar="K+M|P%",
        help="Mend losses by M parity packets after K, a share of all, or auto; off: by none. "
        "Default: what the channel's policy says.",
    ),
]
FixedRate = Annotated[
    bool,
    typer.Option("--fixed-rate", help="Keep to the channel's rate, also where many subscribers lose much."),
]
Mtu = Annotated[
    int,
    typer.Option(
        "--mtu", metavar="BYTES", min=576, max=9000, help="The largest packet that the whole path takes."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Write JSON, one object a line.")]
Count = Annotated[
    int | None, typer.Option("--count", metavar="N", min=1, help="End after so many; by default go on.")
]


def open_device(folder: Path) -> "Device":
    """Open a device's folder. Raises: StorageError, CertificateError."""
    from sealcast.endpoint import Device

    return Device.open(folder)


def channel_site(device: "Device", site: str | None, keys: str | None) -> "ChannelSite | None":
    """Find the other site that a channel belongs to; None: the device's own. Raises: UsageError."""
    if site is None and keys is None:
        return None
    if site is None or keys is None:
        raise UsageError(
            "--site and --keys belong together",
            cure="give the other site and its key server, or none of them for a channel of the own site",
        )
    from sealcast.endpoint import ChannelSite

    return ChannelSite.find(device.identity, site, keys)


def routing(
    interface: str | None,
    send_to: str | None = None,
    listen: str | None = None,
    *,
    source: str | None = None,
    ttl: int = 1,
    dscp: int = 0,
) -> "RoutingOverrides":
    """Read the overrides. Raises: UsageError."""
    from sealcast.endpoint import RoutingOverrides
    from sealcast.endpoint.routing import parse_address

    return RoutingOverrides(
        interface=interface,
        send_to=None if send_to is None else parse_address(send_to),
        listen=None if listen is None else parse_address(listen),
        source=source,
        ttl=ttl,
        dscp=dscp,
    )


def check_channel(channel: str) -> str:
    """Return the name. Raises: UsageError if no channel can have it (spec/trust.md TR-2)."""
    from sealcast.pki.names import check_channel_name

    return check_channel_name(channel)


def run(work: Callable[[], Awaitable[Result]]) -> Result:
    """Run `work`; Ctrl-C and SIGTERM end it as if it had been told to stop.

    Raises: KeyboardInterrupt, and what `work` raises.
    """

    async def guarded() -> Result:
        task = asyncio.ensure_future(work())
        system.on_signals(lambda _number: task.cancel(), "SIGINT", "SIGTERM")
        return await task

    try:
        return system.run(guarded())
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None


async def unattended(work: Callable[[], Result]) -> Result:
    """Run what may block for ever, such as a read from a terminal, in a thread that nobody waits for.

    Ctrl-C would have to wait for the threads of `asyncio.to_thread`.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Result] = loop.create_future()

    def settle(result: Result | None, error: BaseException | None) -> None:
        if done.done():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(cast(Result, result))

    def run_and_tell() -> None:
        result: Result | None = None
        failure: BaseException | None = None
        try:
            result = work()
        except Exception as error:  # noqa: BLE001 - raised again where it is awaited
            failure = error
        with suppress(RuntimeError):  # The loop is closed: nobody wants to know any more.
            loop.call_soon_threadsafe(settle, result, failure)

    threading.Thread(target=run_and_tell, name="sealcast-blocking", daemon=True).start()
    return await done


def is_terminal() -> bool:
    """Whether progress can be drawn for a person."""
    return sys.stderr.isatty()


def check_folder(folder: Path) -> Path:
    """Return a folder to write into. Raises: StorageError, UsageError."""
    if not folder.exists():
        raise StorageError(str(folder), "does not exist", cure="make the folder first")
    if not folder.is_dir():
        raise UsageError(f"{folder} is no folder", cure="name a folder with --output")
    return folder
