"""Questions to a ledger: what is still to be sent, what is missing, who spent what, and which spans are from when."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from otel_cost_logger.ledger.processes import is_gone
from otel_cost_logger.otlp.decoding import Payload

LOST_AFTER_NS = 3600 * 10**9  # no call takes an hour: LiteLLM's default time-out is 600 s
_ROWS = 500


@dataclass(frozen=True, slots=True)
class Window:
    """Spans that ended from ``since_ns`` on and before ``until_ns`` (nanoseconds since the epoch; None is open)."""

    since_ns: int | None = None
    until_ns: int | None = None

    def condition(self) -> tuple[str, list[int]]:
        """As SQL about ``s``, the table of spans, with its values."""
        terms = [("s.end_ns >= ?", self.since_ns), ("s.end_ns < ?", self.until_ns)]
        used = [(term, value) for term, value in terms if value is not None]
        return " AND ".join(term for term, _ in used) or "1", [value for _, value in used]


@dataclass(frozen=True, slots=True)
class Tenant:
    """What one tenant has used: tokens, and cost in billionths of a US dollar."""

    tenant_id: str | None
    calls: int
    prompt_tokens: int
    completion_tokens: int
    cost_nano_usd: int


@dataclass(frozen=True, slots=True)
class ExportFailure:
    """Why nothing can be exported, since when, and the number of attempts in vain, with the time of the last.
    Nanoseconds since the epoch."""

    reason: str
    since_ns: int
    last_ns: int
    attempts: int


@dataclass(frozen=True, slots=True)
class Status:
    """How a ledger stands.

    ``spans`` = ``pending`` (no collector has confirmed them) + ``dead`` (one has refused them for good) + ``settled``
    (confirmed, or written by a process that sends none). ``calls_seen`` were noticed before they were dispatched; those
    whose record is not written are ``calls_in_flight`` or, when their process is gone or an hour has passed,
    ``calls_lost``. ``spans_unwritten`` ended while the file could not be written, and are not in it. ``export_failure``
    is None when the last attempt to export succeeded. Times are nanoseconds since the epoch.
    """

    spans: int
    pending: int
    dead: int
    export_failure: ExportFailure | None
    oldest_pending_ns: int | None
    first_ns: int | None
    last_ns: int | None
    calls_seen: int
    calls_in_flight: int
    calls_lost: int
    spans_unwritten: int
    refusals: list[tuple[str, int]]
    tenants: list[Tenant]

    @property
    def settled(self) -> int:
        """Spans with which nothing is to be done any more."""
        return self.spans - self.pending - self.dead


def status(connection: sqlite3.Connection) -> Status:
    """How the ledger stands now, from one consistent view of it."""
    connection.execute("BEGIN")
    try:
        spans, first, last = _row(connection, "SELECT count(*), min(end_ns), max(end_ns) FROM spans")
        pending, oldest = _row(
            connection, "SELECT count(*), min(s.written_ns) FROM outbox o LEFT JOIN spans s ON s.id = o.id"
        )
        (dead,) = _row(connection, "SELECT count(*) FROM dead_letters")
        failure = _row(connection, "SELECT reason, since_ns, last_ns, attempts FROM export_failure")
        seen, unwritten = _row(connection, "SELECT total(calls_seen), total(spans_unwritten) FROM processes")
        in_flight, calls_lost = calls_without_record(connection)
        refusals = connection.execute(
            "SELECT reason, count(*) FROM dead_letters GROUP BY reason ORDER BY count(*) DESC LIMIT 5"
        ).fetchall()
        tenants = connection.execute(
            "SELECT tenant_id, count(*), coalesce(sum(prompt_tokens), 0), coalesce(sum(completion_tokens), 0), "
            "coalesce(sum(cost_nano_usd), 0) FROM spans GROUP BY tenant_id ORDER BY tenant_id"
        ).fetchall()
    finally:
        connection.execute("ROLLBACK")
    return Status(
        spans=spans,
        pending=pending,
        dead=dead,
        export_failure=ExportFailure(*failure) if failure else None,
        oldest_pending_ns=oldest,
        first_ns=first,
        last_ns=last,
        calls_seen=int(seen),
        calls_in_flight=in_flight,
        calls_lost=calls_lost,
        spans_unwritten=int(unwritten),
        refusals=refusals,
        tenants=[Tenant(*row) for row in tenants],
    )


def count(connection: sqlite3.Connection, window: Window, *, dead: bool = False) -> int:
    """How many spans, or only dead letters, ended in ``window``."""
    condition, values = window.condition()
    (found,) = _row(connection, f"SELECT count(*) FROM spans s {_dead_only(dead)} WHERE {condition}", values)
    return int(found)


def rows(connection: sqlite3.Connection, window: Window) -> tuple[list[str], Iterator[tuple[Any, ...]]]:
    """The columns of the ledger, and the rows whose spans ended in ``window``, oldest first."""
    condition, values = window.condition()
    found = connection.execute(f"SELECT s.* FROM spans s WHERE {condition} ORDER BY s.id", values)
    return [column[0] for column in found.description], iter(found)


def payloads(connection: sqlite3.Connection, window: Window, *, dead: bool = False) -> Iterator[list[Payload]]:
    """The spans that ended in ``window`` as OTLP, in batches, oldest first; with ``dead`` only the dead letters.

    A span that OTLP could not carry has none, and is left out.
    """
    condition, values = window.condition()
    found = connection.execute(
        f"SELECT s.id, p.scope, c.otlp, p.otlp FROM spans s {_dead_only(dead)} JOIN payloads p ON p.id = s.id "
        f"JOIN scopes c ON c.id = p.scope WHERE {condition} ORDER BY s.id",
        values,
    )
    while batch := found.fetchmany(_ROWS):
        yield [Payload(*row) for row in batch]


def calls_without_record(connection: sqlite3.Connection) -> tuple[int, int]:
    """How many calls are in flight, and how many can have no record any more: their process is gone, or an hour has
    passed."""
    limit = time.time_ns() - LOST_AFTER_NS
    in_flight = lost = 0
    found = connection.execute(
        "SELECT c.process, p.pid, p.pid_started, p.ended_ns, count(*), sum(c.began_ns < ?) FROM calls_in_flight c "
        "LEFT JOIN processes p ON p.id = c.process GROUP BY c.process",
        (limit,),
    )
    for *process, calls, old in found:
        gone = is_gone(connection, *process)
        lost += calls if gone else old
        in_flight += 0 if gone else calls - old
    return in_flight, lost


def moment(nanoseconds: int | None) -> str:
    """A time as text, in UTC; "-" for none."""
    if nanoseconds is None:
        return "-"
    return datetime.fromtimestamp(nanoseconds / 1e9, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def usd(nano_usd: int) -> str:
    """An amount in US dollars as text, exact: no float has a part in it."""
    whole, fraction = divmod(abs(nano_usd), 10**9)
    return f"{'-' if nano_usd < 0 else ''}{whole:,}.{fraction:09d}"


def _dead_only(dead: bool) -> str:
    return "JOIN dead_letters d ON d.id = s.id" if dead else ""


def _row(connection: sqlite3.Connection, sql: str, values: list[int] | None = None) -> tuple[Any, ...]:
    row: tuple[Any, ...] = connection.execute(sql, values or ()).fetchone()
    return row
