"""A repair node as a process: it serves what a dead publisher cannot, and can open none of it."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

from sealcast.authority.keystore import load_keys
from sealcast.authority.models import ChannelRow
from sealcast.authority.site import Site as StoredSite
from tests.e2e.datagrams import DATA, Datagram, Recording
from tests.e2e.processes import Process, wait_until
from tests.e2e.site import Channel, Site, command, free_port, send_to
from tests.reference import schedule
from tests.reference.wire import Epoch

HEARTBEAT = 3


class Relay(Recording):
    """Hands a channel's datagrams on to another port of its group, until it is told to hold them back.

    What it holds back is recorded.
    """

    def __init__(self, channel: Channel) -> None:
        super().__init__(channel)
        self.target = Channel(channel.name, channel.group, free_port())
        self._is_holding = threading.Event()

    def hold(self) -> None:
        self._is_holding.set()

    def count(self, of_type: int) -> int:
        return sum(datagram.type == of_type for datagram in list(self.datagrams))

    def take(self, datagram: Datagram) -> None:
        if self._is_holding.is_set():
            super().take(datagram)
        else:
            send_to(self.target, [datagram.content])


def memory_of(process: Process) -> Iterator[bytes]:
    """Everything that a process has in memory and may write to."""
    maps = Path(f"/proc/{process.pid}/maps").read_text().splitlines()
    places = [re.match(r"([0-9a-f]+)-([0-9a-f]+) rw", line) for line in maps]
    descriptor = os.open(f"/proc/{process.pid}/mem", os.O_RDONLY)
    try:
        for place in filter(None, places):
            start, end = int(place[1], 16), int(place[2], 16)
            try:
                yield os.pread(descriptor, end - start, start)
            except OSError:
                continue  # not backed by memory
    finally:
        os.close(descriptor)


def holds_any(process: Process, needles: set[bytes]) -> bool:
    return any(needle in region for region in memory_of(process) for needle in needles)


def opening_secrets(site: Site, datagrams: list[Datagram]) -> set[bytes]:
    """The secrets from which the keys of these packets follow: slot, step, epoch, stream."""
    stored = StoredSite.open(site.folder)
    with stored.storage.snapshot() as session:
        row = session.query(ChannelRow).one()
        keys = load_keys(session, row, stored.vault)
        cid, suite = row.channel_id, row.suite
    secrets = {keys.generation.secret.reveal(), *(secret.reveal() for secret in keys.slots.secrets.values())}
    for datagram in datagrams:
        number, step = datagram.slot, datagram.content[25]
        if (datagram.generation, step) != keys.generation.position:
            continue
        epoch = schedule.epoch_secret(
            suite,
            cid,
            Epoch(slot=number, generation=datagram.generation, step=step),
            keys.slots.secrets[number].reveal(),
            keys.generation.secret.reveal(),
        )
        secrets |= {epoch, schedule.stream_secret(epoch, suite, cid, datagram.stream_id)}
    return secrets


def publish_and_die(
    site: Site, relay: Relay, channel: Channel, monitor: Path, by: Process, behind: Process
) -> tuple[list[str], list[Datagram]]:
    """Publish lines of which `behind`, which listens to the relay, gets a quarter, and kill the publisher.

    Returns: the lines, and what was held back.
    """
    publisher = site.processes.start("publish", monitor, channel.name, stdin=subprocess.PIPE)
    lines = [f"pulse {number:05d}\n" for number in range(400)]
    publisher.write("".join(lines[:100]).encode())
    by.wait_lines(100)
    behind.wait_lines(100)
    relay.hold()
    for line in lines[100:]:
        publisher.write(line.encode())
    assert by.wait_lines(400) == lines
    # The node has what all others have, or it had asked for it by now.
    told = relay.count(HEARTBEAT)
    wait_until(lambda: relay.count(HEARTBEAT) >= told + 2, "heartbeats after the last message")
    publisher.send_signal(signal.SIGKILL)
    publisher.wait()
    assert len(behind.out) == 100
    assert relay.count(DATA) >= 1
    return lines, list(relay.datagrams)


def tell_head(relay: Relay, datagrams: list[Datagram]) -> None:
    """Let who is behind hear how far the stream has come, and no packet of it."""
    send_to(relay.target, [held.content for held in datagrams if held.type == HEARTBEAT])


def test_a_repair_node_serves_what_a_dead_publisher_cannot_and_opens_nothing(site: Site) -> None:
    monitor, near, far, keeper = site.enrol("monitor", "near", "far", "keeper")
    channel = site.add_channel("icu3/vitals", publish="monitor")
    without_role = site.processes.run("repair-node", keeper, channel.name)
    assert without_role.code == 6
    assert "'keeper' may not keep packets on channel 'icu3/vitals'" in without_role.err
    assert "device set SITE NAME --role repair-node" in without_role.err
    command("authority", "device", "set", site.folder, "keeper", "--role", "repair-node")
    refused = site.processes.run("subscribe", keeper, channel.name, "--count", "1")
    assert refused.code == 6, refused.err
    node = site.processes.start("repair-node", keeper, channel.name, "--json")
    node.wait_line("keeping icu3/vitals", errors=True)
    where = json.loads(node.wait_lines(1)[0])
    assert where["channels"] == ["icu3/vitals"]
    with socket.create_connection((where["host"], where["port"]), timeout=10):
        pass
    with Relay(channel) as relay:
        by = site.subscribe(near, channel)
        behind = site.subscribe(far, channel, "--listen", relay.target.address, "--count", "400")
        lines, datagrams = publish_and_die(site, relay, channel, monitor, by, behind)
        tell_head(relay, datagrams)
        finished = behind.wait()
        assert (finished.code, behind.out) == (0, lines), finished.err

    secrets = opening_secrets(site, datagrams)
    assert len(secrets) >= 5
    assert holds_any(by, secrets), "a subscriber has what opens"
    assert not holds_any(node, secrets), "a repair node has not"
    assert not holds_any(node, {b"pulse 00"}), "nor anything that was opened"
    assert holds_any(node, {datagrams[-1].stream_id})
    stopped = node.stop()
    assert stopped.code == 130
    assert json.loads(stopped.out.splitlines()[-1])["counters"][channel.name]["kept-packets"] > 0


def test_what_a_node_keeps_on_disk_outlives_its_death(site: Site, tmp_path: Path) -> None:
    monitor, near, far, keeper, other = site.enrol("monitor", "near", "far", "keeper", "other")
    for name in ("keeper", "other"):
        command("authority", "device", "set", site.folder, name, "--role", "repair-node")
    channel = site.add_channel("icu3/stored", publish="monitor")
    store = tmp_path / "store"
    serve = f"127.0.0.1:{free_port()}"
    words = ("repair-node", keeper, channel.name, "--store", store, "--keep", "4M", "--serve", serve)
    node = site.processes.start(*words)
    node.wait_line("keeping icu3/stored", errors=True)
    second = site.processes.run("repair-node", other, channel.name, "--store", store)
    assert second.code == 8
    assert "another repair node keeps packets in it (stop that one" in second.err
    with Relay(channel) as relay:
        by = site.subscribe(near, channel)
        behind = site.subscribe(far, channel, "--listen", relay.target.address, "--count", "400")
        lines, datagrams = publish_and_die(site, relay, channel, monitor, by, behind)
        node.send_signal(signal.SIGKILL)
        node.wait()
        kept = [path.read_bytes() for path in store.glob("*/*.packets")]
        assert any(held.content in data for held in datagrams if held.type == DATA for data in kept)
        assert not any(b"pulse 00" in data for data in kept), "ciphertext alone"
        again = site.processes.start(*words)
        again.wait_line("keeping icu3/stored", errors=True)
        tell_head(relay, datagrams)
        finished = behind.wait()
        assert (finished.code, behind.out) == (0, lines), finished.err
    assert again.stop().code == 130
