"""`sealcast peer`: messages between two devices, in processes of their own (SC-35 to SC-38)."""

import base64
import json
import signal
import subprocess
from pathlib import Path

import pytest

from sealcast import cli
from tests.cli.test_interrupt import assert_clean
from tests.e2e.processes import Process, Processes
from tests.e2e.site import Site


@pytest.fixture(scope="module")
def devices(site: Site) -> tuple[Path, Path]:
    """Two that a policy pairs, and one beside them that none does."""
    monitor, display, _ = site.enrol("monitor", "display", "lonely")
    site.add_channel("ward/ecg", publish="monitor", subscribe="display")
    return monitor, display


def inbox(processes: Processes, folder: Path, *options: str | Path) -> Process:
    """Start `sealcast peer inbox` and wait until it listens."""
    process = processes.start("peer", "inbox", folder, *options)
    process.wait_line("takes messages at", errors=True)
    return process


def test_lines_go_both_ways(processes: Processes, devices: tuple[Path, Path], tmp_path: Path) -> None:
    monitor, display = devices
    lines = [f"{number}".encode() for number in range(3000)]
    lines[7], lines[8] = b"", "µ".encode() * 10_000
    source, output = tmp_path / "source", tmp_path / "output"
    source.write_bytes(b"".join(line + b"\n" for line in lines))
    at_display = inbox(processes, display, "--output", output, "--count", str(len(lines)))
    at_monitor = inbox(processes, monitor, "--json", "--count", "1")
    sent = processes.run("peer", "send", monitor, "display", source, "--json")
    assert (sent.code, json.loads(sent.out)) == (0, {"sent": len(lines), "waiting": 0}), sent.err
    assert at_display.wait().code == 0
    assert output.read_bytes() == source.read_bytes()
    back = processes.start("peer", "send", display, "monitor", "--topic", "reply", stdin=subprocess.PIPE)
    back.write(b"yes\n")
    back.close_input()
    finished = back.wait()
    assert (finished.code, finished.err) == (0, "sealcast: 1 messages sent, nothing waits for monitor\n")
    [message] = map(json.loads, at_monitor.wait().out.splitlines())
    assert (message["sender"], message["topic"], len(bytes.fromhex(message["id"]))) == (
        "display",
        "reply",
        16,
    )
    assert base64.b64decode(message["data"]) == b"yes"


def test_what_is_not_delivered_waits_over_kills_of_both(
    processes: Processes,
    devices: tuple[Path, Path],
    tmp_path: Path,
) -> None:
    def send(*words: str | Path) -> tuple[int, str]:
        finished = processes.run("peer", "send", monitor, "display", *words)
        return finished.code, finished.err

    monitor, display = devices
    source = tmp_path / "source"
    source.write_text("one\ntwo\n")
    code, err = send(source, "--wait", "500ms")
    assert code == 9
    assert "2 messages for 'display' are not delivered yet: cannot reach display" in err
    queued = "sealcast: 2 messages sent, 4 wait in the outbox for display\n"
    assert send(source, "--wait", "0") == (0, queued)
    killed = processes.start("peer", "send", monitor, "display", stdin=subprocess.PIPE)
    killed.write(b"three\n")
    receiver = inbox(processes, display, "--raw", "--output", tmp_path / "lost")
    killed.stop(signal.SIGKILL)
    receiver.stop(signal.SIGKILL)
    # What came in before the kill, and what did not, each once but for what was being written.
    at_display = inbox(processes, display)
    assert send("--queued") == (0, "sealcast: 0 messages sent, nothing waits for display\n")
    last = tmp_path / "last"
    last.write_text("last\n")
    assert send(last)[0] == 0
    at_display.wait_line("last")
    told = (tmp_path / "lost").read_bytes().decode() + "".join(at_display.out).replace("\n", "")
    assert told in ("onetwoonetwothreelast", "onetwoonetwolast")


def test_ctrl_c_is_clean_and_one_process_takes_messages(
    processes: Processes, devices: tuple[Path, Path]
) -> None:
    monitor, display = devices
    assert_clean(inbox(processes, display), signal.SIGTERM)
    reading = processes.start("peer", "send", monitor, "display", stdin=subprocess.PIPE)
    at_display = inbox(processes, display)
    second = processes.run("peer", "inbox", display)
    assert (second.code, "another process takes the messages" in second.err) == (8, True)
    reading.write(b"hello\n")
    at_display.wait_line("hello")
    assert_clean(at_display)
    reading.write(b"nobody there\n")
    finished = reading.stop()
    assert finished.code == 130
    assert finished.err in (
        "",
        "sealcast: interrupted: 1 messages for display wait in the outbox\n",
    )


BAD = (
    (("send", "monitor", "lonely"), 6, "no channel's policy lists both this device and 'lonely'"),
    (("send", "monitor", "nobody"), 6, "no channel's policy lists both this device and 'nobody'"),
    (("send", "monitor", "monitor"), 2, "'monitor' is this very device"),
    (("send", "monitor", "a b"), 2, "not a device name: 'a b'"),
    (("send", "monitor", "display", "--wait", "soon"), 2, "soon"),
    (("send", "monitor", "display", "--topic", "t" * 256), 2, "a topic of 256 bytes"),
    (("send", "monitor", "display", "/nowhere"), 8, "/nowhere"),
    (("send", "nowhere", "display"), 8, "holds no device"),
    (("inbox", "monitor", "--listen", "here"), 2, "'here' is not ADDR:PORT"),
    (("inbox", "monitor", "--listen", "192.0.2.7:1"), 3, "cannot listen on 192.0.2.7:1"),
    (("inbox", "monitor", "--site", "North"), 2, "--site and --keys belong together"),
)


def test_bad_input_is_one_line_with_the_value(
    site: Site, devices: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = tmp_path / "line"
    line.write_text("x\n")
    for (name, device, *rest), code, says in BAD:
        source = [str(line)] if name == "send" and "/nowhere" not in rest else []
        found = cli.main(["peer", name, str(site.devices / device), *rest, *source])
        err = capsys.readouterr().err
        assert (found, err.count("\n"), says in err) == (code, 1, True), (name, rest, err)
        assert err.startswith("sealcast: error: ")


def test_a_revoked_device_is_told_so(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    gone, _ = site.enrol("gone", "there")
    site.add_channel("ward/gone", publish="gone", subscribe="there")
    site.revoke("gone")
    for words in (("inbox", gone), ("send", gone, "there", "--queued")):
        assert cli.main(["peer", *map(str, words)]) == 5
        assert "'gone' is revoked" in capsys.readouterr().err
