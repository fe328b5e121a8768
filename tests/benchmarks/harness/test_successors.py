"""A result that was stored under an older name is the phase that took its place."""

from __future__ import annotations

import importlib
from datetime import timedelta
from pathlib import Path

import pytest

from benchmarks.harness.results import RESULTS, Result, ResultError, load_result, stored_results, write_result
from benchmarks.harness.successors import SUCCESSORS, benchmark_of, has, newest, part, samples_of


def test_every_stored_result_belongs_to_a_benchmark_of_today() -> None:
    for path in stored_results(RESULTS):
        result = load_result(path)
        assert importlib.import_module(f"benchmarks.{benchmark_of(result)}.figure").draw
        if result.benchmark in SUCCESSORS:
            assert part(result, *SUCCESSORS[result.benchmark]) == result.summary
            assert samples_of(result, SUCCESSORS[result.benchmark][1]) == result.samples


def test_one_under_today_s_name_holds_its_phases_by_name(result: Result) -> None:
    samples = [{"phase": "costs", "round": 0}, {"phase": "losses", "run": 1}]
    changes = {"benchmark": "processors", "summary": {"costs": {"rows": 1}, "losses": {}}, "samples": samples}
    today = result.model_copy(update=changes)
    assert part(today, "processors", "costs") == {"rows": 1}
    assert samples_of(today, "losses") == samples[1:]
    assert not has(today, "processors", "losses")
    with pytest.raises(ValueError, match="shows the phase losses of processors"):
        part(today, "processors", "losses")


def test_the_newest_for_quoting_is_found_under_both_names(result: Result, tmp_path: Path) -> None:
    with pytest.raises(ResultError, match="python -m benchmarks run processors"):
        newest("processors", "costs", tmp_path)
    old = result.model_copy(update={"benchmark": "span_processors"})
    later = {"started": result.started + timedelta(days=1)}
    today = result.model_copy(update={"benchmark": "processors", "summary": {"costs": {"rows": 1}}, **later})
    for one in (today, old):
        write_result(one, tmp_path)
    assert newest("processors", "costs", tmp_path) == today
