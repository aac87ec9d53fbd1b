"""Commands on a clock that is wrong by years (fault 15, H1 to H3): they say so, and destroy nothing."""

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sealcast.authority.site import ROOT_FILE
from sealcast.device import DeviceIdentity
from tests.authority.conftest import Site, make_site

pytestmark = pytest.mark.needs_program("faketime")

RUN = "import sys; from sealcast.cli import main; sys.exit(main())"
YEARS = "3650d"


async def at(shift: str, *words: str) -> tuple[int, str, str]:
    """Run `sealcast` on a clock that is `shift` off; its code, output and error."""
    process = await asyncio.create_subprocess_exec(
        "faketime",
        "-f",
        shift,
        sys.executable,
        "-c",
        RUN,
        *words,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # Else no time-out of Python's ends.
        env={**os.environ, "FAKETIME_DONT_FAKE_MONOTONIC": "1"},
    )
    out, err = await process.communicate()
    return process.returncode or 0, out.decode(), err.decode()


@pytest.mark.parametrize("shift", [f"-{YEARS}", f"+{YEARS}"])
async def test_fault_15_h1_h2_a_device_says_what_its_clock_says_and_works_again(
    site: Site, shift: str
) -> None:
    identity = await site.enrol("monitor-1")
    folder = str(identity.path)
    before = sorted(path.read_bytes() for path in identity.credentials.iterdir())
    code, shown, _ = await at(shift, "device", "show", folder)
    assert code == 0
    assert ("has ended" in shown) == shift.startswith("+")
    for words in (("renew", folder), ("run", folder, "--once")):
        code, _, error = await at(shift, "device", *words)
        assert code == 5, error
        told = error.splitlines()[-1]
        assert re.search(
            r"(which|clock) says 20(1|3)\d-|certificate of device 'monitor-1' has expired", told
        ), told
    token = await site.token("monitor-2")
    code, _, error = await at(
        shift,
        *("device", "enroll", str(site.devices / "monitor-2"), "--authority", site.listening.authority),
        *(
            "--root",
            str(site.folder / ROOT_FILE),
            "--name",
            "monitor-2",
            "--token",
            token,
        ),
    )
    assert code == 5
    assert "by the clock of this machine, which says 20" in error
    assert not (site.devices / "monitor-2").exists()
    # The clock is right again: nothing was lost.
    assert sorted(path.read_bytes() for path in DeviceIdentity.open(folder).credentials.iterdir()) == before
    code, _, error = await at("+0", "device", "renew", folder)
    assert code == 0, error


async def test_h3_a_device_that_boots_in_1970_enrols_only_with_a_clock(site: Site) -> None:
    token = await site.token("monitor-1")
    words = (
        *("device", "enroll", str(site.devices / "monitor-1"), "--authority", site.listening.authority),
        *("--root", str(site.folder / ROOT_FILE), "--name", "monitor-1", "--token", token),
    )
    code, _, error = await at("@1970-01-02 00:00:00", *words)
    assert code == 5
    assert "by the clock of this machine, which says 1970-01-0" in error
    # The token is still good, and time from NTP or by hand is all that was missing.
    code, _, error = await at("+0", *words)
    assert code == 0, error


async def test_fault_15_the_status_of_an_authority_says_what_has_ended(tmp_path: Path) -> None:
    folder = str(make_site(tmp_path / "authority"))
    code, shown, _ = await at(f"+{YEARS}", "authority", "status", folder)
    assert code == 0
    assert "site CA 'Ward CA' has ended" in shown
    code, shown, _ = await at(f"-{YEARS}", "authority", "status", folder)
    assert (code, "warning" in shown) == (0, False)
