"""Opening the ledger's file: created where there is none, brought up to date, moved aside where it is broken.

It is an SQLite database in write-ahead mode. Several processes may have it open at once. What one process does with
the file itself (create it, move it aside) happens under a lock that the others respect.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from otel_cost_logger.file_lock import locked
from otel_cost_logger.ledger.schema import APPLICATION_ID, COLUMNS, LATER_COLUMNS, TABLES, VERSION

# Pages of 4 KiB. The background thread moves the write-ahead log into the database long before; this is for a
# process whose thread has died. The move waits for the disk, so it must not happen where a span is written.
_CHECKPOINT_PAGES = 16_384

_BROKEN = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_SIDE_FILES = ("-wal", "-shm", "-journal")
LOCKED_SECONDS = 5.0
_log = logging.getLogger(__name__)

FileIdentity = tuple[int, int]  # device and inode


class LedgerError(Exception):
    """The ledger's file cannot be used; the message says which one and why."""


def is_broken(error: BaseException) -> bool:
    """True when ``error`` says that the file is not an SQLite database, or a damaged one."""
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and (code & 0xFF) in _BROKEN


def is_locked(error: BaseException) -> bool:
    """True when ``error`` says that somebody else holds the file: it can be written later."""
    if isinstance(error.__cause__, TimeoutError):
        return True
    return (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def open_for_writing(path: Path, *, busy_seconds: float) -> sqlite3.Connection:
    """A connection to the ledger at ``path``, which is created, upgraded or moved aside as needed.

    Transactions are begun and ended by the caller, and wait ``busy_seconds`` for those of others. Raises
    `LedgerError`, `sqlite3.Error` or `OSError` when the file cannot be written.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _setup_lock(path):
        try:
            return _prepared(path, busy_seconds)
        except sqlite3.DatabaseError as error:
            if not is_broken(error):
                raise
            _move_aside(path, str(error))
            return _prepared(path, busy_seconds)


def open_for_reading(path: Path) -> sqlite3.Connection:
    """A connection that cannot change anything. Raises `LedgerError` when there is no ledger at ``path``."""
    if not path.is_file():
        raise LedgerError(f"there is no ledger at {path}; name the file that OTEL_COST_LOGGER_LEDGER_FILE names")
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=LOCKED_SECONDS, check_same_thread=False
    )
    try:
        connection.execute("PRAGMA query_only = 1")
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
    except sqlite3.Error as error:
        connection.close()
        raise LedgerError(f"{path} cannot be read: {error}") from error
    if application != APPLICATION_ID:
        connection.close()
        raise LedgerError(f"{path} is an SQLite database, but not a ledger")
    if version < VERSION:
        connection.close()
        raise LedgerError(f"{path} was written by an earlier version; the next start of the proxy brings it up to date")
    return connection


def open_beside_writer(path: Path) -> sqlite3.Connection | None:
    """A second connection for the background thread, to a file that exists; None while that is no ledger yet, because
    somebody is making it one. Raises `sqlite3.Error`."""
    uri = f"{path.absolute().as_uri()}?mode=rw"
    connection = sqlite3.connect(uri, uri=True, timeout=LOCKED_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        connection.execute("PRAGMA synchronous = NORMAL")
    except BaseException:
        connection.close()
        raise
    if application != APPLICATION_ID:  # set in the transaction that makes the tables
        connection.close()
        return None
    return connection


def move_aside(path: Path, file: FileIdentity | None, reason: str) -> None:
    """Give the broken ledger at ``path`` a name under which it can be examined, which is logged.

    ``file`` is its `identity`: another process may have moved it already, and begun a new one.
    """
    with _setup_lock(path):
        if file is not None and identity(path) == file:
            _move_aside(path, reason)


def _move_aside(path: Path, reason: str) -> None:
    aside = path.with_name(f"{path.name}.corrupt-{time.time_ns()}")
    path.rename(aside)
    for suffix in _SIDE_FILES:
        with contextlib.suppress(FileNotFoundError):
            path.with_name(path.name + suffix).rename(aside.with_name(aside.name + suffix))
    _log.error("the ledger %s is broken (%s): moved to %s, a new one begins", path, reason, aside)


def identity(path: Path) -> FileIdentity | None:
    """Which file ``path`` names now: device and inode; None when it names none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _prepared(path: Path, busy_seconds: float) -> sqlite3.Connection:
    if not path.exists():
        for suffix in _SIDE_FILES:  # of a file that was removed: SQLite would take them for this one's
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        # Who spends how much is nobody else's business. An existing file is not opened here: closing it again
        # would release the locks of other connections in this process (POSIX).
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    connection = sqlite3.connect(path, timeout=LOCKED_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        _bring_up_to_date(connection, path)
        connection.execute(f"PRAGMA busy_timeout = {int(busy_seconds * 1000)}")
    except BaseException:
        connection.close()
        raise
    return connection


def _bring_up_to_date(connection: sqlite3.Connection, path: Path) -> None:
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if tables and application != APPLICATION_ID:
        raise LedgerError(f"{path} is a database of another program; name another file")
    if version > VERSION:
        raise LedgerError(
            f"{path} was written by a newer version of this plugin (schema {version}, here {VERSION}); "
            "install that version, or name another file"
        )
    (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise LedgerError(f"{path} is on a file system without shared memory; use a local disk")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
    if tables and version == VERSION and not _missing_columns(connection, "spans", COLUMNS):
        return
    connection.execute("BEGIN IMMEDIATE")
    for statement in TABLES:
        connection.execute(statement)
    for table, columns in {"spans": COLUMNS, **LATER_COLUMNS}.items():
        for name in _missing_columns(connection, table, columns):
            connection.execute(f'ALTER TABLE {table} ADD COLUMN "{name}" {columns[name]}')
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {VERSION}")
    connection.execute("COMMIT")


def _missing_columns(connection: sqlite3.Connection, table: str, columns: Iterable[str]) -> list[str]:
    """Those of ``columns`` that a later version has added to ``table``."""
    present = {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}
    return [name for name in columns if name not in present]


@contextlib.contextmanager
def _setup_lock(path: Path) -> Iterator[None]:
    try:
        with locked(path.with_name(path.name + ".setup-lock"), LOCKED_SECONDS):
            yield
    except TimeoutError as error:
        raise LedgerError(f"another process has been opening {path} for {LOCKED_SECONDS:g} s") from error
