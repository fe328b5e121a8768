"""The gate: who may begin, who waits, who is refused; periods; processes that are gone; a ledger in trouble."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from otel_cost_logger.budgets.book import BudgetBook
from otel_cost_logger.budgets.gate import Gate
from otel_cost_logger.budgets.refusal import BudgetExceeded, BudgetReserved, BudgetUnknown
from otel_cost_logger.ledger.retention import old_spans
from otel_cost_logger.ledger.writer import CallInFlight, LedgerWriter
from otel_cost_logger.settings import ADMIT

Run = Callable[[Any], Any]


def gate_for(limits: dict[str, dict[str, int]], default: dict[str, int] | None = None, **options: Any) -> Gate:
    return Gate(lambda: BudgetBook(limits, default or {}), **{"wait_seconds": 0.05, "file_seconds": 0.05, **options})


def call(tenant: str = "t", bound: int = 10, call_id: str = "c", alias: str | None = "k") -> CallInFlight:
    return CallInFlight(call_id, tenant, "m", alias, bound)


async def admit(gate: Gate, writer: LedgerWriter | None, asked: CallInFlight, key_hash: str | None = None) -> bool:
    return await gate.admit(writer, asked, gate.budgets_of(asked.tenant_id, asked.key_alias, key_hash))


def rows(writer: LedgerWriter, sql: str) -> list[Any]:
    with sqlite3.connect(writer.path) as connection:
        return connection.execute(sql).fetchall()


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 10**9


def test_calls_are_admitted_while_their_bounds_fit(writer: LedgerWriter, run: Run) -> None:
    gate = gate_for({"t": {"day": 25}})
    assert run(admit(gate, writer, call())) is True
    assert run(admit(gate, writer, call())) is True
    with pytest.raises(BudgetReserved) as refused:  # nothing is spent, but what is left is reserved
        run(admit(gate, writer, call()))
    assert refused.value.code == "429"
    assert rows(writer, "SELECT tenant_id, key_alias, reserved_nano_usd FROM calls_in_flight") == [("t", "k", 10)] * 2
    assert gate.counts.reserved == {"t": 1}
    assert run(admit(gate, writer, call(bound=0))) is True  # it costs nothing


def test_who_waits_goes_on_when_a_call_settles(writer: LedgerWriter, write_record: Any) -> None:
    gate = gate_for({"t": {"day": 25}}, wait_seconds=30)
    order: list[int] = []

    async def one(number: int) -> None:
        await admit(gate, writer, call(bound=20, call_id=str(number)))
        order.append(number)

    async def everybody() -> None:
        await one(0)
        waiting = [asyncio.create_task(one(number)) for number in (1, 2)]
        await asyncio.sleep(0.05)
        assert order == [0]
        write_record(writer, "t", 2, alias="k", call_id="0")
        await waiting[0]
        assert order == [0, 1]
        write_record(writer, "t", 3, alias="k", call_id="1")
        await waiting[1]

    asyncio.run(everybody())
    assert order == [0, 1, 2]
    assert rows(writer, "SELECT tenant_id, key_alias, nano_usd FROM spend") == [("t", "k", 5)]
    assert rows(writer, "SELECT call_id FROM calls_in_flight") == [("2",)]


def test_the_last_call_may_begin_alone_whatever_its_bound(writer: LedgerWriter, write_record: Any, run: Run) -> None:
    gate = gate_for({"t": {"day": 25}})
    assert run(admit(gate, writer, call(bound=1000)))
    with pytest.raises(BudgetReserved):
        run(admit(gate, writer, call(bound=1)))
    write_record(writer, "t", 30, alias="k")
    with pytest.raises(BudgetExceeded) as refused:
        run(admit(gate, writer, call(bound=1)))
    assert "has spent 0.000000030 of 0.000000025 USD" in refused.value.message
    assert gate.counts.exceeded == {"t": 1}


def test_tenants_and_keys_do_not_disturb_each_other(writer: LedgerWriter, write_record: Any, run: Run) -> None:
    keys = {"hash-a": {"day": Decimal("0.000000010")}}
    gate = gate_for({"t": {"month": 100}}, key_limits=lambda key: keys.get(key, {}))
    assert gate.budgets_of("other", "k", "hash-x") == []
    assert run(admit(gate, writer, call(alias="a", bound=8), "hash-a"))
    write_record(writer, "t", 10, alias="a")
    with pytest.raises(BudgetExceeded, match="tenant t, key a has spent"):
        run(admit(gate, writer, call(alias="a"), "hash-a"))
    assert run(admit(gate, writer, call(alias="b"), "hash-b"))  # the tenant has 90 left
    write_record(writer, "t", 90, alias="b")
    with pytest.raises(BudgetExceeded, match="tenant t has spent"):
        run(admit(gate, writer, call(alias="b"), "hash-b"))


def test_the_default_is_for_tenants_that_are_not_named() -> None:
    gate = gate_for({"named": {"day": 5}, "free": {}}, {"month": 7})
    assert [(one.period, one.nano_usd) for one in gate.budgets_of("named", None, None)] == [("day", 5)]
    assert gate.budgets_of("free", None, None) == []
    assert [(one.period, one.nano_usd) for one in gate.budgets_of("anybody", None, None)] == [("month", 7)]


def test_a_period_begins_anew(writer: LedgerWriter, write_record: Any, run: Run) -> None:
    now = at("2026-11-30T23:59:59")
    gate = gate_for({"t": {"day": 10, "month": 25}}, clock=lambda: now)
    write_record(writer, "t", 12, at=at("2026-11-30T00:00:00"))
    with pytest.raises(BudgetExceeded) as refused:
        run(admit(gate, writer, call()))
    assert refused.value.headers["Retry-After"] == "1"
    assert "day 2026-11-30 (UTC). The next day begins at 2026-12-01T00:00:00Z" in refused.value.message
    write_record(writer, "t", 20, at=at("2026-11-01T00:00:00"))
    with pytest.raises(BudgetExceeded, match="for the month 2026-11"):  # both are spent: the later one is told
        run(admit(gate, writer, call()))
    now = at("2026-12-01T00:00:00")
    assert run(admit(gate, writer, call()))
    now = at("2027-02-28T12:00:00")
    write_record(writer, "t", 25, at=at("2026-12-31T23:59:59"))
    write_record(writer, "t", 1, at=at("2027-02-01T00:00:00"))
    standing = gate.standings(writer)[1]
    assert (standing.budget.period, standing.spent, standing.left) == ("month", 1, 24)
    assert standing.resets_at == datetime(2027, 3, 1, tzinfo=UTC)


def test_an_older_ledger_is_added_up_and_pruning_takes_nothing_back(
    writer: LedgerWriter, write_record: Any, run: Run
) -> None:
    for number in range(30):
        write_record(writer, "t", 3, alias=f"k{number % 3}", at=at(f"2026-11-{number + 1:02d}T12:00:00"))
    assert rows(writer, "SELECT count(*) FROM sqlite_master WHERE name = 'spend'") == [(0,)]  # nobody pays for it
    gate = gate_for({"t": {"month": 100}}, clock=lambda: at("2026-11-30T12:00:00"))
    assert run(admit(gate, writer, call()))
    assert gate.standings(writer)[0].spent == 90
    write_record(writer, "t", 5, alias="k0", at=at("2026-11-30T13:00:00"))
    by_spans = "SELECT tenant_id, end_ns / 86400000000000, key_alias, sum(cost_nano_usd) FROM spans GROUP BY 1, 2, 3"
    assert rows(writer, "SELECT * FROM spend ORDER BY 1, 2, 3") == rows(writer, by_spans)
    with sqlite3.connect(writer.path) as connection:
        old = old_spans(connection, 0, 2**62)
    assert writer.delete((os.stat(writer.path).st_dev, os.stat(writer.path).st_ino), old.ids)
    assert rows(writer, "SELECT count(*) FROM spans") == [(0,)]
    assert gate.standings(writer)[0].spent == 95


def _reserve_and_wait(path: Path, ready: Any) -> None:
    writer = LedgerWriter(path, exporting=False)
    asyncio.run(admit(gate_for({"t": {"day": 25}}), writer, call(bound=25)))
    ready.set()
    signal.pause()


def test_what_a_process_that_is_gone_had_reserved_does_not_count(writer: LedgerWriter, run: Run) -> None:
    gate = gate_for({"t": {"day": 25}})
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    other = context.Process(target=_reserve_and_wait, args=(writer.path, ready))
    other.start()
    assert ready.wait(60)
    with pytest.raises(BudgetReserved):
        run(admit(gate, writer, call()))
    other.kill()
    other.join()
    assert run(admit(gate, writer, call()))


def test_another_process_under_the_same_id_is_another(writer: LedgerWriter, run: Run) -> None:
    """In a container the proxy has the same process id after each restart."""
    gate = gate_for({"t": {"day": 25}})
    assert run(admit(gate, writer, call(bound=25)))
    rows(writer, "UPDATE processes SET pid_started = pid_started - 1")
    assert run(admit(gate, writer, call()))


def test_a_record_releases_the_reservation_of_its_own_tenant(writer: LedgerWriter, write_record: Any, run: Run) -> None:
    """A caller may choose the id of somebody else's call."""
    gate = gate_for({"t": {"day": 25}, "thief": {"day": 25}})
    run(admit(gate, writer, call("t", 20, "same")))
    run(admit(gate, writer, call("thief", 20, "same")))
    write_record(writer, "thief", 1, alias="k", call_id="same")
    assert rows(writer, "SELECT tenant_id FROM calls_in_flight") == [("t",)]


@pytest.mark.parametrize("policy", ["refuse", "admit"])
def test_a_ledger_that_cannot_be_asked(tmp_path: Path, run: Run, caplog: pytest.LogCaptureFixture, policy: str) -> None:
    (tmp_path / "file").write_text("not a folder")
    writer = LedgerWriter(tmp_path / "file" / "ledger.db", exporting=False)
    gate = gate_for({"t": {"day": 25}}, without_ledger=policy)
    for _ in range(3):
        if policy == ADMIT:
            assert run(admit(gate, writer, call())) is False
        else:
            with pytest.raises(BudgetUnknown) as refused:
                run(admit(gate, writer, call()))
            assert refused.value.code == "503"
    assert (gate.counts.unknown, gate.counts.unchecked) == (({"t": 3}, {}) if policy == "refuse" else ({}, {"t": 3}))
    assert sum("cannot be asked about budgets" in record.message for record in caplog.records) == 1


def test_a_locked_ledger_makes_calls_wait_and_refuses_nobody(writer: LedgerWriter, eventually: Any) -> None:
    gate = gate_for({"t": {"day": 25}}, file_seconds=30)
    assert asyncio.run(admit(gate, writer, call(bound=1)))
    other = sqlite3.connect(writer.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")

    async def admitted() -> bool:
        task = asyncio.create_task(admit(gate, writer, call(bound=1)))
        await asyncio.to_thread(eventually, lambda: writer.trouble is not None, "it could not be written")
        other.execute("ROLLBACK")
        await asyncio.to_thread(writer.recover)
        return await task

    assert asyncio.run(admitted()) is True
    other.close()


def test_a_cancelled_waiter_leaves_nothing_behind(writer: LedgerWriter) -> None:
    gate = gate_for({"t": {"day": 25}}, wait_seconds=30)

    async def cancelled() -> None:
        await admit(gate, writer, call(bound=25))
        waiting = [asyncio.create_task(admit(gate, writer, call())) for _ in range(3)]
        await asyncio.sleep(0.03)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)

    asyncio.run(cancelled())
    assert rows(writer, "SELECT count(*) FROM calls_in_flight") == [(1,)]
    assert not gate._turns._lines
