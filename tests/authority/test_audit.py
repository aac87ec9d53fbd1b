"""The audit log: append-only, chained, who did what; what a check detects and what it cannot."""

import hashlib
import json
import logging
import os
import shutil
import sqlite3
from contextlib import AsyncExitStack
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine, delete, select, update

from sealcast.authority import audit
from sealcast.authority.app import running
from sealcast.authority.audit import HEAD_FILE, Head
from sealcast.authority.models import AuditRow, SiteRow
from sealcast.authority.site import Site as StoredSite
from sealcast.authority.site import exclusive
from sealcast.authority.storage import DATABASE_FILE, Storage
from sealcast.cli import main
from sealcast.errors import StorageError, UsageError
from tests.authority.conftest import LOOPBACK, Site

COPIED = "actor, action, subject, outcome, detail, previous, hash FROM audit"


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    storage = Storage.create(tmp_path / DATABASE_FILE)
    for number in range(1, 6):
        with storage.transaction() as session:
            audit.act_as(session, f"admin:a{number}")
            audit.record(session, number, "make thing", f"thing-{number}", size=number, nice=True, more=None)
    return storage


def verdict(storage: Storage, *known: Head) -> audit.Verdict:
    with storage.snapshot() as session:
        return audit.verify(session, *known)


def head(storage: Storage) -> Head:
    with storage.snapshot() as session:
        found = audit.head(session)
    assert found is not None
    return found


def tamper(storage: Storage, *statements: str, triggers: bool = False) -> None:
    """Change the file as somebody with the disk would; `triggers`: leave them in place."""
    connection = sqlite3.connect(storage.path)
    if not triggers:
        for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            connection.execute(f"DROP TRIGGER {name}")
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


class TestChain:
    def test_each_entry_holds_the_hash_of_the_one_before(self, storage: Storage) -> None:
        """Computed here from the text of audit.py alone."""
        previous = bytes(32)
        with storage.snapshot() as session:
            for row in session.scalars(select(AuditRow).order_by(AuditRow.id)):
                fields = [row.id, row.time, row.actor, row.action, row.subject, row.outcome, row.detail]
                content = json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()
                assert row.previous == previous
                previous = hashlib.sha256(b"sealcast/1 audit\x00" + previous + content).digest()
                assert row.hash == previous
                assert row.actor == f"admin:a{row.id}"
        assert verdict(storage) == audit.Verdict(entries=5, head=head(storage))

    def test_an_entry_and_what_it_tells_are_one(self, storage: Storage) -> None:

        def fail() -> None:
            with storage.transaction() as session:
                audit.record(session, 6, "make thing", "thing-6")
                raise RuntimeError

        with pytest.raises(RuntimeError):
            fail()
        assert verdict(storage).entries == 5

    def test_entries_of_one_transaction_are_chained_too(self, storage: Storage) -> None:
        with storage.transaction() as session:
            for number in range(3):
                audit.record(session, 6, "make thing", f"more-{number}")
            assert audit.entries_written(session) == 3
        assert verdict(storage).entries == 8

    @pytest.mark.parametrize(
        "statement",
        [
            "UPDATE audit SET actor = 'nobody' WHERE id = 3",
            "DELETE FROM audit WHERE id = 5",
            "DELETE FROM audit",
            f"INSERT OR REPLACE INTO audit SELECT 3, 0, {COPIED} WHERE id = 3",
            f"INSERT INTO audit SELECT 9, time, {COPIED} WHERE id = 5",
            f"INSERT INTO audit SELECT 6, time, {COPIED} WHERE id = 5",
        ],
    )
    def test_the_database_itself_refuses_to_change_it(self, storage: Storage, statement: str) -> None:
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            tamper(storage, statement, triggers=True)
        assert verdict(storage).entries == 5

    def test_so_it_does_to_our_own_code(self, storage: Storage) -> None:
        for statement in (update(AuditRow).values(actor="nobody"), delete(AuditRow)):
            with pytest.raises(Exception, match="append-only"), storage.transaction() as session:
                session.execute(statement)


class TestVerify:
    @pytest.mark.parametrize(
        ("statement", "first_bad"),
        [
            ("UPDATE audit SET actor = 'nobody' WHERE id = 3", 3),
            ("UPDATE audit SET time = time + 1 WHERE id = 1", 1),
            ("UPDATE audit SET action = 'x' WHERE id = 2", 2),
            ("UPDATE audit SET subject = 'x' WHERE id = 2", 2),
            ("UPDATE audit SET outcome = 'refused' WHERE id = 5", 5),
            ("UPDATE audit SET detail = '{}' WHERE id = 4", 4),
            ("UPDATE audit SET hash = zeroblob(32) WHERE id = 4", 4),
            ("UPDATE audit SET previous = zeroblob(32) WHERE id = 4", 4),
            ("DELETE FROM audit WHERE id = 1", 1),
            ("DELETE FROM audit WHERE id = 3", 3),
            ("UPDATE audit SET id = 9 WHERE id = 4", 4),
        ],
    )
    def test_it_names_the_first_entry_that_does_not_fit(
        self, storage: Storage, statement: str, first_bad: int
    ) -> None:
        tamper(storage, statement)
        found = verdict(storage)
        assert (found.first_bad, found.entries) == (first_bad, first_bad - 1)
        assert found.fault

    def test_a_log_cut_off_at_its_end_needs_a_head_from_before(self, storage: Storage) -> None:
        """The one thing that a chain alone cannot tell."""
        known = head(storage)
        tamper(storage, "DELETE FROM audit WHERE id > 3")
        assert verdict(storage).first_bad is None
        found = verdict(storage, known)
        assert (found.first_bad, found.entries) == (4, 3)
        assert "entry 5" in found.fault

    def test_a_log_written_anew_needs_one_too(self, storage: Storage) -> None:
        known = head(storage)
        tamper(storage, "DELETE FROM audit WHERE id > 3")
        for number in (4, 5, 6):
            with storage.transaction() as session:
                audit.record(session, number, "make another thing", "x")
        assert verdict(storage).first_bad is None
        assert verdict(storage, known).first_bad == 5

    def test_a_head_can_be_kept_as_text(self, storage: Storage) -> None:
        known = head(storage)
        assert Head.parse(f" {known}\n") == known
        for text in ("", "5", f"0:{'0' * 64}", f"5:{'g' * 64}", f"-5:{'0' * 64}"):
            with pytest.raises(UsageError):
                Head.parse(text)


class TestHeadFile:
    def test_it_follows_the_log_and_nothing_else(self, storage: Storage) -> None:
        folder = storage.path.parent
        with storage.snapshot() as session:
            assert audit.write_head_file(folder, session)
        assert audit.read_head_file(folder) == head(storage)
        assert (folder / HEAD_FILE).stat().st_mode & 0o777 == 0o600
        known = head(storage)
        tamper(storage, "DELETE FROM audit WHERE id > 3")
        with storage.snapshot() as session:
            assert not audit.write_head_file(folder, session), "it stays as evidence"
            assert audit.read_head_file(folder) == known
            assert audit.write_head_file(folder, session, accept=True)
        assert audit.read_head_file(folder) == head(storage)

    def test_a_damaged_one_is_named(self, storage: Storage) -> None:
        (storage.path.parent / HEAD_FILE).write_text("garbage")
        with pytest.raises(StorageError, match=HEAD_FILE):
            audit.read_head_file(storage.path.parent)

    async def test_an_older_database_is_told_by_the_service_and_by_a_check(
        self, folder: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Somebody puts yesterday's database in today's folder."""
        shutil.copy(folder / DATABASE_FILE, folder.parent / "yesterday.db")
        assert main(["authority", "token", str(folder), "--device", "monitor-1"]) == 0
        put_back(folder, folder.parent / "yesterday.db")
        with caplog.at_level(logging.ERROR):
            async with AsyncExitStack() as stack:
                stack.enter_context(exclusive(folder))
                await stack.enter_async_context(running(folder, listen=LOOPBACK))
        assert HEAD_FILE in caplog.text
        capsys.readouterr()
        assert main(["authority", "audit", "verify", str(folder)]) == 8
        assert "does not fit" in capsys.readouterr().err
        # A restore that somebody has asked for is no fault: the log itself says that it happened.
        with StoredSite.open(folder).storage.transaction() as session:
            session.execute(update(SiteRow).values(restored=True))
        async with AsyncExitStack() as stack:
            stack.enter_context(exclusive(folder))
            await stack.enter_async_context(running(folder, listen=LOOPBACK))
        assert main(["authority", "audit", "verify", str(folder)]) == 0


def put_back(folder: Path, database: Path) -> None:
    for file in folder.glob(f"{DATABASE_FILE}*"):
        file.unlink()
    shutil.copy(database, folder / DATABASE_FILE)


class TestWho:
    async def test_who_did_it_is_in_every_entry(self, site: Site) -> None:
        await site.add_channel()
        await site.enrol("monitor-1")
        with site.authority.site.storage.snapshot() as session:
            rows = session.execute(select(AuditRow.actor, AuditRow.action)).all()
        actors = {action: actor for actor, action in rows}
        assert actors["make site"] == "authority"
        assert actors["enrol device"] == "device:monitor-1"

    def test_a_command_acts_as_its_user(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["authority", "token", str(folder), "--device", "monitor-1"]) == 0
        capsys.readouterr()
        assert main(["authority", "audit", "list", str(folder), "--json"]) == 0
        entry = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert (entry["actor"], entry["action"], entry["subject"], entry["outcome"]) == (
            f"local:{os.getuid()}",
            "make token",
            "monitor-1",
            "done",
        )


class TestMigration:
    def test_entries_from_before_are_chained(self, tmp_path: Path) -> None:
        path = tmp_path / DATABASE_FILE
        old = [(1, 1000, "make site", "Ward", '{"site_id": "00"}'), (2, 2000, "make token", "é", "{}")]
        _database_of(path, "0004", old)
        storage = Storage.open(path)
        found = verdict(storage)
        assert (found.first_bad, found.entries) == (None, 2)
        with storage.snapshot() as session:
            rows = [
                (row.time, row.action, row.subject, row.actor) for row in session.scalars(select(AuditRow))
            ]
        assert rows == [(1000, "make site", "Ward", "unknown"), (2000, "make token", "é", "unknown")]
        with storage.transaction() as session:
            audit.record(session, 3000, "go on", "Ward")
        assert verdict(storage).entries == 3


def _database_of(path: Path, revision: str, entries: list[tuple[Any, ...]]) -> None:
    """A database of an older version, with its log."""
    config = Config()
    config.set_main_option("script_location", str(files("sealcast.authority") / "migrations"))
    config.set_main_option("path_separator", "os")
    with create_engine(f"sqlite:///{path}").begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
        for entry in entries:
            connection.exec_driver_sql("INSERT INTO audit VALUES (?, ?, ?, ?, ?)", entry)
