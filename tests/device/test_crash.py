"""SIGKILL at each system call that changes a file during one enrolment, and during one renewal.

After it a start finds the old device or the new one (at first enrolment: none, or a whole one), and the next
enrolment works and clears up. By default a sample of the calls, with SEALCAST_SOAK=1 all of them.
"""

import asyncio
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from sealcast.device import DeviceIdentity
from sealcast.device.folder import current_credentials
from sealcast.errors import StorageError
from tests.device.conftest import Authority, entries, leftovers

pytestmark = [pytest.mark.needs_program("strace"), pytest.mark.timeout(600)]

CALLS = (
    "openat,write,pwrite64,fsync,fdatasync,rename,renameat,renameat2,unlink,unlinkat,mkdir,mkdirat,rmdir,"
    "symlink,symlinkat,link,linkat,chmod,fchmod,fchmodat,ftruncate,flock"
)
RUN = "import sys; from sealcast.cli import main; sys.exit(main())"
SOAK = os.environ.get("SEALCAST_SOAK") == "1"
SAMPLE = 12
AT_ONCE = 4


async def strace(options: list[str], command: list[str], token: str) -> int | None:
    """Run `sealcast` under strace. Returns: strace's exit code, that of the command; -9 if it was killed."""
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "SEALCAST_TOKEN": token}
    process = await asyncio.create_subprocess_exec(
        "strace", "-f", "-qq", "-y", *options,
        sys.executable, "-c", RUN, *command,
        env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    async with asyncio.timeout(120):
        return await process.wait()


def calls_that_matter(log: str, folder: Path) -> list[tuple[str, int]]:
    """The calls on the folder and what is in it, each as its name and how many of that name came before it.

    strace counts for each thread and each name apart.
    """
    counts: Counter[tuple[str, str]] = Counter()
    found = []
    for thread, name, arguments in re.findall(r"^(\d+) +([a-z]\w+)\((.*)$", log, re.MULTILINE):
        counts[thread, name] += 1
        if str(folder) in arguments:
            found.append((name, counts[thread, name]))
    return found


def chosen(calls: list[tuple[str, int]]) -> list[tuple[str, int]]:
    if SOAK or len(calls) <= SAMPLE:
        return calls
    step = (len(calls) - 1) / (SAMPLE - 1)
    return [calls[round(index * step)] for index in range(SAMPLE)]


def command(authority: Authority, operation: str, folder: Path) -> list[str]:
    if operation == "renew":
        return ["device", "renew", str(folder)]
    site = authority.site
    return [
        "device", "enroll", str(folder),
        "--authority", authority.url, "--root", str(site.root_file), "--name", "monitor-1",
    ]  # fmt: skip


def open_or_none(folder: Path) -> DeviceIdentity | None:
    """A clean start."""
    if current_credentials(folder) is None:
        with pytest.raises(StorageError, match="holds no device"):
            DeviceIdentity.open(folder)
        return None
    return DeviceIdentity.open(folder)


@pytest.mark.parametrize("operation", ["enroll", "renew"])
async def test_killed_at_any_call_it_is_whole_or_absent(
    authority: Authority, tmp_path: Path, operation: str
) -> None:
    async def prepare(folder: Path) -> DeviceIdentity | None:
        return await authority.enroll(folder) if operation == "renew" else None

    whole = tmp_path / "whole"
    log = tmp_path / "log"
    await prepare(whole)
    token = authority.service.token("monitor-1")
    assert (
        await strace(["-o", str(log), f"--trace={CALLS}"], command(authority, operation, whole), token) == 0
    )
    calls = calls_that_matter(log.read_text(), whole)
    assert len(calls) > 30, "the trace does not show the work"

    limit = asyncio.Semaphore(AT_ONCE)
    outcomes: dict[str, int] = {"killed": 0, "before": 0, "after": 0}

    async def kill_at(name: str, number: int) -> None:
        folder = tmp_path / f"{name}-{number}"
        before = await prepare(folder)
        async with limit:
            code = await strace(
                ["-o", "/dev/null", f"--trace={name}", "-e", f"inject={name}:signal=SIGKILL:when={number}"],
                command(authority, operation, folder),
                authority.service.token("monitor-1"),
            )
        assert code in (0, -9), code
        outcomes["killed"] += code == -9
        found = open_or_none(folder)
        if found is None:
            assert before is None, f"{name} {number} lost the device"
            assert code == -9
        else:
            assert found.name == "monitor-1"
            assert code == -9 or before is None or found.serial != before.serial
        is_new = found is not None and (before is None or found.serial != before.serial)
        outcomes["after" if is_new else "before"] += 1
        # The next enrolment works, and nothing of the crash is left.
        again = await authority.enroll(folder)
        assert DeviceIdentity.open(folder).serial == again.serial
        assert not leftovers(folder)
        assert len(entries(folder / "credentials") or []) <= 2

    await asyncio.gather(*(kill_at(name, number) for name, number in chosen(calls)))
    # An import more or less in one run may shift a number past the last call.
    assert outcomes["killed"] > len(chosen(calls)) * 3 // 4, outcomes
    assert outcomes["before"], outcomes
    assert outcomes["after"], outcomes
