"""A message as large as one may be does not hold up the small ones beside it (DP-25).

SEALCAST_MESSAGE says how large, in bytes; 1 GiB in a soak.
"""

import asyncio
import hashlib
import os

from sealcast.endpoint import Device
from tests.e2e.site import Site

SIZE = int(os.environ.get("SEALCAST_MESSAGE", str(48 << 20)))


async def test_small_messages_overtake_a_large_one(site: Site) -> None:
    monitor, display = site.enrol("monitor", "display")
    channel = site.add_channel("icu3/large", "--rate", "800Mbit/s", publish="monitor")
    large = os.urandom(1 << 20) * (SIZE >> 20)
    received: list[str] = []
    async with (
        Device.open(display).subscriber(
            channel.name, buffer_bytes=2 * SIZE, max_message_bytes=SIZE
        ) as subscriber,
        Device.open(monitor).publisher(
            channel.name, linger=0.5, queue_bytes=2 * SIZE, max_message_bytes=SIZE
        ) as publisher,
        asyncio.timeout(60 + SIZE / 1e7),
    ):
        await publisher.send(large, topic="image")
        await publisher.send_many([b"%d" % number for number in range(20)], topic="pulse")
        while len(received) < 21:
            message = await subscriber.recv()
            received.append(str(message.topic))
            if message.topic == "image":
                assert hashlib.sha256(message.data).digest() == hashlib.sha256(large).digest()
    assert received.index("image") > 10, "most of the small ones came before"
