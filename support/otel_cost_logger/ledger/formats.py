"""The ledger in other people's formats: CSV, OTLP JSON lines, Parquet."""

from __future__ import annotations

import csv
import json
import sqlite3
from importlib import import_module
from pathlib import Path
from typing import Any, TextIO

from otel_cost_logger.ledger.file import LedgerError
from otel_cost_logger.ledger.reading import Window, payloads, rows
from otel_cost_logger.ledger.schema import COLUMNS, RECORD_FIELDS
from otel_cost_logger.otlp.decoding import json_of
from otel_cost_logger.text_table import plain

_PARQUET_TYPES = {"INTEGER": "Int64", "REAL": "Float64", "TEXT": "string"}  # pandas's own, which know "no value"


def write_csv(connection: sqlite3.Connection, window: Window, out: TextIO) -> int:
    """One line per span below a line of column names; an unknown value is empty. Returns the number of spans."""
    names, found = rows(connection, window)
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(names)
    written = 0
    for row in found:
        writer.writerow([plain(value, None) if isinstance(value, float) else value for value in row])
        written += 1
    return written


def write_json_lines(connection: sqlite3.Connection, window: Window, out: TextIO) -> int:
    """One ``TracesData`` object of OTLP JSON per line, each with one span, as a Collector's file exporter writes and
    its file receiver reads. Returns the number of spans."""
    written = 0
    for batch in payloads(connection, window):
        for payload in batch:
            out.write(json.dumps(json_of(payload), ensure_ascii=False) + "\n")
        written += len(batch)
    return written


def write_parquet(connection: sqlite3.Connection, window: Window, path: Path) -> int:
    """A Parquet file with the ledger's columns; integers stay integers where a value is unknown. Returns the number
    of spans. Raises `LedgerError` where pandas and pyarrow are not installed."""
    try:
        pandas: Any = import_module("pandas")
        import_module("pyarrow")
    except ImportError as error:
        raise LedgerError(
            f"Parquet needs pandas and pyarrow, and {error.name} is not installed: pip install pandas pyarrow, or "
            "export CSV"
        ) from error
    names, found = rows(connection, window)
    table = pandas.DataFrame(list(found), columns=names, dtype=object)
    for name in names:
        table[name] = table[name].astype(_parquet_type(name))
    table.to_parquet(path, index=False)
    return len(table)


def _parquet_type(name: str) -> str:
    if name in RECORD_FIELDS and RECORD_FIELDS[name].type == "bool":
        return "boolean"
    return _PARQUET_TYPES[COLUMNS.get(name, "INTEGER")]
