"""Removal by the operator while streams run: invariant 5."""

import base64
import json
import signal

import pytest

from tests.e2e.datagrams import Recording
from tests.e2e.feed import Feed
from tests.e2e.processes import wait_until
from tests.e2e.site import Site


def test_a_removed_publisher_is_closed_at_running_subscribers(site: Site) -> None:
    bad, good, display = site.enrol("bad", "good", "display")
    channel = site.add_channel("icu3/vitals", subscribe="display")
    subscriber = site.subscribe(display, channel, "--json")
    with Feed(site, bad, channel) as feed, Feed(site, good, channel) as other:
        subscriber.wait_line('"bad"')
        subscriber.wait_line('"good"')
        site.revoke("bad")
        subscriber.wait_line("bad is no longer accepted", errors=True)
        # Lines that came before the word may be written after it.
        subscriber.wait_lines(len(subscriber.out) + 100)
        before = sum('"bad"' in line for line in subscriber.out)
        subscriber.wait_lines(len(subscriber.out) + 500)
        ended = feed.process.wait(20)
        assert ended.code == 5, "a publisher that was revoked ends, and says so"
        assert "device 'bad' is revoked" in ended.err
        sent = other.finish()
        wait_until(lambda: sum('"good"' in line for line in subscriber.out) == len(sent), "all of the other")
        assert sum('"bad"' in line for line in subscriber.out) == before
    assert subscriber.stop().code == 130


def test_a_removed_subscriber_gets_nothing_new(site: Site) -> None:
    monitor, good, bad = site.enrol("monitor", "good", "bad")
    channel = site.add_channel("icu3/vitals", publish="monitor")
    stays, removed = site.subscribe(good, channel, "--json"), site.subscribe(bad, channel)
    with Feed(site, monitor, channel) as feed:
        stays.wait_lines(50)
        removed.wait_lines(50)
        generation = generation_of(stays.out[-1])
        site.revoke("bad")
        wait_until(lambda: generation_of(stays.out[-1]) > generation, "messages of the new generation", 5)
        stays.wait_lines(len(stays.out) + 500)
        lines = feed.finish()
        stays.wait_lines(len(lines))
    assert [text_of(line) for line in stays.out] == lines
    ended = removed.wait(20)
    assert ended.code == 5
    assert "device 'bad' is revoked" in ended.err
    assert ended.out == "".join(lines[: len(removed.out)])
    # Invariant 5: what was sealed under the new generation, which is the rest, it did not open.
    old = sum(generation_of(line) == generation for line in stays.out)
    assert len(removed.out) <= old < len(lines) - 400


@pytest.mark.parametrize("restart", [False, True])
def test_a_member_that_sleeps_through_a_removal_and_a_join_loses_nothing(site: Site, restart: bool) -> None:
    """Invariant 6, KM-18: the steps between the removal and the join belong to every member that stays.

    After a restart of the authority the member has to join again, which should be no new admission.
    """
    monitor, good, bad, new = site.enrol("monitor", "good", "bad", "new")
    channel = site.add_channel("icu3/vitals", "--retention", "20s", publish="monitor")
    subscriber = site.subscribe(good, channel, "--json")
    site.subscribe(bad, channel)
    with Recording(channel) as recording, Feed(site, monitor, channel, each_seconds=0.01) as feed:
        subscriber.wait_lines(50)
        generation = generation_of(subscriber.out[-1])
        subscriber.send_signal(signal.SIGSTOP)
        if restart:
            before = recording.datagrams[-1].epoch
            site.stop()
            site.serve()
            wait_until(lambda: recording.datagrams[-1].epoch != before, "the publisher has joined again")
        site.revoke("bad")
        wait_until(lambda: recording.datagrams[-1].generation > generation, "the new generation")
        recording.wait_for(50)
        site.subscribe(new, channel).wait_lines(20)
        subscriber.send_signal(signal.SIGCONT)
        lines = feed.finish()
        subscriber.wait_lines(len(lines), 10)
    assert [text_of(line) for line in subscriber.out] == lines


def generation_of(line: str) -> int:
    """Of a message as `subscribe --json` writes it."""
    return int(json.loads(line)["epoch"][1])


def text_of(line: str) -> str:
    return base64.b64decode(json.loads(line)["data"]).decode() + "\n"


def test_a_removed_subscriber_does_not_come_back(site: Site) -> None:
    [display] = site.enrol("display")
    channel = site.add_channel("icu3/vitals")
    site.revoke("display")
    finished = site.processes.run("subscribe", display, channel.name)
    assert finished.code == 5
    assert finished.err.startswith("sealcast: error: device 'display' is revoked (")
