"""`sealcast send` and `receive`: whole files or nothing, gone on with, or named who has not.

Of spec/side-channel.md: SC-13, SC-14, SC-46 to SC-48.
"""

import asyncio
import hashlib
import json
import os
import random
import re
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from pathlib import Path

import pytest

from sealcast import sync
from sealcast.endpoint import Device, RoutingOverrides
from sealcast.endpoint.events import Event, Gap, StreamEnded
from sealcast.endpoint.transfer import PIECE_BYTES, TOPIC, Offer, Part, Progress, ReceivedFile
from sealcast.testing import Faults, Switch
from tests.e2e.processes import Processes, wait_until
from tests.e2e.site import Channel, Site, free_group, free_port

RATE = ("--rate", "200Mbit/s")
OVERHEAD = 1.25
"""Bytes on the wire for each of a file, at the most: headers, paths and signatures."""


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


async def test_a_folder_and_files_through_loss(site: Site, channel: Channel, tmp_path: Path) -> None:
    """By the Python API, to two receivers that lose 5 % each, on a path of its own."""
    scanner, *archives = site.enrol("scanner", "archive-1", "archive-2")
    [lone] = make_files(tmp_path / "lone", 1_000_000)
    tree = tmp_path / "tree"
    (tree / "sub" / "empty").mkdir(parents=True)
    make_files(tree, 3_000_001, 0)
    make_files(tree / "sub", 262_144)
    (tree / "sub" / "link").symlink_to(lone)
    entrance = free_group(), free_port()
    exits = {archive.name: ("127.0.0.1", free_port()) for archive in archives}

    async def receive(archive: Path, joined: asyncio.Event) -> list[ReceivedFile]:
        routing = RoutingOverrides(listen=exits[archive.name])
        output = tmp_path / archive.name
        output.mkdir()
        async with (
            Device.open(archive).subscriber(channel.name, routing=routing) as subscriber,
            aclosing(subscriber.receive_files(output)) as files,
        ):
            joined.set()
            return [await anext(files) for _ in range(4)]

    told: list[Progress] = []
    with Switch(entrance, exits, seed=4, faults=Faults(loss=0.05)) as switch:
        async with asyncio.timeout(40), asyncio.TaskGroup() as group:
            tasks = []
            for archive in archives:
                tasks.append(group.create_task(receive(archive, joined := asyncio.Event())))
                await joined.wait()
            routing = RoutingOverrides(send_to=entrance)
            async with Device.open(scanner).publisher(channel.name, routing=routing) as publisher:
                sent = await publisher.send_files([tree, lone], on_progress=told.append)
        assert all(switch.exits[archive.name].counters.lost > 50 for archive in archives)
    assert [file.receivers for file in sent] == [("archive-1", "archive-2")] * 4
    for archive, task in zip(archives, tasks, strict=True):
        output = tmp_path / archive.name
        assert {file.path for file in task.result()} == {output / file.name for file in sent}
        assert all((output / file.name).read_bytes() == file.path.read_bytes() for file in sent)
        assert (output / "tree" / "sub" / "empty").is_dir()
        assert not (output / "tree" / "sub" / "link").exists()
        assert sorted(path.name for path in output.iterdir()) == sorted([lone.name, "tree"])
    assert sum(one.done == one.size for one in told) == 5


def test_files_without_an_event_loop(site: Site, channel: Channel, tmp_path: Path) -> None:
    scanner, archive = site.enrol("scanner", "archive-1")
    files = make_files(tmp_path / "source", 300_000, 5)
    output = tmp_path / "output"
    output.mkdir()
    told: list[Progress] = []
    with (
        sync.Device.open(archive).subscriber(channel.name) as subscriber,
        sync.Device.open(scanner).publisher(channel.name) as publisher,
        ThreadPoolExecutor(1) as executor,
    ):
        sending = executor.submit(publisher.send_files, files, on_progress=told.append)
        received = subscriber.receive_files(output)
        names = [next(received).path.name for _ in files]
        # Whoever has enough says so, and is not waited for.
        received.close()
        sent = sending.result(timeout=30)
    assert names == [file.name for file in sent] == [file.name for file in files]
    assert all(file.receivers == ("archive-1",) for file in sent)
    assert told[-1].done == told[-1].size == 5


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
    scanner, archive, reader = site.enrol("scanner", "archive-1", "archive-2")
    [file] = make_files(tmp_path / "source", 0)
    subscriber = site.subscribe(reader, channel, "--count", "1")
    receiver = site.receive(archive, channel, tmp_path / "output", "--count", "1")
    # Who takes messages alone will never have it.
    assert processes.run("send", scanner, channel.name, file, "--linger", "2s").code == 9
    assert receiver.wait().code == 0
    assert (tmp_path / "output" / file.name).read_bytes() == b""
    (line := tmp_path / "line").write_text("a message\n")
    assert processes.run("publish", scanner, channel.name, line).code == 0
    finished = subscriber.wait()
    assert finished.out == "a message\n", "the pieces of files are no messages"
    assert "`sealcast receive` takes them" in finished.err


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


async def test_c10_a_lost_file_is_told_and_the_next_one_taken(
    site: Site, channel: Channel, tmp_path: Path
) -> None:
    """A publisher that says another hash, and names that lead out of the folder."""
    scanner, archive = site.enrol("scanner", "archive-1")
    output = tmp_path / "output"
    receiver = site.receive(archive, channel, output, "--count", "1")
    async with Device.open(scanner).publisher(channel.name, linger=0.5) as publisher, asyncio.timeout(30):

        async def transfer(name: str, data: bytes, sha256: bytes) -> None:
            offer = Offer(number=0, count=1, name=name, size=len(data), sha256=sha256)
            part = Part(file=offer.id, offset=0, data=memoryview(data))
            for message in (offer, part):
                await publisher.send(message.serialize(), topic=TOPIC)

        await transfer("spoilt.bin", b"0123", bytes(32))
        await transfer("../escape", b"0123", hashlib.sha256(b"0123").digest())
        for name in ("spoilt.bin", "../escape"):
            await asyncio.to_thread(receiver.wait_line, f"lost: file '{name}' of scanner", errors=True)
        assert receiver.is_running
        await transfer("good.bin", b"0123", hashlib.sha256(b"0123").digest())
        finished = await asyncio.to_thread(receiver.wait)
    assert finished.code == 9
    assert finished.err.splitlines()[-1].startswith(
        "sealcast: error: lost in part: 'spoilt.bin', '../escape' ("
    )
    assert [path.name for path in output.iterdir()] == ["good.bin"]
    assert not (tmp_path / "escape").exists()


def test_nobody_has_joined(site: Site, processes: Processes, channel: Channel, tmp_path: Path) -> None:
    scanner, archive = site.enrol("scanner", "archive-1")
    [file] = make_files(tmp_path / "source", 100_000)
    # One that was there and has left counts as nobody.
    assert site.receive(archive, channel, tmp_path / "output").stop().code == 130
    sent = processes.run("send", scanner, channel.name, file, "--linger", "1s")
    assert sent.code == 9
    assert sent.err.count("\n") == 1
    assert sent.err.startswith("sealcast: error: nobody has joined channel 'icu3/files' (")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_receiver_that_was_stopped_goes_on(
    site: Site, processes: Processes, tmp_path: Path, number: signal.Signals
) -> None:
    """It needs nothing again that it had; nothing has the file's name before it is whole."""
    channel = site.add_channel("icu3/files", "--rate", "50Mbit/s")
    scanner, archive = site.enrol("scanner", "archive-1")
    size = 15_000_000
    [file] = make_files(tmp_path / "source", size)
    output = tmp_path / "output"
    receiver = site.receive(archive, channel, output)
    sender = processes.start("send", scanner, channel.name, file, "--json")
    with Watch(output) as watch:
        wait_until(lambda: has_pieces(output, 8), "the receiver has a part of the file")
        finished = receiver.stop(number)
        if number == signal.SIGINT:
            assert finished.code == 130
            assert re.search(rf"interrupted: \d+ of {size} bytes of '{file.name}' are kept", finished.err)
        had = bytes_of_pieces(output)
        again = site.receive(archive, channel, output, "--count", "1", "--json")
        sent = sender.wait()
        assert sent.code == 0, sent.err
        received = again.wait()
    assert (received.code, len(received.out.splitlines())) == (0, 1), received.err
    assert [path.name for path in output.iterdir()] == [file.name]
    assert (output / file.name).read_bytes() == file.read_bytes()
    assert watch.sizes == {file.name: {size}}
    told, counters = map(json.loads, sent.out.splitlines())
    assert told["receivers"] == ["archive-1"]
    # What went out while nobody listened is sent again, and no more.
    assert counters["bytes"] < OVERHEAD * (2 * size - had)


def test_a_sender_that_was_killed_goes_on(site: Site, processes: Processes, tmp_path: Path) -> None:
    channel = site.add_channel("icu3/files", "--rate", "50Mbit/s")
    scanner, archive = site.enrol("scanner", "archive-1")
    small, large = make_files(tmp_path / "source", 600_000, 12_000_000)
    output = tmp_path / "output"
    receiver = site.receive(archive, channel, output, "--json")
    words = ("send", scanner, channel.name, small, large, "--json")
    killed = processes.start(*words)
    wait_until(lambda: has_pieces(output, 16), "the receiver has a part of the file")
    killed.stop(signal.SIGKILL)
    left = 12_000_000 - bytes_of_pieces(output)
    sent = processes.run(*words)
    assert sent.code == 0, sent.err
    *told, counters = map(json.loads, sent.out.splitlines())
    assert [file["receivers"] for file in told] == [["archive-1"]] * 2
    assert counters["bytes"] < OVERHEAD * left, "what was there is not sent anew"
    assert (output / large.name).read_bytes() == large.read_bytes()
    # Sent once more, nothing goes out, and nobody is told anew.
    assert json.loads(processes.run(*words).out.splitlines()[-1])["bytes"] < 100_000
    assert receiver.stop().code in (9, 130)
    assert len(receiver.out) == 2


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
    assert (sent.code, "refused by archive-1: 'image 0 µ.bin' (another file" in sent.err) == (9, True), (
        sent.err
    )
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
    assert (finished.code, finished.err) == (
        130, "sealcast: interrupted: the same command sends what receivers do not have yet\n"
    )  # fmt: skip
    receiver.wait_line(r"lost: file .* of scanner: its publisher has ended; .* kept", errors=True, seconds=5)
    assert not (output / file.name).exists()
    assert receiver.stop().code == 130


def has_pieces(output: Path, count: int) -> bool:
    """Whether a half-written file has so many pieces."""
    return bytes_of_pieces(output) >= count * PIECE_BYTES


def bytes_of_pieces(output: Path) -> int:
    """Of a half-written file: its list has 12 bytes for a piece, behind a head that says its own length."""
    for path in output.glob(".*.have"):
        listed = path.read_bytes()
        if listed:
            head = len(b"sealcast pieces 1\n")
            return (len(listed) - head - 2 - int.from_bytes(listed[head : head + 2])) // 12 * PIECE_BYTES
    return 0
