"""The tables of the ledger: what each span leaves in the file, and what is still to be done with it.

``spans`` is the book: one row per span, with the fields of `record.CallRecord` as columns (those in
`attributes.SCHEMA`). ``payloads`` holds the same spans as OTLP protobuf, apart from the columns so that a sum over
``spans`` reads little. ``outbox`` names the spans that no collector has confirmed yet, ``dead_letters`` those that one
has refused for good; while nothing can be exported ``export_failure`` has one row that says why and since when.
``calls_in_flight`` are calls that began and whose record is not written yet; those of a
process that is gone are lost records. What budgets need beside these is in `ledger.spend`.
"""

from __future__ import annotations

from otel_cost_logger.attributes import SCHEMA, Attribute

APPLICATION_ID = 0x6C6C6D63  # "llmc": marks the file as ours in SQLite's header
VERSION = 3

# The record's fields, each under the first attribute that carries it unscaled.
RECORD_FIELDS: dict[str, Attribute] = {}
for _row in SCHEMA:
    if _row.scale is None:
        RECORD_FIELDS.setdefault(_row.field, _row)

_SQL_TYPES = {"int": "INTEGER", "bool": "INTEGER", "float": "REAL", "string": "TEXT", "string[]": "TEXT"}
_SPAN_COLUMNS = {
    "trace_id": "TEXT",  # hexadecimal, as OTLP JSON and every backend show it
    "span_id": "TEXT",
    "parent_span_id": "TEXT",
    "name": "TEXT",
    "start_ns": "INTEGER",
    "end_ns": "INTEGER",
    "written_ns": "INTEGER",
    "process": "INTEGER",
}

# Columns that tables other than ``spans`` have gained, with their SQL types.
LATER_COLUMNS = {
    # What the call may cost at most, where a budget asks, and the key that it came with.
    "calls_in_flight": {"key_alias": "TEXT", "reserved_nano_usd": "INTEGER"},
    "processes": {"pid_started": "INTEGER"},  # see `ledger.processes`
}

# Columns of ``spans`` after ``id``, in order, with their SQL types. A list (string[]) is stored as JSON text.
COLUMNS: dict[str, str] = _SPAN_COLUMNS | {name: _SQL_TYPES[row.type] for name, row in RECORD_FIELDS.items()}


def _declared(columns: dict[str, str]) -> str:
    return ", ".join(f'"{name}" {type_}' for name, type_ in columns.items())


TABLES = (
    f"CREATE TABLE IF NOT EXISTS spans (id INTEGER PRIMARY KEY, {_declared(COLUMNS)})",
    "CREATE TABLE IF NOT EXISTS payloads (id INTEGER PRIMARY KEY, scope INTEGER, otlp BLOB)",
    "CREATE TABLE IF NOT EXISTS scopes (id INTEGER PRIMARY KEY, otlp BLOB)",
    "CREATE TABLE IF NOT EXISTS outbox (id INTEGER PRIMARY KEY)",
    "CREATE TABLE IF NOT EXISTS dead_letters (id INTEGER PRIMARY KEY, reason TEXT, refused_ns INTEGER)",
    "CREATE TABLE IF NOT EXISTS export_failure (id INTEGER PRIMARY KEY CHECK (id = 1), reason TEXT, since_ns INTEGER, "
    "last_ns INTEGER, attempts INTEGER)",
    "CREATE TABLE IF NOT EXISTS processes (id INTEGER PRIMARY KEY, pid INTEGER, host TEXT, started_ns INTEGER, "
    "ended_ns INTEGER, calls_seen INTEGER DEFAULT 0, spans_unwritten INTEGER DEFAULT 0, pid_started INTEGER)",
    "CREATE TABLE IF NOT EXISTS calls_in_flight (id INTEGER PRIMARY KEY, process INTEGER, call_id TEXT, "
    "tenant_id TEXT, model TEXT, began_ns INTEGER, key_alias TEXT, reserved_nano_usd INTEGER)",
    "CREATE INDEX IF NOT EXISTS calls_in_flight_by_call_id ON calls_in_flight (call_id)",
    # In the same transaction as the record itself, so that no crash can come between the two. A caller may choose the
    # call id: with several calls under one, the oldest of the same tenant and key is meant.
    "DROP TRIGGER IF EXISTS record_written",
    "CREATE TRIGGER record_written AFTER INSERT ON spans WHEN new.call_id IS NOT NULL BEGIN "
    "DELETE FROM calls_in_flight WHERE id = (SELECT id FROM calls_in_flight "
    "WHERE call_id = new.call_id AND process = new.process "
    "ORDER BY tenant_id IS NOT new.tenant_id, key_alias IS NOT new.key_alias, id LIMIT 1); END",
)

INSERT_SPAN = (
    f"INSERT INTO spans ({', '.join(f'{chr(34)}{name}{chr(34)}' for name in COLUMNS)}) "
    f"VALUES ({', '.join('?' * len(COLUMNS))})"
)
