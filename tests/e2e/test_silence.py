"""Invariant 2: a receiver sends nothing on the multicast side, whatever comes in."""

import os
import random
import re
import signal
import subprocess
from pathlib import Path

import pytest

from tests.e2e.datagrams import Recording
from tests.e2e.feed import Feed
from tests.e2e.processes import wait_until
from tests.e2e.site import Site, send_to

CALLS = "socket,sendto,sendmsg,sendmmsg,write,writev,sendfile,splice"


@pytest.mark.needs_program("strace")
def test_invariant_2_a_subscriber_sends_no_datagram(site: Site, tmp_path: Path) -> None:
    monitor, display = site.enrol("monitor", "display")
    channel = site.add_channel("icu3/vitals")
    trace = tmp_path / "trace"
    subscriber = site.processes.start(
        "subscribe", display, channel.name,
        under=["strace", "-f", "-qq", "-yy", "-s", "0", "-o", str(trace), "-e", f"trace={CALLS}"],
    )  # fmt: skip
    subscriber.wait_line("joined channel", errors=True)
    draw = random.Random(6)
    with Recording(channel) as recording, Feed(site, monitor, channel) as feed:
        subscriber.wait_lines(200)
        # Junk, the stream once more, and the stream with a flipped bit.
        datagrams = [datagram.content for datagram in recording.datagrams]
        send_to(channel, [draw.randbytes(draw.randrange(1, 1400)) for _ in range(300)])
        send_to(channel, datagrams[:300])
        send_to(channel, [bytes([*data[:-1], data[-1] ^ 1]) for data in datagrams[:300]])
        lines = feed.finish()
        wait_until(lambda: subscriber.out == lines, "every line in order")
    [child] = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(subscriber.pid)], capture_output=True, text=True, check=True
    ).stdout.split()
    os.kill(int(child), signal.SIGINT)
    assert subscriber.wait().code == 130
    calls = re.findall(r"^\d+ +(\w+)\(\d+<(\w+):", trace.read_text(), re.MULTILINE)
    assert any(name != "socket" and kind.startswith("TCP") for name, kind in calls), (
        "the side channel is seen"
    )
    sent = [call for call in calls if call[1].startswith("UDP")]
    assert sent == []
    assert "UDP" in trace.read_text(), "the trace names the multicast socket"
