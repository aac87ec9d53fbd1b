"""A throw-away site on loopback: an authority of its own process, enrolled devices, channels."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import aiohttp

from bench.children import Child, ChildError, Children, sealcast
from bench.wire import NEAR, Wire
from sealcast.authority.site import SOCKET_FILE
from sealcast.device import DeviceIdentity, enroll_async
from sealcast.pki.certificates import parse_pem_certificates

UNPACED_MEGABITS = 100_000
"""A rate that no machine reaches."""


class Site:
    """Made through the command line, as an operator makes it.

    async with Site(folder) as site:
        channel = await site.channel(rate=500)
        device = await site.device("pub-1")
    """

    def __init__(self, folder: Path, wire: Wire | None = None) -> None:
        """Work below `folder`, which is to be empty; on a wire the authority is at the near end."""
        self.folder = folder
        self.wire = wire
        self.children = Children(_made(folder / "logs"))
        self.authority: Child | None = None
        self.authority_folder = folder / "authority"
        self.url = ""
        self.keys_url = ""
        self._groups = iter(range(1, 255))
        self._group_prefix = f"239.255.{os.urandom(1)[0]}"
        self._channels: dict[tuple[int, str], str] = {}
        self._devices: dict[str, asyncio.Task[Path]] = {}

    async def __aenter__(self) -> Self:
        try:
            host = self.wire.address if self.wire is not None else "127.0.0.1"
            named = ["--site", "bench", "--host-name", host]
            await self.children.run("init", sealcast("authority", "init", self.authority_folder, *named))
            free = f"{host}:0"
            serve = sealcast(
                "authority", "serve", self.authority_folder, "--listen", free, "--keys", free, "--json"
            )
            self.authority = await self.start("authority", serve)
            listening = await self.authority.line()
        except BaseException:
            await self.children.__aexit__()
            raise
        self.url, self.keys_url = _url(listening["authority"]), _url(listening["keys"])
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.children.__aexit__()

    async def start(self, name: str, command: Sequence[str], host: str = NEAR) -> Child:
        """Start a process on a host of the wire, if there is one."""
        before = self.wire.on(host) if self.wire is not None else []
        return await self.children.start(name, [*before, *command])

    async def channel(self, rate: int = UNPACED_MEGABITS, retention: str = "512M") -> str:
        """Return a channel of `rate` Mbit/s that `pub-*` publish on and `sub-*` subscribe to."""
        if (rate, retention) not in self._channels:
            name = f"bench/{rate}-{retention}"
            group, port = self.group()
            add = ["--group", group, "--port", str(port), "--publish", "pub-*", "--subscribe", "sub-*"]
            limits = ["--rate", f"{rate}Mbit/s", "--retention-bytes", retention]
            if self.wire is not None:
                limits += ["--interface", self.wire.interface]
            await self._command(f"channel-{rate}-{retention}", "channel", "add", name, *add, *limits)
            self._channels[rate, retention] = name
        return self._channels[rate, retention]

    def group(self) -> tuple[str, int]:
        """Return a multicast group and a port that nobody else uses."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        return f"{self._group_prefix}.{next(self._groups)}", port

    async def device(self, name: str) -> Path:
        """Return the folder of a device, enrolled at its first use."""
        if name not in self._devices:
            self._devices[name] = asyncio.create_task(self._enroll(name))
        return await self._devices[name]

    async def revoke(self, name: str) -> None:
        """Remove a device; returns when the command has."""
        await self._command(f"revoke-{name}", "device", "revoke", name)

    async def _enroll(self, name: str) -> Path:
        folder = self.folder / name
        token = (await self._command(f"token-{name}", "token", "--device", name)).strip()
        root = self.authority_folder / "root.pem"
        where = ["--authority", self.url, "--keys", self.keys_url, "--root", str(root)]
        enroll = sealcast("device", "enroll", folder, *where, "--name", name, "--token", token)
        before = self.wire.on(NEAR) if self.wire is not None else []
        await self.children.run(f"enroll-{name}", [*before, *enroll])
        return folder

    async def _command(self, log: str, *words: str) -> str:
        """Run `sealcast authority`; the folder comes after the words that name the command."""
        commands = 1 if words[0] == "token" else 2
        names, rest = words[:commands], words[commands:]
        return await self.children.run(log, sealcast("authority", *names, self.authority_folder, *rest))


class Manager:
    """The management API of an authority on this machine."""

    def __init__(self, folder: Path) -> None:
        self._session = aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(folder / SOCKET_FILE)))

    async def close(self) -> None:
        """End the connection."""
        await self._session.close()

    async def call(self, method: str, path: str, body: Any = None, **query: Any) -> Any:
        """Make a request; return the answer. Raises: ChildError if it is refused."""
        async with self._session.request(
            method, f"http://localhost/v1/{path}", json=body, params=query
        ) as response:
            answer = await response.read()
            if response.status >= 300:
                raise ChildError(f"{method} {path} is refused: {answer[:300]!r}")
            return json.loads(answer)


async def enrol(site: Site, manager: Manager, name: str) -> DeviceIdentity:
    """Enrol a device in this process, which takes a fraction of what a command does."""
    token = (await manager.call("POST", "tokens", {"device": name}))["token"]
    root = (site.authority_folder / "root.pem").read_bytes()  # of a few hundred bytes
    return await enroll_async(
        site.folder / name,
        authority_url=site.url,
        keys_url=site.keys_url,
        roots=parse_pem_certificates(root),
        name=name,
        token=token,
    )


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _url(address: str) -> str:
    return address if address.startswith("https://") else f"https://{address}"
