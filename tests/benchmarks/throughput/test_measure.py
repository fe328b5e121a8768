"""The throughput runner: the mock and the real client, and what is said when there is no client."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, median
from typing import Any, Self

import pytest

from benchmarks import __main__ as command_line
from benchmarks.harness import backends
from benchmarks.harness.results import load_result
from benchmarks.harness.streams import streamed
from benchmarks.throughput import figure
from benchmarks.throughput import measure as throughput
from benchmarks.throughput.open_loop import open_loop
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
    assert throughput._times(told, 5) == [(100.0, pytest.approx(100)), (200.0, pytest.approx(150))]
    assert throughput._times(told, 1) == [(100.0, None), (200.0, None)]


def test_only_numbers_of_the_report_are_kept() -> None:
    told = {"completed": 4, "duration": 1.5, "request_rate": "inf", "ok": True, "itls": [[1]], "rtfx": float("nan")}
    assert throughput._figures(told) == {"completed": 4, "duration": 1.5}


def test_an_open_loop_needs_a_rate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["throughput", "--engine", "mock", "--phases", "sweep,open", "--out", str(tmp_path)]
    assert command_line.main(words) == 1
    assert "add it to --phases" in capsys.readouterr().err


def test_a_fit_needs_three_concurrencies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["throughput", "--engine", "mock", "--phases", "sweep,latency", "--concurrencies", "1,2"]
    assert command_line.main([*words, "--out", str(tmp_path)]) == 1
    assert "three or more concurrencies" in capsys.readouterr().err


def test_without_litellm_it_says_what_can_be_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(backends, "proxy_is_there", lambda: False)
    assert command_line.main(["throughput", "--engine", "mock", "--out", str(tmp_path)]) == 1
    assert "ask for --phases sweep,prefill" in capsys.readouterr().err


def test_words_that_are_not_there_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--arms", "direct,nobody"], ["--lengths", "128"], ["--concurrencies", "8,1"], ["--repeats", "1"]):
        with pytest.raises(SystemExit) as ended:
            command_line.main(["throughput", *words])
        assert ended.value.code == 2
        assert words[0] in capsys.readouterr().err


def test_a_slowed_down_device_is_told() -> None:
    states = [{"slowdown_reasons": word} for word in ("0x0000000000000000", "0x0000000000000001", "[N/A]")]
    assert list(throughput._slowdowns(states)) == []
    (told,) = throughput._slowdowns([{"slowdown_reasons": "0x0000000000000004"}])
    assert told.endswith("0x4")


class AsyncClient:
    """Stands in for vLLM's client, which is not everywhere: asks all at once, and reports under the same names."""

    def __init__(self, kind: str, folder: Path) -> None:
        del kind, folder

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def run(self, words: Sequence[str], api_key: str) -> dict[str, Any]:
        del api_key
        flags = dict(zip(words[::2], words[1::2], strict=False))
        requests, tokens = int(flags["--num-prompts"]), int(flags["--random-output-len"])
        make = streamed(flags["--base-url"], {}, 5, int(flags["--seed"]))
        began = time.perf_counter()
        arrivals = open_loop(make, [0.0] * requests, max_tokens=tokens)
        answers = [arrival.answer for arrival in arrivals if not isinstance(arrival.answer, str)]
        ttfts, latencies = ([getattr(one, name) for one in answers] for name in ("first_token", "last_token"))
        told = {"completed": len(answers), "duration": time.perf_counter() - began, "errors": [""] * len(answers)}
        told |= {"median_ttft_ms": 1000 * median(ttfts), "median_e2el_ms": 1000 * median(latencies)}
        return told | {"mean_e2el_ms": 1000 * fmean(latencies), "ttfts": ttfts, "latencies": latencies}


def test_a_mock_is_fitted_to_what_was_swept_and_swept_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(BUILD_VARIABLE, str(tmp_path / "build"))
    monkeypatch.setattr(throughput, "Client", AsyncClient)
    monkeypatch.setattr(throughput, "model_dir", lambda shape: tmp_path / shape)
    words = ["throughput", "--engine", "mock", "--phases", "sweep,prefill,latency", "--concurrencies", "4,6,8"]
    words += ["--lengths", "128/32", "--repeats", "2", "--per-caller", "1", "--out", str(tmp_path / "results")]
    assert command_line.main(words) == command_line.NOT_FOR_QUOTING
    (path,) = (tmp_path / "results").glob("*/*-throughput.json")
    result = load_result(path)
    samples: list[Any] = list(result.samples)
    assert Counter(sample["phase"] for sample in samples) == {"sweep": 6, "prefill": 2, "latency": 6}
    for sample in samples:
        assert sample["client"]["completed"] == sample["num_prompts"] == sample["counted_requests"]
        assert sample["counted_completion_tokens"] == sample["counted_requests"] * sample["output_len"]
    latency: Any = result.summary["latency"]
    for curve in latency["curves"].values():
        assert [point["concurrency"] for point in curve] == [4, 6, 8]
    assert set(latency["fit"]["flags"]) == {"ttft_ms", "ttft_ms_per_running", "tpot_ms", "tpot_ms_per_running"}
    assert figure.draw(result).axes[0].get_xlabel() == "requests under way at once"


@pytest.mark.engine
def test_the_real_client_measures_the_mock_on_every_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(BUILD_VARIABLE, str(tmp_path / "build"))
    words = ["throughput", "--engine", "mock", "--concurrencies", "1,2,4", "--loads", "2", "--lengths", "128/32"]
    words += ["--phases", "sweep,prefill,arms,open,latency", "--arms", "direct,proxy,batch"]
    words += ["--repeats", "2", "--open-seconds", "1", "--out", str(tmp_path / "results")]
    assert command_line.main(words) == command_line.NOT_FOR_QUOTING
    (path,) = (tmp_path / "results").glob("*/*-throughput.json")
    result = load_result(path)
    assert "2 repeats are too few: an interval needs at least 3" in result.validity.reasons
    assert not [reason for reason in result.validity.reasons if "spans" in reason or "completed" in reason]
    assert len({sample["seed"] for sample in result.samples}) == len(result.samples) == 2 * (3 + 1 + 3 + 3 + 3)
    samples: list[Any] = list(result.samples)
    for sample in samples:
        assert sample["counted_completion_tokens"] == sample["counted_requests"] * sample["output_len"]
        assert sample["spans"] == (sample["counted_requests"] if sample["arm"] == "batch" else 0)
        assert sample["recorded_completion_tokens"] == (
            sample["counted_completion_tokens"] if sample["arm"] == "batch" else 0
        )
        if sample["phase"] != "open":
            assert sample["counted_requests"] == sample["client"]["completed"] + 2
    assert result.summary["token_rates"] is not None or any("token" in finding for finding in result.findings)
    assert str(tmp_path) not in result.model_dump_json()
    assert "sk-" not in result.model_dump_json()
