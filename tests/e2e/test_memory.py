"""A subscriber under a flood from outside, from a member and from a publisher keeps to its memory, and an
authority that many are connected to.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from sealcast import _core
from sealcast.device import DeviceIdentity
from sealcast.keys import MemberRole
from sealcast.pki import StreamCredential
from sealcast.pki.times import system_time
from sealcast.sidechannel import KeyServerClient
from sealcast.sidechannel.messages import JoinAnswer
from tests.e2e.datagrams import DATA, Recording
from tests.e2e.processes import Process, Processes
from tests.e2e.site import Channel, Site, send_to
from tests.insider import Insider
from tests.reference.frames import Frame
from tests.reference.wire import Datagram, Header

SUBSCRIBE = """
import asyncio, json, sys
from sealcast.endpoint import Device

async def main():
    device = Device.open(sys.argv[1])
    async with device.subscriber(sys.argv[2], max_message_bytes=1 << 20, buffer_bytes=2 << 20) as subscriber:
        print("joined", flush=True)
        async for message in subscriber:
            print(message.data.decode(), json.dumps(subscriber.counters()), flush=True)

asyncio.run(main())
"""
MAX_STREAMS = 64
"""That a subscriber follows (`receiver.rs`)."""
STREAMS = 24
"""New ones in each round."""
ROUNDS = 4
OUTSIDERS = 15_000
"""Datagrams of each round, of 1,200 bytes."""
GROWTH = 16 * 1024
"""KiB, what an allocator may keep; one round alone brings more."""
WARM_SECONDS = 60
CONNECTION = 100
"""KiB, of TLS and of HTTP; 282 by asyncio's own measure."""


@contextmanager
def subscribing(device: Path, channel: Channel) -> Iterator[Process]:
    process = Process([sys.executable, "-c", SUBSCRIBE, str(device), channel.name])
    try:
        process.wait_line("joined")
        yield process
    finally:
        process.end()


def resident(process: Process) -> int:
    """KiB."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:"))


def join(device: DeviceIdentity, channel: Channel) -> JoinAnswer:
    async def ask() -> JoinAnswer:
        async with KeyServerClient(device) as client:
            return await client.join(channel.name, MemberRole.PUBLISH)

    return asyncio.run(ask())


@dataclass
class Attacker:
    """A device that the policy lists as publisher, and that says what its keys let it say."""

    device: DeviceIdentity
    insider: Insider

    def credential(self, spki: bytes) -> StreamCredential:
        now = system_time()
        return StreamCredential(
            spki=spki,
            channel_id=self.insider.channel_id,
            suite=self.insider.suite,
            site_id=self.device.site_id,
            device=self.device.name,
            certificate_hash=hashlib.sha256(self.device.certificate).digest(),
            not_before=now - 60_000_000,
            not_after=now + 3_600_000_000,
            start_nonce=os.urandom(16),
            instance=f"i{random.randrange(10**9)}",
            succeeds=None,
        )

    def round(self, like: Header, victim: bytes) -> Iterator[bytes]:
        """Streams with gaps and messages that never end; credentials that never end; forgeries."""
        beginnings: list[bytes] = []
        for _ in range(STREAMS):
            stream = self.insider.sealer()
            credential = self.credential(stream_spki(stream.public_key))
            parts = self.insider.announcement(stream, like, credential, self.device.signer, self.device.chain)
            yield from parts
            for place in (10, 10_000, 60_000):
                beginnings = [
                    Frame(message_id=place + number, data=os.urandom(1100), total=1 << 20).serialize()
                    for number in range(16)
                ]
                yield from self.insider.block(stream, like, beginnings, place)
            # Of another announcement of it the first part only.
            yield self.insider.announcement(stream, like, credential, self.device.signer, self.device.chain)[
                0
            ]
            impostor = self.insider.impostor(victim)
            yield from self.insider.block(impostor, like, beginnings, random.randrange(10**6, 10**9))


def stream_spki(public_key: bytes) -> bytes:
    return bytes.fromhex("302a300506032b6570032100") + public_key


@dataclass
class Told:
    """An honest publisher that the subscriber goes on hearing, and what is heard beside it."""

    publisher: Process
    subscriber: Process
    recording: Recording
    count: int = 0

    def counters(self) -> dict[str, int]:
        """What the subscriber has counted, once it has worked off what came before."""
        self.count += 1
        self.publisher.write(f"word {self.count}\n".encode())
        line = self.subscriber.wait_line(f"^word {self.count} ")
        counters: dict[str, int] = json.loads(line.partition(f"word {self.count} ")[2])
        return counters

    @property
    def latest(self) -> Datagram:
        """The last data packet of the honest publisher, and none that an outsider has made of one."""
        first = self.recording.datagrams[0]
        *_, found = (
            datagram
            for datagram in self.recording.datagrams
            if (datagram.type, datagram.stream_id) == (DATA, first.stream_id)
            and (datagram.slot, datagram.generation) == (first.slot, first.generation)
        )
        return Datagram.parse(found.content)

    def from_outside(self, draw: random.Random) -> Iterator[bytes]:
        """Datagrams like those of the channel, each of another stream, epoch, block, place or time."""
        seen = [datagram.content for datagram in self.recording.datagrams[-5000:]]
        for _ in range(OUTSIDERS):
            changed = bytearray(draw.choice(seen)[:64] + os.urandom(1136))
            for offset, length in draw.sample([(6, 16), (22, 8), (30, 16), (48, 6), (56, 8)], 2):
                changed[offset : offset + length] = os.urandom(length)
            yield bytes(changed)


@pytest.mark.timeout(120)
def test_invariant_10_a_flood_takes_no_more_memory_than_is_configured(
    site: Site, processes: Processes
) -> None:
    monitor, display, evil = site.enrol("monitor", "display", "evil")
    channel = site.add_channel("icu3/vitals")
    device = DeviceIdentity.open(evil)
    answer = join(device, channel)
    channel_id = _core.channel_id(device.site_id, channel.name)
    attacker = Attacker(device, Insider(suite=3, channel_id=channel_id, answers=[answer.keys], seed=1))
    draw = random.Random(10)
    with subscribing(display, channel) as subscriber, Recording(channel) as recording:
        publisher = processes.start("publish", monitor, channel.name, stdin=subprocess.PIPE)
        told = Told(publisher, subscriber, recording)
        # As many streams as are followed at most, each with all that it may make us keep: a few a second.
        deadline = time.monotonic() + WARM_SECONDS
        while told.counters()["streams"] < MAX_STREAMS:
            assert time.monotonic() < deadline, told.counters()
            send_to(channel, list(attacker.round(told.latest.header, told.latest.header.stream_id)))
        before = counters = told.counters()
        first, sent = resident(subscriber), 0
        for _ in range(ROUNDS):
            latest = told.latest
            datagrams = [*attacker.round(latest.header, latest.header.stream_id), *told.from_outside(draw)]
            draw.shuffle(datagrams)
            send_to(channel, datagrams)
            sent += len(datagrams)
            counters = told.counters()
        last = resident(subscriber)
        publisher.close_input()
    print(first, last, sent, counters)
    assert sent > 60_000
    assert counters["datagrams"] - before["datagrams"] > sent // 2, "the flood arrived"
    for reason in ("gate", "signature", "signature-budget", "unknown-stream", "epoch-not-ours"):
        assert counters[reason] > 0, reason
    assert last - first < GROWTH
    assert len(subscriber.out) == told.count + 1, "only what the monitor has said was delivered"


async def test_a_connection_that_waits_costs_the_authority_little(site: Site) -> None:
    """Every device of a site has one to the key server."""
    device = DeviceIdentity.open(site.enrol("monitor-1")[0])
    address = urlsplit(device.keys_url)
    opened: list[asyncio.StreamWriter] = []

    async def connect(count: int) -> None:
        for _ in range(count):
            reader, writer = await asyncio.open_connection(
                address.hostname, address.port, ssl=device.ssl_context_client()
            )
            opened.append(writer)
            # It stays open, and has been led through.
            writer.write(b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await reader.readline()).startswith(b"HTTP/1.1 4")

    try:
        await connect(10)
        before = resident(site.authority)
        await connect(100)
        assert resident(site.authority) - before < 100 * CONNECTION
    finally:
        for writer in opened:
            writer.transport.abort()
