"""Whether a ledger is sound: SQLite's structure, and what one table says of another."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from otel_cost_logger.ledger.backup import counts, damage
from otel_cost_logger.ledger.file import schema_version
from otel_cost_logger.ledger.reading import usd
from otel_cost_logger.ledger.spend import day_of, has_spend, start_of

# What must not be: rows of a table under a condition.
_RULES = (
    ("outbox", "id NOT IN (SELECT id FROM spans)", "spans to send are not in the book"),
    ("dead_letters", "id NOT IN (SELECT id FROM spans)", "dead letters are not in the book"),
    ("payloads", "id NOT IN (SELECT id FROM spans)", "payloads belong to no span"),
    ("payloads", "scope NOT IN (SELECT id FROM scopes)", "payloads have no envelope"),
    ("outbox", "id IN (SELECT id FROM dead_letters)", "spans are both dead and to be sent"),
    (
        "spans",
        "id NOT IN (SELECT id FROM payloads) AND id NOT IN (SELECT id FROM dead_letters)",
        "spans cannot be sent again: they have no payload",
    ),
)
_SPEND = (
    "SELECT tenant_id, key_alias, day, sum(spent), sum(recorded) FROM ("
    "SELECT tenant_id, key_alias, day, nano_usd AS spent, 0 AS recorded FROM spend UNION ALL "
    "SELECT coalesce(tenant_id, ''), coalesce(key_alias, ''), end_ns / 86400000000000, 0, cost_nano_usd FROM spans "
    "WHERE cost_nano_usd > 0) GROUP BY 1, 2, 3 HAVING sum(spent) != sum(recorded) ORDER BY 3, 1, 2"
)
# Ids have no gap but where records were pruned: when the first record behind the last gap was written.
_PRUNED_UNTIL = "SELECT max(written_ns) FROM spans s WHERE NOT EXISTS (SELECT 1 FROM spans WHERE id = s.id - 1)"


@dataclass(frozen=True, slots=True)
class Findings:
    """What is in a ledger with the ``schema``: ``rows`` by table, the records' cost in billionths of a US dollar, and
    what is ``wrong``, in words; nothing when it is sound. ``pruned_nano_usd`` was spent by records that are pruned."""

    schema: int
    rows: dict[str, int]
    cost_nano_usd: int
    pruned_nano_usd: int
    wrong: list[str]


def check(connection: sqlite3.Connection) -> Findings:
    """Examine a ledger of this version or an earlier one, as it stands at one moment."""
    if wrong := damage(connection):
        return Findings(schema_version(connection), {}, 0, 0, wrong)
    connection.execute("BEGIN")
    try:
        for table, condition, words in _RULES:
            (found,) = connection.execute(f"SELECT count(*) FROM {table} WHERE {condition}").fetchone()
            wrong += [f"{found:,} {words}"] if found else []
        pruned, residuals = _residuals(connection) if has_spend(connection) else (0, [])
        (cost,) = connection.execute("SELECT coalesce(sum(cost_nano_usd), 0) FROM spans").fetchone()
        return Findings(schema_version(connection), counts(connection), cost, pruned, wrong + residuals)
    finally:
        connection.execute("ROLLBACK")


def _residuals(connection: sqlite3.Connection) -> tuple[int, list[str]]:
    """What the table of spending has beyond the records, and where that, or less, cannot be.

    Pruning takes records and leaves what they cost.
    """
    (until,) = connection.execute(_PRUNED_UNTIL).fetchone()
    pruned, wrong = 0, []
    for tenant, key, day, spent, recorded in connection.execute(_SPEND):
        if spent > recorded and (until is None or day <= day_of(until)):
            pruned += spent - recorded
        else:
            wrong.append(
                f"spent by tenant {tenant}, key {key}, on {start_of(day):%Y-%m-%d}: {usd(spent)} USD, but its records "
                f"cost {usd(recorded)}"
            )
    return pruned, wrong
