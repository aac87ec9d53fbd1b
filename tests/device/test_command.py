"""`sealcast device` as it is typed: output, exit codes, one line for each error."""

import asyncio
import io
import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sealcast import cli
from sealcast.errors import NetworkError, TokenError
from sealcast.est import EnrolmentRequest
from tests.device.conftest import Authority, entries

RUN = "import sys; from sealcast.cli import main; sys.exit(main())"


def arguments(there: Authority, folder: Path, /, **changes: str) -> list[str]:
    options = {
        "--authority": there.url,
        "--root": str(there.site.root_file),
        "--name": "monitor-1",
        "--token": there.service.token("monitor-1"),
        **{f"--{key}": value for key, value in changes.items()},
    }
    return ["device", "enroll", str(folder), *(word for pair in options.items() for word in pair)]


async def run(*words: str) -> int:
    """Run a command in a thread, as it makes an event loop of its own."""
    return await asyncio.to_thread(cli.main, words)


async def test_enroll_show_renew(
    authority: Authority, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await run(*arguments(authority, folder)) == 0
    assert "monitor-1" in capsys.readouterr().out
    assert await run("device", "show", str(folder), "--json") == 0
    first = json.loads(capsys.readouterr().out)
    assert first["name"] == "monitor-1"
    assert first["site"] == authority.site.site_id.hex()
    assert first["authority"] == authority.url
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", first["not_after"])
    assert len(first["roots_sha256"]) == 1
    assert await run("device", "renew", str(folder), "--json") == 0
    second = json.loads(capsys.readouterr().out)
    assert second["serial"] != first["serial"]
    assert await run("device", "show", str(folder)) == 0
    assert second["serial"] in capsys.readouterr().out


async def test_the_token_may_come_from_standard_input_or_the_environment(
    authority: Authority, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(authority.service.token("monitor-1") + "\n"))
    assert await run(*arguments(authority, folder, token="-")) == 0
    monkeypatch.setenv("SEALCAST_TOKEN", authority.service.token("monitor-1"))
    without = arguments(authority, tmp_path / "second")[:-2]
    assert await run(*without) == 0


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        ({"token": "wrong"}, 4, "token"),
        ({"name": "a b"}, 2, "not a device name: 'a b'"),
        ({"authority": "http://127.0.0.1:1"}, 3, "'http://127.0.0.1:1'"),
        ({"authority": "https://127.0.0.1:1"}, 7, "https://127.0.0.1:1"),
        ({"root": "/absent.pem"}, 8, "/absent.pem"),
        ({"root": "/etc/passwd"}, 5, "/etc/passwd"),
        ({"keys": "nonsense"}, 3, "'nonsense'"),
    ],
)
async def test_bad_input_is_one_line_with_value_and_cure(
    authority: Authority,
    folder: Path,
    changes: dict[str, str],
    code: int,
    words: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert await run(*arguments(authority, folder, **changes)) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert re.fullmatch(r"sealcast: error: .+ \(.+\)\n", captured.err)
    assert words in captured.err
    assert "Traceback" not in captured.err
    assert entries(folder) is None


@pytest.mark.parametrize(
    "words",
    [
        ("device", "show", "/absent"),
        ("device", "renew", "/absent"),
        ("device", "show", "/etc"),
    ],
)
async def test_a_folder_without_a_device(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert await run(*words) == 8
    assert words[-1] in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [("nonsense",), ("device", "nonsense"), ("device", "show"), ("device", "enroll", "x"), ("--nonsense",)],
)
def test_misuse_is_2(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(words) == 2
    assert re.fullmatch(r"sealcast: error: .+ \(see --help\)\n", capsys.readouterr().err)


@pytest.mark.parametrize("words", [(), ("device",)])
def test_without_a_command_the_help_is_shown(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(words) == 2
    captured = capsys.readouterr()
    assert "Usage: sealcast" in captured.out
    assert captured.err == ""


@pytest.mark.parametrize(
    "words", [("--help",), ("device", "--help"), ("device", "enroll", "--help"), ("device", "show", "-h")]
)
def test_help_is_everywhere(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(words) == 0
    assert "Usage: sealcast" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    from sealcast import __version__

    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"{__version__}\n"


class TestBoundary:
    """What becomes of an error that a command lets through."""

    def fail_with(self, error: BaseException, monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
        def fail(_path: object) -> None:
            raise error

        monkeypatch.setattr("sealcast.device.DeviceIdentity.open", fail)
        return cli.main([*words, "device", "show", "x"])

    @pytest.mark.parametrize(
        ("error", "code"),
        [
            (NetworkError("no \x1b[31mred\n here"), 7),
            (OSError(28, "No space left on device", "/full/disk"), 8),
            (RuntimeError("unforeseen"), 1),
            (KeyboardInterrupt(), 130),
        ],
    )
    def test_exit_codes(
        self,
        error: BaseException,
        code: int,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        assert self.fail_with(error, monkeypatch) == code
        text = capsys.readouterr().err
        assert text.count("\n") == (0 if code == 130 else 1)
        assert "\x1b" not in text
        assert "Traceback" not in text

    def test_debug_adds_the_traceback(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert self.fail_with(RuntimeError("unforeseen"), monkeypatch, "--debug") == 1
        assert "Traceback" in capsys.readouterr().err

    def test_a_closed_pipe_is_no_error(self, tmp_path: Path) -> None:
        process = subprocess.Popen(
            [sys.executable, "-c", RUN, "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 0
        process.stderr.close()


async def test_ctrl_c_ends_with_130_and_keeps_what_was_sent(authority: Authority, folder: Path) -> None:
    waiting, released = asyncio.Event(), asyncio.Event()

    async def slow(request: EnrolmentRequest) -> bytes:
        waiting.set()
        await released.wait()
        raise TokenError("too late")

    authority.service.enroll = slow  # type: ignore[method-assign]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", RUN, *arguments(authority, folder), stderr=subprocess.PIPE
    )
    async with asyncio.timeout(30):
        await waiting.wait()
        process.send_signal(signal.SIGINT)
        _, log = await process.communicate()
    released.set()
    assert process.returncode == 130
    assert log == b""
    assert entries(folder) == ["pending"]
