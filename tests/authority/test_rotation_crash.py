"""Fault 18: SIGKILL at system calls of every step of a rotation; the same command, given again, ends it.

No device is there, so one command takes every step, and each call of each of them is a place to die at: one
of each kind; with SEALCAST_SOAK=1 every one.
"""

import asyncio
import shutil
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from sqlalchemy import select

from sealcast.authority.app import running
from sealcast.authority.issuance import CA_FILE, CA_KEY_FILE
from sealcast.authority.models import RotationRow
from sealcast.authority.revocation import load_crl
from sealcast.authority.rotation_steps import Kind, Step
from sealcast.authority.service import Authority
from sealcast.authority.signer_keys import SignerKeys
from sealcast.authority.signer_process import SIGNER_SOCKET_FILE, SignerSocket
from sealcast.authority.site import ROOT_FILE, ROOT_KEY_FILE, Site, exclusive
from sealcast.ca import FileSigner, KeySigner, Limits, create_root
from sealcast.ca.passphrase import NO_PASSPHRASE
from sealcast.ca.signer import public_key_of
from sealcast.pki.certificates import (
    certificate_der,
    certificates_pem,
    parse_pem_certificates,
)
from sealcast.pki.policy import Policy
from sealcast.pki.times import system_time
from tests.authority.conftest import LOOPBACK, make_site, settings
from tests.authority.test_crash import check_no_serial_is_lost
from tests.authority.test_signer_process import signer, split_folder
from tests.crash import (
    SOAK,
    Call,
    Transition,
    attached,
    calls_that_matter,
    chosen,
    command,
    survive,
    tally,
    tracing,
    warm,
)

pytestmark = [pytest.mark.needs_program("strace"), pytest.mark.timeout(14400 if SOAK else 600)]

MODULES = ("sealcast.cli.authority", "sealcast.authority.control", "sealcast.cli.authority.rotation")


async def make_template(folder: Path) -> tuple[bytes, bytes]:
    """An authority with a channel; returns the certificates of its site CA and of its root."""
    make_site(folder)
    async with AsyncExitStack() as stack:
        stack.enter_context(exclusive(folder))
        authority, _ = await stack.enter_async_context(running(folder, listen=LOOPBACK))
        await authority.add_channel(settings("ward/ecg"))
    return tuple(parse_pem_certificates((folder / name).read_bytes())[0] for name in (CA_FILE, ROOT_FILE))  # type: ignore[return-value]


async def read_as_a_start_does(folder: Path) -> None:
    """What the listeners do is another test's matter."""
    site = Site.open(folder)
    authority = Authority(site)
    await authority.start()
    (channel,) = authority.all_channels()
    Policy.parse(channel.policy.signed, public_key_of(site.issuer.certificate))
    assert authority.identity.chain[1] == site.issuer.certificate
    await authority.stop()


def check_done(folder: Path, kind: Kind, old: bytes, crl_number: int) -> None:
    """The rotation is over, and everything fits everything else."""
    site = Site.open(folder)
    issuing = site.issuer.certificate
    with site.storage.snapshot() as session:
        rows = session.scalars(select(RotationRow).order_by(RotationRow.id)).all()
        assert [row.step for row in rows if row.step != Step.ABANDONED] == [Step.DONE]
        assert rows[-1].new == issuing
        assert load_crl(session).number > crl_number
    assert issuing != old
    assert FileSigner.open(folder / CA_KEY_FILE).public_key == public_key_of(issuing)
    assert (public_key_of(issuing) == public_key_of(old)) == (kind is Kind.ROOT)
    assert not list(folder.glob("ca-*.key"))
    assert site.issuers == ((issuing, old) if kind is Kind.ROOT else (issuing,))


async def check_served(folder: Path, root: bytes) -> None:
    """The service starts on it."""
    async with AsyncExitStack() as stack:
        stack.enter_context(exclusive(folder))
        authority, _ = await stack.enter_async_context(running(folder, listen=LOOPBACK))
        assert authority.site.roots == (root,)


@pytest.mark.parametrize("kind", [Kind.SITE, Kind.ROOT])
async def test_fault_18_a_rotation_killed_at_any_call_is_ended_by_the_same_command(
    tmp_path: Path, kind: Kind
) -> None:
    template, scratch = tmp_path / "template", tmp_path / "scratch"
    scratch.mkdir()
    old, root = await make_template(template)
    signer = FileSigner.create(tmp_path / "new.key")
    made = create_root(site_name="Owner", signer=signer, now=system_time())
    new_root = certificate_der(made.certificate)
    (tmp_path / "new.pem").write_bytes(certificates_pem([new_root]))
    # The old root's key lies elsewhere, as it should.
    key = (template / ROOT_KEY_FILE).rename(tmp_path / "root.key")
    (tmp_path / "root.pem").write_bytes(certificates_pem([root]))
    options = ["--root-cert", str(tmp_path / "root.pem"), "--root-key", str(key)]
    if kind is Kind.ROOT:
        options += ["--new-root-cert", str(tmp_path / "new.pem")]
        options += ["--new-root-key", str(tmp_path / "new.key")]
    with Site.open(template).storage.snapshot() as session:
        crl_number = load_crl(session).number
    ends: Counter[str] = Counter()

    def look(folder: Path) -> str:
        with Site.open(folder).storage.snapshot() as session:
            steps = session.scalars(select(RotationRow.step)).all()
        ends[steps[0] if steps else "not begun"] += 1
        if steps != [Step.DONE]:
            return "before"
        check_done(folder, kind, old, crl_number)
        return "after"

    async def settle(folder: Path) -> None:
        await read_as_a_start_does(folder)
        check_done(folder, kind, old, crl_number)
        check_no_serial_is_lost(Site.open(folder))
        if not SOAK:
            await check_served(folder, new_root if kind is Kind.ROOT else root)

    async def prepare(folder: Path) -> None:
        await asyncio.to_thread(shutil.copytree, template, folder)

    step = Transition(
        name=f"authority: rotate {kind}",
        prepare=prepare,
        act=command(lambda folder: ["authority", "rotate", str(kind), str(folder), *options]),
        look=look,
        refused=frozenset({0, 2}),
        settle=settle,
    )
    async with warm(*MODULES) as commands:
        await survive(commands, step, scratch)
    assert len(ends) > 2, ends


SIGNER_SAMPLE = 3
"""Each costs the start of a signer or two, and two commands."""


class Apart:
    """A service's folder and its signer's, with the root's files beside them; copies of one template."""

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch
        template = scratch / "template"
        template.mkdir()
        folder, apart = split_folder(template, encrypted=False)
        shutil.copyfile(folder / ROOT_FILE, apart / ROOT_FILE)
        (folder / ROOT_KEY_FILE).rename(template / "root.key")
        self.old = parse_pem_certificates((folder / CA_FILE).read_bytes())[0]

    def copy(self, name: str) -> tuple[Path, Path]:
        shutil.copytree(self._scratch / "template", self._scratch / name, symlinks=True)
        folder, apart = self._scratch / name / "authority", self._scratch / name / "signer"
        (folder / SIGNER_SOCKET_FILE).unlink()
        (folder / SIGNER_SOCKET_FILE).symlink_to(apart / SIGNER_SOCKET_FILE)
        return folder, apart

    @staticmethod
    def words(folder: Path) -> list[str]:
        root = ["--root-cert", str(folder / ROOT_FILE), "--root-key", str(folder.parent / "root.key")]
        return ["authority", "rotate", "site", str(folder), *root]

    @staticmethod
    async def start(folder: Path) -> None:
        """It revokes what was signed for a command that was killed before it took note."""
        authority = Authority(await asyncio.to_thread(Site.open, folder))
        await authority.start()
        await authority.stop()

    def check_done(self, folder: Path, apart: Path) -> None:
        """While a signer listens."""
        site = Site.open(folder)
        with site.storage.snapshot() as session:
            assert session.scalars(select(RotationRow.step)).all() == [Step.DONE]
        (new,) = site.issuers
        assert public_key_of(new) != public_key_of(self.old)
        assert parse_pem_certificates((apart / CA_FILE).read_bytes()) == [new]
        assert FileSigner.open(apart / CA_KEY_FILE).public_key == public_key_of(new)
        assert not [*apart.glob("ca-*.key"), *folder.glob("ca*.key")]
        check_no_serial_is_lost(site)
        assert site.issuer.issue_device(KeySigner.generate().make_csr("m"), "m", 0).issuer


async def test_fault_18_a_service_killed_while_the_signers_key_is_rotated(tmp_path: Path) -> None:
    """The signer lives on, and does what it has done already once more."""
    apart_from = Apart(tmp_path)

    @asynccontextmanager
    async def listening(apart: Path) -> AsyncIterator[None]:
        listener = SignerSocket(apart / SIGNER_SOCKET_FILE)
        await listener.start(SignerKeys(apart, NO_PASSPHRASE, limits=Limits(), clock=system_time))
        try:
            yield
        finally:
            await listener.close()

    async with warm(*MODULES) as commands:

        async def rotate(folder: Path, *options: str) -> int:
            trace = tracing(folder.parent.with_suffix(".log"))
            return await commands.run(apart_from.words(folder), [*trace, *options])

        folder, apart = apart_from.copy("whole")
        async with listening(apart):
            assert await rotate(folder) == 0
            await asyncio.to_thread(apart_from.check_done, folder, apart)
        calls = calls_that_matter(folder.parent.with_suffix(".log").read_text(), folder)
        assert len(calls) > 100, "the trace does not show the work"
        started, outcomes = time.monotonic(), Counter(calls=len(calls))

        async def kill_at(call: Call) -> None:
            folder, apart = apart_from.copy("-".join([call.name, str(call.number), *call.path.split("/")]))
            async with listening(apart):
                code = await rotate(folder, *call.killing(folder))
                assert code in (0, -signal.SIGKILL), call
                outcomes["killed"] += code == -signal.SIGKILL
                # It says so where there is nothing left to do.
                assert await rotate(folder) in (0, 2), call
                await apart_from.start(folder)
                await asyncio.to_thread(apart_from.check_done, folder, apart)

        await asyncio.gather(*map(kill_at, chosen(calls, SIGNER_SAMPLE)))
    tally("authority: rotate site, with a signer apart", outcomes, time.monotonic() - started, held=True)


async def test_fault_18_a_signer_killed_while_its_key_is_rotated(tmp_path: Path) -> None:
    """The service is told that nobody answers; with the signer started again, the same command goes on."""
    apart_from = Apart(tmp_path)
    async with warm(*MODULES) as commands:

        async def rotate(folder: Path) -> int:
            return await commands.run(apart_from.words(folder), tracing(folder.parent / "command.log"))

        async def traced(folder: Path, apart: Path, *options: str) -> int:
            """One rotation with the signer under strace; the code of the command."""
            with signer(apart) as process:
                async with attached(process.pid, [*tracing(folder.parent / "signer.log"), *options]):
                    code = await rotate(folder)
                    process.kill()
                    process.wait()
            return code

        folder, apart = apart_from.copy("whole")
        assert await traced(folder, apart) == 0
        calls = calls_that_matter((folder.parent / "signer.log").read_text(), apart)
        assert len(calls) > 20, "the trace does not show the work"
        started, outcomes = time.monotonic(), Counter(calls=len(calls))

        async def kill_at(call: Call) -> None:
            folder, apart = apart_from.copy("-".join([call.name, str(call.number), *call.path.split("/")]))
            code = await traced(folder, apart, *call.killing(apart))
            assert code in (0, 8), (call, code)
            outcomes["killed"] += code == 8
            with signer(apart):
                # What is left to the signer alone is done by whoever opens the folder next.
                assert await rotate(folder) in (0, 2), call
                await apart_from.start(folder)
                await asyncio.to_thread(apart_from.check_done, folder, apart)

        for call in chosen(calls, SIGNER_SAMPLE):
            await kill_at(call)
        assert outcomes["killed"] >= 1
    tally("signer: rotate site", outcomes, time.monotonic() - started, held=True)
