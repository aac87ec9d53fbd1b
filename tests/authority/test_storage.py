"""The database, its worker thread, and the key that seals secrets: damage gives one clear error."""

import asyncio
import shutil
import sqlite3
from contextlib import closing, suppress
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, select

from sealcast.authority import audit
from sealcast.authority.models import AuditRow, Base
from sealcast.authority.storage import COMMITS, Storage, StorageWorker
from sealcast.authority.vault import KEY_FILE, Vault
from sealcast.errors import StorageError
from sealcast.keys import Secret
from tests.e2e.processes import wait_until


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage.create(tmp_path / "authority.db")


def actions(storage: Storage) -> list[str]:
    with storage.snapshot() as session:
        return list(session.scalars(select(AuditRow.action)))


class TestStorage:
    def test_the_migrations_make_the_tables_of_the_models(self, storage: Storage) -> None:
        engine = create_engine(f"sqlite:///{storage.path}")
        with engine.connect() as connection:
            context = MigrationContext.configure(connection, opts={"compare_type": True})
            assert compare_metadata(context, Base.metadata) == []
        engine.dispose()

    def test_a_transaction_is_made_whole_or_not_at_all(self, storage: Storage) -> None:
        with storage.transaction() as session:
            audit.record(session, 1, "first", "")

        def fail() -> None:
            with storage.transaction() as session:
                audit.record(session, 2, "second", "")
                session.flush()
                raise RuntimeError

        with pytest.raises(RuntimeError):
            fail()
        assert actions(storage) == ["first"]

    def test_it_waits_for_the_disk(self, storage: Storage) -> None:
        with storage.transaction() as session:
            assert session.connection().exec_driver_sql("PRAGMA synchronous").scalar() == 2
            assert session.connection().exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
            assert session.connection().exec_driver_sql("PRAGMA foreign_keys").scalar() == 1

    def test_a_reader_does_not_wait_for_a_writer(self, storage: Storage) -> None:
        with storage.transaction() as session:
            audit.record(session, 1, "first", "")
            session.flush()
            assert actions(storage) == []

    def test_held_it_uses_connections_again_and_promises_the_same(self, storage: Storage) -> None:
        def fail() -> None:
            with storage.transaction() as session:
                audit.record(session, 9, "dropped", "")
                session.flush()
                raise RuntimeError

        storage.hold()
        used = set()
        for number in range(3):
            with storage.transaction() as session:
                used.add(id(session.connection().connection.dbapi_connection))
                assert session.connection().exec_driver_sql("PRAGMA synchronous").scalar() == 2
                assert session.connection().exec_driver_sql("PRAGMA foreign_keys").scalar() == 1
                audit.record(session, number, f"stored {number}", "")
                session.flush()
                assert len(actions(storage)) == number
            with pytest.raises(RuntimeError):
                fail()
        assert len(used) == 1
        assert actions(storage) == ["stored 0", "stored 1", "stored 2"]
        assert storage.path.with_name(f"{storage.path.name}-wal").exists()
        storage.release()
        # Who is the last to close it has put everything into the file.
        assert not storage.path.with_name(f"{storage.path.name}-wal").exists()
        assert len(actions(storage)) == 3

    def test_held_it_is_copied_into_the_file_beside_who_writes(self, storage: Storage) -> None:
        """By no commit, as SQLite would: that one's caller would wait for it."""
        storage.hold()
        alone = storage.path.with_name("alone.db")

        def in_the_file() -> int:
            # Without the log that stands beside it; in the midst of the copying it is nothing whole.
            shutil.copyfile(storage.path, alone)
            with (
                suppress(sqlite3.DatabaseError),
                closing(sqlite3.connect(f"file:{alone}?immutable=1", uri=True)) as database,
            ):
                return int(database.execute("SELECT count(*) FROM audit").fetchone()[0])
            return -1

        for number in range(1, COMMITS + 1):
            assert number < 3 or in_the_file() == 0
            with storage.transaction() as session:
                audit.record(session, number, "x" * 100_000, "")
        wait_until(lambda: in_the_file() == COMMITS, "the log is copied")
        storage.release()
        assert len(actions(storage)) == COMMITS

    def test_it_is_readable_by_its_owner_only(self, storage: Storage) -> None:
        assert storage.path.stat().st_mode & 0o777 == 0o600

    def test_nothing_is_overwritten(self, storage: Storage) -> None:
        with pytest.raises(StorageError, match="already"):
            Storage.create(storage.path)

    @pytest.mark.parametrize("damage", ["garbage", "truncated", "no tables", "missing"])
    def test_damage_is_named_with_the_cure(self, storage: Storage, damage: str) -> None:
        with storage.transaction() as session:
            for number in range(2000):
                audit.record(session, number, "x" * 50, "")
        path = storage.path
        match damage:
            case "garbage":
                path.write_bytes(b"garbage" * 1000)
            case "truncated":
                path.write_bytes(path.read_bytes()[: path.stat().st_size // 2 + 100])
            case "no tables":
                path.unlink()
                sqlite3.connect(path).close()
                connection = sqlite3.connect(path)
                connection.execute("create table alembic_version (version_num text)")
                connection.execute("insert into alembic_version values ('0001')")
                connection.commit()
                connection.close()
            case _:
                path.unlink()
        with pytest.raises(StorageError) as caught:
            actions(Storage.open(path))
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)
        assert caught.value.cure

    def test_a_database_of_a_newer_version_is_left_alone(self, storage: Storage) -> None:
        connection = sqlite3.connect(storage.path)
        connection.execute("update alembic_version set version_num = '9999'")
        connection.commit()
        connection.close()
        with pytest.raises(StorageError, match="newer"):
            Storage.open(storage.path)

    def test_a_full_disk_is_a_storage_error_and_changes_nothing(self, storage: Storage) -> None:
        with storage.transaction() as session:
            audit.record(session, 1, "first", "")

        def fill() -> None:
            with storage.transaction() as session:
                connection = session.connection()
                pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
                connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
                for number in range(10_000):
                    audit.record(session, number, "x" * 100, "")

        with pytest.raises(StorageError, match="full"):
            fill()
        assert actions(storage) == ["first"]


class TestWorker:
    async def test_jobs_run_one_after_the_other_and_install_in_order(self) -> None:
        worker = StorageWorker()
        running = 0
        installed: list[int] = []

        def job(number: int) -> int:
            nonlocal running
            running += 1
            assert running == 1
            running -= 1
            return number

        await asyncio.gather(*(worker.run(lambda n=n: job(n), installed.append) for n in range(50)))  # type: ignore[misc]
        assert installed == list(range(50))
        worker.close()

    async def test_what_is_stored_is_installed_though_the_client_has_gone(self) -> None:
        worker = StorageWorker()
        installed: list[int] = []
        waiting = asyncio.ensure_future(worker.run(lambda: 7, installed.append))
        await asyncio.sleep(0)
        waiting.cancel()
        await worker.run(lambda: 8)
        assert installed == [7]
        worker.close()

    async def test_an_error_reaches_the_caller_and_installs_nothing(self) -> None:
        worker = StorageWorker()
        installed: list[None] = []

        def fail() -> None:
            raise StorageError("x", "broken")

        with pytest.raises(StorageError):
            await worker.run(fail, installed.append)
        assert installed == []
        worker.close()


class TestVault:
    SECRET = Secret(bytes(range(32)))

    def vault(self, folder: Path, mode: int = 0o600) -> Vault:
        path = folder / KEY_FILE
        path.write_bytes(Vault.new_key())
        path.chmod(mode)
        return Vault.load(path)

    def test_what_is_sealed_is_opened_at_the_same_place(self, tmp_path: Path) -> None:
        vault = self.vault(tmp_path)
        sealed = vault.seal(self.SECRET, "slot 1")
        assert self.SECRET.reveal() not in sealed
        assert vault.open(sealed, "slot 1") == self.SECRET
        assert vault.seal(self.SECRET, "slot 1") != sealed

    def test_rows_cannot_be_exchanged(self, tmp_path: Path) -> None:
        vault = self.vault(tmp_path)
        with pytest.raises(StorageError, match="slot 2"):
            vault.open(vault.seal(self.SECRET, "slot 1"), "slot 2")

    def test_another_key_does_not_open_it(self, tmp_path: Path) -> None:
        sealed = self.vault(tmp_path).seal(self.SECRET, "slot 1")
        with pytest.raises(StorageError, match="does not open"):
            self.vault(tmp_path).open(sealed, "slot 1")

    def test_a_key_that_others_may_read_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(StorageError, match="others may read"):
            self.vault(tmp_path, 0o640)

    def test_a_missing_or_short_key_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(StorageError, match=KEY_FILE):
            Vault.load(tmp_path / KEY_FILE)
        (tmp_path / KEY_FILE).touch(0o600)
        with pytest.raises(StorageError, match="32 bytes"):
            Vault.load(tmp_path / KEY_FILE)
