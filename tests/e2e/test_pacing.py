"""A publisher keeps to the channel's rate from its first packet on, by the times of arrival."""

import socket
import struct
from pathlib import Path

from tests.e2e.datagrams import DATA, Datagram
from tests.e2e.processes import Processes
from tests.e2e.site import Site, listen

BITS_A_SECOND = 1_000_000
_SO_TIMESTAMPNS_NEW = 64
_TIMESPEC = struct.Struct("qq")


def test_a_short_stream_does_not_leave_in_one_go(site: Site, processes: Processes, tmp_path: Path) -> None:
    [monitor] = site.enrol("monitor")
    channel = site.add_channel("icu3/vitals", "--rate", "1Mbit/s")
    source = tmp_path / "source"
    source.write_bytes((b"x" * 1000 + b"\n") * 100)
    with listen(channel) as plain:
        plain.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS_NEW, 1)
        assert processes.run("publish", monitor, channel.name, source, "--linger", "0s").code == 0
        arrivals = received(plain)
    times = [time for time, _ in arrivals]
    rest = sum(size for _, size in arrivals[1:])
    assert rest > 100_000
    # 100 kB are 0.8 s. A thread that is held up after its first packet makes it look shorter: not by half.
    assert times[-1] - times[0] > rest * 8 / BITS_A_SECOND / 2


def received(plain: socket.socket) -> list[tuple[float, int]]:
    """When each data packet came, and its length, of what is there."""
    plain.setblocking(False)
    found: list[tuple[float, int]] = []
    while True:
        try:
            content, notes, _, _ = plain.recvmsg(65_536, 64)
        except BlockingIOError:
            return found
        [(_, _, stamp)] = notes
        seconds, nanoseconds = _TIMESPEC.unpack(stamp)
        if Datagram(content).type == DATA:
            found.append((seconds + nanoseconds / 1e9, len(content)))
