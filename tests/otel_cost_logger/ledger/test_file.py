"""Opening the ledger's file while another thread or process is at it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from otel_cost_logger.ledger.file import open_beside_writer, open_for_writing


def test_a_file_that_is_being_made_a_ledger_is_none_yet(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.db"
    ledger.touch()
    assert open_beside_writer(ledger) is None
    with closing(open_for_writing(ledger, busy_seconds=1)):
        connection = open_beside_writer(ledger)
        assert connection is not None
        with closing(connection):
            assert connection.execute("SELECT count(*) FROM outbox").fetchone() == (0,)


def test_a_file_that_is_no_database_is_an_error(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.db"
    ledger.write_bytes(b"not a database" * 100)
    with pytest.raises(sqlite3.DatabaseError, match="not a database"):
        open_beside_writer(ledger)
