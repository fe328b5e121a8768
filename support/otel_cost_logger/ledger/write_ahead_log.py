"""SQLite's write-ahead log: kept small while somebody writes to it without a pause, and emptied at the end."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

LOCKED_SECONDS = 5.0
_CHECKPOINT_BYTES = 4 * 1024 * 1024
_TRUNCATE_BYTES = 4 * _CHECKPOINT_BYTES
_TRUNCATE_MILLIS = 20
_EMPTY_MILLIS = 250  # an event loop that is shutting down may be waiting


def log_of(path: Path) -> Path:
    """The write-ahead log of the database at ``path``, which SQLite keeps beside it."""
    return path.with_name(path.name + "-wal")


def size(path: Path) -> int:
    """The bytes of the file ``path``, 0 when there is none."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def shorten(connection: sqlite3.Connection, path: Path) -> None:
    """Move the write-ahead log of the database at ``path`` into it, if it has grown.

    A checkpoint that keeps nobody waiting is enough as long as writers pause now and then. Otherwise they have always
    added something meanwhile, and the log grows on; so from 16 MiB on, what little is left is moved while nobody
    writes. Readers are not waited for, or writers would wait with us: the log grows as long as somebody reads.
    """
    if size(log_of(path)) <= _CHECKPOINT_BYTES:
        return
    connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    if size(log_of(path)) > _TRUNCATE_BYTES:
        _truncate(connection, _TRUNCATE_MILLIS)


def empty(connection: sqlite3.Connection) -> None:
    """Move all of the write-ahead log into the database, so that its file alone is whole.

    Where a reader or a writer stays at it, the log stays, too: that loses nothing.
    """
    with contextlib.suppress(sqlite3.Error):
        _truncate(connection, _EMPTY_MILLIS)


def _truncate(connection: sqlite3.Connection, busy_millis: int) -> None:
    connection.execute(f"PRAGMA busy_timeout = {busy_millis}")
    try:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    finally:
        connection.execute(f"PRAGMA busy_timeout = {LOCKED_SECONDS * 1000:.0f}")
