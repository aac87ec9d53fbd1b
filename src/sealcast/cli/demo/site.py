"""An authority and enrolled devices, set up by the command line alone, as an operator would."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from sealcast.cli.demo.children import Child, Children, gather, isolated_command, sealcast_command
from sealcast.cli.demo.plan import (
    CHANNELS,
    ECG_CHANNEL,
    FILE_CHANNEL,
    LOOPBACK,
    PUBLISHER,
    SUBSCRIBERS,
    Plan,
)

_ECG_RATE = "5Mbit/s"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningSite:
    """The authority as its devices reach it."""

    service: Child
    authority: str
    """URL for enrolment."""
    keys: str
    """URL of the key server."""
    publisher_serial: str
    """Of the publisher's first certificate."""


async def open_site(plan: Plan, children: Children) -> RunningSite:
    """Make the authority, start it, add the channels, enrol every device with a token of its own."""
    await children.run(
        "authority-init", sealcast_command("authority", "init", plan.authority, "--site", "Demo ward")
    )
    free = f"{LOOPBACK}:0"
    serve = sealcast_command("authority", "serve", plan.authority, "--listen", free, "--keys", free, "--json")
    # The only child that does not look at its standard input: it has to be held in another way.
    service = await children.start("authority-serve", isolated_command("leash.py", *serve))
    ready = await service.line()
    urls = ready["authority"], ready["keys"]
    _, _, serial, *_ = await gather(
        *(_add_channel(plan, children, channel) for channel in CHANNELS),
        *(_enrol(plan, children, urls, name) for name in (PUBLISHER, *SUBSCRIBERS)),
    )
    return RunningSite(service=service, authority=urls[0], keys=urls[1], publisher_serial=serial)


async def renew(plan: Plan, children: Children) -> str:
    """Renew the publisher's certificate, as a timer on its machine would; return its serial."""
    renewed = await children.run(
        "device-renew", sealcast_command("device", "renew", plan.device(PUBLISHER), "--json")
    )
    return str(json.loads(renewed)["serial"])


async def revoke(plan: Plan, children: Children, name: str) -> None:
    """Remove a device."""
    await children.run(
        "device-revoke", sealcast_command("authority", "device", "revoke", plan.authority, name)
    )


async def _add_channel(plan: Plan, children: Children, channel: str) -> str:
    group, port = plan.sent_to[channel]
    rates = {ECG_CHANNEL: _ECG_RATE, FILE_CHANNEL: str(plan.scale.file_rate)}
    command = sealcast_command(
        *("authority", "channel", "add", plan.authority, channel),
        *("--group", group, "--port", str(port), "--rate", rates[channel]),
        *("--publish", PUBLISHER, *(part for name in SUBSCRIBERS for part in ("--subscribe", name))),
        *("--slot", f"{plan.scale.slot_seconds:g}s", "--slots-ahead", str(plan.scale.slots_ahead)),
    )
    return await children.run(f"channel-add-{CHANNELS.index(channel)}", command)


async def _enrol(plan: Plan, children: Children, urls: tuple[str, str], name: str) -> str:
    """Enrol a device; return the serial of its certificate."""
    token = await children.run(
        f"token-{name}", sealcast_command("authority", "token", plan.authority, "--device", name)
    )
    folder: Path = plan.device(name)
    folder.parent.mkdir()
    command = sealcast_command(
        *("device", "enroll", folder, "--name", name),
        *("--authority", urls[0], "--keys", urls[1], "--root", plan.authority / "root.pem"),
        *("--token", "-", "--json"),
    )
    return str(json.loads(await children.run(f"enroll-{name}", command, text=token))["serial"])
