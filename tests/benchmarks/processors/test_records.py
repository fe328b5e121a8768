"""The findings say how the records of each run divide, and a run that does not add up is not for quoting."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.harness.results import RESULTS, load_result
from benchmarks.harness.rounds import Sample
from benchmarks.processors.findings import records as evaluate
from benchmarks.processors.names import DURABLE, PROCESSORS, PROXY_SCENARIOS

FULL = {"calls": 1000, "outage_seconds": 60.0}


def changed(samples: list[Sample], number: int, **values: Any) -> list[Sample]:
    return [{**sample, **values} if index == number else sample for index, sample in enumerate(samples)]


def test_a_clear_case(survival_samples: list[Sample]) -> None:
    found = evaluate(survival_samples, FULL)
    assert found.faults == []
    assert found.findings == [
        "kill: simple 984 = 984 exported + 0 pending + 0 dropped, and 16 calls without an answer; "
        "batch 984 = 700 exported + 0 pending + 284 dropped, and 16 calls without an answer; "
        "durable 984 = 980 exported + 0 pending + 4 dropped, and 16 calls without an answer.",
        "away: simple 990 = 984 exported + 0 pending + 6 dropped, and 10 calls without an answer; "
        "batch 1,000 = 500 exported + 0 pending + 500 dropped; durable 1,000 = 1,000 exported + 0 pending + 0 dropped.",
        "away, meanwhile: calls answered per second simple 0.1, batch 100, durable 100; "
        "99th percentile in ms simple 7,000, batch 80, durable 80.",
        "durable, all scenarios: 4 of 1,984 records lost, 4 of them named by the ledger as calls without a record.",
    ]


def test_a_row_is_a_sample_without_its_raw_durations(survival_samples: list[Sample]) -> None:
    rows = evaluate(survival_samples, FULL).summary["rows"]
    assert [(row["scenario"], row["processor"]) for row in rows[:3]] == [("kill", name) for name in PROCESSORS]
    assert rows[4] == {
        "scenario": "away",
        "processor": "batch",
        "produced": 1000,
        "exported": 500,
        "pending": 0,
        "dropped": 500,
        "noticed": 0,
        "duplicates": 0,
        "pending_after_outage": None,
        "failed": 0,
        "calls_in_outage": 500,
        "per_second_in_outage": 100.0,
        "p50_ms_in_outage": 80.0,
        "p99_ms_in_outage": 80.0,
    }
    assert rows[0]["calls_in_outage"] is rows[0]["per_second_in_outage"] is rows[0]["p50_ms_in_outage"] is None


def test_an_outage_in_which_nothing_was_answered(survival_samples: list[Sample]) -> None:
    silent = changed(survival_samples, 3, outage_ms=[], failed={"timed out": 10})
    found = evaluate(silent, FULL)
    assert found.summary["rows"][3]["per_second_in_outage"] == 0
    assert found.summary["rows"][3]["p99_ms_in_outage"] is None
    assert found.findings[2] == (
        "away, meanwhile: calls answered per second simple 0, batch 100, durable 100; "
        "99th percentile in ms batch 80, durable 80."
    )


@pytest.mark.parametrize(
    ("number", "values", "fault"),
    [
        (1, {"exported": 699}, "batch, kill: 984 produced, and 983 are accounted for"),
        (5, {"pending": 3}, "durable, away: 1000 produced, and 1003 are accounted for"),
        (4, {"failed": {"HTTP 500": 1}}, "batch, away: 1000 answered and 1 failed calls are not 1000"),
        (4, {"served_by_mock": 999}, "batch, away: 1000 calls were answered and 0 failed, the mock counts 999"),
        (0, {"served_by_mock": 1001}, "simple, kill: 984 calls were answered and 16 failed, the mock counts 1001"),
        (5, {"settled": False}, "durable, away: records were still on their way when they were counted"),
        (2, {"others_cores": 3.0}, "busy machine: others used 0.51 cores"),
    ],
)
def test_faults(survival_samples: list[Sample], number: int, values: dict[str, Any], fault: str) -> None:
    faults = evaluate(changed(survival_samples, number, **values), FULL).faults
    assert len(faults) == 1
    assert fault in faults[0]


@pytest.mark.parametrize(
    ("small", "fault"),
    [
        ({"calls": 999}, "999 calls are too few: it takes 1000"),
        ({"outage_seconds": 19.9}, "an outage of 19.9 s is too short: 20 s"),
    ],
)
def test_a_small_run_is_not_for_quoting(survival_samples: list[Sample], small: dict[str, Any], fault: str) -> None:
    assert fault in evaluate(survival_samples, {**FULL, **small}).faults


def test_stored_results_say_what_their_samples_say() -> None:
    paths = sorted(RESULTS.glob("*/*-survival*.json"))
    assert paths
    for path in paths:
        stored = load_result(path)
        again = evaluate(stored.samples, stored.parameters)
        assert again.findings == stored.findings
        assert again.summary == stored.summary
        assert set(again.faults) <= set(stored.validity.reasons)
        rows = again.summary["rows"]
        assert {(row["scenario"], row["processor"]) for row in rows} == {
            (scenario, processor) for scenario in PROXY_SCENARIOS for processor in PROCESSORS
        }
        durable = [row for row in rows if row["processor"] == DURABLE]
        assert all(row["noticed"] == row["dropped"] for row in durable), "no record is lost without a trace"
