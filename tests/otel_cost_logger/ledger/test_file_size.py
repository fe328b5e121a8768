"""What keeps the ledger's files small: the write-ahead log is cut, and old bookkeeping goes."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from otel_cost_logger.__main__ import main
from otel_cost_logger.ledger import write_ahead_log

DAY_NS = 86_400 * 10**9


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


def rows(ledger: Path, sql: str, values: tuple[object, ...] = ()) -> list[Any]:
    with closing(sqlite3.connect(ledger)) as connection, connection:
        return connection.execute(sql, values).fetchall()


def test_the_write_ahead_log_is_cut_when_a_reader_has_let_it_grow(
    ledger: Path, durable: Any, make_spans: Any, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write_ahead_log, "_CHECKPOINT_BYTES", 100_000)
    monkeypatch.setattr(write_ahead_log, "_TRUNCATE_BYTES", 400_000)
    log = ledger.with_name("ledger.db-wal")
    processor = durable(InMemorySpanExporter())
    processor.on_end(make_spans(1)[0])
    with closing(sqlite3.connect(ledger, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM spans").fetchone()  # nothing after this may be moved into the database
        for span in make_spans(300):
            processor.on_end(span)
        assert processor.force_flush()  # nobody waited for the reader
        assert log.stat().st_size > 800_000
        reader.execute("ROLLBACK")
    eventually(lambda: log.stat().st_size <= 400_000, "the log is cut")
    assert processor.counts.waiting == 0


def age(ledger: Path, days: int) -> None:
    for column, table in (("started_ns", "processes"), ("ended_ns", "processes"), ("began_ns", "calls_in_flight")):
        rows(ledger, f"UPDATE {table} SET {column} = {column} - ?", (days * DAY_NS,))


def test_processes_and_lost_calls_go_when_they_are_old(
    ledger: Path, durable: Any, eventually: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    for call_id in ("old", "young"):
        process = durable(None)
        process.expect_call(call_id, "acme", "mistral")
        process.shutdown()
        if call_id == "old":
            age(ledger, 200)
    living = durable(None)
    living.expect_call("now", "acme", "mistral")
    rows(ledger, "UPDATE processes SET started_ns = 0 WHERE id = (SELECT max(id) FROM processes)")
    eventually(lambda: rows(ledger, "SELECT count(*) FROM processes") == [(2,)], "the old process is forgotten")
    assert rows(ledger, "SELECT call_id FROM calls_in_flight ORDER BY id") == [("young",), ("now",)]
    rows(ledger, "UPDATE calls_in_flight SET began_ns = began_ns - 3601000000000 WHERE call_id = 'young'")
    assert main(["ledger", "prune", "--days", "0", "--file", str(ledger), "--yes"]) == 0
    assert capsys.readouterr().out == "and 1 calls without a record\n0 spans pruned\n"
    assert rows(ledger, "SELECT call_id FROM calls_in_flight") == [("now",)]  # it may have one yet


def test_a_process_that_was_forgotten_is_back_with_its_next_call(ledger: Path, durable: Any) -> None:
    first = durable(None)
    first.expect_call("one", "acme", "mistral")
    durable(None).expect_call("two", "acme", "mistral")
    assert first._writer.forget_processes(first._writer._identity, time.time_ns())
    rows(ledger, "DELETE FROM processes")  # whoever did it
    first.expect_call("three", "acme", "mistral")
    ((pid, seen),) = rows(ledger, "SELECT pid, calls_seen FROM processes")
    assert (pid > 0, seen) == (True, 1)


def test_an_older_ledger_is_brought_up_to_date_by_the_next_writer(
    ledger: Path, durable: Any, make_spans: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    first = durable(None)
    first.on_end(make_spans(1)[0])
    first.shutdown()
    rows(ledger, "DROP TABLE export_failure")
    rows(ledger, "PRAGMA user_version = 1")
    assert main(["ledger", "status", "--file", str(ledger)]) == 2
    assert "was written by an earlier version; the next start of the proxy" in capsys.readouterr().err
    durable(None).on_end(make_spans(1)[0])
    assert main(["ledger", "status", "--file", str(ledger)]) == 0
    assert "spans        2" in capsys.readouterr().out
