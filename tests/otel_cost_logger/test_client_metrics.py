"""The client metrics of the GenAI conventions: sent where the operator asks for backends' own views, and only there."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, MetricsData

from otel_cost_logger import OtelCostLogger
from otel_cost_logger.provider import build_provider
from otel_cost_logger.settings import Settings


def histograms(reader: InMemoryMetricReader) -> dict[str, list[Any]]:
    data = reader.get_metrics_data()
    assert isinstance(data, MetricsData)
    metrics = [
        metric for resource in data.resource_metrics for scope in resource.scope_metrics for metric in scope.metrics
    ]
    return {metric.name: list(metric.data.data_points) for metric in metrics if metric.name.startswith("gen_ai.")}


@pytest.fixture
def reader() -> InMemoryMetricReader:
    return InMemoryMetricReader()


def logger_of(reader: InMemoryMetricReader, *, cost_views: bool) -> OtelCostLogger:
    provider = build_provider(Settings(exporters=()))
    provider.meter_provider = MeterProvider([reader])
    return OtelCostLogger(Settings(exporters=(), cost_views=cost_views), provider)


def test_tokens_and_seconds_of_answered_and_failed_calls(reader: InMemoryMetricReader, make_call: Any) -> None:
    logger = logger_of(reader, cost_views=True)
    good = make_call({"litellm_call_id": "good"})
    bad = make_call({"litellm_call_id": "bad", "exception": ValueError()}, error_information={"error_code": "500"})
    logger.log_success_event(kwargs=good, response_obj=None, start_time=None, end_time=None)
    logger.log_failure_event(kwargs=bad, response_obj=None, start_time=None, end_time=None)
    found = histograms(reader)
    answered = [point for point in found["gen_ai.client.token.usage"] if "gen_ai.request.model" in point.attributes]
    usage = {point.attributes["gen_ai.token.type"]: point for point in answered}
    assert set(usage) == {"input", "output"}
    assert usage["input"].explicit_bounds[:3] == (1, 4, 16)
    assert usage["input"].sum > 0
    durations = found["gen_ai.client.operation.duration"]
    assert sum(point.count for point in durations) == 2
    assert durations[0].explicit_bounds[-1] == 81.92
    (failed,) = (point for point in durations if "error.type" in point.attributes)
    # A caller may ask for any name, and each would be a series.
    assert "gen_ai.request.model" not in failed.attributes
    assert {"gen_ai.operation.name", "gen_ai.provider.name"} <= set(failed.attributes)


def test_none_unless_asked_for(reader: InMemoryMetricReader, make_call: Any) -> None:
    logger = logger_of(reader, cost_views=False)
    logger.log_success_event(kwargs=make_call(), response_obj=None, start_time=None, end_time=None)
    assert histograms(reader) == {}
