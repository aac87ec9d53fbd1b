"""A stream goes on without its authority, and with it again."""

import asyncio
import signal

import pytest

from sealcast.endpoint import Device
from sealcast.endpoint.events import Joined
from tests.e2e.datagrams import DATA, Recording
from tests.e2e.feed import Feed
from tests.e2e.processes import wait_until
from tests.e2e.site import Site
from tests.e2e.story import Story


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_restarted_while_a_stream_runs(site: Site, number: signal.Signals) -> None:
    monitor, display, bad, late = site.enrol("monitor", "display", "bad", "late")
    channel = site.add_channel("icu3/vitals", publish="monitor")
    removed = site.subscribe(bad, channel)
    async with Device.open(display).subscriber(channel.name) as subscriber, asyncio.timeout(50):
        story = Story(subscriber)
        with Recording(channel) as recording, Feed(site, monitor, channel) as feed:
            await story.until_messages(50)
            await asyncio.to_thread(site.stop, number)
            await story.until_messages(200)
            before = recording.datagrams[-1].epoch
            await asyncio.to_thread(site.serve)
            # Both ends join again, as the beacons of the new service are signed by a new stream.
            await story.until_event(Joined)
            await asyncio.to_thread(
                wait_until, lambda: recording.datagrams[-1].epoch != before, "the publisher has joined again"
            )
            # They are members of the service that runs now: its removal reaches them.
            generation = recording.datagrams[-1].generation
            site.revoke("bad")
            await asyncio.to_thread(
                wait_until, lambda: recording.datagrams[-1].generation > generation, "a new generation"
            )
            await asyncio.to_thread(removed.wait_line, "refuses this device", errors=True)
            newcomer = await asyncio.to_thread(site.subscribe, late, channel)
            await asyncio.to_thread(newcomer.wait_lines, 50)
            lines = await asyncio.to_thread(feed.finish)
            await story.until(lines[-1].strip().encode())
            assert [message.data.decode() + "\n" for message in story.messages()] == lines
            await asyncio.to_thread(
                wait_until, lambda: newcomer.out == lines[-len(newcomer.out) :], "every line since it joined"
            )


def test_slots_turn_without_it(site: Site) -> None:
    """Members have fetched the keys of slots ahead."""
    monitor, display = site.enrol("monitor", "display")
    channel = site.add_channel("icu3/vitals", "--slot", "500ms", "--slots-ahead", "30")
    subscriber = site.subscribe(display, channel)
    with Recording(channel) as recording, Feed(site, monitor, channel) as feed:
        subscriber.wait_lines(50)
        site.stop()
        first = recording.datagrams[-1].slot
        wait_until(lambda: recording.datagrams[-1].slot >= first + 6, "six slots more")
        lines = feed.finish()
        wait_until(lambda: subscriber.out == lines, "every line in order")
    slots = {datagram.slot for datagram in recording.datagrams if datagram.type == DATA}
    assert set(range(first, first + 6)) <= slots
