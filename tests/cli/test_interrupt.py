"""Ctrl-C or SIGTERM on whatever runs long: exit code 130 (of a service 0), no traceback, nothing left."""

import re
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from tests.e2e.processes import Process, Processes, wait_until
from tests.e2e.site import Site

pytestmark = pytest.mark.installed


def assert_clean(process: Process, number: signal.Signals = signal.SIGINT) -> None:
    before = len(process.err)
    finished = process.stop(number, 15)
    assert finished.code == 130, finished
    assert process.err[before:] == []


def test_subscribe_and_receive(site: Site, tmp_path: Path) -> None:
    [display] = site.enrol("display-1")
    channel = site.add_channel("one")
    assert_clean(site.subscribe(display, channel))
    assert_clean(site.subscribe(display, channel), signal.SIGTERM)
    assert_clean(site.receive(display, channel, tmp_path / "output"))
    assert list((tmp_path / "output").iterdir()) == []


def test_publish_while_it_waits_for_input_while_it_sends_and_while_it_lingers(
    site: Site, processes: Processes, tmp_path: Path
) -> None:
    monitor, display = site.enrol("monitor-2", "display-2")
    channel = site.add_channel("two", "--rate", "1Mbit/s")
    subscriber = site.subscribe(display, channel)
    waiting = processes.start("publish", monitor, channel.name, stdin=subprocess.PIPE)
    waiting.write(b"waiting\n")
    subscriber.wait_line("waiting")
    assert_clean(waiting)
    source = tmp_path / "source"
    source.write_text("sending\n" * 1_000_000)
    sending = processes.start("publish", monitor, channel.name, source)
    subscriber.wait_line("sending")
    finished = sending.stop(seconds=5)
    assert finished.code == 130
    [told] = re.findall(r"^sealcast: interrupted: (\d+) of (\d+) messages sent$", finished.err, re.MULTILINE)
    sent, taken = map(int, told)
    assert 0 < sent < taken <= 1_000_000
    # What it says is what is delivered; and the end is known, so that nobody asks for more.
    wait_until(lambda: subscriber.out.count("sending\n") == sent, "all that had gone out")
    source.write_text("lingering\n")
    lingering = processes.start("publish", monitor, channel.name, source, "--linger", "1h")
    subscriber.wait_line("lingering")
    assert_clean(lingering)


def test_send_while_it_waits_for_somebody_and_for_acknowledgements(
    site: Site, processes: Processes, tmp_path: Path
) -> None:
    scanner, other = site.enrol("scanner-3", "other-3")
    channel = site.add_channel("three")
    file = tmp_path / "file"
    file.write_bytes(b"content")
    lonely = processes.start("--debug", "send", scanner, channel.name, file, "--linger", "1h")
    lonely.wait_line("Using selector", errors=True)
    assert lonely.stop().code == 130
    site.subscribe(other, channel)  # takes no files, so acknowledges none
    waiting = processes.start("send", scanner, channel.name, file, "--linger", "1h")
    waiting.wait_line("file: 7 bytes", errors=True)
    finished = waiting.stop(seconds=15)
    assert finished.code == 130
    assert finished.err.splitlines()[-1].startswith("sealcast: interrupted: the same command sends")


def test_a_join_that_nobody_answers(site: Site, processes: Processes) -> None:
    """A key server that takes the connection and says nothing."""
    [display] = site.enrol("display-4")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        settings = display / "credentials" / "1" / "device.toml"
        port = silent.getsockname()[1]
        settings.write_text(settings.read_text().replace(site.keys_url, f"https://127.0.0.1:{port}"))
        process = processes.start("subscribe", display, "any")
        silent.settimeout(30)
        connection, _ = silent.accept()
        with connection:
            assert_clean(process)


def test_enrolment_that_nobody_answers(site: Site, processes: Processes, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        process = processes.start(
            "device", "enroll", tmp_path / "device", "--authority", f"https://127.0.0.1:{silent.getsockname()[1]}",
            "--root", site.root, "--name", "new", "--token", "x",
        )  # fmt: skip
        silent.settimeout(30)
        connection, _ = silent.accept()
        with connection:
            assert_clean(process)
    assert not (tmp_path / "device").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_serve(processes: Processes, tmp_path: Path, number: signal.Signals) -> None:
    """A service that is told to stop has done its work: 0."""
    own = Site.start(tmp_path, processes)
    [display] = own.enrol("display")
    subscriber = own.subscribe(display, own.add_channel("all"))
    finished = own.authority.stop(number, 15)
    assert (finished.code, finished.err) == (0, "")
    assert not (own.folder / "control.sock").exists()
    assert not list(own.folder.glob("authority.db-*"))
    # And whoever was connected is still on its feet.
    wait_until(lambda: subscriber.is_running, "the subscriber goes on")
    assert subscriber.stop().code == 130
    own.serve()
