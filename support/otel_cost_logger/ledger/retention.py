"""Which spans are old enough to leave the ledger."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

_ROWS = 200  # at a time: the file is locked while they go


@dataclass(frozen=True, slots=True)
class OldSpans:
    """``ids`` to prune; the search goes on after id ``last``. No ids: there is nothing more."""

    ids: list[int]
    last: int


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
