"""`sealcast send` and `receive`: whole files or nothing, acknowledged, or named who has not."""

import asyncio
import hashlib
import json
import os
import random
import signal
import threading
from pathlib import Path

import pytest

from sealcast.endpoint import Device
from sealcast.endpoint.events import Event, Gap, StreamEnded
from sealcast.endpoint.transfer import TOPIC
from sealcast.pki.signed import encode_cbor
from tests.e2e.processes import Processes, wait_until
from tests.e2e.site import Channel, Site

RATE = ("--rate", "200Mbit/s")


@pytest.fixture
def channel(site: Site) -> Channel:
    return site.add_channel("icu3/files", *RATE, publish="scanner", subscribe="archive-*")


def make_files(folder: Path, *sizes: int) -> list[Path]:
    draw = random.Random(3)
    folder.mkdir(exist_ok=True)
    files = [folder / f"image {number} µ.bin" for number in range(len(sizes))]
    for file, size in zip(files, sizes, strict=True):
        file.write_bytes(draw.randbytes(size))
    return files


class Watch:
    """Looks into a folder all the time: which sizes did each visible name have?"""

    def __init__(self, folder: Path) -> None:
        self.sizes: dict[str, set[int]] = {}
        self.hidden: set[str] = set()
        self._folder = folder
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._stop.wait(0.001):
            for entry in os.scandir(self._folder):
                if entry.name.startswith("."):
                    self.hidden.add(entry.name)
                else:
                    self.sizes.setdefault(entry.name, set()).add(entry.stat().st_size)


def test_two_files_reach_two_receivers_whole(
    site: Site, processes: Processes, channel: Channel, tmp_path: Path
) -> None:
    scanner, *archives = site.enrol("scanner", "archive-1", "archive-2")
    files = make_files(tmp_path / "source", 6_000_000, 1_234_567)
    outputs = [tmp_path / archive.name for archive in archives]
    receivers = [
        site.receive(archive, channel, output, "--count", "2", "--json")
        for archive, output in zip(archives, outputs, strict=True)
    ]
    with Watch(outputs[0]) as watch:
        sent = processes.run("send", scanner, channel.name, *files)
        assert sent.code == 0, sent.err
        ends = [receiver.wait() for receiver in receivers]
    for end, output in zip(ends, outputs, strict=True):
        assert end.code == 0, end.err
        assert sorted(path.name for path in output.iterdir()) == [file.name for file in files]
        told = {Path(entry["path"]): entry for entry in map(json.loads, end.out.splitlines())}
        for file in files:
            content = file.read_bytes()
            assert (output / file.name).read_bytes() == content
            assert told[output / file.name] == {
                "path": str(output / file.name),
                "size": len(content),
                "sha256": hashlib.sha256(content).hexdigest(),
                "publisher": "scanner",
            }
    assert watch.hidden, "the watch saw no file being written"
    assert watch.sizes == {file.name: {file.stat().st_size} for file in files}


def test_two_senders_at_once(site: Site, processes: Processes, tmp_path: Path) -> None:
    channel = site.add_channel("icu3/files", *RATE)
    left, right, archive = site.enrol("left", "right", "archive")
    files = make_files(tmp_path / "source", 3_000_000, 3_000_000)
    receiver = site.receive(archive, channel, tmp_path / "output", "--count", "2")
    senders = [
        processes.start("send", device, channel.name, file)
        for device, file in zip((left, right), files, strict=True)
    ]
    assert [sender.wait().code for sender in senders] == [0, 0]
    assert receiver.wait().code == 0
    for file in files:
        assert (tmp_path / "output" / file.name).read_bytes() == file.read_bytes()


def test_an_empty_file_is_a_file(site: Site, processes: Processes, channel: Channel, tmp_path: Path) -> None:
    scanner, archive = site.enrol("scanner", "archive-1")
    [file] = make_files(tmp_path / "source", 0)
    receiver = site.receive(archive, channel, tmp_path / "output", "--count", "1")
    assert processes.run("send", scanner, channel.name, file).code == 0
    assert receiver.wait().code == 0
    assert (tmp_path / "output" / file.name).read_bytes() == b""


def test_who_does_not_acknowledge_is_named(
    site: Site, processes: Processes, channel: Channel, tmp_path: Path
) -> None:
    scanner, archive, other = site.enrol("scanner", "archive-1", "archive-2")
    [file] = make_files(tmp_path / "source", 100_000)
    site.receive(archive, channel, tmp_path / "output")
    site.subscribe(other, channel, "--raw")  # has joined, and takes no files
    sent = processes.run("send", scanner, channel.name, file, "--linger", "2s")
    assert sent.code == 9
    assert sent.err.splitlines()[-1].startswith(
        "sealcast: error: not acknowledged within 2 s by: archive-2 ("
    )
    assert (tmp_path / "output" / file.name).read_bytes() == file.read_bytes()


def test_a_receiver_that_was_killed_is_named(
    site: Site, processes: Processes, channel: Channel, tmp_path: Path
) -> None:
    """It could not say good-bye, so it still belongs to those who have to have the file."""
    scanner, archive = site.enrol("scanner", "archive-1")
    [file] = make_files(tmp_path / "source", 100_000)
    site.receive(archive, channel, tmp_path / "output").stop(signal.SIGKILL)
    sent = processes.run("send", scanner, channel.name, file, "--linger", "1s")
    assert (sent.code, "archive-1" in sent.err) == (9, True), sent.err


def test_who_leaves_without_having_it_is_named(
    site: Site, processes: Processes, channel: Channel, tmp_path: Path
) -> None:
    scanner, archive, other = site.enrol("scanner", "archive-1", "archive-2")
    [file] = make_files(tmp_path / "source", 100_000)
    site.receive(archive, channel, tmp_path / "output")
    leaver = site.subscribe(other, channel, "--raw")
    sender = processes.start("send", scanner, channel.name, file, "--linger", "4s")
    wait_until((tmp_path / "output" / file.name).exists, "the file is at the other one")
    assert leaver.stop().code == 130
    assert sender.is_running, "the wait was over before it left"
    sent = sender.wait()
    assert (sent.code, "by: archive-2 (" in sent.err) == (9, True), sent.err


def test_who_joins_later_is_not_waited_for(site: Site, processes: Processes, tmp_path: Path) -> None:
    channel = site.add_channel("icu3/files", "--rate", "20Mbit/s")
    scanner, archive, other = site.enrol("scanner", "archive-1", "archive-2")
    [file] = make_files(tmp_path / "source", 10_000_000)
    output = tmp_path / "output"
    site.receive(archive, channel, output)
    sender = processes.start("send", scanner, channel.name, file)
    wait_until(lambda: any(output.iterdir()), "the file has begun")
    site.subscribe(other, channel, "--raw")
    assert not (output / file.name).exists(), "the other one joined after the file"
    sent = sender.wait()
    assert sent.code == 0, sent.err


async def test_a_sending_that_fails_ends_its_stream(
    site: Site, processes: Processes, channel: Channel, tmp_path: Path
) -> None:
    scanner, archive = site.enrol("scanner", "archive-1")
    [file] = make_files(tmp_path / "source", 100_000)
    async with Device.open(archive).subscriber(channel.name) as subscriber, asyncio.timeout(30):
        sender = processes.start("send", scanner, channel.name, file, "--linger", "1s")
        events: list[Event] = []
        async for item in subscriber.items():
            if isinstance(item, Event):
                events.append(item)
                if isinstance(item, Gap | StreamEnded):
                    break
    assert isinstance(events[-1], StreamEnded), events
    assert (await asyncio.to_thread(sender.wait)).code == 9


async def test_a_lost_file_is_told_and_the_next_one_taken(
    site: Site, channel: Channel, tmp_path: Path
) -> None:
    scanner, archive = site.enrol("scanner", "archive-1")
    output = tmp_path / "output"
    receiver = site.receive(archive, channel, output, "--count", "1")
    async with Device.open(scanner).publisher(channel.name, linger=0.5) as publisher, asyncio.timeout(30):

        async def transfer(name: str, data: bytes, sha256: bytes) -> None:
            number = os.urandom(16)
            for fields in (
                ["begin", number, name, len(data)], ["part", number, 0, data], ["end", number, sha256]
            ):  # fmt: skip
                await publisher.send(encode_cbor(fields), topic=TOPIC)

        await transfer("spoilt.bin", b"0123", bytes(32))
        await asyncio.to_thread(receiver.wait_line, r"lost: file 'spoilt.bin' of scanner", errors=True)
        assert receiver.is_running
        await transfer("good.bin", b"0123", hashlib.sha256(b"0123").digest())
        finished = await asyncio.to_thread(receiver.wait)
    assert finished.code == 9
    assert finished.err.splitlines()[-1].startswith("sealcast: error: lost in part: 'spoilt.bin' (")
    assert finished.err.count("lost: file") == 1
    assert [path.name for path in output.iterdir()] == ["good.bin"]


def test_nobody_has_joined(site: Site, processes: Processes, channel: Channel, tmp_path: Path) -> None:
    scanner, archive = site.enrol("scanner", "archive-1")
    [file] = make_files(tmp_path / "source", 100_000)
    # One that was there and has left counts as nobody.
    assert site.receive(archive, channel, tmp_path / "output").stop().code == 130
    sent = processes.run("send", scanner, channel.name, file, "--linger", "1s")
    assert sent.code == 9
    assert sent.err.count("\n") == 1
    assert sent.err.startswith("sealcast: error: nobody has joined channel 'icu3/files' (")


def test_ctrl_c_leaves_no_half_file(site: Site, processes: Processes, tmp_path: Path) -> None:
    channel = site.add_channel("icu3/files", "--rate", "20Mbit/s")
    scanner, archive = site.enrol("scanner", "archive-1")
    [file] = make_files(tmp_path / "source", 50_000_000)
    output = tmp_path / "output"
    receiver = site.receive(archive, channel, output)
    sender = processes.start("send", scanner, channel.name, file)
    with Watch(output) as watch:
        wait_until(lambda: bool(watch.hidden), "the receiver has begun the file")
        finished = receiver.stop()
        assert (finished.code, finished.err.count("\n")) == (130, 1), finished.err
        finished = sender.stop()
        assert (finished.code, finished.err) == (130, "")
    assert list(output.iterdir()) == []


def test_a_file_replaces_one_of_its_name_only_when_it_is_whole(
    site: Site, processes: Processes, channel: Channel, tmp_path: Path
) -> None:
    scanner, archive = site.enrol("scanner", "archive-1")
    [file] = make_files(tmp_path / "source", 3_000_000)
    output = tmp_path / "output"
    output.mkdir()
    (output / file.name).write_bytes(b"before")
    receiver = site.receive(archive, channel, output, "--count", "1", "--overwrite")
    with Watch(output) as watch:
        assert processes.run("send", scanner, channel.name, file).code == 0
        assert receiver.wait().code == 0
    assert watch.sizes[file.name] <= {len(b"before"), 3_000_000}
    assert (output / file.name).read_bytes() == file.read_bytes()


def test_a_file_that_is_there_is_kept_and_both_sides_say_so(
    site: Site, processes: Processes, channel: Channel, tmp_path: Path
) -> None:
    scanner, archive = site.enrol("scanner", "archive-1")
    file, other = make_files(tmp_path / "source", 100_000, 100_000)
    output = tmp_path / "output"
    output.mkdir()
    (output / file.name).write_bytes(b"before")
    receiver = site.receive(archive, channel, output, "--count", "1")
    sent = processes.run("send", scanner, channel.name, file, "--linger", "1s")
    assert (sent.code, "by: archive-1 (" in sent.err) == (9, True), sent.err
    receiver.wait_line(r"lost: file .* another file has its name, and is kept", errors=True)
    assert (output / file.name).read_bytes() == b"before"
    # One that is there byte for byte is acknowledged, so that it can be sent again to those who missed it.
    (output / other.name).write_bytes(other.read_bytes())
    assert processes.run("send", scanner, channel.name, other).code == 0
    assert receiver.wait().code == 9


def test_names_are_refused_before_anything_is_done(processes: Processes, tmp_path: Path) -> None:
    """No authority runs here, and there is no device."""
    for name in ("a", "b", ".hidden"):
        (tmp_path / name).mkdir()
    left, right = tmp_path / "a" / "file", tmp_path / "b" / "file"
    sent = processes.run("send", tmp_path / "no device", "any", left, right)
    assert (sent.code, sent.err.count("\n")) == (2, 1), sent.err
    assert f"{left} and {right} have the same name" in sent.err
    for name in (".hidden", "two\nlines", "n" * 240):
        sent = processes.run("send", tmp_path / "no device", "any", left, tmp_path / name)
        assert (sent.code, sent.err.count("\n")) == (2, 1), sent.err
        assert "no receiver takes a file of the name" in sent.err


def test_ctrl_c_of_the_sender_is_told_at_once(site: Site, processes: Processes, tmp_path: Path) -> None:
    channel = site.add_channel("icu3/files", "--rate", "5Mbit/s", "--retention", "1h")
    scanner, archive = site.enrol("scanner", "archive-1")
    [file] = make_files(tmp_path / "source", 50_000_000)
    output = tmp_path / "output"
    receiver = site.receive(archive, channel, output)
    sender = processes.start("send", scanner, channel.name, file)
    wait_until(lambda: any(output.iterdir()), "the file has begun")
    finished = sender.stop()
    assert (finished.code, finished.err) == (130, "")
    receiver.wait_line(r"lost: file .* of scanner: ", errors=True, seconds=5)
    assert list(output.iterdir()) == []
    assert receiver.stop().code == 130


def test_what_a_killed_receiver_leaves_is_swept_by_the_next(
    site: Site, processes: Processes, tmp_path: Path
) -> None:
    channel = site.add_channel("icu3/files", "--rate", "20Mbit/s")
    scanner, archive, other = site.enrol("scanner", "archive-1", "archive-2")
    [file] = make_files(tmp_path / "source", 50_000_000)
    output = tmp_path / "output"
    killed = site.receive(archive, channel, output)
    site.receive(other, channel, output)
    sender = processes.start("send", scanner, channel.name, file)
    wait_until(lambda: len(list(output.iterdir())) == 2, "both have begun the file")
    killed.stop(signal.SIGKILL)
    assert len(list(output.iterdir())) == 2
    site.receive(archive, channel, output)
    wait_until(lambda: len(list(output.iterdir())) == 1, "that of the killed one is removed")
    assert sender.stop().code == 130
