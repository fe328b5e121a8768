"""The alarms, each over recorded series that must set it off, and over others that must not.

Samples are a minute apart, as the plugin sends them; Prometheus' own `promtool` evaluates the rules.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import yaml

from workbook.paths import DEPLOY

LEDGER = 'host_name="east", llm_ledger_file="/ledger.db"'
IN_LEDGER = {"host_name": "east", "llm_ledger_file": "/ledger.db"}
DAY = 24 * 60
Series = dict[str, str]


@dataclass(frozen=True)
class Case:
    """Series by name that set an alarm off by minute ``at``, and others that do not; ``labels`` are the alarm's.
    ``later`` do not by the next day."""

    fires: Series
    quiet: tuple[Series, ...] = ()
    later: tuple[Series, ...] = ()
    at: int = 30
    labels: dict[str, str] = field(default_factory=dict)


def counter(series: str, **labels: str) -> Case:
    """Of a counter that should stay 0: it fires for one that is born above 0, also when its process has ended; not
    for one that stays, and no longer a day after."""
    return Case(
        {series: "_x10 7x5 _x30"},
        ({series: "0x60"}, {}),
        ({series: f"7x{DAY + 60}"}, {series: f"_x10 7x{DAY + 60}"}),
        labels=labels,
    )


CASES = {
    "CallsMissing": Case({"llm_calls_missing": "0x10 1x60"}, ({"llm_calls_missing": "0x28 1x2 0x60"},)),
    "CallsLost": Case(
        {f"llm_ledger_lost_calls{{{LEDGER}, instance='new'}}": "_x10 2x60"},
        ({f"llm_ledger_lost_calls{{{LEDGER}, instance='a'}}": "0x60"},),
        # Another process that reads the same number in the same file is no news.
        (
            {
                f"llm_ledger_lost_calls{{{LEDGER}, instance='a'}}": f"2x{DAY + 20} _x60",
                f"llm_ledger_lost_calls{{{LEDGER}, instance='b'}}": f"_x{DAY + 20} 2x60",
            },
        ),
        labels=IN_LEDGER,
    ),
    "RecordsLost": counter('llm_ledger_spans_total{state="lost"}', state="lost"),
    "RecordsDead": counter('llm_ledger_spans_total{state="dead"}', state="dead"),
    "RecordsDropped": counter("llm_calls_dropped_total"),
    "CallsUnpriced": counter("llm_calls_unpriced_total"),
    "BudgetsUnasked": counter('llm_budget_calls_total{state="unknown"}', state="unknown"),
    "QueueRefuses": counter("otelcol_exporter_enqueue_failed_spans"),
    "CollectorGivesUp": counter("otelcol_exporter_send_failed_spans"),
    "TempoDiscards": counter(
        'tempo_discarded_spans_total{reason="live_traces_exceeded"}', reason="live_traces_exceeded"
    ),
    "RecordsOnlyInMemory": Case(
        {f"llm_ledger_waiting{{{LEDGER}}}": "0x10 3x60"},
        ({f"llm_ledger_waiting{{{LEDGER}}}": "0x28 3x1 0x60"},),
        labels=IN_LEDGER,
    ),
    "RecorderNotReady": Case({"llm_recorder_ready": "1x10 0x60"}, ({"llm_recorder_ready": "1x60"},)),
    "RecorderSilent": Case(
        {"up": "1x60"}, ({"llm_calls_recorded_total": "0x60"}, {"llm_calls_recorded_total": "0x20 _x3 0x60"})
    ),
    "ProxyGone": Case(
        {f"llm_ledger_pending{{{LEDGER}, instance='a'}}": "0x10"},
        (
            {f"llm_ledger_pending{{{LEDGER}, instance='a'}}": "0x60"},
            # It was restarted, and is another instance.
            {
                f"llm_ledger_pending{{{LEDGER}, instance='a'}}": "0x10",
                f"llm_ledger_pending{{{LEDGER}, instance='b'}}": "_x12 0x60",
            },
        ),
        labels={"host_name": "east"},
    ),
    "BacklogGrows": Case(
        {f"llm_ledger_pending{{{LEDGER}}}": "0x10 10+10x60"},
        (
            {f"llm_ledger_pending{{{LEDGER}}}": "5 0 9 1 7 0 8 2 9 3 0 7 5x60"},
            {f"llm_ledger_pending{{{LEDGER}}}": "500-10x50"},
        ),
        at=45,
        labels=IN_LEDGER,
    ),
    "ExportsFail": Case(
        {f"llm_ledger_pending{{{LEDGER}}}": "5x60", f"llm_ledger_failures_total{{{LEDGER}}}": "0+6x60"},
        (
            {f"llm_ledger_pending{{{LEDGER}}}": "5x60", f"llm_ledger_failures_total{{{LEDGER}}}": "40x60"},
            {f"llm_ledger_pending{{{LEDGER}}}": "5x30 0x60", f"llm_ledger_failures_total{{{LEDGER}}}": "0x10 5x60"},
        ),
        labels=IN_LEDGER,
    ),
    "TargetDown": Case(
        {'up{job="tempo"}': "1x10 0x60"},
        ({'up{job="tempo"}': "1x60"}, {'up{job="collector"}': "1x29 0x60"}),
        labels={"job": "tempo"},
    ),
    "QueueFills": Case(
        {"otelcol_exporter_queue_size": "9000x60", "otelcol_exporter_queue_capacity": "10000x60"},
        ({"otelcol_exporter_queue_size": "100x60", "otelcol_exporter_queue_capacity": "10000x60"},),
    ),
}
PromtoolTest = Callable[..., None]


@pytest.fixture(scope="session")
def rules() -> dict[str, dict[str, Any]]:
    """By the alarm's name."""
    document = yaml.safe_load((DEPLOY / "rules.yaml").read_text(encoding="utf-8"))
    return {rule["alert"]: rule for group in document["groups"] for rule in group["rules"]}


def test_each_alarm_has_a_case(rules: dict[str, dict[str, Any]]) -> None:
    assert set(rules) == set(CASES)


@pytest.mark.parametrize("name", CASES)
def test_it_fires_and_does_not(name: str, rules: dict[str, dict[str, Any]], promtool_test: PromtoolTest) -> None:
    case, rule = CASES[name], rules[name]
    labels = {"alertname": name, "alertstate": "firing"} | case.labels | rule["labels"]
    wanted = "ALERTS{" + ", ".join(f'{key}="{value}"' for key, value in labels.items()) + "}"
    any_at_all = f'ALERTS{{alertname="{name}", alertstate="firing"}}'

    def counted(alerts: str, number: int, minute: int) -> list[dict[str, Any]]:
        expression = f"count({alerts}) or vector(0)"
        return [{"expr": expression, "eval_time": f"{minute}m", "exp_samples": [{"labels": "{}", "value": number}]}]

    promtool_test(
        (case.fires, counted(wanted, 1, case.at)),
        *((series, counted(any_at_all, 0, case.at)) for series in case.quiet),
        rules=(rule,),
    )
    promtool_test(*((series, counted(any_at_all, 0, DAY + 30)) for series in case.later), rules=(rule,), every="10m")


def test_alarms_ask_for_metrics_that_exist(
    rules: dict[str, dict[str, Any]], known_metrics: dict[str, tuple[bool, set[str]]]
) -> None:
    for name, rule in rules.items():
        bare = re.sub(r"by \([^)]+\)", "", rule["expr"])
        asked = set(re.findall(r"\b(?:llm|otelcol|tempo)_\w+", bare))
        assert asked <= set(known_metrics), name
        labels = {label for metric in asked for label in known_metrics[metric][1]}
        for wanted in re.findall(r"by \(([^)]+)\)", rule["expr"]):
            assert set(wanted.split(", ")) <= labels, name
        texts = " ".join(rule["annotations"].values())
        assert set(re.findall(r"\$labels\.(\w+)", texts)) <= labels | {"job"}, name


def test_each_alarm_says_what_is_wrong_and_what_to_do(rules: dict[str, dict[str, Any]]) -> None:
    for name, rule in rules.items():
        assert rule["labels"]["severity"] in {"critical", "warning"}, name
        assert set(rule["annotations"]) == {"summary", "description"}, name
        assert len(rule["annotations"]["description"]) > 40, name


def test_prometheus_reads_the_rules(prometheus: dict[str, Any], services: dict[str, Any], promtool: str) -> None:
    (path,) = prometheus["rule_files"]
    assert f"./rules.yaml:{path}:ro" in services["prometheus"]["volumes"]
    done = subprocess.run([promtool, "check", "rules", str(DEPLOY / "rules.yaml")], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
