"""An authority and enrolled devices, set up by the command line alone, as an operator would."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path

from sealcast.cli.demo.children import Child, Children, isolated_command, sealcast_command
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
    site = RunningSite(service=service, authority=ready["authority"], keys=ready["keys"])
    async with asyncio.TaskGroup() as group:
        for channel in CHANNELS:
            group.create_task(_add_channel(plan, children, channel))
        for name in (PUBLISHER, *SUBSCRIBERS):
            group.create_task(_enrol(plan, children, site, name))
    return site


async def renew(plan: Plan, children: Children) -> None:
    """Renew the publisher's certificate, as a timer on its machine would."""
    await children.run("device-renew", sealcast_command("device", "renew", plan.device(PUBLISHER)))


async def revoke(plan: Plan, children: Children, name: str) -> None:
    """Remove a device."""
    await children.run(
        "device-revoke", sealcast_command("authority", "device", "revoke", plan.authority, name)
    )


async def publisher_serial(plan: Plan, children: Children) -> str:
    """Return the serial of the certificate in the publisher's folder."""
    shown = await children.run(
        "device-show", sealcast_command("device", "show", plan.device(PUBLISHER), "--json")
    )
    return str(json.loads(shown)["serial"])


async def _add_channel(plan: Plan, children: Children, channel: str) -> None:
    group, port = plan.sent_to[channel]
    rates = {ECG_CHANNEL: _ECG_RATE, FILE_CHANNEL: str(plan.scale.file_rate)}
    command = sealcast_command(
        *("authority", "channel", "add", plan.authority, channel),
        *("--group", group, "--port", str(port), "--rate", rates[channel]),
        *("--publish", PUBLISHER, *(part for name in SUBSCRIBERS for part in ("--subscribe", name))),
        *("--slot", f"{plan.scale.slot_seconds:g}s", "--slots-ahead", str(plan.scale.slots_ahead)),
    )
    await children.run(f"channel-add-{CHANNELS.index(channel)}", command)


async def _enrol(plan: Plan, children: Children, site: RunningSite, name: str) -> None:
    token = await children.run(
        f"token-{name}", sealcast_command("authority", "token", plan.authority, "--device", name)
    )
    folder: Path = plan.device(name)
    folder.parent.mkdir()
    command = sealcast_command(
        *("device", "enroll", folder, "--name", name),
        *("--authority", site.authority, "--keys", site.keys, "--root", plan.authority / "root.pem"),
        *("--token", "-"),
    )
    await children.run(f"enroll-{name}", command, text=token)
