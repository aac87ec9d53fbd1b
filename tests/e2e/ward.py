"""A site on three hosts of one network, and a stream between two of them that is watched."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.e2e.hosts import INTERFACE, Hosts
from tests.e2e.processes import Process, Processes
from tests.e2e.site import Channel, Site, command, free_group, free_port

MESSAGE_BYTES = 500

SUBSCRIBE = """
import asyncio, json, os, sys
from sealcast.endpoint import Device

losses, events = [], []

def note(event):
    events.append(str(event))
    if type(event).__name__ in ("Gap", "MessageLost", "StreamClosed"):
        losses.append(str(event))

async def main():
    device, count, status = Device.open(sys.argv[1]), 0, "/proc/self/status"
    async with device.subscriber(sys.argv[2], on_event=note) as subscriber:
        print("joined", flush=True)
        async for message in subscriber:
            number, _, rest = message.data.partition(b" ")
            assert int(number) == count, (number, count)
            count += 1
            if rest.startswith(b"mark"):
                resident = next(int(line.split()[1]) for line in open(status) if line.startswith("VmRSS:"))
                cpu = sum(os.times()[:2])
                told = {"count": count, "resident": resident, "cpu": cpu, "losses": losses, "events": events}
                print(json.dumps({**told, "counters": subscriber.counters()}), flush=True)

asyncio.run(main())
"""
PUBLISH = """
import asyncio, sys
from sealcast.endpoint import Device

async def main():
    loop, count, marks = asyncio.get_running_loop(), 0, 0
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    async with Device.open(sys.argv[1]).publisher(sys.argv[2], linger=0, fec=sys.argv[4]) as publisher:
        print("open", flush=True)
        mark = asyncio.create_task(reader.readline())
        while True:
            done, _ = await asyncio.wait([mark], timeout=0.005)
            rest = bytes(int(sys.argv[3]))
            if done:
                if not mark.result():
                    break
                rest, mark = b"mark", asyncio.create_task(reader.readline())
                marks += 1
            await publisher.send(b"%d %s" % (count, rest))
            count += 1
            if done:
                await publisher.drained()
                print("mark", marks, file=sys.stderr, flush=True)

asyncio.run(main())
"""


@dataclass
class Ward:
    """A site on three hosts: the authority and the monitor near, the display far, and one that is evil."""

    hosts: Hosts
    site: Site
    channel: Channel
    processes: Processes

    def start(self, host: str, *words: str, stdin: int = subprocess.PIPE) -> Process:
        """Start a program of this Python on a host."""
        return self.processes.started(Process([*self.hosts.on(host), sys.executable, *words], stdin=stdin))


@contextmanager
def make_ward(folder: Path) -> Iterator[Ward]:
    """Set up all of it."""
    processes = Processes()
    with Hosts("near", "far", "evil") as hosts:
        try:
            site = Site(folder / "authority", processes, folder / "devices")
            near = hosts.address("near")
            command("authority", "init", site.folder, "--site", "Ward", "--host-name", near)
            authority = processes.start(
                "authority",
                "serve",
                site.folder,
                "--listen",
                f"{near}:0",
                "--json",
                inside=hosts.process("near"),
            )
            listening = json.loads(authority.wait_line("authority", seconds=90))
            site.url, site.keys_url = listening["authority"], listening["keys"]
            for name in ("monitor", "display", "evil"):
                enrolled = processes.start(
                    "device", "enroll", site.devices / name, "--authority", site.url, "--keys", site.keys_url,
                    "--root", site.root, "--name", name, "--token", site.token(name),
                    inside=hosts.process("far"),
                ).wait()  # fmt: skip
                assert enrolled.code == 0, enrolled.err
            channel = Channel("icu3/vitals", free_group(), free_port())
            command(
                "authority", "channel", "add", site.folder, channel.name, "--interface", INTERFACE,
                "--group", channel.group, "--port", str(channel.port),
                "--publish", "monitor", "--subscribe", "*",
            )  # fmt: skip
            yield Ward(hosts, site, channel, processes)
        finally:
            processes.end()


@dataclass
class Stream:
    """A monitor that publishes all the time, and a display that says how it is when it is asked."""

    ward: Ward
    publisher: Process
    subscriber: Process
    sniffer: Process

    def told(self) -> dict[str, Any]:
        """How the subscriber is, once it has everything up to now."""
        known = len(self.subscriber.out)
        self.publisher.write(b"mark\n")
        told: dict[str, Any] = json.loads(self.subscriber.wait_lines(known + 1)[known])
        return told

    def silent(self) -> None:
        """Say that the display's host has sent nothing that a multicast receiver must not send."""
        self.sniffer.close_input()
        sent = json.loads(self.sniffer.wait().out.splitlines()[-1])
        assert sent.get("udp", 0) == 0, sent
        assert sent.get("icmp", 0) == 0, sent
        assert sent["tcp"] > 0, "the side channel is seen"


@contextmanager
def streaming(ward: Ward, *, fec: str = "8+2", message_bytes: int = MESSAGE_BYTES) -> Iterator[Stream]:
    """A message every few milliseconds, until the block ends."""
    devices, channel = ward.site.devices, ward.channel.name
    sniffer = ward.start("far", "-m", "tests.e2e.sniffer", INTERFACE)
    sniffer.wait_line("listening")
    subscriber = ward.start("far", "-c", SUBSCRIBE, str(devices / "display"), channel)
    subscriber.wait_line("joined")
    words = (str(devices / "monitor"), channel, str(message_bytes), fec)
    publisher = ward.start("near", "-c", PUBLISH, *words)
    publisher.wait_line("open")
    yield Stream(ward, publisher, subscriber, sniffer)
    publisher.close_input()
    assert publisher.wait().code == 0, str(publisher)
    subscriber.end()
    sniffer.end()
