"""B4: a publisher that is killed again and again under load never seals two bodies under one key and nonce.

A key follows from epoch, stream id and block id, the nonce from the index (spec/keys.md KM-4, spec/wire.md
DP-15). So over everything that was ever on the wire no such place may have two bodies, and no block id may
stand in two streams.
"""

import hashlib
import itertools
import os
import random
import subprocess
import time

import pytest

from tests.e2e.datagrams import DATA, Datagram, Recording
from tests.e2e.site import Site
from tests.forks import Forked

KILLS = 1000 if os.environ.get("SEALCAST_SOAK") == "1" else 100
AT_ONCE = 2
SECONDS = 95.0 * KILLS / 100


def publish(folder: str, channel: str) -> Forked:
    """Publish more than will ever be sent."""
    words = ("publish", folder, channel, "/dev/urandom", "--raw")
    return Forked(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@pytest.mark.timeout(120 * KILLS / 100)
def test_invariant_3_a_hundred_kills_under_load_repeat_no_nonce(site: Site) -> None:
    devices = [str(folder) for folder in site.enrol(*(f"monitor-{number}" for number in range(AT_ONCE)))]
    channel = site.add_channel("icu3/vitals", "--rate", "20Mbit/s")
    draw = random.Random(7)
    kills = 0
    turn = itertools.count()
    running: list[tuple[Forked, int]] = []
    with Recording(channel) as recording:
        deadline = time.monotonic() + SECONDS
        try:
            while kills < KILLS:
                while len(running) < AT_ONCE:
                    process = publish(devices[next(turn) % AT_ONCE], channel.name)
                    # Some are killed before their first packet, most in the middle of a block.
                    running.append((process, draw.randrange(0, 200)))
                process, packets = running.pop(0)
                goal = len(recording.datagrams) + packets
                while len(recording.datagrams) < goal and process.poll() is None:
                    assert time.monotonic() < deadline, f"only {kills} kills in {SECONDS:g} s"
                    time.sleep(0.001)
                assert process.poll() is None, f"a publisher has ended by itself: {process.poll()}"
                process.kill()
                assert process.wait() == -9
                kills += 1
        finally:
            for process, _ in running:
                process.kill()
                process.wait()
    bodies: dict[tuple[bytes, bytes, bytes, int], bytes] = {}
    stream_of_block: dict[bytes, bytes] = {}
    for datagram in recording.datagrams:
        place = (datagram.stream_id, datagram.epoch, datagram.block_id, datagram.index)
        digest = hashlib.sha256(datagram.content[4:6] + datagram.body).digest()
        assert bodies.setdefault(place, digest) == digest, f"two bodies at {place}"
        assert stream_of_block.setdefault(datagram.block_id, datagram.stream_id) == datagram.stream_id
    data = [datagram for datagram in recording.datagrams if datagram.type == DATA]
    print(
        f"{kills} kills, {len(data)} data packets of {len({packet.stream_id for packet in data})} streams, "
        f"{len(stream_of_block)} blocks"
    )
    assert kills >= KILLS
    assert len(data) > 50 * KILLS
    assert len({packet.stream_id for packet in data}) > KILLS // 2


def test_the_body_is_found() -> None:
    """The body is what lies between header and path: checked on a block of three."""

    def datagram(index: int, count: int, path: int) -> Datagram:
        header = bytes(54) + bytes([index, count]) + bytes(8)
        return Datagram(header + b"body" + bytes(16 * path) + bytes(72))

    for index, count, path in ((0, 1, 0), (0, 2, 1), (0, 3, 2), (2, 3, 1), (63, 64, 6), (4, 5, 1)):
        assert datagram(index, count, path).body == b"body"
