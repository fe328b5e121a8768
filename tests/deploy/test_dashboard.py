"""Grafana's dashboard: every query is one that its data source can answer about what the plugin records.

The TraceQL here is a small part of the language, one filter and one aggregate over time:

    query     = "{" condition { "&&" condition } "}" "|" aggregate [ "by" "(" attribute { "," attribute } ")" ]
    condition = attribute ("=" | "!=") (nil | true | false | string)
    aggregate = "count_over_time()" | ("sum" | "min" | "max") "_over_time(" attribute ")"

The PromQL is run: see `test_panels`.
"""

from __future__ import annotations

import re
from typing import Any

import pytest

from otel_cost_logger.attributes import SCHEMA

ATTRIBUTE = r"span\.[a-z_]+(?:\.[a-z_]+)*"
CONDITION = rf"{ATTRIBUTE} (?:=|!=) (?:nil|true|false|\"[a-z_]+\")"
AGGREGATE = rf"(?:count_over_time\(\)|(?:sum|min|max)_over_time\((?P<value>{ATTRIBUTE})\))"
TRACEQL = re.compile(
    rf"\{{ (?P<filter>{CONDITION}(?: && {CONDITION})*) \}} \| {AGGREGATE}"
    rf"(?: by \((?P<by>{ATTRIBUTE}(?:, {ATTRIBUTE})*)\))?"
)


@pytest.fixture(scope="session")
def queries(dashboard: dict[str, Any]) -> list[str]:
    """All that Tempo is asked."""
    targets = [target for panel in dashboard["panels"] for target in panel["targets"]]
    return [target["query"] for target in targets if "query" in target]


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


def test_traceql_asks_for_attributes_that_are_recorded(queries: list[str]) -> None:
    types = {f"span.{row.name}": row.type for row in SCHEMA}
    for query in queries:
        parsed = TRACEQL.fullmatch(query)
        assert parsed, query
        for attribute in re.findall(ATTRIBUTE, query):
            assert attribute in types, query
        if value := parsed["value"]:
            assert types[value] in {"int", "float"}, query
            # A sum of fractions drifts: what costs nothing then reads -$0.0000.
            assert "sum_over_time" not in query or types[value] == "int", query


def test_the_grammar_refuses_what_tempo_refuses() -> None:
    assert not TRACEQL.fullmatch('{ span.llm.tenant_id = "tenant-acme" } | sum(span.llm.cost_usd)')
    assert not TRACEQL.fullmatch("{ span.llm.tenant_id != nil } | sum_over_time(span.llm.cost_usd")


def test_what_an_operator_wants_to_know_is_there(queries: list[str]) -> None:
    asked = set(re.findall(ATTRIBUTE, " ".join(queries)))
    assert {
        *("span.llm.tenant_id", "span.llm.model", "span.llm.cost_nano_usd", "span.llm.prompt_tokens"),
        *("span.llm.completion_tokens", "span.llm.success", "span.llm.cost_source", "span.llm.usage_source"),
        "span.llm.budget_remaining_usd",
    } <= asked


def test_what_is_in_billionths_is_shown_so(dashboard: dict[str, Any]) -> None:
    for panel in dashboard["panels"]:
        if any("nano_usd" in target.get("query", "") for target in panel["targets"]):
            assert panel["fieldConfig"]["defaults"]["unit"] == "si:nUSD"  # Grafana: so many nano of that unit


def test_no_panel_has_two_series_of_one_name(dashboard: dict[str, Any]) -> None:
    """A series of Tempo's is called after its labels: two queries by the same ones give each name twice."""
    for panel in dashboard["panels"]:
        names = [target.get("legendFormat", "") for target in panel["targets"]]
        assert len(names) == len(set(names)), panel["title"]


def test_grafana_finds_the_dashboard(services: dict[str, Any]) -> None:
    assert "./grafana/dashboards:/etc/grafana/dashboards:ro" in services["grafana"]["volumes"]
