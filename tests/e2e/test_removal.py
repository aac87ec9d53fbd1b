"""Removal by the operator while streams run: invariant 5."""

import base64
import json
import signal
from pathlib import Path

import pytest

from tests.e2e.datagrams import Recording
from tests.e2e.feed import Feed
from tests.e2e.processes import wait_until
from tests.e2e.site import Site, command


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
    stopped = subscriber.stop()
    assert stopped.code == 130
    assert stopped.err.splitlines()[-1] == "sealcast: interrupted: 1 loss was reported"


def test_a_removed_sender_ends_in_the_middle_of_a_file(site: Site, tmp_path: Path) -> None:
    scanner, archive = site.enrol("scanner", "archive")
    channel = site.add_channel("icu3/files", "--rate", "5Mbit/s")
    output, file = tmp_path / "output", tmp_path / "image.bin"
    file.write_bytes(bytes(50_000_000))
    receiver = site.receive(archive, channel, output)
    sender = site.processes.start("send", scanner, channel.name, file)
    wait_until(lambda: any(output.iterdir()), "the file has begun")
    site.revoke("scanner")
    ended = sender.wait(10)
    assert ended.code == 5, ended.err
    assert "sealcast: error: device 'scanner' is revoked (" in ended.err
    receiver.wait_line("lost: file 'image.bin' of scanner: ", errors=True)
    assert list(output.iterdir()) == []
    assert receiver.is_running, "another may send to it"


@pytest.mark.parametrize("revoked", [True, False])
def test_a_removed_receiver_ends_and_leaves_nothing(site: Site, tmp_path: Path, revoked: bool) -> None:
    scanner, archive, other = site.enrol("scanner", "archive", "other")
    channel = site.add_channel("icu3/files", "--rate", "20Mbit/s", publish="scanner")
    output, file = tmp_path / "output", tmp_path / "image.bin"
    file.write_bytes(bytes(20_000_000))
    receiver = site.receive(archive, channel, output)
    site.receive(other, channel, tmp_path / "other")
    sender = site.processes.start("send", scanner, channel.name, file)
    wait_until(lambda: any(output.iterdir()), "the file has begun")
    if revoked:
        site.revoke("archive")
    else:
        command("authority", "channel", "set", site.folder, channel.name, "--subscribe", "other")
    ended = receiver.wait(10)
    says = "device 'archive' is revoked" if revoked else "device 'archive' may not subscribe on channel"
    assert ended.code == (5 if revoked else 6), ended.err
    lost, error = ended.err.splitlines()[-2:]
    assert lost.startswith(f"sealcast: lost: file 'image.bin' of scanner: {says}")
    assert error.startswith(f"sealcast: error: {says}")
    assert list(output.iterdir()) == []
    assert sender.wait().code == 0, "the others have the file, and nobody waits for the removed one"


def test_a_sender_that_is_removed_while_it_waits_ends(site: Site, tmp_path: Path) -> None:
    scanner, idle = site.enrol("scanner", "idle")
    channel = site.add_channel("icu3/files")
    file = tmp_path / "image.bin"
    file.write_bytes(b"content")
    site.subscribe(idle, channel, "--raw")  # takes no files, so acknowledges none
    sender = site.processes.start("send", scanner, channel.name, file, "--linger", "1h")
    sender.wait_line("image.bin: 7 bytes", errors=True)
    site.revoke("scanner")
    ended = sender.wait(10)
    assert ended.code == 5, ended.err
    assert "device 'scanner' is revoked" in ended.err


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
