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


def test_budgets_as_metrics(writer: LedgerWriter, write_record: Any) -> None:
    reader = InMemoryMetricReader()
    gate = Gate(lambda: BudgetBook({"acme": {"day": 2 * 10**9}}, {}))
    publish_budgets(gate, writer, MeterProvider([reader]))
    write_record(writer, "acme", 3 * 10**9)
    with pytest.raises(BudgetExceeded):
        asyncio.run(gate.admit(writer, CallInFlight("c", "acme", "m", None, 1), gate.budgets_of("acme", None, None)))
    data = reader.get_metrics_data()
    assert isinstance(data, MetricsData)
    found = {
        metric.name: [(dict(point.attributes or {}), point.value) for point in metric.data.data_points]  # type: ignore[union-attr]
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }
    assert found == {
        "llm.budget.calls": [({"llm.tenant_id": "acme", "state": "exceeded"}, 1)],
        "llm.budget.remaining": [({"llm.tenant_id": "acme", "period": "day"}, -1.0)],
    }
