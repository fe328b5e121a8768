"""What budgets need to know of the ledger: spent by day, and reserved by calls in flight.

``spend`` is what each tenant has spent with each of its keys on each UTC day (days since the epoch, of the call's end),
in billionths of a US dollar. A trigger keeps it up in the transaction that writes a record. It is made when first asked
for, from the records that are there, so that a ledger without budgets does not pay for it; pruning takes records out of
``spans`` and nothing out of it.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import TypeVar

from otel_cost_logger.ledger.processes import is_gone
from otel_cost_logger.ledger.reading import LOST_AFTER_NS

_DAY_NS = 86_400 * 10**9
_EPOCH = date(1970, 1, 1).toordinal()
_T = TypeVar("_T")

_TABLES = (
    "CREATE TABLE spend (tenant_id TEXT, day INTEGER, key_alias TEXT, nano_usd INTEGER, "
    "PRIMARY KEY (tenant_id, day, key_alias)) WITHOUT ROWID",
    "INSERT INTO spend SELECT coalesce(tenant_id, ''), end_ns / {day}, coalesce(key_alias, ''), sum(cost_nano_usd) "
    "FROM spans WHERE cost_nano_usd > 0 GROUP BY 1, 2, 3",
    "CREATE TRIGGER record_spent AFTER INSERT ON spans WHEN new.cost_nano_usd > 0 BEGIN "
    "INSERT INTO spend VALUES (coalesce(new.tenant_id, ''), new.end_ns / {day}, coalesce(new.key_alias, ''), "
    "new.cost_nano_usd) ON CONFLICT DO UPDATE SET nano_usd = nano_usd + excluded.nano_usd; END",
    "CREATE INDEX calls_in_flight_reserved ON calls_in_flight (tenant_id) WHERE reserved_nano_usd > 0",
)


@dataclass(frozen=True, slots=True)
class Reserved:
    """What ``calls`` calls in flight may cost at most, together, in billionths of a US dollar."""

    calls: int = 0
    nano_usd: int = 0


def day_of(moment_ns: int) -> int:
    """The UTC day of a time in nanoseconds since the epoch, as the ledger counts days."""
    return moment_ns // _DAY_NS


def first_of_month(day: int) -> int:
    """The first day of the month of ``day``."""
    return _date(day).replace(day=1).toordinal() - _EPOCH


def first_of_next_month(day: int) -> int:
    """The first day of the month after that of ``day``."""
    first = _date(day).replace(day=1)
    return date(first.year + first.month // 12, first.month % 12 + 1, 1).toordinal() - _EPOCH


def start_of(day: int) -> datetime:
    """When ``day`` begins, in UTC."""
    return datetime.combine(_date(day), datetime.min.time(), UTC)


def with_spend(connection: sqlite3.Connection, ask: Callable[[], _T]) -> _T:
    """``ask()``, which reads what is in this module, in a transaction; what it needs is made where it is missing."""
    try:
        return ask()
    except sqlite3.OperationalError:
        if has_spend(connection):
            raise
    for statement in _TABLES:
        connection.execute(statement.format(day=_DAY_NS))
    return ask()


def has_spend(connection: sqlite3.Connection) -> bool:
    """True when the ledger keeps the table ``spend``: budgets have been in force."""
    (found,) = connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'spend'").fetchone()
    return bool(found)


def spent(connection: sqlite3.Connection, tenant_id: str, key_alias: str | None, days: range) -> int:
    """What ``tenant_id`` has spent on ``days``, with all keys (``key_alias`` None) or with one of them."""
    terms, values = "tenant_id = ? AND day >= ? AND day < ?", [tenant_id, days.start, days.stop]
    if key_alias is not None:
        terms, values = f"{terms} AND key_alias = ?", [*values, key_alias]
    (found,) = connection.execute(f"SELECT coalesce(sum(nano_usd), 0) FROM spend WHERE {terms}", values).fetchone()
    return int(found)


def reserved(connection: sqlite3.Connection, tenant_id: str) -> dict[str, Reserved]:
    """What calls of ``tenant_id`` in flight have reserved, by key alias.

    Those of a process that is gone have no part in it, nor those that began an hour ago: their record will not come.
    """
    found: dict[str, Reserved] = {}
    for alias, calls, nano_usd, *process in connection.execute(
        "SELECT coalesce(c.key_alias, ''), count(*), sum(c.reserved_nano_usd), "
        "c.process, p.pid, p.pid_started, p.ended_ns FROM calls_in_flight c LEFT JOIN processes p ON p.id = c.process "
        "WHERE c.tenant_id = ? AND c.reserved_nano_usd > 0 AND c.began_ns > ? GROUP BY c.process, c.key_alias",
        (tenant_id, time.time_ns() - LOST_AFTER_NS),
    ):
        if not is_gone(connection, *process):
            before = found.get(alias, Reserved())
            found[alias] = Reserved(before.calls + calls, before.nano_usd + nano_usd)
    return found


def _date(day: int) -> date:
    return date.fromordinal(day + _EPOCH)
