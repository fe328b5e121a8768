"""Grafana's dashboard: every query is one that its data source can answer about what the plugin records.

The TraceQL here is a small part of the language, one filter and one aggregate over time:

    query     = "{" condition { "&&" condition } "}" "|" aggregate [ "by" "(" attribute { "," attribute } ")" ]
    condition = attribute ("=" | "!=") (nil | true | false | string)
    aggregate = "count_over_time()" | ("sum" | "min" | "max") "_over_time(" attribute ")"

and so is the PromQL: a sum or maximum of a metric, or of its increase over the interval of the panel.
"""

from __future__ import annotations

import asyncio
import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, Sum

from otel_cost_logger.attributes import SCHEMA
from otel_cost_logger.budgets.gate import Gate
from otel_cost_logger.budgets.refusal import BudgetExceeded
from otel_cost_logger.durable import DurableSpanProcessor
from otel_cost_logger.ledger.writer import CallInFlight
from otel_cost_logger.logger import OtelCostLogger
from otel_cost_logger.metrics import publish_budgets, publish_calls, publish_ledger
from otel_cost_logger.provider import build_provider
from otel_cost_logger.settings import Settings

ATTRIBUTE = r"span\.[a-z_]+(?:\.[a-z_]+)*"
CONDITION = rf"{ATTRIBUTE} (?:=|!=) (?:nil|true|false|\"[a-z_]+\")"
AGGREGATE = rf"(?:count_over_time\(\)|(?:sum|min|max)_over_time\((?P<value>{ATTRIBUTE})\))"
TRACEQL = re.compile(
    rf"\{{ (?P<filter>{CONDITION}(?: && {CONDITION})*) \}} \| {AGGREGATE}"
    rf"(?: by \((?P<by>{ATTRIBUTE}(?:, {ATTRIBUTE})*)\))?"
)
PROMQL = re.compile(
    r"(?:sum|max)(?: by \((?P<by>[a-z_]+(?:, [a-z_]+)*)\))? ?"
    r"\((?:increase\((?P<counter>\w+)\[\$__rate_interval\]\)|(?P<gauge>\w+))\)"
)
# What the Collector 0.159.0 and Tempo 3.0.3 count themselves, from their sources: counters, and their labels.
OTHERS = {
    "otelcol_exporter_enqueue_failed_spans": set(),
    "otelcol_exporter_send_failed_spans": set(),
    "tempo_discarded_spans_total": {"reason"},
}


@pytest.fixture(scope="session")
def queries(dashboard: dict[str, Any]) -> dict[str, list[str]]:
    """By data source."""
    found: dict[str, list[str]] = {"tempo": [], "prometheus": []}
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            found[panel["datasource"]["type"]].append(target.get("query") or target["expr"])
    return found


@pytest.fixture
def plugin_metrics(tmp_path: Path) -> dict[str, tuple[bool, set[str]]]:
    """The plugin's metrics under the names that Prometheus gives them: whether it is a counter, and its labels.

    UnderscoreEscapingWithSuffixes: what is not a letter or digit becomes an underscore, a unit in braces leaves no
    suffix, a counter gets ``_total``. https://github.com/prometheus/otlptranslator
    """
    reader = InMemoryMetricReader()
    meter_provider = MeterProvider([reader])
    processor = DurableSpanProcessor(None, tmp_path / "ledger.db")
    publish_ledger(processor, meter_provider)
    logger = OtelCostLogger(Settings(), build_provider(Settings(exporters=())))
    publish_calls(logger, meter_provider)
    gate = Gate(lambda: None, lambda _: {"day": Decimal(0)})
    publish_budgets(gate, processor.writer, meter_provider)
    refused = CallInFlight("call", "acme", "mistral-7b", "acme-1", 1)
    with pytest.raises(BudgetExceeded):
        asyncio.run(gate.admit(processor.writer, refused, gate.budgets_of("acme", "acme-1", "0" * 64)))
    data = reader.get_metrics_data()
    processor.shutdown()
    meter_provider.shutdown()
    assert data is not None
    found = {}
    for metric in data.resource_metrics[0].scope_metrics[0].metrics:
        assert re.fullmatch(r"\{\w+\}", metric.unit or ""), metric.name
        counter = isinstance(metric.data, Sum) and metric.data.is_monotonic
        name = re.sub(r"\W", "_", metric.name) + ("_total" if counter else "")
        labels = {re.sub(r"\W", "_", key) for point in metric.data.data_points for key in point.attributes or {}}
        found[name] = (counter, labels)
    return found


def test_panels_explain_themselves(dashboard: dict[str, Any], datasources: list[dict[str, Any]]) -> None:
    provisioned = [{"type": source["type"], "uid": source["uid"]} for source in datasources]
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len({panel["title"] for panel in panels}) == len(panels)
    for panel in panels:
        assert len(panel["description"]) > 20
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert panel["datasource"] in provisioned
        assert panel["targets"]


def test_panels_do_not_overlap(dashboard: dict[str, Any]) -> None:
    cells = [
        (column, row)
        for place in (panel["gridPos"] for panel in dashboard["panels"])
        for column in range(place["x"], place["x"] + place["w"])
        for row in range(place["y"], place["y"] + place["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(column for column, _ in cells) == 23


def test_tempo_targets_have_the_fields_of_a_metrics_query(dashboard: dict[str, Any]) -> None:
    """Without metricsQueryType Grafana would search for traces instead."""
    shapes = {"bargauge": "instant", "timeseries": "range"}
    for panel in dashboard["panels"]:
        if panel["datasource"]["type"] == "tempo":
            for target in panel["targets"]:
                assert target["queryType"] == "traceql"
                assert target["metricsQueryType"] == shapes[panel["type"]]
                assert target["filters"] == []


def test_traceql_asks_for_attributes_that_are_recorded(queries: dict[str, list[str]]) -> None:
    types = {f"span.{row.name}": row.type for row in SCHEMA}
    for query in queries["tempo"]:
        parsed = TRACEQL.fullmatch(query)
        assert parsed, query
        for attribute in re.findall(ATTRIBUTE, query):
            assert attribute in types, query
        if value := parsed["value"]:
            assert types[value] in {"int", "float"}, query


def test_the_grammar_refuses_what_tempo_refuses() -> None:
    assert not TRACEQL.fullmatch('{ span.llm.tenant_id = "tenant-acme" } | sum(span.llm.cost_usd)')
    assert not TRACEQL.fullmatch("{ span.llm.tenant_id != nil } | sum_over_time(span.llm.cost_usd")
    assert not PROMQL.fullmatch("sum(increase(llm_ledger_spans_total))")


def test_promql_asks_for_metrics_that_exist(
    queries: dict[str, list[str]], plugin_metrics: dict[str, tuple[bool, set[str]]]
) -> None:
    known = plugin_metrics | {name: (True, labels) for name, labels in OTHERS.items()}
    asked = set()
    for query in queries["prometheus"]:
        parsed = PROMQL.fullmatch(query)
        assert parsed, query
        name = parsed["counter"] or parsed["gauge"]
        counter, labels = known[name]
        assert counter == (parsed["counter"] is not None), query
        assert parsed["by"] is None or set(parsed["by"].split(", ")) <= labels, query
        asked.add(name)
    assert asked == set(known)  # every metric of the plugin is shown


def test_what_an_operator_wants_to_know_is_there(queries: dict[str, list[str]]) -> None:
    asked = set(re.findall(ATTRIBUTE, " ".join(queries["tempo"])))
    assert {
        *("span.llm.tenant_id", "span.llm.model", "span.llm.cost_usd", "span.llm.prompt_tokens"),
        *("span.llm.completion_tokens", "span.llm.success", "span.llm.cost_source", "span.llm.usage_source"),
        "span.llm.budget_remaining_usd",
    } <= asked


def test_grafana_finds_the_dashboard(services: dict[str, Any]) -> None:
    assert "./grafana/dashboards:/etc/grafana/dashboards:ro" in services["grafana"]["volumes"]
