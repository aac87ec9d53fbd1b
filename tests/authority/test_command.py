"""`sealcast authority`: output, exit codes, one line for each mistake; with a service running and without."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sealcast.authority.quantities import parse_address, parse_duration, parse_rate, parse_size
from sealcast.authority.site import ROOT_FILE, SOCKET_FILE
from sealcast.cli import main
from sealcast.errors import UsageError
from tests.forks import Forked

RUN = "import sys; from sealcast.cli import main; sys.exit(main())"
CHANNEL = ("--group", "239.192.0.1", "--port", "5000", "--publish", "monitor-*", "--subscribe", "*")


class Command:
    """`sealcast authority …` in this process; what it printed and returned."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self.out = self.err = ""

    def __call__(self, *arguments: object) -> int:
        code = main(["authority", *(str(argument) for argument in arguments)])
        self.drain()
        return code

    def drain(self) -> None:
        """Take what was printed up to now."""
        self.out, self.err = self._capsys.readouterr()


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(capsys)


@contextmanager
def serving(
    folder: Path, *options: str, forked: bool = True
) -> Iterator[tuple[subprocess.Popen[str] | Forked, dict[str, str]]]:
    """A service in a process of its own; gives it, and what its ready line says."""
    words = ("authority", "serve", str(folder), "--listen", "127.0.0.1:0", "--json", *options)
    process = (
        Forked(words, text=True)
        if forked
        else subprocess.Popen(
            [sys.executable, "-c", RUN, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
    )
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        line = process.stdout.readline()
        yield process, json.loads(line) if line else {}
    finally:
        process.terminate()
        process.wait(timeout=20)
        process.stdout.close()
        process.stderr.close()


class TestWithoutService:
    def test_from_init_to_list(self, command: Command, tmp_path: Path) -> None:
        folder = tmp_path / "authority"
        assert command("init", folder, "--site", "Ward") == 0
        assert str(folder / ROOT_FILE) in command.out
        assert "root.key" in command.err
        assert (
            command("channel", "add", folder, "ward/ecg", *CHANNEL, "--rate", "5Mbit/s", "--slot", "30m") == 0
        )
        assert command("channel", "list", folder, "--json") == 0
        (listed,) = json.loads(command.out)
        assert (listed["name"], listed["rate"], listed["slot_us"]) == ("ward/ecg", 5_000_000, 1_800_000_000)
        assert command("channel", "set", folder, "ward/ecg", "--subscribe", "display-*") == 0
        assert command("channel", "list", folder, "--json") == 0
        assert json.loads(command.out)[0]["subscribe"] == ["display-*"]
        assert command("device", "list", folder, "--json") == 0, command.err
        assert json.loads(command.out) == []

    def test_the_token_is_alone_on_standard_output(self, command: Command, folder: Path) -> None:
        assert command("token", folder, "--device", "monitor-1") == 0
        assert re.fullmatch(r"[a-z2-7]{32}\n", command.out)

    @pytest.mark.parametrize(
        ("arguments", "code", "value"),
        [
            (("token", "DIR", "--device", "../x"), 2, "'../x'"),
            (("token", "DIR", "--device", "a", "--ttl", "soon"), 2, "'soon'"),
            (("channel", "add", "DIR", "/x", *CHANNEL), 2, "'/x'"),
            (("channel", "add", "DIR", "x", *CHANNEL, "--rate", "5x"), 2, "'5x'"),
            (("channel", "add", "DIR", "x", *CHANNEL, "--slot", "0s"), 2, "'0s'"),
            (("channel", "add", "DIR", "x", *CHANNEL, "--suite", "9"), 2, "suite 9"),
            (("channel", "add", "DIR", "x", *CHANNEL, "--slots-ahead", "31"), 2, "31"),
            (("channel", "add", "DIR", "x", *CHANNEL, "--group", "10.0.0.1"), 2, "'10.0.0.1'"),
            (("channel", "add", "DIR", "x", *CHANNEL, "--group", "224.0.0.5"), 2, "224.0.0.5"),
            (("channel", "add", "DIR", "x", *CHANNEL, "--group", "nowhere"), 2, "'nowhere'"),
            (("channel", "add", "DIR", "x", *CHANNEL, "--port", "0"), 2, "0"),
            (("channel", "add", "DIR", "x", *CHANNEL, "--publish", "a b"), 2, "'a b'"),
            (("channel", "set", "DIR", "none", "--publish", "a"), 6, "'none'"),
            (("channel", "set", "DIR", "none"), 2, "nothing to change"),
            (("device", "revoke", "DIR", "nobody"), 2, "'nobody'"),
            (("init", "DIR", "--site", "x"), 8, "not an empty folder"),
            (("init", "NEW", "--site", "x", "--root-cert", "f"), 2, "--root-key"),
            (("init", "NEW", "--site", "x", "--host-name", "a..b"), 2, "a..b"),
            (("serve", "DIR", "--listen", "8443"), 2, "'8443'"),
            (("serve", "NEW"), 8, "no authority's folder"),
        ],
        ids=lambda value: " ".join(value) if isinstance(value, tuple) else str(value),
    )
    def test_a_mistake_is_one_line_with_value_and_cure(
        self,
        command: Command,
        folder: Path,
        tmp_path: Path,
        arguments: tuple[str, ...],
        code: int,
        value: str,
    ) -> None:
        places = {"DIR": str(folder), "NEW": str(tmp_path / "new")}
        assert command(*(places.get(argument, argument) for argument in arguments)) == code
        assert command.out == ""
        assert re.fullmatch(r"sealcast: error: [^\n]+ \([^\n]+\)\n", command.err), command.err
        assert value in command.err
        assert not (tmp_path / "new").exists()


class TestWithService:
    def test_commands_take_effect_at_once(self, command: Command, folder: Path, tmp_path: Path) -> None:
        """Token, channel and removal made beside a running service."""
        with serving(folder) as (process, urls):
            assert command("channel", "add", folder, "ward/ecg", *CHANNEL) == 0
            assert command("token", folder, "--device", "monitor-1") == 0
            device = tmp_path / "monitor-1"
            assert enrol(device, folder, urls, command.out.strip()) == 0
            command.drain()
            assert command("channel", "list", folder, "--json") == 0
            assert json.loads(command.out)[0]["publishers"] == ["monitor-1"]
            assert command("device", "revoke", folder, "monitor-1") == 0
            assert command.out == "monitor-1 is revoked\n"
            assert main(["device", "renew", str(device)]) != 0
            command.drain()
            assert command("device", "revoke", folder, "monitor-1") == 0
            assert command.out == "monitor-1 was revoked before\n"
            assert command("device", "revoke", folder, "nobody") == 2
            assert "unknown device 'nobody'" in command.err
            assert "device list" in command.err, "the cure comes through the socket too"
            assert process.poll() is None

    def test_a_second_service_is_refused(self, command: Command, folder: Path) -> None:
        with serving(folder):
            assert command("serve", folder) == 8
            assert "another process" in command.err

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_it_ends_cleanly(self, folder: Path, number: signal.Signals) -> None:
        with serving(folder, forked=False) as (process, _):
            assert (folder / SOCKET_FILE).exists()
            started = time.monotonic()
            process.send_signal(number)
            assert process.wait(timeout=10) == 0
            assert time.monotonic() - started < 5
            assert process.stderr is not None
            assert process.stderr.read() == ""
        assert not (folder / SOCKET_FILE).exists()

    def test_a_killed_one_leaves_nothing_that_matters(self, command: Command, folder: Path) -> None:
        with serving(folder) as (process, _):
            process.kill()
            process.wait()
        assert (folder / SOCKET_FILE).exists()
        assert command("token", folder, "--device", "monitor-1") == 0
        with serving(folder) as (_, urls):
            assert urls

    def test_a_port_in_use_is_named(self, command: Command, folder: Path) -> None:
        with serving(folder) as (_, urls):
            port = urls["authority"].rpartition(":")[2]
            other = folder.parent / "other"
            assert command("init", other, "--site", "Other") == 0
            assert command("serve", other, "--listen", f"127.0.0.1:{port}") == 3
            assert f"127.0.0.1:{port}: the port is in use" in command.err
            assert command("serve", other, "--listen", "127.0.0.1:0", "--keys", f"127.0.0.1:{port}") == 3

    def test_a_folder_with_a_long_name(self, command: Command, tmp_path: Path) -> None:
        """A socket's name holds 107 bytes."""
        folder = tmp_path / ("d" * 100) / "authority"
        assert command("init", folder, "--site", "Ward") == 0
        with serving(folder):
            assert command("token", folder, "--device", "monitor-1") == 0


def enrol(device: Path, folder: Path, urls: dict[str, str], token: str) -> int:
    return main(
        [
            *("device", "enroll", str(device), "--authority", urls["authority"], "--keys", urls["keys"]),
            *("--root", str(folder / ROOT_FILE), "--name", "monitor-1", "--token", token),
        ]
    )


class TestQuantities:
    @pytest.mark.parametrize(
        ("text", "value"),
        [
            ("1h", 3_600_000_000),
            ("90", 90_000_000),
            ("500ms", 500_000),
            ("1.5m", 90_000_000),
            ("2d", 172_800_000_000),
        ],
    )
    def test_durations(self, text: str, value: int) -> None:
        assert parse_duration(text) == value

    @pytest.mark.parametrize(
        ("text", "value"),
        [
            ("20Mbit/s", 20_000_000),
            ("500k", 500_000),
            ("1G", 10**9),
            ("250000", 250_000),
            ("2.5 Mbps", 2_500_000),
        ],
    )
    def test_rates(self, text: str, value: int) -> None:
        assert parse_rate(text) == value

    @pytest.mark.parametrize(("text", "value"), [("256M", 2**28), ("64KiB", 65_536), ("10", 10)])
    def test_sizes(self, text: str, value: int) -> None:
        assert parse_size(text) == value

    @pytest.mark.parametrize("text", ["", "x", "-1s", "1y", "1 2s", "1s2", "٣s", "0"])
    def test_what_is_no_duration(self, text: str) -> None:
        with pytest.raises(UsageError):
            parse_duration(text)

    @pytest.mark.parametrize("text", ["", "fast", "20Mbyte", "0k", "-5k", "1e6"])
    def test_what_is_no_rate(self, text: str) -> None:
        with pytest.raises(UsageError):
            parse_rate(text)

    def test_addresses(self) -> None:
        address = parse_address("[2001:db8::7]:8443")
        assert (address.host, address.port, address.url(1)) == (
            "2001:db8::7",
            8443,
            "https://[2001:db8::7]:1",
        )
        assert parse_address("host:0").host == "host"

    @pytest.mark.parametrize("text", ["host", "host:", ":1", "host:65536", "::1:5", "host:+5", "host:٣"])
    def test_what_is_no_address(self, text: str) -> None:
        with pytest.raises(UsageError):
            parse_address(text)


def test_invariant_9_no_secret_stands_in_an_argument(folder: Path) -> None:
    """What a running service shows to `ps`."""
    with serving(folder, forked=False) as (process, _):
        shown = Path(f"/proc/{process.pid}/cmdline").read_bytes()
        assert (folder / "storage.key").read_bytes() not in shown
        limits = Path(f"/proc/{process.pid}/limits").read_text()
        assert re.search(r"Max core file size +0 ", limits), "no core dump of a process that holds secrets"
    assert os.environ.get("SEALCAST_TOKEN") is None
