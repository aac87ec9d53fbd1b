"""What was signed and not recorded is found again and revoked: abuse cases F14 and G6."""

import shutil
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from sqlalchemy import func, select, text, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from sealcast.authority.app import running
from sealcast.authority.issuance import CA_FILE, LEDGER_FILE, certificates, local_issuer
from sealcast.authority.models import AuditRow, CertificateRow, DeviceRow, SiteRow, TokenRow, UnrecordedRow
from sealcast.authority.service import Authority
from sealcast.authority.site import Site as StoredSite
from sealcast.authority.site import exclusive, open_storage
from sealcast.ca import KeySigner, Ledger
from sealcast.ca.passphrase import NO_PASSPHRASE
from sealcast.errors import SealcastError, StorageError
from sealcast.keys import MemberRole
from sealcast.pki.crl import CrlFacts
from sealcast.pki.policy import Policy
from tests.authority.conftest import LOOPBACK, Clock, Site, make_site

ECG = "ward/ecg"


def on_crl(authority: Authority) -> frozenset[int]:
    return CrlFacts.parse(authority.crl.der).serials


def serials_of(ledger: Path) -> set[int]:
    return {entry.serial for entry in Ledger(ledger).issued_after(0, 1000) if not entry.is_void}


def remove_ledger(folder: Path) -> None:
    for path in folder.glob(f"{LEDGER_FILE}*"):
        path.unlink()


def read_ledger(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.glob(f"{LEDGER_FILE}*")}


def recorded(session: Session) -> set[int]:
    return {int(serial, 16) for serial in session.scalars(select(CertificateRow.serial))}


def audited(session: Session, action: str) -> list[str]:
    query = select(AuditRow.detail).where(AuditRow.action == action)
    return [str(detail.get("serial")) for detail in session.scalars(query)]


async def start(folder: Path, devices: Path, stack: AsyncExitStack) -> Site:
    clock = Clock()
    stack.enter_context(exclusive(folder))
    authority, listening = await stack.enter_async_context(running(folder, listen=LOOPBACK, clock=clock))
    return Site(folder, devices, authority, listening, clock, stack)


async def test_f14_a_failed_insert_leaves_a_serial_that_is_found_and_revoked(site: Site) -> None:
    """F14: a trigger fails the insert of the certificate, which was signed by then."""
    token = await site.token("monitor-1")
    before = serials_of(site.folder / LEDGER_FILE)
    storage = site.authority.site.storage
    with storage.transaction() as session:
        session.execute(
            text(
                "CREATE TRIGGER full BEFORE INSERT ON certificates BEGIN SELECT RAISE(ABORT, 'no room'); END"
            )
        )
    with pytest.raises(SealcastError):
        await site.enrol("monitor-1", token)
    (lost,) = serials_of(site.folder / LEDGER_FILE) - before
    with storage.snapshot() as session:
        assert lost not in recorded(session)
        assert session.scalars(select(TokenRow.used)).one() is None, "half of an enrolment is stored"
        assert session.get(DeviceRow, "monitor-1") is None
    # What the upkeep does every half minute, and every start.
    await site.authority.renew_objects()
    assert on_crl(site.authority) == {lost}
    with storage.transaction() as session:
        row = session.get_one(UnrecordedRow, f"{lost:x}")
        assert (row.name, row.role, row.revoked is not None) == ("monitor-1", "device", True)
        assert audited(session, "revoke unrecorded certificate") == [f"{lost:x}"]
        session.execute(text("DROP TRIGGER full"))
    number = site.authority.crl.number
    await site.authority.renew_objects()
    assert site.authority.crl.number == number, "it is found once"
    # The token is still good, and the number is not used again.
    identity = await site.enrol("monitor-1", token)
    assert identity.serial != lost
    assert on_crl(site.authority) == {lost}


async def test_f14_a_start_revokes_what_a_crash_has_left(folder: Path, tmp_path: Path) -> None:
    """F14: the process ended between signature and record."""
    issuer = local_issuer(folder, NO_PASSPHRASE)
    clock = Clock()
    lost = issuer.issue_device(KeySigner.generate().make_csr("monitor-1"), "monitor-1", clock()).serial
    async with AsyncExitStack() as stack:
        site = await start(folder, tmp_path, stack)
        assert on_crl(site.authority) == {lost}
        # Its end bounds how long it stays there.
        assert lost in {int(row.serial, 16) for row in rows(site)}


def rows(site: Site) -> list[UnrecordedRow]:
    with site.authority.site.storage.snapshot() as session:
        return list(session.scalars(select(UnrecordedRow)))


async def test_the_key_servers_own_certificate_is_recorded_not_revoked(site: Site) -> None:
    """The transaction fails after the certificate is in place."""
    storage = site.authority.site.storage
    with storage.transaction() as session:
        session.execute(
            text("CREATE TRIGGER late BEFORE UPDATE ON site BEGIN SELECT RAISE(ABORT, 'no room'); END")
        )
    issued = site.authority.site.issuer.issue_key_server(
        public_key=(signer := KeySigner.generate()).public_key,
        name=site.authority.site.key_server_name,
        hosts=site.authority.site.hosts,
        now=site.clock(),
    )
    site.authority.site.write_key_server(issued, signer)
    with pytest.raises(IntegrityError):
        await site.authority.renew_objects()
    with storage.transaction() as session:
        session.execute(text("DROP TRIGGER late"))
    await site.authority.renew_objects()
    assert issued.serial not in on_crl(site.authority)
    with storage.snapshot() as session:
        assert issued.serial in recorded(session)
        assert audited(session, "record certificate") == [f"{issued.serial:x}"]


async def test_a_failed_transaction_repeats_no_number(site: Site) -> None:
    """Invariant 8: a policy and a CRL were signed, and rolled back; their numbers are spent."""
    await site.add_channel()
    member = await site.member("display-1", ECG)
    storage = site.authority.site.storage
    version = Policy.parse((await member.policy(ECG)).policy, None).version
    number = site.authority.crl.number
    with storage.transaction() as session:
        session.execute(
            text("CREATE TRIGGER full BEFORE INSERT ON audit BEGIN SELECT RAISE(ABORT, 'no room'); END")
        )
    with pytest.raises(IntegrityError):
        await site.authority.revoke_device("display-1")
    with storage.transaction() as session:
        session.execute(text("DROP TRIGGER full"))
    assert await site.authority.revoke_device("display-1")
    assert site.authority.crl.number == number + 2
    stored = site.authority.channel(ECG)
    assert stored is not None
    assert stored.policy.version.version > version


async def test_g6_a_restored_database_revokes_nobody_and_forgets_no_removal(
    folder: Path, tmp_path: Path
) -> None:
    """G6: the database is from yesterday, the ledger is not."""
    async with AsyncExitStack() as stack:
        site = await start(folder, tmp_path / "devices", stack)
        await site.add_channel()
        await site.member("display-1", ECG)
        await site.member("display-2", ECG)
    backup = tmp_path / "backup"
    shutil.copytree(folder, backup)
    async with AsyncExitStack() as stack:
        site = await start(folder, tmp_path / "devices", stack)
        newcomer = await site.enrol("display-3")
        await site.authority.revoke_device("display-2")
        number, revoked = site.authority.crl.number, on_crl(site.authority)
    shutil.copyfile(backup / "authority.db", folder / "authority.db")
    for name in ("authority.db-wal", "authority.db-shm"):
        (folder / name).unlink(missing_ok=True)
    with StoredSite.open(folder).storage.transaction() as session:
        session.execute(update(SiteRow).values(restored=True))
    async with AsyncExitStack() as stack:
        site = await start(folder, tmp_path / "devices", stack)
        assert site.authority.crl.number > number
        assert revoked <= on_crl(site.authority)
        assert newcomer.serial not in on_crl(site.authority), "it goes on"
        channel = site.authority.channel(ECG)
        assert channel is not None
        assert not channel.policy.mentions("display-2")
        assert not channel.keys.membership.is_present("display-2")
        with site.authority.site.storage.snapshot() as session:
            row = session.get_one(UnrecordedRow, f"{newcomer.serial:x}")
            assert row.revoked is None
            assert session.get_one(DeviceRow, "display-2").revoked is not None
        # It can be revoked by its name once that is known again.
        await site.enrol("display-3b")
        token = await site.token("display-3")
        shutil.rmtree(tmp_path / "devices" / "display-3")
        await site.enrol("display-3", token)
        await site.authority.revoke_device("display-3")
        assert newcomer.serial in on_crl(site.authority)


async def test_g6_a_restored_ledger_takes_no_revocation_back(folder: Path, tmp_path: Path) -> None:
    """G6: the ledger is from yesterday, the database is not: the next removal lists the ones before it."""
    async with AsyncExitStack() as stack:
        site = await start(folder, tmp_path / "devices", stack)
        for name in ("display-1", "display-2", "display-3"):
            await site.enrol(name)
        await site.authority.revoke_device("display-1")
    kept = read_ledger(folder)
    async with AsyncExitStack() as stack:
        site = await start(folder, tmp_path / "devices", stack)
        await site.authority.revoke_device("display-2")
        revoked = on_crl(site.authority)
        assert len(revoked) == 2
    remove_ledger(folder)
    for path, content in kept.items():
        path.write_bytes(content)
    async with AsyncExitStack() as stack:
        site = await start(folder, tmp_path / "devices", stack)
        await site.authority.revoke_device("display-3")
        assert revoked < on_crl(site.authority)


async def test_a_folder_from_before_there_were_ledgers(folder: Path, tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        site = await start(folder, tmp_path / "devices", stack)
        await site.add_channel()
        gone = await site.enrol("display-1")
        await site.authority.revoke_device("display-1")
        number = site.authority.crl.number
    remove_ledger(folder)
    with pytest.raises(StorageError, match="missing"):
        StoredSite.open(folder)
    storage = open_storage(folder)
    with storage.transaction() as session:
        session.execute(update(SiteRow).values(ledger_position=None))
    async with AsyncExitStack() as stack:
        site = await start(folder, tmp_path / "devices", stack)
        assert site.authority.site.issuer.removed_names() == {"display-1"}
        await site.enrol("display-2")
        await site.authority.revoke_device("display-2")
        assert site.authority.crl.number > number
        assert gone.serial in on_crl(site.authority)
        # Removed, and let back in by a token that was made after that.
        await site.token("display-1")
        assert site.authority.site.issuer.removed_names() == {"display-2"}


async def test_a_ledger_that_is_older_than_the_database(folder: Path, tmp_path: Path) -> None:
    """Only the ledger came from a backup: the register is compared with all of it."""
    old = tmp_path / LEDGER_FILE
    shutil.copyfile(folder / LEDGER_FILE, old)
    async with AsyncExitStack() as stack:
        site = await start(folder, tmp_path / "devices", stack)
        for name in ("monitor-1", "monitor-2"):
            await site.enrol(name)
    remove_ledger(folder)
    shutil.copyfile(old, folder / LEDGER_FILE)
    lost = local_issuer(folder, NO_PASSPHRASE).issue_device(
        KeySigner.generate().make_csr("monitor-3"), "monitor-3", Clock()()
    )
    async with AsyncExitStack() as stack:
        site = await start(folder, tmp_path / "devices", stack)
        assert on_crl(site.authority) == {lost.serial}


async def test_a_leave_and_a_join_sign_nothing(site: Site) -> None:
    """The signer is not in the way of the keys."""
    await site.add_channel()
    client = await site.client(await site.enrol("display-1"))
    position = site.authority.site.issuer.last_position()
    await client.join(ECG, MemberRole.SUBSCRIBE)
    await client.leave(ECG)
    assert site.authority.site.issuer.last_position() == position


def test_a_swapped_key_is_named_with_both_files(folder: Path, tmp_path: Path) -> None:
    other = make_site(tmp_path / "other")
    shutil.copyfile(other / "ca.key", folder / "ca.key")
    with pytest.raises(Exception, match=r"ca\.key: is not the key of .*ca\.pem") as caught:
        StoredSite.open(folder)
    assert "restore both files" in str(getattr(caught.value, "cure", ""))
    assert certificates(folder / CA_FILE)


def test_init_leaves_nothing_to_reconcile(folder: Path) -> None:
    site = StoredSite.open(folder)
    with site.storage.snapshot() as session:
        assert session.get_one(SiteRow, 1).ledger_position == site.issuer.last_position() == 1
        assert session.scalar(select(func.count()).select_from(UnrecordedRow)) == 0
