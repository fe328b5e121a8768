"""engine_latency with a real engine, as small as it gets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks import __main__ as command_line
from benchmarks.harness.results import load_result
from workbook.paths import BUILD_VARIABLE


@pytest.mark.engine
def test_engine_and_fitted_mock_are_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(BUILD_VARIABLE, str(tmp_path / "build"))
    words = ["run", "engine_latency", "--shape", "tiny", "--concurrencies", "1,2,3", "--rounds", "2"]
    words += ["--requests", "2", "--max-tokens", "8", "--prompt-words", "8", "--out", str(tmp_path / "results")]
    assert command_line.main(words) == command_line.NOT_FOR_QUOTING
    (path,) = (tmp_path / "results").glob("*/*-engine_latency.json")
    result = load_result(path)
    # Everything but the number of rounds and the company that the tests have is as it should be.
    assert [reason for reason in result.validity.reasons if "busy machine" not in reason] == [
        "2 rounds are too few: an interval needs at least 10"
    ]
    assert sorted((s["arm"], s["round"], s["concurrency"]) for s in result.samples) == [
        (arm, number, concurrency) for arm in ("engine", "mock") for number in (0, 1) for concurrency in (1, 2, 3)
    ]
    summary: Any = result.summary
    assert summary["engine"] | {"version": ""} == {
        "kind": "vllm-cpu",
        "version": "",
        "shape": "tiny",
        "weights": "random",
    }
    flags = summary["fit"]["flags"]
    assert flags["ttft_ms"] + flags["ttft_ms_per_running"] > 0
    # The mock waits as long as it was told to before the first token.
    samples: list[Any] = list(result.samples)
    alone = [s for s in samples if s["arm"] == "mock" and s["concurrency"] == 1]
    assert all(first >= flags["ttft_ms"] - 0.001 for sample in alone for first in sample["ttft_ms"])
    assert str(tmp_path) not in result.model_dump_json()
