"""The gate that each proxied call of a tenant with a budget passes before it is dispatched.

In one transaction of the ledger it is seen what was spent, by whichever worker, what calls in flight may cost, and
whether this call's own upper bound fits beside them. If it does, the bound is reserved together with the note that the
call began; the transaction that writes its record releases it. If only calls in flight are in the way, the call waits
until one of them settles. If the budget is spent, it is refused.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

from otel_cost_logger.budgets.book import BudgetBook
from otel_cost_logger.budgets.budget import DAY, MONTH, PERIODS, Budget, Standing, standings
from otel_cost_logger.budgets.turns import Turns
from otel_cost_logger.file_lock import locked
from otel_cost_logger.ledger.spend import day_of, spent, with_spend
from otel_cost_logger.ledger.writer import CallInFlight, LedgerWriter
from otel_cost_logger.settings import REFUSE

if TYPE_CHECKING:
    from otel_cost_logger.record import CallRecord

WAIT_SECONDS = 30.0  # for calls in flight to settle
_LOOK_SECONDS = 0.01
_FILE_SECONDS = 5.0  # for a file that cannot be asked: a moment's trouble refuses nobody
_ALONE_SECONDS = 0.1  # an event loop waits

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class GateCounts:
    """Calls by tenant: ``exceeded`` and ``reserved`` were refused because the budget was spent or reserved by others,
    ``unknown`` because the ledger could not be asked; ``unchecked`` were admitted although it could not be."""

    exceeded: Mapping[str, int]
    reserved: Mapping[str, int]
    unknown: Mapping[str, int]
    unchecked: Mapping[str, int]


class Gate:
    """Admits calls as the limits in ``book()``, and those of the key, allow.

    ``key_limits`` gives a key's own limits in US dollars by period, for its hash. ``without_ledger`` says what becomes
    of a call when the ledger cannot be asked for ``file_seconds``: ``refuse`` or ``admit``. A call waits up to
    ``wait_seconds`` for others to settle. ``clock`` gives nanoseconds since the epoch.
    """

    def __init__(
        self,
        book: Callable[[], BudgetBook | None],
        key_limits: Callable[[str], Mapping[str, Decimal]] = lambda _: {},
        *,
        without_ledger: str = REFUSE,
        wait_seconds: float = WAIT_SECONDS,
        file_seconds: float = _FILE_SECONDS,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._book = book
        self._key_limits = key_limits
        self._without_ledger = without_ledger
        self._wait_seconds = wait_seconds
        self._file_seconds = file_seconds
        self._clock = clock
        self._turns = Turns()
        self._alone = _Alone()
        self._keys: dict[tuple[str, str], tuple[Budget, ...]] = {}  # a record names its key by alias only
        self._counters: dict[str, Counter[str]] = {name: Counter() for name in GateCounts.__slots__}
        self._met: set[str] = set()
        self._blind = False

    @property
    def tenants(self) -> set[str]:
        """Those whose calls are counted: who is named in the file, and who has made a call."""
        book = self._book()
        return self._met | set(book.tenants if book else ())

    @property
    def counts(self) -> GateCounts:
        """What became of this process's calls."""
        return GateCounts(**{name: dict(counter) for name, counter in self._counters.items()})

    def budgets_of(self, tenant_id: str, key_alias: str | None, key_hash: str | None) -> list[Budget]:
        """The budgets that a call of this tenant with this key is charged to; none when it may spend what it likes."""
        if key_alias and key_hash:
            limits = self._key_limits(key_hash).items()
            own = tuple(Budget(tenant_id, period, int(usd * 10**9), key_alias) for period, usd in limits)
            if own or (tenant_id, key_alias) in self._keys:
                self._keys[tenant_id, key_alias] = own
        return self._charged(tenant_id, key_alias)

    def _charged(self, tenant_id: str, key_alias: str | None) -> list[Budget]:
        book = self._book()
        tenants = book.of_tenant(tenant_id) if book else []
        return [*tenants, *self._keys.get((tenant_id, key_alias or ""), ())]

    async def admit(
        self, writer: LedgerWriter | None, call: CallInFlight, budgets: list[Budget], *, leaves_record: bool = True
    ) -> bool:
        """Return when ``call`` may be dispatched; True when it is noted in the ledger, with its reservation. One that
        ``leaves_record`` says will leave none is not noted.

        Raises `BudgetExceeded`, `BudgetReserved` or `BudgetUnknown` (see `refusal`), and nothing else.
        """
        began = time.monotonic()
        self._met.add(call.tenant_id)
        async with self._turns.turn((call.tenant_id, call.key_alias)):
            while True:
                admitted, found = self._asked(writer, call, budgets, leaves_record)
                waited = time.monotonic() - began
                if admitted:
                    return leaves_record
                if found:
                    self._may_wait(call.tenant_id, found, waited, call.reserved_nano_usd or 0)
                elif waited >= self._file_seconds:
                    self._unasked(call.tenant_id, budgets[0])
                    return False
                await asyncio.sleep(_LOOK_SECONDS)

    def _asked(
        self, writer: LedgerWriter | None, call: CallInFlight, budgets: list[Budget], note: bool
    ) -> tuple[bool, list[Standing]]:
        """Whether ``call`` is admitted, and how its budgets stand; that is empty when the ledger cannot be asked."""
        admitted, found = False, list[Standing]()

        def decide(connection: sqlite3.Connection) -> None:
            nonlocal admitted, found
            found = standings(connection, budgets, self._clock())
            admitted = all(standing.has_room_for(call.reserved_nano_usd or 0) for standing in found)
            if admitted and note and writer is not None:
                writer.note_call(connection, call)

        try:
            asked = writer is not None and writer.transact(decide)
        except Exception:  # the caller must not meet an error that nobody foresaw
            _log.exception("the ledger could not be asked about a budget")
            asked = False
        if not asked:
            return False, []
        self._blind = False
        return admitted, found

    def _may_wait(self, tenant_id: str, found: list[Standing], waited: float, bound: int) -> None:
        # Behind the proxy only: these import its modules.
        from otel_cost_logger.budgets.refusal import BudgetExceeded, BudgetReserved

        if exhausted := [standing for standing in found if standing.exhausted]:
            self._counters["exceeded"][tenant_id] += 1
            last = max(exhausted, key=lambda standing: (standing.resets_at, standing.budget.period == MONTH))
            raise BudgetExceeded(last, self._clock())
        if waited >= self._wait_seconds:
            self._counters["reserved"][tenant_id] += 1
            raise BudgetReserved(next(one for one in found if not one.has_room_for(bound)), self._wait_seconds)

    def _unasked(self, tenant_id: str, budget: Budget) -> None:
        from otel_cost_logger.budgets.refusal import BudgetUnknown

        if not self._blind:
            self._blind = True
            _log.error(
                "the ledger cannot be asked about budgets: calls of tenants that have one are %s until it can",
                "refused" if self._without_ledger == REFUSE else "admitted unchecked",
            )
        if self._without_ledger == REFUSE:
            self._counters["unknown"][tenant_id] += 1
            raise BudgetUnknown(budget.whose)
        self._counters["unchecked"][tenant_id] += 1

    @contextmanager
    def settled(self, writer: LedgerWriter | None, record: CallRecord) -> Iterator[CallRecord]:
        """``record`` with what its call leaves of its budgets; within, it is to be written to the ledger.

        Nobody else settles meanwhile: two records that are written at the same time would not know of each other.
        """
        budgets = self._charged(record.tenant_id, record.key_alias)
        if not budgets or writer is None:
            yield record
            return
        with self._alone.held(writer.path):
            left = _left(writer, budgets, record.end_ns)
            yield record if left is None else with_remaining(record, (left - record.cost_nano_usd) / 1e9)

    def prepare(self, writer: LedgerWriter) -> None:
        """Make what the ledger has to keep for budgets, if there are any: from a long ledger that takes seconds."""
        if self._book() is not None:
            writer.transact(lambda connection: standings(connection, [Budget("", DAY, 0)], self._clock()))

    def standings(self, writer: LedgerWriter) -> list[Standing]:
        """How the budgets stand that the file names, and those of keys that this process has seen."""
        book = self._book()
        budgets = [budget for tenant in book.tenants for budget in book.of_tenant(tenant)] if book else []
        budgets += [budget for own in self._keys.values() for budget in own]
        found: list[Standing] = []

        def look(connection: sqlite3.Connection) -> None:
            found[:] = standings(connection, budgets, self._clock())

        writer.transact(look)
        return found


def with_remaining(record: CallRecord, usd: float) -> CallRecord:
    """``record`` with ``usd`` left of a budget, unless another has less."""
    known = record.budget_remaining_usd
    return record._replace(budget_remaining_usd=usd if known is None else min(known, usd))


def _left(writer: LedgerWriter, budgets: list[Budget], moment_ns: int) -> int | None:
    """The least that the records so far leave of ``budgets`` at that time; None when the ledger cannot be asked."""
    left: list[int] = []
    day = day_of(moment_ns)

    def look(connection: sqlite3.Connection) -> None:
        left[:] = [
            budget.nano_usd - spent(connection, budget.tenant_id, budget.key_alias, PERIODS[budget.period](day))
            for budget in budgets
        ]

    writer.transact(lambda connection: with_spend(connection, lambda: look(connection)))
    return min(left, default=None)


class _Alone:
    """One thread of one process at a time, for a moment; who cannot have it soon goes on without."""

    def __init__(self) -> None:
        self._threads = threading.Lock()

    @contextmanager
    def held(self, ledger: Path) -> Iterator[None]:
        with self._threads, ExitStack() as stack:
            # Not in time, or no such file: then the ledger is in trouble, too.
            with suppress(TimeoutError, OSError):
                stack.enter_context(locked(ledger.with_name(f"{ledger.name}.settling-lock"), _ALONE_SECONDS))
            yield
