"""Refusals and what is left, as metrics."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, MetricsData

from otel_cost_logger.budgets.book import BudgetBook
from otel_cost_logger.budgets.gate import Gate
from otel_cost_logger.budgets.refusal import BudgetExceeded
from otel_cost_logger.ledger.writer import CallInFlight, LedgerWriter
from otel_cost_logger.metrics import publish_budgets

STATES = ("exceeded", "reserved", "unknown", "unchecked")


def test_budgets_as_metrics(writer: LedgerWriter, write_record: Any) -> None:
    reader = InMemoryMetricReader()
    gate = Gate(lambda: BudgetBook({"acme": {"day": 2 * 10**9}}, {}))
    publish_budgets(gate, writer, MeterProvider([reader]))
    assert calls_and_left(reader)["llm.budget.calls"] == [
        ({"llm.tenant_id": "acme", "state": state}, 0) for state in STATES
    ]
    write_record(writer, "acme", 3 * 10**9)
    with pytest.raises(BudgetExceeded):
        asyncio.run(gate.admit(writer, CallInFlight("c", "acme", "m", None, 1), gate.budgets_of("acme", None, None)))
    assert calls_and_left(reader) == {
        "llm.budget.calls": [({"llm.tenant_id": "acme", "state": state}, int(state == "exceeded")) for state in STATES],
        "llm.budget.remaining": [({"llm.tenant_id": "acme", "period": "day"}, -1.0)],
    }


def test_a_tenant_without_a_name_in_the_file_is_counted_from_its_first_call(writer: LedgerWriter) -> None:
    reader = InMemoryMetricReader()
    gate = Gate(lambda: BudgetBook({}, {"day": 2 * 10**9}))
    publish_budgets(gate, writer, MeterProvider([reader]))
    asyncio.run(gate.admit(writer, CallInFlight("c", "new", "m", None, 1), gate.budgets_of("new", None, None)))
    found = calls_and_left(reader)["llm.budget.calls"]
    assert found == [({"llm.tenant_id": "new", "state": state}, 0) for state in STATES]


def calls_and_left(reader: InMemoryMetricReader) -> dict[str, list[Any]]:
    data = reader.get_metrics_data()
    assert isinstance(data, MetricsData)
    return {
        metric.name: [(dict(point.attributes or {}), point.value) for point in metric.data.data_points]  # type: ignore[union-attr]
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }
