"""The data commands in a shell's pipes: nothing is held back, and Ctrl-C ends what waits for a pipe."""

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.e2e.processes import Processes
from tests.e2e.site import Site

pytestmark = pytest.mark.installed


def test_a_line_is_delivered_when_it_is_written(site: Site, processes: Processes) -> None:
    monitor, display = site.enrol("monitor", "display")
    channel = site.add_channel("icu3/vitals")
    subscriber = site.subscribe(display, channel)
    publisher = processes.start("publish", monitor, channel.name, stdin=subprocess.PIPE)
    for number in range(5):
        publisher.write(f"{number}\n".encode())
        assert subscriber.wait_lines(number + 1)[-1] == f"{number}\n"
    publisher.close_input()
    assert publisher.wait().code == 0


def test_ctrl_c_ends_a_publisher_that_waits_for_a_line(site: Site, processes: Processes) -> None:
    monitor, display = site.enrol("monitor", "display")
    channel = site.add_channel("icu3/vitals")
    subscriber = site.subscribe(display, channel)
    publisher = processes.start("publish", monitor, channel.name, stdin=subprocess.PIPE)
    publisher.write(b"one\n")
    subscriber.wait_lines(1)
    finished = publisher.stop()
    assert (finished.code, finished.err) == (130, "")


def test_ctrl_c_ends_a_publisher_that_waits_for_a_writer(
    site: Site, processes: Processes, tmp_path: Path
) -> None:
    """Opening a named pipe waits until somebody writes to it."""
    [monitor] = site.enrol("monitor")
    channel = site.add_channel("icu3/vitals")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    publisher = processes.start("--debug", "publish", monitor, channel.name, pipe)
    publisher.wait_line("Using selector", errors=True)
    assert publisher.stop().code == 130


def test_ctrl_c_ends_a_subscriber_whose_reader_does_not_read(
    site: Site, processes: Processes, tmp_path: Path
) -> None:
    monitor, display = site.enrol("monitor", "display")
    channel = site.add_channel("icu3/vitals", "--rate", "200Mbit/s")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        subscriber = site.subscribe(display, channel, "--raw", "--output", pipe)
        source = tmp_path / "source"
        source.write_bytes(bytes(2 << 20))
        # More than the pipe takes, so the subscriber stands still by the time that all is sent.
        assert processes.run("publish", monitor, channel.name, source, "--raw").code == 0
        assert subscriber.stop().code == 130
    finally:
        os.close(reader)


def test_a_reader_that_has_seen_enough_is_no_error(site: Site, processes: Processes, tmp_path: Path) -> None:
    """As in `sealcast subscribe … | head -1`."""
    monitor, display = site.enrol("monitor", "display")
    channel = site.add_channel("icu3/vitals")
    reader, writer = os.pipe()
    subscriber = site.subscribe(display, channel, stdout=writer)
    os.close(writer)
    os.close(reader)
    source = tmp_path / "source"
    source.write_bytes(b"line\n" * 10)
    assert processes.run("publish", monitor, channel.name, source).code == 0
    assert subscriber.wait().code == 0
    assert "error" not in "".join(subscriber.err)


def test_sigterm_ends_like_ctrl_c(site: Site) -> None:
    [display] = site.enrol("display")
    subscriber = site.subscribe(display, site.add_channel("icu3/vitals"))
    assert subscriber.stop(signal.SIGTERM).code == 130
