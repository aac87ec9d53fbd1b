"""An authority and enrolled devices, set up by the command line alone, as an operator would."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sealcast.cli.demo.children import (
    Child,
    Children,
    gather,
    isolated_command,
    module_command,
    sealcast_command,
)
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
    """Make the authority with its channels, start it, enrol every device with a token of its own."""
    names = (PUBLISHER, *SUBSCRIBERS)
    tokens = await _make_authority(plan, children, names)
    free = f"{LOOPBACK}:0"
    serve = sealcast_command("authority", "serve", plan.authority, "--listen", free, "--keys", free, "--json")
    # The only child that does not look at its standard input: it has to be held in another way.
    service = await children.start("authority-serve", isolated_command("leash.py", *serve))
    ready = await service.line()
    urls = ready["authority"], ready["keys"]
    serial, *_ = await gather(
        *(_enrol(plan, children, urls, name, token) for name, token in zip(names, tokens, strict=True))
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


async def _make_authority(plan: Plan, children: Children, names: Sequence[str]) -> list[str]:
    """Make the authority, its channels, and tokens for `names`, which are returned."""
    commands = [
        ["authority", "init", str(plan.authority), "--site", "Demo ward"],
        *(_add_channel(plan, channel) for channel in CHANNELS),
        *(["authority", "token", str(plan.authority), "--device", name] for name in names),
    ]
    written = await children.run("authority-init", module_command("console"), text=json.dumps(commands))
    return [output.strip() for output in json.loads(written)[-len(names) :]]


def _add_channel(plan: Plan, channel: str) -> list[str]:
    group, port = plan.sent_to[channel]
    rates = {ECG_CHANNEL: _ECG_RATE, FILE_CHANNEL: str(plan.scale.file_rate)}
    return [
        *("authority", "channel", "add", str(plan.authority), channel),
        *("--group", group, "--port", str(port), "--rate", rates[channel]),
        *("--publish", PUBLISHER, *(part for name in SUBSCRIBERS for part in ("--subscribe", name))),
        *("--slot", f"{plan.scale.slot_seconds:g}s", "--slots-ahead", str(plan.scale.slots_ahead)),
    ]


async def _enrol(plan: Plan, children: Children, urls: tuple[str, str], name: str, token: str) -> str:
    """Enrol a device; return the serial of its certificate."""
    folder: Path = plan.device(name)
    folder.parent.mkdir()
    command = sealcast_command(
        *("device", "enroll", folder, "--name", name),
        *("--authority", urls[0], "--keys", urls[1], "--root", plan.authority / "root.pem"),
        *("--token", "-", "--json"),
    )
    return str(json.loads(await children.run(f"enroll-{name}", command, text=token))["serial"])
