"""The ledger of a site CA: what was about to be signed, durable before the signature.

A file of its own beside the key, so that it can lie with the key in the hands of a signer process. Rows are
only added; triggers refuse everything else. What is lost after a signature (a crash, a full disk, a database
that goes back to a backup) is found again here by its serial number. Every number that must not go back has
its last value here: CRL, policies. So has each key of the site CA that a signer process has made: what became
of it.
"""

import json
import os
import sqlite3
import threading
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

from cryptography.x509 import random_serial_number

from sealcast.ca.issuer import Intent, Issuance, Permit
from sealcast.errors import StorageError
from sealcast.pki.crl import Revocation
from sealcast.pki.names import Identity, Role
from sealcast.pki.profiles import check_usages

BUSY_SECONDS = 10.0

FORMAT = 3

_TABLES = """
CREATE TABLE settings (id INTEGER PRIMARY KEY AUTOINCREMENT, value TEXT NOT NULL);
CREATE TABLE issuances (
  position INTEGER PRIMARY KEY AUTOINCREMENT, serial TEXT NOT NULL UNIQUE, identity TEXT NOT NULL,
  request BLOB NOT NULL, time INTEGER NOT NULL, ends INTEGER NOT NULL);
CREATE TABLE outcomes (
  position INTEGER PRIMARY KEY REFERENCES issuances, certificate BLOB);
CREATE TABLE crls (number INTEGER PRIMARY KEY, time INTEGER NOT NULL);
CREATE TABLE policies (
  channel TEXT NOT NULL, version INTEGER NOT NULL, time INTEGER NOT NULL, PRIMARY KEY (channel, version));
CREATE TABLE revocations (serial TEXT PRIMARY KEY, time INTEGER NOT NULL, ends INTEGER NOT NULL);
CREATE TABLE names (
  id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL, removed INTEGER NOT NULL, time INTEGER NOT NULL);
CREATE INDEX issuances_time ON issuances (time);
CREATE INDEX revocations_ends ON revocations (ends);
CREATE INDEX names_name ON names (name);
"""

_PERMITS = """
CREATE TABLE permits (
  id INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, name TEXT NOT NULL, given INTEGER NOT NULL,
  time INTEGER NOT NULL);
CREATE INDEX permits_name ON permits (kind, name);
"""
"""Since format 2."""

_SITE_KEYS = """
CREATE TABLE site_keys (
  id INTEGER PRIMARY KEY AUTOINCREMENT, key BLOB NOT NULL, state TEXT NOT NULL, certificate BLOB,
  time INTEGER NOT NULL);
"""
"""Since format 3."""

_APPEND_ONLY = (
    *("settings", "issuances", "outcomes", "crls", "policies", "revocations", "names", "permits"),
    "site_keys",
)


class KeyState(StrEnum):
    """What a key of the site CA is good for; in this order, and never back."""

    MADE = "made"
    """A root has yet to certify it."""
    CERTIFIED = "certified"
    """It may issue, and may still be given up."""
    ISSUES = "issues"
    LISTS = "lists"
    """Another one issues; it signs the lists of what it has issued."""
    GONE = "gone"
    """Destroyed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteKey:
    """A key of the site CA, by the last row of it."""

    key: bytes
    """SHA-256 of its SubjectPublicKeyInfo."""
    state: KeyState
    certificate: bytes | None = None
    """DER."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerSettings:
    """What the site CA certifies besides what a request says; the last row counts."""

    site_id: str
    """Hexadecimal."""
    key_server_name: str
    hosts: tuple[str, ...]
    """Under which the key server may be certified."""
    device_usages: tuple[str, ...] = ()
    """Extended key usages of devices besides clientAuth and serverAuth: dotted OIDs."""

    def __post_init__(self) -> None:
        check_usages(self.device_usages)


class Ledger:
    """The file; several processes may use it, each change is one transaction."""

    def __init__(self, path: Path) -> None:
        """Use the ledger at `path`; it is opened when first needed."""
        self.path = path
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        # What has been read of the revocations: the end of each, and the last row.
        self._revoked: list[tuple[int, Revocation]] = []
        self._revoked_up_to = 0
        # Those of them that have not ended, at every time from one up to another.
        self._lasting: list[Revocation] = []
        self._lasting_from, self._lasting_until = 0, 0
        # The same of the names.
        self._removed: frozenset[str] = frozenset()
        self._names_up_to = 0

    @staticmethod
    def create(path: Path, settings: LedgerSettings) -> "Ledger":
        """Make a ledger, whole or not at all.

        Raises: StorageError, also if there is one already.
        """
        temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
        temporary.unlink(missing_ok=True)
        ledger = Ledger(path)
        with ledger._errors():
            connection = sqlite3.connect(temporary, isolation_level=None)
            try:
                connection.executescript(
                    _TABLES + _PERMITS + _SITE_KEYS + "".join(map(_append_only, _APPEND_ONLY))
                )
                connection.execute(f"PRAGMA user_version={FORMAT}")
                connection.execute("INSERT INTO settings (value) VALUES (?)", [_text(settings)])
            finally:
                connection.close()
            try:
                temporary.chmod(0o600)
                os.link(temporary, path)
            except FileExistsError:
                raise StorageError(str(path), "there is a ledger already", cure="keep it") from None
            except OSError as error:
                raise StorageError(str(path), error.strerror or str(error)) from None
            finally:
                temporary.unlink(missing_ok=True)
        return ledger

    def close(self) -> None:
        """Close the file until it is needed again."""
        with self._lock, self._errors():
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.close()

    # --- settings -------------------------------------------------------------------------------------------

    def settings(self) -> LedgerSettings:
        """The settings in force."""
        with self._read() as connection:
            row = connection.execute("SELECT value FROM settings ORDER BY id DESC LIMIT 1").fetchone()
        try:
            values = json.loads(row[0])
            return LedgerSettings(
                site_id=values["site_id"],
                key_server_name=values["key_server_name"],
                hosts=tuple(values["hosts"]),
                device_usages=tuple(values["device_usages"]),
            )
        except (TypeError, ValueError, KeyError):
            raise StorageError(str(self.path), "its settings make no sense", cure=_RESTORE) from None

    def change_settings(self, settings: LedgerSettings) -> None:
        """Put other settings in force."""
        with self._change() as connection:
            connection.execute("INSERT INTO settings (value) VALUES (?)", [_text(settings)])

    # --- certificates ---------------------------------------------------------------------------------------

    def reserve(self, intent: Intent) -> int:
        """Store what is about to be signed, under a fresh serial number, and return that.

        When this returns it is on the disk.
        """
        return self.reserve_all([intent])[0]

    def reserve_all(self, intents: Sequence[Intent]) -> list[int]:
        """As `reserve`, for many in one write."""
        if not intents:
            return []
        with self._change() as connection:
            return [_reserve(connection, intent) for intent in intents]

    def conclude(self, serial: int, certificate: bytes | None) -> None:
        """Note that the certificate with this SHA-256 was signed, or that nothing was.

        It may be lost in a power cut; then it stays open whether there was a signature.
        """
        self.conclude_all({serial: certificate})

    def conclude_all(self, outcomes: Mapping[int, bytes | None]) -> None:
        """As `conclude`, for many in one write."""
        if not outcomes:
            return
        with self._change(durable=False) as connection:
            connection.executemany(
                "INSERT INTO outcomes (position, certificate)"
                " SELECT position, ? FROM issuances WHERE serial = ?",
                [(certificate, f"{serial:x}") for serial, certificate in outcomes.items()],
            )

    def issued_after(self, position: int, limit: int) -> Sequence[Issuance]:
        """The first `limit` entries above a position."""
        with self._read() as connection:
            rows = connection.execute(
                "SELECT issuances.position, serial, identity, request, time, ends, outcomes.position,"
                " certificate FROM issuances LEFT JOIN outcomes USING (position)"
                " WHERE issuances.position > ? ORDER BY issuances.position LIMIT ?",
                [position, limit],
            ).fetchall()
        return [
            Issuance(
                position=at,
                intent=Intent(identity=Identity.from_uri(identity), request=request, time=time, ends=ends),
                serial=int(serial, 16),
                certificate=certificate,
                is_void=concluded is not None and certificate is None,
            )
            for at, serial, identity, request, time, ends, concluded, certificate in rows
        ]

    def last_position(self) -> int:
        """The position of the newest entry; 0 without any."""
        return self._number("SELECT max(position) FROM issuances")

    def times_since(self, role: Role, moment: int) -> list[int]:
        """When certificates of a role were asked for after a moment, in their order."""
        with self._read() as connection:
            rows = connection.execute(
                "SELECT time FROM issuances WHERE time > ? AND identity LIKE ? ORDER BY position",
                [moment, f"sealcast:{role}:%"],
            ).fetchall()
        return [time for (time,) in rows]

    # --- numbers that only move forward ---------------------------------------------------------------------

    def reserve_crl(self, number: int, now: int) -> int:
        """Store that a CRL is about to be signed: under `number`, or a higher one; returns it."""
        with self._change() as connection:
            return _reserve_crl(connection, number, now)

    def reserve_policy(self, channel: str, version: int, now: int) -> int:
        """Store that a policy is about to be signed: as `version`, or a higher one; returns it."""
        return self.reserve_policies([(channel, version)], now)[0]

    def reserve_policies(self, wanted: Iterable[tuple[str, int]], now: int) -> list[int]:
        """As `reserve_policy`, for channels and versions in one write."""
        with self._change() as connection:
            return [_reserve_policy(connection, channel, version, now) for channel, version in wanted]

    # --- revocation -----------------------------------------------------------------------------------------

    def revoke(
        self, revocations: Iterable[Revocation], ends: int, number: int, now: int
    ) -> tuple[list[Revocation], int]:
        """Store revocations, and the number of the CRL that will tell of them, as `reserve_crl` does.

        `ends`: for how long a serial number that the ledger does not know may matter.
        Returns: all that have not ended, and the number.
        """
        with self._lock:
            with self._change() as connection:
                number = _reserve_crl(connection, number, now)
                _revoke(connection, revocations, ends)
                # Rows are only added, so that those which were read before are as they were.
                rows = connection.execute(
                    "SELECT rowid, serial, time, ends FROM revocations WHERE rowid > ? ORDER BY rowid",
                    [self._revoked_up_to],
                ).fetchall()
            for self._revoked_up_to, serial, time, end in rows:
                self._note_revoked(end, Revocation(serial=int(serial, 16), time=time))
            return self._not_ended(now), number

    def _note_revoked(self, end: int, revocation: Revocation) -> None:
        self._revoked.append((end, revocation))
        if end > self._lasting_from:
            self._lasting.append(revocation)
            self._lasting_until = min(self._lasting_until, end)

    def _not_ended(self, now: int) -> list[Revocation]:
        if not self._lasting_from <= now < self._lasting_until:
            ended = [end for end, _ in self._revoked if end <= now]
            lasting = [(end, revocation) for end, revocation in self._revoked if end > now]
            self._lasting = [revocation for _, revocation in lasting]
            self._lasting_from = max(ended, default=0)
            self._lasting_until = min((end for end, _ in lasting), default=_NEVER)
        return list(self._lasting)

    def enter_revocation(self, revocation: Revocation, ends: int) -> None:
        """Store a revocation from before there was a ledger; `ends`: of its certificate."""
        with self._change() as connection:
            _revoke(connection, [revocation], ends)

    def is_revoked(self, serial: int) -> bool:
        """Whether a serial number was ever on a CRL."""
        with self._read() as connection:
            query = "SELECT 1 FROM revocations WHERE serial = ?"
            return connection.execute(query, [f"{serial:x}"]).fetchone() is not None

    def set_removed(self, name: str, now: int, *, removed: bool) -> None:
        """Note that a device is removed, or that it may come back."""
        with self._change() as connection:
            if _is_removed(connection, name) is not removed:
                connection.execute(
                    "INSERT INTO names (name, removed, time) VALUES (?, ?, ?)", [name, removed, now]
                )

    def is_removed(self, name: str) -> bool:
        """Whether a device is removed."""
        with self._read() as connection:
            return _is_removed(connection, name)

    def removed_names(self) -> frozenset[str]:
        """The devices that are removed; the same set as before if nothing was noted since."""
        with self._read() as connection:
            rows = connection.execute(
                "SELECT id, name, removed FROM names WHERE id > ? ORDER BY id", [self._names_up_to]
            ).fetchall()
            if rows:
                removed = set(self._removed)
                for self._names_up_to, name, is_removed in rows:
                    (removed.add if is_removed else removed.discard)(name)
                self._removed = frozenset(removed)
            return self._removed

    # --- permits --------------------------------------------------------------------------------------------

    def set_permitted(self, what: Permit, name: str, now: int, *, given: bool) -> None:
        """Note that a name may have certificates of a kind, or may not any more."""
        with self._change() as connection:
            if _is_permitted(connection, what, name) is not given:
                connection.execute(
                    "INSERT INTO permits (kind, name, given, time) VALUES (?, ?, ?, ?)",
                    [str(what), name, given, now],
                )

    def is_permitted(self, what: Permit, name: str) -> bool:
        """Whether a name may have certificates of a kind."""
        with self._read() as connection:
            return _is_permitted(connection, what, name)

    def permitted_names(self, what: Permit) -> frozenset[str]:
        """The names that may have certificates of a kind."""
        with self._read() as connection:
            rows = connection.execute(
                "SELECT name FROM permits WHERE given AND id IN"
                " (SELECT max(id) FROM permits WHERE kind = ? GROUP BY name)",
                [str(what)],
            ).fetchall()
        return frozenset(name for (name,) in rows)

    # --- keys of the site CA --------------------------------------------------------------------------------

    def enter_site_keys(self, keys: Iterable[SiteKey], now: int) -> None:
        """Note what became of keys, all in one write."""
        with self._change() as connection:
            connection.executemany(
                "INSERT INTO site_keys (key, state, certificate, time) VALUES (?, ?, ?, ?)",
                [(key.key, str(key.state), key.certificate, now) for key in keys],
            )

    def site_keys(self) -> list[SiteKey]:
        """The keys that were noted, in the order of their making."""
        with self._read() as connection:
            rows = connection.execute("SELECT key, state, certificate FROM site_keys ORDER BY id").fetchall()
        return list(
            {
                key: SiteKey(key=key, state=KeyState(state), certificate=certificate)
                for key, state, certificate in rows
            }.values()
        )

    # --- inside ---------------------------------------------------------------------------------------------

    def _number(self, query: str) -> int:
        with self._read() as connection:
            (value,) = connection.execute(query).fetchone()
        return int(value or 0)

    @contextmanager
    def _read(self) -> Iterator[sqlite3.Connection]:
        with self._lock, self._errors():
            yield self._open()

    @contextmanager
    def _change(self, *, durable: bool = True) -> Iterator[sqlite3.Connection]:
        with self._lock, self._errors():
            connection = self._open()
            # FULL: what has returned survives a power cut. NORMAL: it survives a crash of the process.
            connection.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            if not self.path.is_file():
                raise StorageError(str(self.path), "the ledger of the site CA is missing", cure=_RESTORE)
            connection = sqlite3.connect(
                self.path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            # No one has to remember to close it: nothing depends on when that happens.
            weakref.finalize(self, connection.close)
            (found,) = connection.execute("PRAGMA user_version").fetchone()
            if found in (1, 2):
                found = _upgrade(connection)
            if found != FORMAT:
                raise StorageError(
                    str(self.path), f"a ledger of format {found}", cure="install the Sealcast that made it"
                )
            connection.execute("PRAGMA journal_mode=WAL")
            self._connection = connection
        return self._connection

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            damaged = isinstance(error, sqlite3.DatabaseError) and "malformed" in str(error)
            raise StorageError(
                str(self.path), f"cannot use the ledger: {error}", cure=_RESTORE if damaged else ""
            ) from error


_NEVER = (1 << 63) - 1
_RESTORE = "restore the folder from a backup"


def _text(settings: LedgerSettings) -> str:
    return json.dumps(asdict(settings), sort_keys=True)


def _append_only(table: str) -> str:
    return "".join(
        f"CREATE TRIGGER {table}_no_{verb} BEFORE {verb} ON {table} "
        "BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;\n"
        for verb in ("update", "delete")
    )


def _reserve(connection: sqlite3.Connection, intent: Intent) -> int:
    while True:
        serial = random_serial_number()
        if _is_unused(connection, f"{serial:x}"):
            break
    connection.execute(
        "INSERT INTO issuances (serial, identity, request, time, ends) VALUES (?, ?, ?, ?, ?)",
        [f"{serial:x}", intent.identity.uri, intent.request, intent.time, intent.ends],
    )
    return serial


def _upgrade(connection: sqlite3.Connection) -> int:
    """From an older format. Returns: the format.

    Whoever is an admin in format 1 was made one by the operator, and stays one.
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        (found,) = connection.execute("PRAGMA user_version").fetchone()
        if found == 1:
            for statement in (_PERMITS + _append_only("permits")).split(";\n"):
                connection.execute(statement)
            rows = connection.execute(
                "SELECT identity, max(time) FROM issuances WHERE identity LIKE ? GROUP BY identity",
                [f"sealcast:{Role.ADMIN}:%"],
            ).fetchall()
            connection.executemany(
                "INSERT INTO permits (kind, name, given, time) VALUES (?, ?, 1, ?)",
                [(str(Permit.ADMIN), Identity.from_uri(identity).name, time) for identity, time in rows],
            )
            found = 2
        if found == 2:
            for statement in (_SITE_KEYS + _append_only("site_keys")).split(";\n"):
                connection.execute(statement)
            found = FORMAT
            connection.execute(f"PRAGMA user_version={found}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return int(found)


def _revoke(connection: sqlite3.Connection, revocations: Iterable[Revocation], ends: int) -> None:
    connection.executemany(
        "INSERT OR IGNORE INTO revocations (serial, time, ends) VALUES"
        " (?1, ?2, coalesce((SELECT ends FROM issuances WHERE serial = ?1), ?3))",
        ([f"{revocation.serial:x}", revocation.time, ends] for revocation in revocations),
    )


def _reserve_policy(connection: sqlite3.Connection, channel: str, version: int, now: int) -> int:
    (last,) = connection.execute("SELECT max(version) FROM policies WHERE channel = ?", [channel]).fetchone()
    version = max(version, (last or 0) + 1)
    connection.execute(
        "INSERT INTO policies (channel, version, time) VALUES (?, ?, ?)", [channel, version, now]
    )
    return version


def _reserve_crl(connection: sqlite3.Connection, number: int, now: int) -> int:
    (last,) = connection.execute("SELECT max(number) FROM crls").fetchone()
    number = max(number, (last or 0) + 1)
    connection.execute("INSERT INTO crls (number, time) VALUES (?, ?)", [number, now])
    return number


def _is_unused(connection: sqlite3.Connection, serial: str) -> bool:
    return not any(
        connection.execute(f"SELECT 1 FROM {table} WHERE serial = ?", [serial]).fetchone()  # noqa: S608
        for table in ("issuances", "revocations")
    )


def _is_permitted(connection: sqlite3.Connection, what: Permit, name: str) -> bool:
    row = connection.execute(
        "SELECT given FROM permits WHERE kind = ? AND name = ? ORDER BY id DESC LIMIT 1", [str(what), name]
    ).fetchone()
    return bool(row and row[0])


def _is_removed(connection: sqlite3.Connection, name: str) -> bool:
    row = connection.execute(
        "SELECT removed FROM names WHERE name = ? ORDER BY id DESC LIMIT 1", [name]
    ).fetchone()
    return bool(row and row[0])
