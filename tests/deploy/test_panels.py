"""Grafana's panels about the plugin itself, asked of Prometheus by its `promtool`, over series as they are recorded:
one sample a minute, counters that begin above 0, two hosts with the same path, and gaps."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

PromtoolTest = Callable[..., None]
# Ranges of time that a user may choose, in seconds, and how many points a panel on a usual screen asks for.
ZOOMS = (300, 3600, 6 * 3600, 12 * 3600, 24 * 3600, 7 * 24 * 3600)
POINTS = 1000
HOSTS = ("east", "west")


@pytest.fixture(scope="session")
def queries(dashboard: dict[str, Any]) -> list[str]:
    """All that Prometheus is asked."""
    targets = [target for panel in dashboard["panels"] for target in panel["targets"]]
    return [target["expr"] for target in targets if "expr" in target]


@pytest.fixture(scope="session")
def interval(datasources: list[dict[str, Any]]) -> int:
    """How many seconds Grafana takes to lie between two samples: 15 where nothing is said."""
    (prometheus,) = (source for source in datasources if source["type"] == "prometheus")
    return int(prometheus.get("jsonData", {}).get("timeInterval", "15s").removesuffix("s"))


def as_grafana_asks(query: str, zoom: int, interval: int) -> str:
    """``query`` with what Grafana puts in for its variable, for a range of ``zoom`` seconds."""
    step = max(zoom / POINTS, interval)
    return query.replace("$__rate_interval", f"{max(step + interval, 4 * interval):.0f}s")


def test_promql_asks_for_metrics_that_exist(
    queries: list[str], known_metrics: dict[str, tuple[bool, set[str]]]
) -> None:
    asked = set()
    for query in queries:
        (name,) = re.findall(r"\b(?:llm|otelcol|tempo)_\w+", re.sub(r"by \([^)]+\)", "", query))
        for wanted in re.findall(r"by \(([^)]+)\)", query):
            assert set(wanted.split(", ")) <= known_metrics[name][1] | {"instance"}, query
        asked.add(name)
    assert asked == {name for name in known_metrics if not name.startswith("otelcol_exporter_queue")}


def test_grafana_is_told_how_often_the_plugin_sends(interval: int, proxy_environment: dict[str, str]) -> None:
    assert interval * 1000 == int(proxy_environment.get("OTEL_METRIC_EXPORT_INTERVAL", "60000"))


def test_an_increase_is_shown_only_of_what_the_plugin_lets_begin_at_0(queries: list[str]) -> None:
    """What others count may begin above 0, and no increase shows what a counter began with."""
    increases = re.findall(r"increase\((\w+)", " ".join(queries))
    assert increases
    assert all(name.startswith("llm_") for name in increases)


def test_each_panel_shows_something_at_every_zoom(
    queries: list[str],
    interval: int,
    known_metrics: dict[str, tuple[bool, set[str]]],
    promtool_test: PromtoolTest,
) -> None:
    states = "|".join(re.findall(r'state=~"([^"]+)"', " ".join(queries))).split("|")
    series = {}
    for name, (counter, labels) in known_metrics.items():
        others = {label: label for label in sorted(labels - {"host_name", "state"})}
        for state in states if "state" in labels else ["none"]:
            series |= recorded("0+10x20 _x3 250+10x60" if counter else "1x20 _x3 1x60", name, state=state, **others)
    tests = [
        {
            "expr": f"(count({as_grafana_asks(query, zoom, interval)}) or vector(0)) > bool 0",
            "eval_time": moment,
            "exp_samples": [{"labels": "{}", "value": 1}],
        }
        for query in queries
        for zoom in ZOOMS
        for moment in ("5m", "19m30s", "25m", "80m")
    ]
    promtool_test((series, tests))


def recorded(values: str, name: str, *hosts: str, **labels: str) -> dict[str, str]:
    """A series of metric ``name`` for each of ``hosts``, or for all: one process on each."""
    rest = "".join(f', {key}="{value}"' for key, value in labels.items())
    return {f'{name}{{instance="{host}", host_name="{host}"{rest}}}': values for host in hosts or HOSTS}


FILE = {"llm_ledger_file": "/ledger.db"}
BUDGET = {"llm_tenant_id": "acme", "period": "day"}
# What is recorded, the panel and the legend that show it, and the values that they must show after 35 minutes, sorted.
SHOWN = {
    "discarded by Tempo": (
        recorded("_x10 10000x30", "tempo_discarded_spans_total", "t", reason="live_traces_exceeded"),
        (11, "Tempo: {{reason}}", [10_000]),
    ),
    "given up": (recorded("_x10 510x30", "otelcol_exporter_send_failed_spans", "c"), (11, "given up", [510])),
    "queue full": (recorded("_x10 7x30", "otelcol_exporter_enqueue_failed_spans", "c"), (11, "queue full", [7])),
    "refused": (recorded("_x10 107x30", "llm_budget_calls_total", "p", state="exceeded"), (15, "{{state}}", [107])),
    "lost": (recorded("_x10 3x30", "llm_ledger_spans_total", state="lost", **FILE), (10, "{{state}} so far", [6])),
    "dead": (recorded("_x10 4x30", "llm_ledger_spans_total", state="dead", **FILE), (10, "{{state}} so far", [8])),
    "dropped": (recorded("_x10 1x30", "llm_calls_dropped_total"), (12, "dropped", [2])),
    "missing": (recorded("_x10 1x30", "llm_calls_missing"), (12, "missing", [2])),
    "unpriced": (recorded("_x10 15x30", "llm_calls_unpriced_total", "p"), (13, "unpriced so far", [15])),
    "recorded": (recorded("0+10x60", "llm_calls_recorded_total", "p"), (13, "recorded", [40])),
    "not ready": (recorded("1x10 0x30", "llm_recorder_ready", "p"), (17, "{{instance}}", [0])),
    "backlog of two hosts": (
        recorded("5x60", "llm_ledger_pending", "east", **FILE) | recorded("9x60", "llm_ledger_pending", "west", **FILE),
        (9, "pending {{host_name}}", [5, 9]),
    ),
    "lost calls of two hosts": (
        recorded("1x60", "llm_ledger_lost_calls", "east", **FILE)
        | recorded("2x60", "llm_ledger_lost_calls", "west", **FILE),
        (12, "lost with a process {{host_name}}", [1, 2]),
    ),
    "overspent on one host": (
        recorded("5x60", "llm_budget_remaining", "east", **BUDGET)
        | recorded("-1x60", "llm_budget_remaining", "west", **BUDGET),
        (14, "{{llm_tenant_id}} {{llm_key_alias}} {{period}}", [-1]),
    ),
}


def test_a_panel_shows_what_was_counted(dashboard: dict[str, Any], interval: int, promtool_test: PromtoolTest) -> None:
    cases = []
    for series, (number, legend, expected) in SHOWN.values():
        (panel,) = (panel for panel in dashboard["panels"] if panel["id"] == number)
        (query,) = (target["expr"] for target in panel["targets"] if target["legendFormat"] == legend)
        asked = as_grafana_asks(query, 3600, interval)
        shown = {"count": len(expected), "min": expected[0], "max": expected[-1]}
        tests = [
            {"expr": f"{what}({asked})", "eval_time": "35m", "exp_samples": [{"labels": "{}", "value": value}]}
            for what, value in shown.items()
        ]
        cases.append((series, tests))
    promtool_test(*cases)
