"""What a budget is, how it stands, and when it begins anew. Amounts are whole billionths of a US dollar."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime

from otel_cost_logger.ledger.spend import (
    Reserved,
    day_of,
    first_of_month,
    first_of_next_month,
    reserved,
    spent,
    start_of,
    with_spend,
)

DAY = "day"
MONTH = "month"

# From a day to those of its period, in the ledger's count. Periods are UTC calendar days and months.
PERIODS: dict[str, Callable[[int], range]] = {
    DAY: lambda day: range(day, day + 1),
    MONTH: lambda day: range(first_of_month(day), first_of_next_month(day)),
}


@dataclass(frozen=True, slots=True)
class Budget:
    """``tenant_id`` may spend ``nano_usd`` per ``period`` (one of `PERIODS`): with all its keys together, or with the
    one that is called ``key_alias``."""

    tenant_id: str
    period: str
    nano_usd: int
    key_alias: str | None = None

    @property
    def whose(self) -> str:
        """Who may spend it, in words."""
        key = "" if self.key_alias is None else f", key {self.key_alias}"
        return f"tenant {self.tenant_id}{key}"


@dataclass(frozen=True, slots=True)
class Standing:
    """How a budget stands on ``day``: what records have charged to it, and what calls in flight may yet."""

    budget: Budget
    day: int
    spent: int
    reserved: Reserved

    @property
    def left(self) -> int:
        """What is left over; below zero when it is overspent. Calls in flight are not in it."""
        return self.budget.nano_usd - self.spent

    @property
    def exhausted(self) -> bool:
        """True when no call may begin."""
        return self.left <= 0

    def has_room_for(self, bound: int) -> bool:
        """True when a call that costs at most ``bound`` may begin now.

        It must fit beside what is in flight. Alone it may begin whatever its bound: a bound is often many times the
        cost, and what is left would never be spent. So only one call can go beyond the budget, and no further than
        its own cost.
        """
        fits = self.spent + self.reserved.nano_usd + bound <= self.budget.nano_usd
        return not self.exhausted and (fits or bound == 0 or self.reserved.calls == 0)

    @property
    def period(self) -> str:
        """The period in words: 2026-11-25, or 2026-11."""
        return f"{start_of(self.day):{'%Y-%m-%d' if self.budget.period == DAY else '%Y-%m'}}"

    @property
    def resets_at(self) -> datetime:
        """When the next period begins, in UTC."""
        return start_of(PERIODS[self.budget.period](self.day).stop)


def standings(connection: sqlite3.Connection, budgets: Iterable[Budget], now_ns: int) -> list[Standing]:
    """How ``budgets`` stand at ``now_ns``, from a ledger in a transaction of its writer."""
    return with_spend(connection, lambda: read_standings(connection, budgets, now_ns))


def read_standings(connection: sqlite3.Connection, budgets: Iterable[Budget], now_ns: int) -> list[Standing]:
    """The same from a ledger that has the table of spending."""
    day = day_of(now_ns)
    in_flight: dict[str, dict[str, Reserved]] = {}
    found = []
    for budget in budgets:
        if budget.tenant_id not in in_flight:
            in_flight[budget.tenant_id] = reserved(connection, budget.tenant_id)
        by_key = in_flight[budget.tenant_id]
        whole = by_key.values() if budget.key_alias is None else [by_key.get(budget.key_alias, Reserved())]
        held = Reserved(sum(one.calls for one in whole), sum(one.nano_usd for one in whole))
        days = PERIODS[budget.period](day)
        found.append(Standing(budget, day, spent(connection, budget.tenant_id, budget.key_alias, days), held))
    return found
