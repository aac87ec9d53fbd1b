"""A site of real processes on loopback: an authority, devices enrolled by the command line, channels."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import secrets
import signal
import socket
import struct
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from sealcast import cli
from sealcast.device import DeviceIdentity
from sealcast.pki.credential import CredentialBundle
from sealcast.sidechannel.client import KeyServerClient
from tests.e2e.processes import DEADLINE_SECONDS, Process, Processes


@dataclass(frozen=True, slots=True)
class Channel:
    """A channel, and where its packets go."""

    name: str
    group: str
    port: int

    @property
    def address(self) -> str:
        return f"{self.group}:{self.port}"


@dataclass
class Site:
    """A running authority; what a test does with it."""

    folder: Path
    processes: Processes
    devices: Path
    authority: Process = field(init=False)
    url: str = ""
    keys_url: str = ""

    @classmethod
    def start(cls, parent: Path, processes: Processes) -> Site:
        """Make the folder of an authority and serve it."""
        site = cls(parent / "authority", processes, parent / "devices")
        command("authority", "init", site.folder, "--site", "Ward")
        site.serve()
        return site

    def serve(self) -> None:
        """Start the authority, at the addresses that it had before if it had any."""
        places = ["--listen", self.url.removeprefix("https://") or "127.0.0.1:0"]
        if self.keys_url:
            places += ["--keys", self.keys_url.removeprefix("https://")]
        self.authority = self.processes.start("authority", "serve", self.folder, *places, "--json")
        listening = json.loads(self.authority.wait_line("authority"))
        self.url, self.keys_url = listening["authority"], listening["keys"]

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Stop the authority."""
        self.authority.stop(number)

    @property
    def root(self) -> Path:
        return self.folder / "root.pem"

    def token(self, device: str) -> str:
        return command("authority", "token", self.folder, "--device", device).strip()

    def enrol(self, *names: str) -> list[Path]:
        """Enrol devices; return their folders."""
        return [self._enrol(name) for name in names]

    def _enrol(self, name: str) -> Path:
        folder = self.devices / name
        command(
            "device", "enroll", folder, "--authority", self.url, "--keys", self.keys_url,
            "--root", self.root, "--name", name, "--token", self.token(name),
        )  # fmt: skip
        return folder

    def add_channel(self, name: str, *options: str, publish: str = "*", subscribe: str = "*") -> Channel:
        """Add a channel on a group and a port of its own."""
        channel = Channel(name, free_group(), free_port())
        command(
            "authority", "channel", "add", self.folder, name,
            "--group", channel.group, "--port", str(channel.port),
            "--publish", publish, "--subscribe", subscribe, *options,
        )  # fmt: skip
        return channel

    def revoke(self, name: str) -> None:
        command("authority", "device", "revoke", self.folder, name)

    def subscribe(
        self, device: Path, channel: Channel, *options: str | Path, stdout: int = subprocess.PIPE
    ) -> Process:
        """Start `sealcast subscribe` and wait until it has joined."""
        process = self.processes.start("subscribe", device, channel.name, *options, stdout=stdout)
        process.wait_line("joined channel", errors=True)
        return process

    def receive(self, device: Path, channel: Channel, output: Path, *options: str) -> Process:
        """Start `sealcast receive` and wait until it has joined."""
        output.mkdir(exist_ok=True)
        process = self.processes.start("receive", device, channel.name, "--output", output, *options)
        process.wait_line("joined channel", errors=True)
        return process


def command(*words: str | Path) -> str:
    """Run a command of the command line in this process; return what it says."""

    def run() -> int:
        return cli.main([str(word) for word in words])

    out, err = io.StringIO(), io.StringIO()
    # In a thread, as a command makes an event loop of its own and a test may run in one.
    with (
        ThreadPoolExecutor(1) as executor,
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        code = executor.submit(run).result()
    assert code == 0, f"{words}: {err.getvalue()}"
    return out.getvalue()


def free_group() -> str:
    """A group of the organisation's scope (RFC 2365) that hardly any other test has."""
    return f"239.{192 + os.urandom(1)[0] % 4}.{os.urandom(1)[0]}.{1 + os.urandom(1)[0] % 254}"


def free_port() -> int:
    """A port, UDP and TCP, that nobody holds just now, and that the system gives to no socket by itself."""
    while True:
        port = secrets.choice(range(10_000, 32_000))
        with (
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams,
            socket.socket(socket.AF_INET, socket.SOCK_STREAM) as stream,
            contextlib.suppress(OSError),
        ):
            for probe in (datagrams, stream):
                probe.bind(("127.0.0.1", port))
            return port


def listen(channel: Channel) -> socket.socket:
    """A plain socket that hears what is sent to the channel's group on loopback, and knows no key."""
    plain = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
    plain.bind((channel.group, channel.port))
    membership = struct.pack("4s4s", socket.inet_aton(channel.group), socket.inet_aton("127.0.0.1"))
    plain.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)
    plain.settimeout(DEADLINE_SECONDS)
    return plain


def certificate_in_use(reader: Path, channel: Channel) -> bytes:
    """The certificate that the directory shows for the only stream of the channel."""

    async def ask() -> bytes:
        async with KeyServerClient(DeviceIdentity.open(reader)) as client:
            [entry] = await client.streams(channel.name)
            return CredentialBundle.parse(entry.credential).chain[0]

    return asyncio.run(ask())


def send_to(channel: Channel, datagrams: list[bytes]) -> None:
    """Send datagrams to the channel's group on loopback, as anybody on the network could."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as plain:
        plain.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1"))
        for datagram in datagrams:
            plain.sendto(datagram, (channel.group, channel.port))
