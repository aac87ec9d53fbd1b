"""SIGKILL at system calls that change a file: of an enrolment, a renewal, a request that waits, its answer.

After it a start finds the old device or the new one (at first enrolment: none, or a whole one), and the next
run finishes the work, with the key that the authority has heard of, and clears up. Trust bundles and
recoveries: tests/authority/test_kills.py, where there is an authority that gives them.
"""

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from cryptography import x509

from sealcast.device import DeviceIdentity, PendingRequest
from sealcast.device.folder import current_credentials
from sealcast.errors import EnrolmentError, StorageError
from sealcast.pki.certificates import spki
from tests.crash import SOAK, Transition, command, survive, warm
from tests.device.conftest import Authority, entries, leftovers

pytestmark = [pytest.mark.needs_program("strace"), pytest.mark.timeout(14400 if SOAK else 900)]


def open_or_none(folder: Path) -> DeviceIdentity | None:
    """A clean start."""
    if current_credentials(folder) is None:
        with pytest.raises(StorageError, match="holds no device"):
            DeviceIdentity.open(folder)
        return None
    found = DeviceIdentity.open(folder)
    assert found.name == "monitor-1"
    return found


async def settle(folder: Path) -> None:
    """Nothing of the crash is left."""
    assert not leftovers(folder)
    assert len(entries(folder / "credentials") or []) <= 2


async def absent(folder: Path) -> None:
    """Nothing is there before."""


def copy_of(template: Path) -> Callable[[Path], Awaitable[None]]:
    async def prepare(folder: Path) -> None:
        await asyncio.to_thread(shutil.copytree, template, folder)

    return prepare


async def test_a_device_killed_at_any_call_is_whole_or_as_it_was(
    authority: Authority, tmp_path: Path
) -> None:
    service = authority.service
    enrolled, waiting = tmp_path / "enrolled", tmp_path / "waiting"
    serial = (await authority.enroll(enrolled)).serial
    service.pending_seconds = 7
    with pytest.raises(EnrolmentError):
        await authority.enroll(waiting)
    service.pending_seconds = None
    shown: set[bytes] = set()

    def enrol(folder: Path) -> list[str]:
        site = authority.site
        return [
            *("device", "enroll", str(folder), "--authority", authority.url),
            *("--root", str(site.root_file), "--name", "monitor-1"),
        ]

    def is_enrolled(folder: Path) -> str:
        return "before" if open_or_none(folder) is None else "after"

    def is_renewed(folder: Path) -> str:
        found = open_or_none(folder)
        assert found is not None, "a renewal lost the device"
        return "before" if found.serial == serial else "after"

    def waits(folder: Path) -> str:
        assert open_or_none(folder) is None
        found = PendingRequest.read(folder)
        if found is None:
            return "before"
        shown.add(spki(found.signer.public_key))
        return "after"

    def make(name: str, **values: object) -> Transition:
        given = {
            "name": f"device: {name}",
            # What was on its way when a kill came may have used up the one before.
            "act": command(enrol, lambda: {"SEALCAST_TOKEN": service.token("monitor-1")}),
            "look": is_enrolled,
            "settle": settle,
            **values,
        }
        return Transition(**given)  # type: ignore[arg-type]

    steps = [
        make("enroll", prepare=absent),
        make(
            "renew",
            prepare=copy_of(enrolled),
            act=command(lambda folder: ["device", "renew", str(folder)]),
            look=is_renewed,
        ),
        make("ask", prepare=absent, look=waits, code=4, refused=frozenset({4})),
        make("fetch the answer", prepare=copy_of(waiting)),
    ]
    async with warm("sealcast.cli.device", "sealcast.device") as commands:
        for number, step in enumerate(steps):
            service.asked.clear()
            service.pending_seconds = 7 if step.code else None
            (tmp_path / str(number)).mkdir()
            outcomes = await survive(commands, step, tmp_path / str(number))
            assert outcomes["before"], (step.name, outcomes)
            assert outcomes["after"], (step.name, outcomes)
            heard = {spki(x509.load_der_x509_csr(der).public_key()) for der in service.asked}
            if step.code:
                assert heard <= shown, "the authority has heard of a key that no folder keeps"
