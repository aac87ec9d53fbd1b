"""SIGKILL at system calls that change a file: of a removal, and of an enrolment on the authority's side.

After it a clean start finds the old state or the new one, whole, and the same work can be done then; no
certificate is out that nobody knows of (F14). One call of each kind; with SEALCAST_SOAK=1 every call.
"""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from sqlalchemy import select

from sealcast.authority.app import running
from sealcast.authority.keystore import load_keys
from sealcast.authority.models import CertificateRow, ChannelRow, DeviceRow, TokenRow
from sealcast.authority.policy_versions import load_policy
from sealcast.authority.revocation import load_crl
from sealcast.authority.service import Authority
from sealcast.authority.site import ROOT_FILE, Site, exclusive
from sealcast.device import enroll_async
from sealcast.errors import SealcastError, TokenError
from sealcast.keys import MemberRole
from sealcast.pki.certificates import parse_pem_certificates
from sealcast.pki.crl import CrlFacts
from tests.authority.conftest import DAY, LOOPBACK, make_site, settings
from tests.crash import AT_ONCE, Call, attached, calls_that_matter, points, tracing, warm

pytestmark = [pytest.mark.needs_program("strace"), pytest.mark.timeout(600)]

RUN = "import sys; from sealcast.cli import main; sys.exit(main())"
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
    return state_of(Site.open(folder), name)


def state_of(site: Site, name: str) -> State:
    with site.storage.snapshot() as session:
        device = session.get(DeviceRow, name)
        row = session.scalars(select(ChannelRow)).one()
        policy, keys = load_policy(session, row.name), load_keys(session, row, site.vault)
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


def has_reached(found: State, new: State) -> bool:
    """A crash may spend a policy version and a CRL number: what was about to be signed is not repeated."""
    aside = replace(found, policy_version=new.policy_version, crl_number=new.crl_number)
    return aside == new and found.policy_version >= new.policy_version and found.crl_number >= new.crl_number


def check_no_serial_is_lost(site: Site) -> None:
    """F14: what the site CA may have signed is in the register, or revoked."""
    with site.storage.snapshot() as session:
        recorded = {int(serial, 16) for serial in session.scalars(select(CertificateRow.serial))}
        on_crl = CrlFacts.parse(load_crl(session).der).serials
    for entry in site.issuer.issued_after(0, 1000):
        assert entry.is_void or entry.serial in recorded | on_crl, f"{entry.serial:x} is nowhere"


async def clean_start(folder: Path) -> None:
    """The service starts on what the crash has left."""
    async with AsyncExitStack() as stack:
        stack.enter_context(exclusive(folder))
        await stack.enter_async_context(running(folder, listen=LOOPBACK))


async def removal_at(site: Site) -> bool:
    """What a start does with the database, and a removal then; the listeners know nothing of the state."""
    authority = Authority(site)
    await authority.start()
    try:
        return await authority.revoke_device(MEMBER)
    finally:
        await authority.stop()


async def test_a_removal_killed_at_any_call_is_whole_or_absent(tmp_path: Path) -> None:
    template = tmp_path / "template"
    await make_template(template)
    old = read_state(template, MEMBER)
    assert (old.enrolled, old.revoked, old.in_policy, old.is_member) == (True, False, True, True)

    async with warm("sealcast.cli.authority", "sealcast.authority.control") as commands:

        async def revoke(folder: Path, options: list[str]) -> int:
            return await commands.run(
                ["authority", "device", "revoke", str(folder), MEMBER],
                [*tracing(folder.with_suffix(".log")), *options],
            )

        whole = tmp_path / "whole"
        shutil.copytree(template, whole)
        assert await revoke(whole, []) == 0
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
        calls = calls_that_matter(whole.with_suffix(".log").read_text(), whole)
        assert len(calls) > 80, "the trace does not show the work"
        assert len(set(calls)) == len(calls), "threads share the work: a number stands for two calls"
        places = points("authority: revoke", calls)
        outcomes: Counter[str] = Counter()

        async def kill_at(call: Call) -> None:
            folder = tmp_path / f"{call.name}-{call.number}"
            shutil.copytree(template, folder)
            code = await revoke(folder, call.killing)
            assert code in (0, -signal.SIGKILL), code
            site = Site.open(folder)
            found = state_of(site, MEMBER)
            assert found in (old, new), call
            outcomes["killed"] += code != 0
            outcomes["new" if found == new else "old"] += 1
            await clean_start(folder)
            # Once the site CA knows of a removal, the next start finishes it.
            begun = MEMBER in site.issuer.removed_names()
            assert await removal_at(site) == (found == old and not begun)
            assert has_reached(state_of(site, MEMBER), new)
            check_no_serial_is_lost(site)

        await asyncio.gather(*map(kill_at, places))
    # A signature's length varies by a byte or two, and the pages that a row takes may with it.
    assert outcomes["killed"] >= len(places) - 2, outcomes
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
            async with attached(service.pid, options):
                try:
                    async with asyncio.timeout(60):
                        await enrol(folder, url, folder.with_suffix(".device"), NEWCOMER, token)
                except SealcastError:
                    return False
                finally:
                    await end(service, signal.SIGTERM)
            return True

    whole, log = tmp_path / "whole", tmp_path / "log"
    shutil.copytree(template, whole)
    assert await enrol_under(whole, tracing(log))
    assert read_state(whole, NEWCOMER) == new
    calls = calls_that_matter(log.read_text(), whole)
    assert len(calls) > 8, "the trace does not show the work"

    limit = asyncio.Semaphore(AT_ONCE)
    outcomes: Counter[str] = Counter()

    async def kill_at(call: Call) -> None:
        folder = tmp_path / f"{call.name}-{call.number}"
        shutil.copytree(template, folder)
        async with limit:
            succeeded = await enrol_under(folder, [*tracing(folder.with_suffix(".log")), *call.killing])
        found = read_state(folder, NEWCOMER)
        assert found in (old, new), call
        assert found == new or not succeeded, "a certificate that the register does not know is out"
        outcomes["new" if found == new else "old"] += 1
        outcomes["succeeded" if succeeded else "failed"] += 1
        async with AsyncExitStack() as stack:
            stack.enter_context(exclusive(folder))
            authority, listening = await stack.enter_async_context(running(folder, listen=LOOPBACK))
            await enrol_again(authority, listening.authority, folder, found == new)
        assert read_state(folder, NEWCOMER).certificates == (2 if found == new else 1)
        check_no_serial_is_lost(Site.open(folder))

    async def enrol_again(authority: Authority, url: str, folder: Path, used: bool) -> None:
        device = folder.with_suffix(".again")
        if used:
            with pytest.raises(TokenError):
                await enrol(folder, url, device, NEWCOMER, token)
        good = await authority.create_token(NEWCOMER, DAY) if used else token
        await enrol(folder, url, device, NEWCOMER, good)

    await asyncio.gather(*map(kill_at, points("authority: enrol", calls)))
    assert outcomes["failed"], outcomes
    assert outcomes["old"], outcomes
    assert outcomes["new"], outcomes
