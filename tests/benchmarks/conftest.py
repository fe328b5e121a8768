"""Shared by the tests of benchmarks: a result that is whole."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from benchmarks.harness import preflight, provenance
from benchmarks.harness.benchmark import Benchmark, Measurement
from benchmarks.harness.results import Code, Conditions, Machine, Result, Validity


@pytest.fixture(autouse=True)
def nobody_else_measures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests do not wait for a measurement that runs on this machine, and do not stop one."""
    monkeypatch.setattr(preflight, "LOCK", tmp_path.with_name(f"{tmp_path.name}.lock"))


@pytest.fixture
def wait_until() -> Callable[[Callable[[], bool]], None]:
    """Returns when a condition holds; fails after 30 seconds."""

    def wait(condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 30
        while not condition():
            assert time.monotonic() < deadline, "the condition did not come true"
            time.sleep(0.01)

    return wait


@pytest.fixture
def says_the_same() -> Callable[[Result, Measurement, Benchmark], None]:
    """Refuses a stored result whose samples do not say what it says: in every word where it was stored by today's code,
    otherwise in the median of every interval, because how intervals are made has changed."""

    def check(stored: Result, again: Measurement, benchmark: Benchmark) -> None:
        assert set(again.faults) <= set(stored.validity.reasons)
        if provenance.code_sha256(benchmark.modules) == stored.code.sha256:
            assert again.findings == stored.findings
        was, now = (medians(summary) for summary in (stored.summary, again.summary))
        assert was == {name: pytest.approx(now[name]) for name in was}

    return check


def medians(value: Any, name: str = "") -> dict[str, float]:
    """Of every interval in a summary."""
    if isinstance(value, dict) and "rounds" in value and "median" in value:
        return {name: value["median"]}
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return {path: found for key, part in parts for path, found in medians(part, f"{name}.{key}").items()}


@pytest.fixture
def result() -> Result:
    return Result(
        schema_version=1,
        run_id="0" * 32,
        benchmark="example",
        started=datetime(2026, 11, 23, 12, 0, tzinfo=UTC),
        ended=datetime(2026, 11, 23, 12, 3, tzinfo=UTC),
        code=Code(commit="a" * 40, dirty=False, sha256="b" * 64),
        argv=["run", "example"],
        parameters={"rounds": 20, "seconds": 1.5},
        machine=Machine(label="2-core-example", **provenance.machine()),
        conditions=Conditions(
            load_average_before=[0.1, 0.2, 0.3], load_average_after=[1.0, 0.5, 0.4], cores_used_by_others_before=0.02
        ),
        packages={"litellm": "1.106.2"},
        samples=[{"round": 0, "seconds": 1.5000000000000002, "errors": {}}],
        summary={"ratio": {"median": 17.25}},
        findings=["The first is 17.25 times the second."],
        validity=Validity(valid=True, reasons=[], caveats=["a caveat"]),
    )
