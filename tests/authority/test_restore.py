"""G6: yesterday's backup comes back. No number is used again, members refuse what goes back and say so."""

import asyncio
import logging
import shutil
import sqlite3
from contextlib import closing, suppress
from pathlib import Path

import pytest
from sqlalchemy import select

from sealcast import cli
from sealcast.authority.issuance import LEDGER_FILE
from sealcast.authority.models import AuditRow
from sealcast.authority.quantities import Address
from sealcast.authority.revocation import load_crl
from sealcast.authority.storage import DATABASE_FILE
from sealcast.ca import crls
from sealcast.device.trust import report_of, sync_trust
from sealcast.endpoint import Device
from sealcast.errors import CertificateError, NetworkError, TokenError
from sealcast.keys import MemberRole
from sealcast.pki.crl import CrlFacts, crl_number
from sealcast.pki.policy import Policy
from sealcast.sidechannel.client import UnknownVersionError
from tests.authority.bundles import add_version
from tests.authority.conftest import Site, beacon_counter, serving
from tests.authority.test_restart import client

ECG = "ward/ecg"
JUMP = 2**16


def back_up(folder: Path, backup: Path) -> None:
    shutil.copytree(folder, backup, ignore=shutil.ignore_patterns("control.sock", "lock"))


def bring_back(backup: Path, folder: Path, *names: str) -> None:
    """Files of the backup, or the whole folder."""
    if not names:
        shutil.rmtree(folder)
        shutil.copytree(backup, folder)
        return
    for name in names:
        shutil.copyfile(backup / name, folder / name)
        for side in ("-wal", "-shm"):
            (folder / f"{name}{side}").unlink(missing_ok=True)


def restarts(site: Site) -> int:
    with site.authority.site.storage.snapshot() as session:
        rows = session.scalars(select(AuditRow).where(AuditRow.action == "start after restore"))
        return len(rows.all())


async def test_g6_a_database_that_is_older_than_the_rest_is_noticed(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody says anything. Every number jumps, once."""
    backup = tmp_path / "backup"
    async with serving(folder, tmp_path) as site:
        await site.add_channel()
        member = await site.client(await site.enrol("display-1"))
        await member.join(ECG, MemberRole.SUBSCRIBE)
        token = await site.token("display-9")
    back_up(folder, backup)
    async with serving(folder, tmp_path) as site:
        await site.member("display-2", ECG)
        await site.authority.revoke_device("display-2")
        identity = await site.enrol("display-9", token)
        after = await (await client(site, identity)).join(ECG, MemberRole.SUBSCRIBE)
        await site.authority.keep_audit_head()
    bring_back(backup, folder, DATABASE_FILE)
    for _ in range(2):
        async with serving(folder, tmp_path) as site:
            again = await site.client(await site.enrol("display-3"))
            joined = await again.join(ECG, MemberRole.SUBSCRIBE)
            assert 1 + JUMP <= joined.keys.generation < 1 + 2 * JUMP
            assert joined.keys.generation > after.keys.generation
            assert beacon_counter(joined.keys.beacon) > beacon_counter(after.keys.beacon)
            assert Policy.parse(joined.policy, None).version > Policy.parse(after.policy, None).version
            assert crl_number(joined.crl) > crl_number(after.crl)
            assert restarts(site) == 1
            shutil.rmtree(tmp_path / "display-3")
    assert "the database is older than" in caplog.text
    # The lost end of the log stays to be seen.
    assert "the audit log lacks the entry" in caplog.text


async def test_each_list_says_what_register_and_ledger_say(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lists are put together from the one before: after a restart too, and after a restore, from when on they
    name what only the ledger knows.
    """
    monkeypatch.setattr(crls, "JOINED_FROM", 2)
    backup, revoked = tmp_path / "backup", 0

    def serials(file: str, statement: str) -> set[int]:
        with closing(sqlite3.connect(folder / file)) as connection:
            return {int(serial, 16) for (serial,) in connection.execute(statement)}

    async def revoke_some(site: Site) -> None:
        nonlocal revoked
        for _ in range(4):
            revoked += 1
            await site.enrol(f"display-{revoked}")
            await site.authority.revoke_device(f"display-{revoked}")
            listed = CrlFacts.parse(site.authority.crl.der).serials
            assert listed == serials(LEDGER_FILE, "SELECT serial FROM revocations")
            assert len(listed) == revoked
            lost = 4 if revoked > 8 else 0
            recorded = serials(DATABASE_FILE, "SELECT serial FROM certificates WHERE revoked IS NOT NULL")
            assert (len(listed - recorded), recorded - listed) == (lost, set())
            with site.authority.site.storage.snapshot() as session:
                assert load_crl(session) == site.authority.crl

    for _ in range(2):
        async with serving(folder, tmp_path) as site:
            await revoke_some(site)
        if not backup.exists():
            back_up(folder, backup)
    bring_back(backup, folder, DATABASE_FILE)
    async with serving(folder, tmp_path) as site:
        await revoke_some(site)


async def test_g6_a_token_is_not_used_again(folder: Path, tmp_path: Path) -> None:
    """The restored database does not know of its use, so that no token of the backup is good."""
    backup = tmp_path / "backup"
    async with serving(folder, tmp_path) as site:
        token = await site.token("display-9")
    back_up(folder, backup)
    async with serving(folder, tmp_path) as site:
        first = await site.enrol("display-9", token)
        with pytest.raises(TokenError):
            await site.enrol("display-8", token)
        await site.authority.keep_audit_head()
    bring_back(backup, folder, DATABASE_FILE)
    shutil.rmtree(tmp_path / "display-9")
    async with serving(folder, tmp_path) as site:
        with pytest.raises(TokenError):
            await site.enrol("display-9", token)
        second = await site.enrol("display-9")
        assert second.serial != first.serial


async def test_g6_members_refuse_what_goes_back_and_say_so(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """The whole folder is from yesterday, which nobody can see there; then somebody says so."""
    backup, devices = tmp_path / "backup", tmp_path / "devices"
    async with serving(folder, devices) as site:
        places = (_place(site.listening.authority), _place(site.listening.keys))
        await site.add_channel()
        identity = await site.enrol("display-1")
    back_up(folder, backup)
    async with serving(folder, devices, places) as site:
        await site.member("display-2", ECG)
        async with Device(identity).subscriber(ECG) as subscriber, asyncio.timeout(30):
            await site.authority.revoke_device("display-2")
            async for _ in subscriber.items():
                if subscriber.epoch is not None and subscriber.epoch[1] == 2:
                    break
    bring_back(backup, folder)
    async with serving(folder, devices, places) as site:
        member = await site.client(identity)
        await member.join(ECG, MemberRole.SUBSCRIBE)
        with caplog.at_level(logging.ERROR):
            for _ in range(2):
                # A poll is held while there is no news; what is asserted has been said when it came.
                with suppress(TimeoutError):
                    async with asyncio.timeout(1):
                        await member.poll(ECG, 2**40)
        assert caplog.text.count("seems to come from a backup") == 1
        # The first number that goes back is named: CRL, policy or generation, as far as it was known.
        with pytest.raises(NetworkError, match=r"is not accepted: .*known"):
            async with Device(identity).subscriber(ECG):
                pass
        # Not while the service runs.
        assert cli.main(["authority", "restored", str(folder)]) != 0
        assert "stop it" in capsys.readouterr().err
    assert cli.main(["authority", "restored", str(folder)]) == 0
    async with serving(folder, devices, places) as site, Device(identity).subscriber(ECG) as subscriber:
        assert subscriber.epoch is not None
        assert subscriber.epoch[1] > JUMP
        assert restarts(site) == 1


async def test_g6_no_version_of_the_trust_bundle_is_made_twice(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A device holds version 2, which the backup lacks: no other version 2 is signed, and the lost one is."""
    backup, devices = tmp_path / "backup", tmp_path / "devices"
    async with serving(folder, devices) as site:
        places = (_place(site.listening.authority), _place(site.listening.keys))
        identity = await site.enrol("display-1")
    back_up(folder, backup)
    async with serving(folder, devices, places) as site:
        lost = await add_version(site)
        report = report_of(await sync_trust(identity.path, await site.client(identity)))
        assert report.bundle_version == 2
    bring_back(backup, folder)
    async with serving(folder, devices, places) as site:
        # Nobody has said anything: it is the device that tells, in the log once.
        member = await site.client(identity)
        for _ in range(2):
            with pytest.raises(UnknownVersionError, match="no version 2"):
                await member.report(report)
        assert (
            caplog.text.count("device display-1 holds a version 2 of the trust bundle that is not here") == 1
        )
        with pytest.raises(CertificateError, match="'display-1' holds version 2") as caught:
            await add_version(site)
        assert "sealcast authority bundle import DIR FILE" in caught.value.cure
        await site.authority.import_bundle(lost)
        await member.report(report)
        await add_version(site)


def test_g6_a_restored_authority_drafts_no_bundle_before_it_is_settled(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*words: str) -> int:
        return cli.main(["authority", *words])

    draft = str(tmp_path / "draft")
    assert run("restored", str(folder)) == 0
    assert "sealcast authority bundle import DIR FILE" in capsys.readouterr().out
    assert run("rotate", "site", str(folder)) == 5
    assert run("bundle", "draft", str(folder), "--output", draft, "--delegate") == 2
    assert capsys.readouterr().err.count("--bundle-is-latest") == 2
    assert run("restored", str(folder), "--bundle-is-latest") == 0
    assert run("bundle", "draft", str(folder), "--output", draft, "--delegate") == 0


def _place(url: str) -> Address:
    return Address(host="127.0.0.1", port=int(url.rpartition(":")[2]))
