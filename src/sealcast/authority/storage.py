"""The database: one SQLite file, one writer, one transaction for each change.

`Storage.transaction` and `Storage.snapshot` block; the service runs them in the one worker thread of
`StorageWorker`, so that its event loop never waits for a disk, and so that changes happen one after the
other.
"""

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool, QueuePool

from sealcast.errors import StorageError

DATABASE_FILE = "authority.db"

BUSY_TIMEOUT_MS = 10_000
"""How long a writer waits for another process (a command beside the service, a backup)."""

COMMITS = 64
"""After so many the write-ahead log of a database that is held is copied into it."""

Result = TypeVar("Result")


class Storage:
    """The database of an authority."""

    def __init__(self, path: Path) -> None:
        """Open the database at `path`; nothing is read yet."""
        self.path = path
        # Connections are opened for each transaction: a job always sees the file that is there, and no lock
        # lingers.
        self._engine = _engine(path, poolclass=NullPool)
        self._held: Engine | None = None
        self._checkpoints: _Checkpoints | None = None

    @staticmethod
    def create(path: Path) -> "Storage":
        """Make a new database at `path` with every table.

        Raises:
            StorageError: there is a file already, or it cannot be made.
        """
        if path.exists():
            raise StorageError(str(path), "there is a database already", cure="choose another folder")
        storage = Storage(path)
        with storage._errors():
            _upgrade(storage._engine)
        path.chmod(0o600)
        return storage

    @staticmethod
    def open(path: Path) -> "Storage":
        """Open the database at `path`, check it, and bring its tables up to date.

        Raises:
            StorageError: missing, damaged, of a newer version, or not writable.
        """
        if not path.is_file():
            raise StorageError(
                str(path),
                "there is no database",
                cure="make one with: sealcast authority init DIR --site NAME",
            )
        storage = Storage(path)
        with storage._errors():
            with storage._engine.connect() as connection:
                verdict = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar()
                if verdict != "ok":
                    raise StorageError(str(path), f"the database is damaged: {verdict}", cure=_RESTORE)
            _upgrade(storage._engine)
        return storage

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """A session whose changes are durable together when the block ends, or not made at all.

        Raises:
            StorageError: the database cannot be read or written.
        """
        with (
            self._errors(),
            self._connect() as connection,
            connection.begin(),
            Session(connection, expire_on_commit=False, join_transaction_mode="rollback_only") as session,
        ):
            yield session
            session.flush()
        if self._checkpoints is not None:
            self._checkpoints.count_commit()

    @contextmanager
    def snapshot(self) -> Iterator[Session]:
        """A session that reads one state of the database, beside whoever writes.

        Raises:
            StorageError: the database cannot be read.
        """
        with (
            self._errors(),
            self._connect().execution_options(**{_READ_ONLY: True}) as connection,
            Session(connection) as session,
        ):
            yield session

    def hold(self) -> None:
        """Keep the database open between transactions, until `release`.

        Else each transaction would be the last to close it, which makes SQLite copy the write-ahead log into
        the database and wait for the disk three times more. The connections are used again, with the
        statements and pages that they know; what they write is copied into the database beside them.
        """
        with self._errors():
            held = _engine(
                self.path, poolclass=QueuePool, pool_size=_KEPT, max_overflow=-1, pool_use_lifo=True
            )
            event.listen(held, "connect", _copy_late)
            held.connect().close()
        self._held, self._checkpoints = held, _Checkpoints(self.path)

    def release(self) -> None:
        """Let the last transaction close the database."""
        held, self._held = self._held, None
        checkpoints, self._checkpoints = self._checkpoints, None
        if checkpoints is not None:
            checkpoints.close()
        if held is not None:
            held.dispose()

    def _connect(self) -> Connection:
        return (self._held or self._engine).connect()

    def _errors(self) -> "_DatabaseErrors":
        return _DatabaseErrors(self.path)


class StorageWorker:
    """Runs jobs on the database one after the other in a thread of its own."""

    def __init__(self) -> None:
        """Start with nothing to do; the thread begins with the first job."""
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="storage")

    async def run(self, job: Callable[[], Result], then: Callable[[Result], None] | None = None) -> Result:
        """Run `job` in the worker, then `then(result)` on the event loop, and return the result.

        `then` runs exactly once for each job that succeeded, in the order of the jobs, even when the caller
        has been cancelled meanwhile: what is stored becomes visible whether or not the client that asked is
        still there.
        """
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Result] = loop.create_future()

        def finish(result: Result | None, error: BaseException | None) -> None:
            try:
                if error is None and then is not None:
                    then(result)  # type: ignore[arg-type]
            except Exception as raised:  # noqa: BLE001  # handed to the caller below
                error = raised
            if done.cancelled():
                return
            if error is None:
                done.set_result(result)  # type: ignore[arg-type]
            else:
                done.set_exception(error)

        def work() -> None:
            try:
                result = job()
            except BaseException as error:  # noqa: BLE001  # handed to the caller
                loop.call_soon_threadsafe(finish, None, error)
            else:
                loop.call_soon_threadsafe(finish, result, None)

        self._executor.submit(work)
        return await done

    def close(self) -> None:
        """Finish the jobs that wait, then end the thread."""
        self._executor.shutdown(wait=True)


class _Checkpoints:
    """Copies the write-ahead log into the database in a thread of its own.

    Left to SQLite, the commit that fills the log does it, and its caller waits for the disk tens of
    milliseconds longer than others.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._commits = 0
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._running: Future[None] | None = None

    def count_commit(self) -> None:
        """Begin once enough was written since the last time, and it is done."""
        self._commits += 1
        if self._commits >= COMMITS and (self._running is None or self._running.done()):
            self._commits = 0
            self._running = self._executor.submit(self._copy)

    def close(self) -> None:
        """Finish what has begun."""
        self._executor.shutdown(wait=True)

    def _copy(self) -> None:
        # What keeps this from its work is told to who writes next; the log keeps everything meanwhile.
        with suppress(sqlite3.Error), closing(sqlite3.connect(self._path, isolation_level=None)) as log:
            log.execute("PRAGMA synchronous=FULL")
            log.execute("PRAGMA wal_checkpoint(PASSIVE)")


_LATE_PAGES = 16_000
"""Of 4 KB: a log as long as that is copied by who fills it, or it would grow while nobody ever rests."""

_KEPT = 6
"""Connections: who writes, and those that read at once."""

_READ_ONLY = "sealcast_read_only"
_RESTORE = "restore the folder from a backup"


class _DatabaseErrors:
    """Turns what SQLite says into one line that names the file and the cure."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        original = error.orig if isinstance(error, DBAPIError) else error
        if not isinstance(original, sqlite3.Error):
            return
        text = str(original)
        if "malformed" in text or "not a database" in text or "no such table" in text:
            raise StorageError(str(self._path), f"the database is damaged: {text}", cure=_RESTORE) from error
        if "locked" in text:
            raise StorageError(
                str(self._path),
                f"the database is in use: {text}",
                cure="wait for the other command, or end it",
            ) from error
        if isinstance(original, sqlite3.OperationalError):
            raise StorageError(str(self._path), f"cannot use the database: {text}") from error


def _engine(path: Path, **pool: Any) -> Engine:
    engine = create_engine(
        f"sqlite:///{path}",
        # An error text goes to logs, and what was to be stored has no place there (invariant 9).
        hide_parameters=True,
        # A connection serves one thread at a time, but not always the same one.
        connect_args={"timeout": BUSY_TIMEOUT_MS / 1000, "check_same_thread": False},
        **pool,
    )
    event.listen(engine, "connect", _configure)
    event.listen(engine, "begin", _begin)
    return engine


def _configure(connection: Any, _record: object) -> None:
    # The driver must not begin transactions by itself: it would leave DDL outside of them, and begin
    # deferred.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    # FULL: a transaction that has returned survives a power cut. The promise of SC-6 and of revocation.
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA foreign_keys=ON")
    # Deleted slot secrets are ciphertext already; this also removes them from the file.
    cursor.execute("PRAGMA secure_delete=ON")
    cursor.close()


def _copy_late(connection: Any, _record: object) -> None:
    connection.execute(f"PRAGMA wal_autocheckpoint={_LATE_PAGES}").close()


def _begin(connection: Connection) -> None:
    # IMMEDIATE: a transaction that reads, decides and writes must not decide on what another is changing.
    reads = connection.get_execution_options().get(_READ_ONLY)
    connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")


def migrations(connection: Connection | None = None) -> Config:
    """What alembic has to know of the tables' history, to change those behind a connection."""
    config = Config()
    config.set_main_option("script_location", str(files("sealcast.authority") / "migrations"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


def _upgrade(engine: Engine) -> None:
    config = migrations()
    head = ScriptDirectory.from_config(config).get_current_head()
    with engine.connect() as connection, connection.begin():
        present = MigrationContext.configure(connection).get_current_revision()
        if present == head:
            return
        known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
        if present is not None and present not in known:
            raise StorageError(
                str(engine.url.database),
                f"the database was made by a newer Sealcast (revision {present})",
                cure="install that version",
            )
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
