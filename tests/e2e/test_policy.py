"""A policy that changes while streams run: rights, addresses, rates, without a restart of anybody."""

from __future__ import annotations

from pathlib import Path

from tests.e2e.feed import Feed
from tests.e2e.processes import wait_until
from tests.e2e.site import Channel, Site, command, free_group, free_port, listen


def apply(
    site: Site, channel: Channel, folder: Path, *, publish: list[str], subscribe: list[str], rest: str = ""
) -> None:
    """Write the source of the policy and apply it."""
    file = folder / "policy.toml"
    file.write_text(
        f'[channel."{channel.name}"]\ngroup = "{channel.group}"\nport = {channel.port}\n'
        f"publish = {publish}\nsubscribe = {subscribe}\n{rest}\n"
    )
    command("policy", "apply", site.folder, file)


def test_a_publisher_that_loses_the_right_is_stopped_and_another_is_let_in(
    site: Site, tmp_path: Path
) -> None:
    """It may still read, so only the policy stops it: at the subscriber, and in its own process."""
    bad, good, late, display = site.enrol("bad", "good", "late", "display")
    channel = Channel("icu3/vitals", free_group(), free_port())
    apply(site, channel, tmp_path, publish=["bad", "good"], subscribe=["*"])
    subscriber = site.subscribe(display, channel, "--json")
    with Feed(site, bad, channel) as feed, Feed(site, good, channel) as other:
        subscriber.wait_line('"bad"')
        subscriber.wait_line('"good"')
        apply(site, channel, tmp_path, publish=["good", "late"], subscribe=["*"])
        subscriber.wait_line("bad is no longer accepted", errors=True)
        ended = feed.process.wait(20)
        assert ended.code == 6, "a publisher that may not publish any more ends, and says so"
        assert "may not publish" in ended.err
        subscriber.wait_lines(len(subscriber.out) + 100)
        before = sum('"bad"' in line for line in subscriber.out)
        with Feed(site, late, channel) as newcomer:
            subscriber.wait_line('"late"')
            newcomer.finish()
        sent = other.finish()
        wait_until(lambda: sum('"good"' in line for line in subscriber.out) == len(sent), "all of the other")
        assert sum('"bad"' in line for line in subscriber.out) == before
    explained = command("policy", "explain", site.folder, "bad", channel.name)
    assert "publish   no: no rule in publish matches it" in explained
    assert "subscribe yes: * in subscribe allows it" in explained


def test_a_role_given_in_service_lets_a_device_in(site: Site, tmp_path: Path) -> None:
    monitor, display = site.enrol("monitor", "display")
    channel = Channel("icu3/vitals", free_group(), free_port())
    apply(site, channel, tmp_path, publish=["role:monitor"], subscribe=["display"])
    subscriber = site.subscribe(display, channel)
    refused = site.processes.run("publish", monitor, channel.name)
    assert (refused.code, "may not publish" in refused.err) == (6, True)
    command("authority", "device", "set", site.folder, "monitor", "--role", "monitor")
    with Feed(site, monitor, channel) as feed:
        subscriber.wait_lines(50)
        feed.finish()


def test_a_channel_moves_to_another_group_and_rate_without_a_loss(site: Site, tmp_path: Path) -> None:
    monitor, display = site.enrol("monitor", "display")
    channel = Channel("icu3/vitals", free_group(), free_port())
    apply(site, channel, tmp_path, publish=["monitor"], subscribe=["display"])
    subscriber = site.subscribe(display, channel)
    with Feed(site, monitor, channel) as feed:
        subscriber.wait_lines(50)
        for rate in ("5Mbit/s", "10Mbit/s"):
            moved = Channel(channel.name, free_group(), free_port())
            rest = f'rate = "{rate}"\nretention = "2m"'
            apply(site, moved, tmp_path, publish=["monitor"], subscribe=["display"], rest=rest)
            with listen(moved) as plain:
                assert plain.recv(2048), "nothing is sent to the new group"
            subscriber.wait_lines(len(subscriber.out) + 200)
        lines = feed.finish()
    wait_until(lambda: subscriber.out == lines, "every line in order")
    assert "lost" not in subscriber.stop().err
