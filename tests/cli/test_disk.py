"""Disks that are full, files that vanish: one line, exit code 8, nothing half-written."""

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.processes import Finished, Processes, wait_until
from tests.e2e.site import Site, command


def assert_one_line(finished: Finished, *says: str, code: int = 8) -> None:
    assert finished.code == code, finished.err
    errors = [line for line in finished.err.splitlines() if line.startswith("sealcast: error: ")]
    assert len(errors) == 1, finished.err
    assert re.fullmatch(r"sealcast: error: .+ \(.+\)", errors[0])
    assert all(word in errors[0] for word in says), errors[0]
    assert "Traceback" not in finished.err


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mount.returncode != 0:
        pytest.skip("only root can mount a small disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path) -> None:
    with (folder / "filler").open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return


def test_output_onto_a_full_disk(site: Site, processes: Processes, tmp_path: Path) -> None:
    monitor, display = site.enrol("monitor-1", "display-1")
    channel = site.add_channel("disk/1")
    process = processes.start("subscribe", display, channel.name, "--output", "/dev/full")
    process.wait_line("joined", errors=True)
    source = tmp_path / "source"
    source.write_text("a line\n")
    assert processes.run("publish", monitor, channel.name, source, "--linger", "100ms").code == 0
    assert_one_line(process.wait(), "/dev/full: No space left on device")


def test_standard_output_onto_a_full_disk(site: Site, processes: Processes, tmp_path: Path) -> None:
    monitor, display = site.enrol("monitor-2", "display-2")
    channel = site.add_channel("disk/2")
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        process = processes.start("subscribe", display, channel.name, stdout=full)
    finally:
        os.close(full)
    process.wait_line("joined", errors=True)
    source = tmp_path / "source"
    source.write_text("a line\n")
    assert processes.run("publish", monitor, channel.name, source, "--linger", "100ms").code == 0
    assert_one_line(process.wait(), "standard output: No space left on device")


def test_a_file_that_does_not_fit(site: Site, processes: Processes, small_disk: Path, tmp_path: Path) -> None:
    scanner, archive = site.enrol("scanner-3", "archive-3")
    channel = site.add_channel("disk/3", "--rate", "100Mbit/s")
    file = tmp_path / "large"
    file.write_bytes(os.urandom(1_000_000))
    process = processes.start("receive", archive, channel.name, "--output", small_disk)
    process.wait_line("joined", errors=True)
    sender = processes.start("send", scanner, channel.name, file, "--linger", "5s")
    says = "no room: 1000000 bytes are to come"
    process.wait_line(f"lost: file 'large' of scanner-3: {says}", errors=True)
    assert_one_line(sender.wait(), f"refused by archive-3: 'large' ({says}", code=9)
    assert list(small_disk.iterdir()) == []
    # Others may fit.
    assert process.stop().code == 130


def test_enrolment_onto_a_full_disk(site: Site, processes: Processes, small_disk: Path) -> None:
    fill(small_disk)
    finished = processes.run(
        "device", "enroll", small_disk / "device", "--authority", site.url, "--keys", site.keys_url,
        "--root", site.root, "--name", "monitor-4", "--token", site.token("monitor-4"),
    )  # fmt: skip
    assert_one_line(finished, str(small_disk), "No space left on device")
    assert [path.name for path in small_disk.iterdir()] == ["filler"]


def test_renewal_onto_a_full_disk(site: Site, processes: Processes, small_disk: Path) -> None:
    """The certificate that is there stays good."""
    folder = small_disk / "device"
    command(
        "device", "enroll", folder, "--authority", site.url, "--keys", site.keys_url,
        "--root", site.root, "--name", "monitor-5", "--token", site.token("monitor-5"),
    )  # fmt: skip
    before = command("device", "show", folder)
    fill(small_disk)
    assert_one_line(processes.run("device", "renew", folder), "No space left on device")
    assert command("device", "show", folder) == before
    (small_disk / "filler").unlink()
    command("device", "renew", folder)


def test_an_authority_onto_a_full_disk(processes: Processes, small_disk: Path) -> None:
    """The disk has room for the keys, and not for the database."""
    finished = processes.run("authority", "init", small_disk / "authority", "--site", "Ward")
    if finished.code == 0:
        pytest.fail("256 KiB are enough for an authority: make the disk smaller")
    assert_one_line(finished, str(small_disk))
    assert list(small_disk.iterdir()) == []


def test_a_file_that_shrinks_while_it_is_sent(site: Site, processes: Processes, tmp_path: Path) -> None:
    scanner, archive = site.enrol("scanner-6", "archive-6")
    channel = site.add_channel("disk/6", "--rate", "10Mbit/s")
    file, output = tmp_path / "source", tmp_path / "output"
    file.write_bytes(bytes(10_000_000))
    receiver = site.receive(archive, channel, output)
    sender = processes.start("send", scanner, channel.name, file)
    wait_until(lambda: any(output.iterdir()), "the file has begun")
    os.truncate(file, 1000)
    assert_one_line(sender.wait(), str(file), "changes while it is being sent")
    receiver.wait_line("lost: file 'source' of scanner-6: it changes while it is being sent", errors=True)
    assert receiver.stop().code == 130
    assert list(output.iterdir()) == []


def test_a_repair_node_whose_disk_is_full_goes_on(site: Site, processes: Processes, small_disk: Path) -> None:
    monitor, keeper = site.enrol("monitor-1", "keeper-1")
    command("authority", "device", "set", site.folder, "keeper-1", "--role", "repair-node")
    channel = site.add_channel("disk/kept", publish="monitor-1")
    node = processes.start("repair-node", keeper, channel.name, "--store", small_disk / "store")
    node.wait_line("keeping disk/kept", errors=True)
    fill(small_disk)
    publisher = processes.start("publish", monitor, channel.name, stdin=subprocess.PIPE)

    def has_said(words: str) -> bool:
        publisher.write(b"another line\n")
        return any(words in line for line in node.err)

    wait_until(lambda: has_said("packets are not kept"), "a word on the full disk")
    assert any("store" in line and "No space left on device" in line for line in node.err)
    (small_disk / "filler").unlink()
    wait_until(lambda: has_said("packets are kept again"), "a word on the disk that has room")
    assert node.stop().code == 130
