"""Networks that work against us: spoofed packets, IGMP games, a partition, an MTU that shrinks."""

from __future__ import annotations

import base64
import json
import random
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.hosts import INTERFACE, QUERY_SECONDS
from tests.e2e.processes import Process, wait_until
from tests.e2e.raw_packets import igmp, udp
from tests.e2e.ward import Stream, Ward, streaming

pytestmark = [pytest.mark.needs_program("ip", "unshare", "nsenter"), pytest.mark.timeout(120)]
LEAVE, ALL_ROUTERS = 0x17, "224.0.0.2"
VICTIM = ("10.95.0.99", 5353)


@pytest.fixture
def stream(ward: Ward) -> Iterator[Stream]:
    with streaming(ward) as running:
        yield running


def put_on_the_wire(ward: Ward, host: str, packets: list[bytes], times: int, pause: float) -> Process:
    sender = ward.start(host, "-m", "tests.e2e.raw_packets", INTERFACE)
    coded = [base64.b64encode(packet).decode() for packet in packets]
    sender.write(json.dumps({"packets": coded, "times": times, "pause": pause}).encode() + b"\n")
    return sender


def open_udp_ports(process: Process) -> set[tuple[str, int]]:
    """Where the programs of a process's host listen, as the kernel has it."""
    lines = Path(f"/proc/{process.pid}/net/udp").read_text().splitlines()[1:]
    ends = [line.split()[1].split(":") for line in lines]
    return {(socket.inet_ntoa(struct.pack("=I", int(host, 16))), int(port, 16)) for host, port in ends}


def test_a7_spoofed_packets_are_answered_by_nobody(ward: Ward, stream: Stream) -> None:
    """Neither a subscriber nor a publisher nor the authority: 0 bytes, to no port that is open."""
    near = ward.start("near", "-m", "tests.e2e.sniffer", INTERFACE)
    near.wait_line("listening")
    before = stream.told()
    ports = open_udp_ports(stream.subscriber) | open_udp_ports(stream.publisher)
    assert (ward.channel.group, ward.channel.port) in ports
    draw = random.Random(7)
    payloads = [b"", b"\x53\x45\x41\x4c" + draw.randbytes(300), draw.randbytes(1400), bytes(64)]
    packets = [udp(VICTIM, port, payload) for port in sorted(ports) for payload in payloads]
    sender = put_on_the_wire(ward, "evil", packets, 100, 0.001)
    assert sender.wait().code == 0, str(sender)
    after = stream.told()
    assert after["counters"]["malformed"] - before["counters"]["malformed"] >= 300, "they arrived"
    near.close_input()
    sent = json.loads(near.wait().out.splitlines()[-1])
    assert sent.get("icmp", 0) == 0
    stream.silent()


def starve(ward: Ward, seconds: float) -> Process:
    """Say in the display's place, on its side of the switch, that nobody there listens to the group."""
    group = ward.channel.group
    leave = igmp(ward.hosts.address("far"), ALL_ROUTERS, LEAVE, group)
    return put_on_the_wire(ward, "far", [leave], int(seconds / 0.02), 0.02)


def test_a9_a_forged_leave_starves_nobody(ward: Ward, stream: Stream) -> None:
    """What the switch holds back comes by repair; its next query brings the group back."""
    ward.hosts.switch("ip", "link", "set", "far", "type", "bridge_slave", "mcast_fast_leave", "on")
    before = stream.told()
    assert starve(ward, 0.2).wait().code == 0
    stream.told()
    wait_until(lambda: heard(stream.told()) > 50 + heard(before), "multicast is back", 10 * QUERY_SECONDS)
    after = stream.told()
    assert after["losses"] == []


def test_a9_a_receiver_that_is_kept_from_the_group_says_so(ward: Ward, stream: Stream) -> None:
    """Takes the time after which a silence counts as one."""
    ward.hosts.switch("ip", "link", "set", "far", "type", "bridge_slave", "mcast_fast_leave", "on")
    stream.told()
    forger = starve(ward, 40)
    told: list[dict[str, Any]] = []

    def says_so() -> bool:
        told.append(stream.told())
        return any("multicast is silent" in event for event in told[-1]["events"])

    wait_until(says_so, "the alarm", 40)
    forger.end()
    wait_until(lambda: heard(stream.told()) > 50 + heard(told[-1]), "multicast is back", 10 * QUERY_SECONDS)
    assert stream.told()["losses"] == []


def heard(told: dict[str, Any]) -> int:
    """Packets that came by multicast."""
    return int(told["counters"]["accepted"] - told["counters"]["repaired"])


def test_fault_9_a_full_partition(ward: Ward, stream: Stream) -> None:
    """No multicast, no side channel; afterwards all that was sent meanwhile is there."""
    before = stream.told()
    ward.hosts.switch("ip", "link", "set", "far", "down")
    known, sent = len(stream.subscriber.out), len(stream.publisher.err)
    # More than a block's parity stands in for.
    stream.publisher.write(b"mark\n" * 40)
    stream.publisher.wait_line(f"mark {sent + 40}", errors=True)
    ward.hosts.switch("ip", "link", "set", "far", "up")
    stream.subscriber.wait_lines(known + 40)
    after = stream.told()
    assert after["losses"] == []
    assert after["counters"]["repaired"] > before["counters"]["repaired"]


@pytest.fixture
def restore_mtu(ward: Ward) -> Iterator[Callable[[int], None]]:
    def set_mtu(size: int) -> None:
        ward.hosts.run("near", "ip", "link", "set", INTERFACE, "mtu", str(size))

    yield set_mtu
    set_mtu(1500)


def test_fault_8_the_interfaces_mtu_shrinks(ward: Ward, restore_mtu: Callable[[int], None]) -> None:
    """The system refuses what no longer fits: it comes by repair, and the publisher says why."""
    with streaming(ward, message_bytes=1200) as stream:
        stream.told()
        for mtu in (1280, 576):
            repaired = stream.told()["counters"]["repaired"]
            restore_mtu(mtu)
            wait_until(lambda: stream.told()["counters"]["repaired"] > repaired + 10, f"repair at {mtu}")  # noqa: B023
            assert stream.told()["losses"] == []
        told = stream.publisher.wait_line("refuses packets on", errors=True)
        assert "they do not fit its MTU any more (say --mtu)" in told


def test_packets_that_never_fit_the_interface_are_refused_at_the_start(ward: Ward) -> None:
    finished = ward.processes.start(
        "publish", ward.site.devices / "monitor", ward.channel.name, "--mtu", "1501",
        under=ward.hosts.on("near"),
    ).wait()  # fmt: skip
    assert finished.code == 3, finished.err
    assert "1501" in finished.err
    assert "MTU is 1500" in finished.err
    assert "--mtu" in finished.err


@pytest.mark.needs_program("setpriv")
def test_a_receive_buffer_that_the_system_caps_is_warned_of(ward: Ward) -> None:
    """A program without privileges gets what net.core.rmem_max allows, and says what that means."""
    most = int(Path("/proc/sys/net/core/rmem_max").read_text())
    wanted = 16 << 20
    words = ["setpriv", "--bounding-set", "-net_admin", "--inh-caps", "-net_admin"]
    subscriber = ward.processes.start(
        "subscribe", ward.site.devices / "display", ward.channel.name, under=[*ward.hosts.on("far"), *words]
    )
    subscriber.wait_line("joined channel", errors=True)
    finished = subscriber.stop()
    warned = [line for line in finished.err.splitlines() if "receive buffer" in line]
    assert len(warned) == (most < wanted), finished.err
    assert all("net.core.rmem_max" in line for line in warned)
