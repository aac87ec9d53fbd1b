"""SIGKILL at each system call that changes a file: of a removal, and of an enrolment on the authority's side.

After it a clean start finds the old state or the new one, whole, and the same work can be done then. By
default a sample of the calls, with SEALCAST_SOAK=1 all of them.
"""

import asyncio
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import select

from sealcast.authority.app import running
from sealcast.authority.channels import load_policy
from sealcast.authority.keystore import load_keys
from sealcast.authority.models import CertificateRow, ChannelRow, DeviceRow, TokenRow
from sealcast.authority.revocation import load_crl
from sealcast.authority.service import Authority
from sealcast.authority.site import ROOT_FILE, Site, exclusive
from sealcast.device import enroll_async
from sealcast.errors import SealcastError, TokenError
from sealcast.keys import MemberRole
from sealcast.pki.certificates import parse_pem_certificates
from sealcast.pki.crl import CrlFacts
from tests.authority.conftest import DAY, LOOPBACK, make_site, settings

pytestmark = [pytest.mark.needs_program("strace"), pytest.mark.timeout(900)]

CALLS = (
    "openat,write,pwrite64,fsync,fdatasync,rename,renameat,renameat2,unlink,unlinkat,mkdir,mkdirat,rmdir,"
    "symlink,symlinkat,link,linkat,chmod,fchmod,fchmodat,ftruncate,flock"
)
RUN = "import sys; from sealcast.cli import main; sys.exit(main())"
SOAK = os.environ.get("SEALCAST_SOAK") == "1"
SAMPLE = 8
AT_ONCE = 4
ECG = "ward/ecg"
MEMBER, NEWCOMER = "display-1", "monitor-1"


@dataclass(frozen=True)
class State:
    """What the folder says of one device, read without changing anything."""

    enrolled: bool
    revoked: bool
    serials_revoked: int
    certificates: int
    token_used: bool
    in_policy: bool
    policy_version: int
    crl_number: int
    position: tuple[int, int]
    is_member: bool


def read_state(folder: Path, name: str) -> State:
    site = Site.open(folder)
    with site.storage.snapshot() as session:
        device = session.get(DeviceRow, name)
        row = session.scalars(select(ChannelRow)).one()
        policy, keys = load_policy(session, row), load_keys(session, row, site.vault)
        crl = load_crl(session)
        certificates = session.scalars(select(CertificateRow).where(CertificateRow.name == name)).all()
        tokens = session.scalars(select(TokenRow).where(TokenRow.device == name)).all()
        on_crl = CrlFacts.parse(crl.der).serials
        return State(
            enrolled=device is not None,
            revoked=device is not None and device.revoked is not None,
            serials_revoked=sum(int(certificate.serial, 16) in on_crl for certificate in certificates),
            certificates=len(certificates),
            token_used=any(token.used is not None for token in tokens),
            in_policy=policy.mentions(name),
            policy_version=policy.version.version,
            crl_number=crl.number,
            position=keys.generation.position,
            is_member=keys.membership.is_present(name),
        )


async def make_template(folder: Path) -> str:
    """An authority with a channel, a member on it, and a token for a newcomer; returns the token."""
    make_site(folder)
    async with AsyncExitStack() as stack:
        stack.enter_context(exclusive(folder))
        authority, listening = await stack.enter_async_context(running(folder, listen=LOOPBACK))
        await authority.add_channel(settings(ECG))
        await enrol(
            folder,
            listening.authority,
            folder.parent / MEMBER,
            MEMBER,
            await authority.create_token(MEMBER, DAY),
        )
        await authority.join(ECG, MEMBER, MemberRole.SUBSCRIBE)
        return await authority.create_token(NEWCOMER, DAY)


async def enrol(folder: Path, url: str, device: Path, name: str, token: str) -> None:
    roots = parse_pem_certificates((folder / ROOT_FILE).read_bytes())
    await enroll_async(device, authority_url=url, roots=roots, name=name, token=token)


def calls_that_matter(log: str, folder: Path) -> list[tuple[str, int]]:
    """The calls on what is in the folder, each as its name and how many of that name came before it.

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


async def start(*command: str, **arguments: int | None) -> asyncio.subprocess.Process:
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return await asyncio.create_subprocess_exec(
        *command,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        **{**streams, **arguments},  # type: ignore[arg-type]
    )


async def end(process: asyncio.subprocess.Process, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(number)
    await process.wait()


def injecting(name: str, number: int) -> list[str]:
    return ["-o", "/dev/null", f"--trace={name}", "-e", f"inject={name}:signal=SIGKILL:when={number}"]


async def clean_start(folder: Path) -> None:
    """The service starts on what the crash has left."""
    async with AsyncExitStack() as stack:
        stack.enter_context(exclusive(folder))
        await stack.enter_async_context(running(folder, listen=LOOPBACK))


async def test_a_removal_killed_at_any_call_is_whole_or_absent(tmp_path: Path) -> None:
    template = tmp_path / "template"
    await make_template(template)
    old = read_state(template, MEMBER)
    assert (old.enrolled, old.revoked, old.in_policy, old.is_member) == (True, False, True, True)

    async def revoke(folder: Path, options: list[str]) -> int:
        process = await start(
            *("strace", "-f", "-qq", "-y", *options),
            *(sys.executable, "-c", RUN, "authority", "device", "revoke", str(folder), MEMBER),
        )
        async with asyncio.timeout(120):
            return await process.wait()

    whole, log = tmp_path / "whole", tmp_path / "log"
    shutil.copytree(template, whole)
    assert await revoke(whole, ["-o", str(log), f"--trace={CALLS}"]) == 0
    new = read_state(whole, MEMBER)
    assert new == State(
        enrolled=True,
        revoked=True,
        serials_revoked=1,
        certificates=1,
        token_used=True,
        in_policy=False,
        policy_version=old.policy_version + 1,
        crl_number=old.crl_number + 1,
        position=(old.position[0] + 1, 0),
        is_member=False,
    )
    calls = calls_that_matter(log.read_text(), whole)
    assert len(calls) > 15, "the trace does not show the work"

    limit = asyncio.Semaphore(AT_ONCE)
    outcomes: Counter[str] = Counter()

    async def kill_at(name: str, number: int) -> None:
        folder = tmp_path / f"{name}-{number}"
        shutil.copytree(template, folder)
        async with limit:
            code = await revoke(folder, injecting(name, number))
        assert code in (0, -signal.SIGKILL), code
        found = read_state(folder, MEMBER)
        assert found in (old, new), (name, number)
        outcomes["killed"] += code != 0
        outcomes["new" if found == new else "old"] += 1
        await clean_start(folder)
        again = await start(sys.executable, "-c", RUN, "authority", "device", "revoke", str(folder), MEMBER)
        assert await again.wait() == 0
        assert read_state(folder, MEMBER) == new

    await asyncio.gather(*(kill_at(name, number) for name, number in chosen(calls)))
    # An import more or less in one run may shift a number past the last call.
    assert outcomes["killed"] > len(chosen(calls)) * 3 // 4, outcomes
    assert outcomes["old"], outcomes
    assert outcomes["new"], outcomes


async def test_an_enrolment_killed_at_any_call_of_the_authority_is_whole_or_absent(tmp_path: Path) -> None:
    template = tmp_path / "template"
    token = await make_template(template)
    old = read_state(template, NEWCOMER)
    assert (old.enrolled, old.token_used, old.certificates, old.in_policy) == (False, False, 0, False)
    new = State(
        enrolled=True,
        revoked=False,
        serials_revoked=0,
        certificates=1,
        token_used=True,
        in_policy=True,
        policy_version=old.policy_version + 1,
        crl_number=old.crl_number,
        position=old.position,
        is_member=False,
    )

    async def enrol_under(folder: Path, options: list[str]) -> bool:
        """One enrolment at a service that is traced from before it on; whether it succeeded."""
        async with AsyncExitStack() as stack:
            service = await start(
                *(sys.executable, "-c", RUN, "authority", "serve", str(folder), "--listen", "127.0.0.1:0"),
                stdout=subprocess.PIPE,
            )
            stack.push_async_callback(end, service, signal.SIGTERM)
            assert service.stdout is not None
            url = (await service.stdout.readline()).decode().split()[2]
            tracer = await start(
                *("strace", "-f", "-y", *options, "-p", str(service.pid)), stderr=subprocess.PIPE
            )
            stack.push_async_callback(end, tracer, signal.SIGINT)
            assert tracer.stderr is not None
            # It says when it has taken hold of the service.
            assert b"attached" in await tracer.stderr.readline()
            try:
                async with asyncio.timeout(60):
                    await enrol(folder, url, folder.with_suffix(".device"), NEWCOMER, token)
            except SealcastError:
                return False
            return True

    whole, log = tmp_path / "whole", tmp_path / "log"
    shutil.copytree(template, whole)
    assert await enrol_under(whole, ["-o", str(log), f"--trace={CALLS}"])
    assert read_state(whole, NEWCOMER) == new
    calls = calls_that_matter(log.read_text(), whole)
    assert len(calls) > 8, "the trace does not show the work"

    limit = asyncio.Semaphore(AT_ONCE)
    outcomes: Counter[str] = Counter()

    async def kill_at(name: str, number: int) -> None:
        folder = tmp_path / f"{name}-{number}"
        shutil.copytree(template, folder)
        async with limit:
            succeeded = await enrol_under(folder, injecting(name, number))
        found = read_state(folder, NEWCOMER)
        assert found in (old, new), (name, number)
        assert found == new or not succeeded, "a certificate that the register does not know is out"
        outcomes["new" if found == new else "old"] += 1
        outcomes["succeeded" if succeeded else "failed"] += 1
        async with AsyncExitStack() as stack:
            stack.enter_context(exclusive(folder))
            authority, listening = await stack.enter_async_context(running(folder, listen=LOOPBACK))
            await enrol_again(authority, listening.authority, folder, found == new)
        assert read_state(folder, NEWCOMER).certificates == (2 if found == new else 1)

    async def enrol_again(authority: Authority, url: str, folder: Path, used: bool) -> None:
        device = folder.with_suffix(".again")
        if used:
            with pytest.raises(TokenError):
                await enrol(folder, url, device, NEWCOMER, token)
        good = await authority.create_token(NEWCOMER, DAY) if used else token
        await enrol(folder, url, device, NEWCOMER, good)

    await asyncio.gather(*(kill_at(name, number) for name, number in chosen(calls)))
    assert outcomes["failed"], outcomes
    assert outcomes["old"], outcomes
    assert outcomes["new"], outcomes
