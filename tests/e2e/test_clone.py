"""B5: the folder of a device is copied, and both copies publish on one channel at the same time."""

from __future__ import annotations

import asyncio
import shutil

from sealcast.endpoint import Device
from sealcast.endpoint.events import Equivocation, Gap, MessageLost, StreamStarted, SuccessionConflict
from tests.e2e.datagrams import DATA, Recording
from tests.e2e.feed import Feed
from tests.e2e.site import Site
from tests.e2e.story import Story


async def test_invariant_3_b5_clones_share_no_key_and_nonce(site: Site) -> None:
    """DP-2, DP-12, DP-32: two streams, the second told as the successor of the first, which goes on."""
    monitor, display = site.enrol("monitor", "display")
    clone = site.devices / "clone"
    await asyncio.to_thread(shutil.copytree, monitor, clone, symlinks=True)
    channel = site.add_channel("icu3/vitals")
    async with Device.open(display).subscriber(channel.name) as subscriber, asyncio.timeout(50):
        story = Story(subscriber)
        with Recording(channel) as recording, Feed(site, monitor, channel, each_seconds=0.004) as original:
            await story.until_event(StreamStarted)
            await story.until_messages(20)
            with Feed(site, clone, channel, each_seconds=0.004) as copy:
                await story.until_event(StreamStarted)
                await story.until_messages(300)
                sent = [await asyncio.to_thread(feed.finish) for feed in (original, copy)]
            await story.until_messages(sum(map(len, sent)) - len(story.messages()))

    # What a key and a nonce follow from (KM-4, DP-15) was never there twice, on any packet of either.
    places = [(packet.stream_id, packet.block_id, packet.index) for packet in recording.datagrams]
    data = [packet for packet in recording.datagrams if packet.type == DATA]
    streams = [started.stream_id for started in story.started()]
    assert {packet.stream_id for packet in data} == set(streams)
    assert len(data) > 200
    assert len(set(places)) == len(places)
    blocks = {(packet.stream_id, packet.block_id) for packet in recording.datagrams}
    assert len({block for _, block in blocks}) == len(blocks), "no block id in two streams"

    for stream, lines in zip(streams, sent, strict=True):
        heard = [message.data.decode() for message in story.messages() if message.stream_id == stream]
        assert [f"{line}\n" for line in heard] == lines, "each stream verifies, whole and in order"
    [first, second] = story.started()
    assert (first.succeeds, second.succeeds) == (None, first.stream_id)
    assert (first.publisher, first.instance) == (second.publisher, second.instance)
    # The first had signed no end when the second came: a gap of unknown end.
    assert [(g.stream_id, g.last) for g in story.items if isinstance(g, Gap)] == [(first.stream_id, None)]
    wrong = Equivocation | SuccessionConflict | MessageLost
    assert not [item for item in story.items if isinstance(item, wrong)]
