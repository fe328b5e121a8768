"""Keeping SQLite's write-ahead log small while somebody writes to it without a pause."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from otel_cost_logger.ledger.file import LOCKED_SECONDS

_CHECKPOINT_BYTES = 4 * 1024 * 1024
_TRUNCATE_BYTES = 4 * _CHECKPOINT_BYTES
_TRUNCATE_MILLIS = 20


def shorten(connection: sqlite3.Connection, path: Path) -> None:
    """Move the write-ahead log of the database at ``path`` into it, if it has grown.

    A checkpoint that keeps nobody waiting is enough as long as writers pause now and then. Otherwise they have always
    added something meanwhile, and the log grows on; so from 16 MiB on, what little is left is moved while nobody
    writes. Readers are not waited for, or writers would wait with us: the log grows as long as somebody reads.
    """
    log = path.with_name(path.name + "-wal")
    if _size(log) <= _CHECKPOINT_BYTES:
        return
    connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    if _size(log) > _TRUNCATE_BYTES:
        connection.execute(f"PRAGMA busy_timeout = {_TRUNCATE_MILLIS}")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        connection.execute(f"PRAGMA busy_timeout = {LOCKED_SECONDS * 1000:.0f}")


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
