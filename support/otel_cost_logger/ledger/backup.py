"""A copy of a ledger: made while it is in use, and put back in its place.

A copy is an SQLite database without a write-ahead log: one file, whole by itself.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from otel_cost_logger.ledger.file import (
    LedgerError,
    is_broken,
    open_any_version,
    refuse_newer,
    rename,
    setup_lock,
)
from otel_cost_logger.ledger.write_ahead_log import log_of
from otel_cost_logger.new_file import new_file, part_of, put


def backup(ledger: Path, copy: Path) -> int:
    """Make ``copy``, a new file, of ``ledger`` as it stands at one moment; returns its spans. Nobody waits for it.

    Of whatever version the ledger is. Raises `LedgerError` when it or its copy is damaged, and `OSError` when the copy
    cannot be written; then there is none.
    """
    with closing(open_any_version(ledger)) as source, new_file(copy, 0o600) as part:
        return _copy(source, ledger, part)


def restore(copy: Path, ledger: Path, *, replace: bool) -> tuple[int, Path | None]:
    """Put the ledger ``copy`` where ``ledger`` is to be; returns its spans, and the new name of what was there.

    Raises `LedgerError` when ``copy`` is damaged or of a newer version, when a process has ``ledger`` open, and when
    there is one and not ``replace``; then nothing is changed.
    """
    with closing(open_any_version(copy)) as source:
        refuse_newer(copy, source)
        _require_free(ledger, replace=replace)
        with part_of(ledger, 0o600) as part:
            spans = _copy(source, copy, part)
            with setup_lock(ledger) as lock, _unused(ledger):
                _require_free(ledger, replace=replace)
                _give_to_owner(ledger, part, lock)
                aside = rename(ledger, "replaced") if _taken(ledger) else None
                put(part, ledger)
    return spans, aside


def copied_in_use(path: Path) -> str | None:
    """What may be wrong with a copy that somebody made of a ledger's main file, while a process had it open; else None.

    Asked first of all: whoever opens the copy makes an empty log beside it.
    """
    if log_of(path).exists():
        return None
    with closing(open_any_version(path)) as connection:
        refuse_newer(path, connection)
        (mode,) = connection.execute("PRAGMA journal_mode").fetchone()
        (running,) = connection.execute("SELECT count(*) FROM processes WHERE ended_ns IS NULL").fetchone()
    if mode != "wal" or not running:
        return None
    return (
        f"{running:,} processes have not said that they ended. If {path} is a copy of a ledger in use, its write-ahead "
        f"log {log_of(path).name} is missing, with the last records: copy it too, or use `ledger backup`"
    )


def counts(connection: sqlite3.Connection) -> dict[str, int]:
    """How many rows each table has."""
    names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name").fetchall()
    return {name: connection.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0] for (name,) in names}


def damage(connection: sqlite3.Connection) -> list[str]:
    """What SQLite finds wrong with the file's structure."""
    try:
        found = [text for (text,) in connection.execute("PRAGMA integrity_check(5)")]
    except sqlite3.DatabaseError as error:
        return [str(error)]
    return [] if found == ["ok"] else found


def _copy(source: sqlite3.Connection, path: Path, part: Path) -> int:
    with closing(sqlite3.connect(part, isolation_level=None)) as target:
        try:
            source.execute("BEGIN")  # what is counted is what is copied
            counted = counts(source)
            source.backup(target)
            source.execute("ROLLBACK")
            target.execute("PRAGMA journal_mode = DELETE")
            wrong = damage(target) or ([] if counts(target) == counted else ["the copy has other rows"])
        except sqlite3.DatabaseError as error:
            wrong = [str(error)]
        if wrong:
            raise LedgerError(f"{path} cannot be copied: {wrong[0]}; `ledger check` says whether it is damaged")
    return counted.get("spans", 0)


def _taken(ledger: Path) -> bool:
    """True also for a log whose ledger is gone: SQLite would take it for that of the next one."""
    return ledger.exists() or log_of(ledger).exists()


def _give_to_owner(ledger: Path, *files: Path) -> None:
    """When root restores, the ledger is still the proxy's user's."""
    owner = (ledger if ledger.exists() else ledger.absolute().parent).stat()
    if os.geteuid() == 0:
        for file in files:
            os.chown(file, owner.st_uid, owner.st_gid)


def _require_free(ledger: Path, *, replace: bool) -> None:
    if _taken(ledger) and not replace:
        raise LedgerError(f"{ledger} exists; --yes moves it aside and puts the copy in its place")


@contextmanager
def _unused(ledger: Path) -> Iterator[None]:
    """Nobody has ``ledger`` open until the end, and its log is in it. Raises `LedgerError` when somebody has."""
    if not ledger.exists():
        yield
        return
    with closing(sqlite3.connect(ledger, timeout=0, isolation_level=None)) as connection:
        try:
            connection.execute("PRAGMA journal_mode = DELETE")  # SQLite lets only the last one who has it open do that
            connection.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError as error:
            raise LedgerError(f"{ledger} is in use ({error}): stop every process that has it open, first") from error
        except sqlite3.DatabaseError as error:
            if not is_broken(error):  # a broken one is nobody's
                raise
        yield
