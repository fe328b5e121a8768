"""Shared by the tests of benchmarks: a result that is whole."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from benchmarks.harness import preflight, provenance
from benchmarks.harness.results import Code, Conditions, Machine, Result, Validity


@pytest.fixture(autouse=True)
def nobody_else_measures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests do not wait for a measurement that runs on this machine, and do not stop one."""
    monkeypatch.setattr(preflight, "LOCK", tmp_path.with_name(f"{tmp_path.name}.lock"))


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


@pytest.fixture
def rounded() -> Callable[[Any], Any]:
    """Summaries to compare: sums of floats differ in their last digit from one machine to another."""

    def rounded(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: rounded(part) for key, part in value.items()}
        if isinstance(value, list):
            return [rounded(part) for part in value]
        return float(f"{value:.9g}") if isinstance(value, float) else value

    return rounded
