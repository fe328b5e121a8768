"""Which spans are old enough to leave the ledger."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass

from otel_cost_logger.ledger.reading import LOST_AFTER_NS

_ROWS = 200  # at a time: the file is locked while they go
_GOING = "FROM spans WHERE written_ns < ? AND id NOT IN (SELECT id FROM outbox)"


@dataclass(frozen=True, slots=True)
class OldSpans:
    """``ids`` to prune; the search goes on after id ``last``. No ids: there is nothing more."""

    ids: list[int]
    last: int


@dataclass(frozen=True, slots=True)
class Going:
    """What pruning takes from a tenant: ``spans``, when the first and the last of them ended (nanoseconds since the
    epoch, None where unknown), and their cost in billionths of a US dollar."""

    tenant_id: str | None
    spans: int
    first_ns: int | None
    last_ns: int | None
    cost_nano_usd: int


def going(connection: sqlite3.Connection, written_before_ns: int) -> list[Going]:
    """What goes with `ids_going`, by tenant."""
    found = connection.execute(
        "SELECT tenant_id, count(*), min(end_ns), max(end_ns), coalesce(sum(cost_nano_usd), 0) "
        f"{_GOING} GROUP BY tenant_id ORDER BY tenant_id",
        (written_before_ns,),
    )
    return [Going(*row) for row in found]


def ids_going(connection: sqlite3.Connection, written_before_ns: int) -> Iterator[list[int]]:
    """All that were written before, but for those that are still to be sent; some at a time."""
    found = connection.execute(f"SELECT id {_GOING} ORDER BY id", (written_before_ns,))
    while rows := found.fetchmany(_ROWS):
        yield [id_ for (id_,) in rows]


def calls_going(connection: sqlite3.Connection, before_ns: int) -> int:
    """How many calls that began before, and can have no record any more, go with them."""
    limit = min(before_ns, time.time_ns() - LOST_AFTER_NS)
    (found,) = connection.execute("SELECT count(*) FROM calls_in_flight WHERE began_ns < ?", (limit,)).fetchone()
    return int(found)


def old_spans(connection: sqlite3.Connection, after: int, written_before_ns: int) -> OldSpans:
    """The next spans, after the id ``after``, that were written before ``written_before_ns``, but for those that are
    still to be sent: they stay however old they are.

    Looks from the oldest on, and no further than the first that is young enough: ids grow with time.
    """
    ids: list[int] = []
    last = after
    while not ids:
        rows = connection.execute(
            "SELECT s.id, s.written_ns < ?, o.id IS NOT NULL FROM spans s LEFT JOIN outbox o ON o.id = s.id "
            "WHERE s.id > ? ORDER BY s.id LIMIT ?",
            (written_before_ns, last, _ROWS),
        ).fetchall()
        if not any(old for _, old, _ in rows):
            break
        last = rows[-1][0]
        ids = [id_ for id_, old, waiting in rows if old and not waiting]
    return OldSpans(ids, last)
