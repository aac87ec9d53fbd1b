"""A device that was enrolled by programs of others is a device to every language."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.e2e.site import command
from tests.sdk.conftest import Stage
from tests.sdk.languages import ROOT

ENROLL = ROOT / "examples" / "enroll_by_curl.sh"
pytestmark = pytest.mark.needs_program("curl", "openssl", "awk")


def enroll(stage: Stage, folder: Path, token: str) -> subprocess.CompletedProcess[str]:
    site = stage.site
    return subprocess.run(
        [ENROLL, folder, folder.name, site.url, site.keys_url, site.root],
        input=f"{token}\n",
        capture_output=True,
        text=True,
        check=False,
    )


def test_enrolled_by_curl(stage: Stage, tmp_path: Path) -> None:
    """Two devices; one publishes in C, the other subscribes in Python, and both are renewed by ours."""
    channel, pump, display = stage.channel(), tmp_path / "pump", tmp_path / "display"
    for folder in (pump, display):
        done = enroll(stage, folder, stage.site.token(folder.name))
        assert (done.returncode, done.stdout) == (0, f"enrolled {folder.name} into {folder}\n"), done.stderr
        assert (folder / "credentials/1/key.pem").stat().st_mode & 0o077 == 0
    for folder in (pump, display):
        command("device", "renew", folder)
        kept = stage.processes.run("device", "run", folder, "--once")
        assert kept.code == 0, kept.err
    hearing = stage.peer("python", "subscribe", display, channel)
    speaking = stage.peer("c", "publish", pump, channel)
    speaking.write(b"send - by any EST client\n")
    assert f"message {pump.name} " in hearing.wait_line("^message .* by any EST client$")


def test_what_curl_is_refused_leaves_no_device(stage: Stage, tmp_path: Path) -> None:
    folder = tmp_path / "pump"
    done = enroll(stage, folder, "wrong")
    assert done.returncode != 0
    assert "401" in done.stderr
    assert not (folder / "current").exists()
    done = enroll(stage, folder, stage.site.token("pump"))
    assert done.returncode == 0, done.stderr
    again = enroll(stage, folder, "never read")
    assert (again.returncode, "holds a device already" in again.stderr) == (4, True)
