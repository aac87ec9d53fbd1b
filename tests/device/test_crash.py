"""SIGKILL at each system call that changes a file during one enrolment, and during one renewal.

After it a start finds the old device or the new one (at first enrolment: none, or a whole one), and the next
enrolment works and clears up.
"""

import asyncio
from collections import Counter
from pathlib import Path

import pytest

from sealcast.device import DeviceIdentity
from sealcast.device.folder import current_credentials
from sealcast.errors import StorageError
from tests.crash import Call, calls_that_matter, tracing, warm
from tests.device.conftest import Authority, entries, leftovers

pytestmark = [pytest.mark.needs_program("strace"), pytest.mark.timeout(300)]


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

    async with warm("sealcast.cli.device", "sealcast.device") as commands:

        async def run(folder: Path, options: list[str]) -> int:
            return await commands.run(
                command(authority, operation, folder),
                [*tracing(folder.with_suffix(".log")), *options],
                SEALCAST_TOKEN=authority.service.token("monitor-1"),
            )

        whole = tmp_path / "whole"
        await prepare(whole)
        assert await run(whole, []) == 0
        calls = calls_that_matter(whole.with_suffix(".log").read_text(), whole)
        assert len(calls) > 50, "the trace does not show the work"
        assert len(set(calls)) == len(calls), "threads share the work: a number stands for two calls"
        outcomes: Counter[str] = Counter()

        async def kill_at(call: Call) -> None:
            folder = tmp_path / f"{call.name}-{call.number}"
            before = await prepare(folder)
            assert await run(folder, call.killing) == -9, call
            assert calls_that_matter(folder.with_suffix(".log").read_text(), folder)[-1] == call
            found = open_or_none(folder)
            if found is None:
                assert before is None, f"{call} lost the device"
            else:
                assert found.name == "monitor-1"
            is_new = found is not None and (before is None or found.serial != before.serial)
            outcomes["after" if is_new else "before"] += 1
            # The next enrolment works, and nothing of the crash is left.
            again = await authority.enroll(folder)
            assert DeviceIdentity.open(folder).serial == again.serial
            assert not leftovers(folder)
            assert len(entries(folder / "credentials") or []) <= 2

        await asyncio.gather(*map(kill_at, calls))
    assert outcomes["before"], outcomes
    assert outcomes["after"], outcomes
