"""Processes that end or are killed, and come back: succession (DP-32), and nothing twice (abuse case B2)."""

import asyncio
import itertools
import json
import signal
from pathlib import Path

import pytest

from sealcast.endpoint import Device
from sealcast.endpoint.events import Gap, StreamEnded
from tests.e2e.datagrams import Recording
from tests.e2e.feed import Feed
from tests.e2e.processes import Processes, wait_until
from tests.e2e.site import Site, send_to
from tests.e2e.story import Story


def lines_in(folder: Path, name: str, lines: list[str]) -> Path:
    file = folder / name
    file.write_text("".join(f"{line}\n" for line in lines))
    return file


async def test_a_publisher_that_comes_back_is_one_story(
    site: Site, processes: Processes, tmp_path: Path
) -> None:
    monitor, display = site.enrol("monitor", "display")
    channel = site.add_channel("icu3/vitals")
    texts = [[f"{life} {number}" for number in range(50)] for life in range(3)]
    async with Device.open(display).subscriber(channel.name) as subscriber, asyncio.timeout(40):
        story = Story(subscriber)
        for life, lines in enumerate(texts):
            source = lines_in(tmp_path, f"life {life}", lines)
            publisher = processes.start("publish", monitor, channel.name, source, "--linger", "200ms")
            await story.until(lines[-1].encode())
            assert (await asyncio.to_thread(publisher.wait)).code == 0
    assert [message.data.decode() for message in story.messages()] == list(itertools.chain(*texts))
    streams = [started.stream_id for started in story.started()]
    assert len(set(streams)) == 3
    assert [started.succeeds for started in story.started()] == [None, *streams[:-1]]
    assert sum(isinstance(item, StreamEnded) for item in story.items) >= 2
    assert not [item for item in story.items if isinstance(item, Gap)]


async def test_a_publisher_that_is_killed_and_comes_back(
    site: Site, processes: Processes, tmp_path: Path
) -> None:
    """Its end is unknown, and told as such; the new stream names the old one."""
    monitor, display = site.enrol("monitor", "display")
    channel = site.add_channel("icu3/vitals")
    async with Device.open(display).subscriber(channel.name) as subscriber, asyncio.timeout(40):
        story = Story(subscriber)
        with Feed(site, monitor, channel) as feed:
            await story.until(b"200")
            feed.process.send_signal(signal.SIGKILL)
        source = lines_in(tmp_path, "again", ["again"])
        publisher = processes.start("publish", monitor, channel.name, source, "--linger", "200ms")
        await story.until(b"again")
        await asyncio.to_thread(publisher.wait)
    *before, last = story.messages()
    assert [message.data for message in before] == [f"{number}".encode() for number in range(len(before))]
    old, new = story.started()
    assert (old.succeeds, new.succeeds) == (None, old.stream_id)
    assert last.stream_id == new.stream_id
    [gap] = [item for item in story.items if isinstance(item, Gap)]
    assert (gap.stream_id, gap.last) == (old.stream_id, None)


def test_a_killed_subscriber_comes_back_and_gets_nothing_twice(site: Site, tmp_path: Path) -> None:
    """B2: also when everything that was ever sent is played to it again."""
    monitor, display = site.enrol("monitor", "display")
    channel = site.add_channel("icu3/vitals")
    lives = []
    with Recording(channel) as recording, Feed(site, monitor, channel) as feed:
        for _ in range(3):
            subscriber = site.subscribe(display, channel, "--json")
            subscriber.wait_lines(100)
            # Into the running stream, and what was sent to its earlier lives.
            send_to(channel, [datagram.content for datagram in recording.datagrams[:2000]])
            subscriber.wait_lines(len(subscriber.out) + 100)
            lives.append(subscriber.stop(signal.SIGKILL).out.splitlines())
        subscriber = site.subscribe(display, channel, "--json")
        send_to(channel, [datagram.content for datagram in recording.datagrams])
        sent = feed.finish()
        recording.wait_for(0)
        subscriber.wait_line(f'"sequence": {sequence_of_last(recording)}')
        # After the end of the stream, too.
        send_to(channel, [datagram.content for datagram in recording.datagrams[:5000]])
        mark = site.subscribe(display, channel)
        mark.stop()
        lives.append(subscriber.stop().out.splitlines())
    places = [
        (message["stream"], message["sequence"], message["data"])
        for life in lives
        for message in map(json.loads, (line for line in life if line.endswith("}")))
    ]
    # Three lives of at least 200 each, and what the last one heard.
    assert len(places) > 600
    assert len(set(places)) == len(places)
    assert len(places) <= len(sent)


def sequence_of_last(recording: Recording) -> int:
    """The highest sequence that was sent (DP-5)."""
    return max(
        int.from_bytes(datagram.content[46:54], "big") + datagram.index
        for datagram in recording.datagrams
        if datagram.type == 1
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_two_publishers_outlive_the_death_of_a_third(site: Site, number: signal.Signals) -> None:
    """The death of one stream holds up no other."""
    *monitors, display = site.enrol("monitor-1", "monitor-2", "monitor-3", "display")
    channel = site.add_channel("icu3/vitals", publish="monitor-*")
    subscriber = site.subscribe(display, channel, "--json")
    feeds = [Feed(site, monitor, channel, each_seconds=0.005) for monitor in monitors]
    with feeds[0], feeds[1], feeds[2]:
        for name in ("monitor-1", "monitor-2", "monitor-3"):
            subscriber.wait_line(f'"{name}"')
        feeds[2].process.stop(number)
        before = len(subscriber.out)
        subscriber.wait_lines(before + 300)
        counts = [len(feed.finish()) for feed in feeds[:2]]
        subscriber.wait_lines(sum(counts))

    def is_whole() -> bool:
        return [count_of(subscriber.out, f"monitor-{number}") for number in (1, 2)] == counts

    wait_until(is_whole, "every message of both that live")


def count_of(lines: list[str], publisher: str) -> int:
    return sum(f'"{publisher}"' in line for line in lines)
