"""The throughput runner: the mock and the real client, and what is said when there is no client."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks import __main__ as command_line
from benchmarks.harness.results import load_result
from benchmarks.throughput import measure as throughput
from workbook import engine
from workbook.engine import CPU_VARIABLE, GPU_VARIABLE
from workbook.paths import BUILD_VARIABLE


def test_without_a_client_it_says_how_to_get_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv(CPU_VARIABLE, raising=False)
    monkeypatch.delenv(GPU_VARIABLE, raising=False)
    monkeypatch.setattr(engine, "ROOT", tmp_path)
    monkeypatch.setenv(BUILD_VARIABLE, str(tmp_path / "build"))
    assert command_line.main(["throughput", "--engine", "mock", "--out", str(tmp_path / "results")]) == 1
    told = capsys.readouterr().err
    assert "throughput was not measured: no environment with vLLM" in told
    assert "make vllm-gpu" in told


def test_times_per_token_come_from_the_true_length() -> None:
    told = {"ttfts": [0.1, 0.2, 9.0], "latencies": [0.5, 0.8, 9.0], "errors": ["", "", "HTTP 500"]}
    assert throughput._median_tpot_ms(told, 5) == pytest.approx((100 + 150) / 2)


def test_only_numbers_of_the_report_are_kept() -> None:
    told = {"completed": 4, "duration": 1.5, "request_rate": "inf", "ok": True, "itls": [[1]], "rtfx": float("nan")}
    assert throughput._figures(told) == {"completed": 4, "duration": 1.5}


@pytest.mark.engine
def test_the_real_client_measures_the_mock_directly_and_through_the_proxy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(BUILD_VARIABLE, str(tmp_path / "build"))
    words = ["throughput", "--engine", "mock", "--concurrencies", "2", "--input-len", "16", "--output-len", "4"]
    words += ["--num-prompts", "4", "--num-warmups", "1", "--repeats", "2", "--out", str(tmp_path / "results")]
    assert command_line.main(words) == command_line.NOT_FOR_QUOTING
    (path,) = (tmp_path / "results").glob("*/*-throughput.json")
    result = load_result(path)
    assert "2 repeats are too few: an interval needs at least 5" in result.validity.reasons
    assert not [reason for reason in result.validity.reasons if "spans" in reason or "completed" in reason]
    assert len({sample["seed"] for sample in result.samples}) == len(result.samples) == 4
    samples: list[Any] = list(result.samples)
    for sample in samples:
        assert sample["client"]["completed"] == 4
        # The client's own count is right only where it finds the usage.
        assert sample["arm"] == "proxy" or sample["client"]["total_output_tokens"] == 4 * 4
        assert sample["median_tpot_ms"] > 0
        assert sample["counted_requests"] == 4 + 1
        assert sample["counted_completion_tokens"] == (4 + 1) * 4
        assert sample["spans"] == (5 if sample["arm"] == "proxy" else 0)
    assert str(tmp_path) not in result.model_dump_json()
    assert "sk-" not in result.model_dump_json()
