"""The findings of engine_latency: the fit recovers what was put in, and no fault of a sample goes unnoticed."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from benchmarks.engine_latency.findings import ENGINE, Sample, evaluate, fit
from benchmarks.engine_latency.measure import BENCHMARK
from benchmarks.harness.benchmark import NotMeasured
from benchmarks.harness.results import RESULTS, load_result
from mock_vllm.latency import PROFILES
from workbook.paths import ROOT

CONCURRENCIES = (1, 2, 4, 8, 16, 32)
ABOUT = {"kind": "vllm-cpu", "version": "0.32.0", "shape": "small", "weights": "random"}


def made(rounds: int = 10, mock_factor: float = 1.0) -> list[Sample]:
    """Samples of an engine with 80 ms + 20 ms per other request, then 10 ms + 2 ms, and of a mock that follows."""
    noise = random.Random(5)
    samples = []
    for arm, factor in ((ENGINE, 1.0), ("mock", mock_factor)):
        for number in range(rounds):
            for concurrency in CONCURRENCIES:
                others = concurrency - 1
                answers = range(max(4, concurrency))
                samples.append(
                    {
                        "round": number,
                        "arm": arm,
                        "concurrency": concurrency,
                        "ttft_ms": [factor * (80 + 20 * others) * noise.uniform(0.97, 1.03) for _ in answers],
                        "tpot_ms": [factor * (10 + 2 * others) * noise.uniform(0.97, 1.03) for _ in answers],
                        "prompt_tokens_each": [144] if arm == ENGINE else [72],
                        "max_tokens": 32,
                        "answered": 100,
                        "errors": {},
                        "seconds": 3.0,
                        "client_cpu_seconds": 0.1,
                        "prompt_tokens": 14400,
                        "completion_tokens": 3200,
                        "counted_prompt_tokens": 14400,
                        "counted_completion_tokens": 3200,
                        "cache_queries": 14400,
                        "cache_hits": 0,
                        "others_cores": 0.0,
                    }
                )
    return samples


def changed(samples: list[Sample], **values: Any) -> list[Sample]:
    return [{**samples[0], **values}, *samples[1:]]


def test_the_fit_recovers_what_was_put_in() -> None:
    flags = fit(made()).flags()
    assert flags == {name: round(value, 3) for name, value in flags.items()}
    assert flags["ttft_ms"] == pytest.approx(80, rel=0.03)
    assert flags["ttft_ms_per_running"] == pytest.approx(20, rel=0.03)
    assert flags["tpot_ms"] == pytest.approx(10, rel=0.03)
    assert flags["tpot_ms_per_running"] == pytest.approx(2, rel=0.03)


def test_the_mock_has_no_part_in_the_fit() -> None:
    assert fit(made(mock_factor=3.0)) == fit(made(mock_factor=1.0))


def test_a_clear_case() -> None:
    found = evaluate(made(), engine=ABOUT)
    assert found.faults == []
    assert found.caveats == ["random weights: the speed of the model's shape; the text means nothing"]
    assert found.summary["engine"] == ABOUT
    assert found.summary["fit"]["ttft"]["r_squared"] > 0.99
    (first, *_, last) = found.summary["curves"]["engine"]
    assert (first["concurrency"], last["concurrency"]) == (1, 32)
    assert last["ttft_ms"]["low"] <= 700 <= last["ttft_ms"]["high"] * 1.02
    # Little's law: 32 streams, each 32 tokens in 700 + 31 * 72 ms.
    assert last["output_tokens_per_second"]["median"] == pytest.approx(32 * 32 / (0.7 + 31 * 0.072), rel=0.03)
    text = "\n".join(found.findings)
    assert "vllm-cpu, shape small, 144 prompt tokens, 32 output tokens" in text
    assert "95% intervals of the median over 10 rounds" in text


def test_a_mock_that_does_not_follow_is_told() -> None:
    found = evaluate(made(mock_factor=1.5), engine=ABOUT)
    for values in found.summary["mock_over_engine_minus_one"].values():
        assert len(values) == len(CONCURRENCIES)
    assert all(
        point["distance"] == pytest.approx(0.5, abs=0.05)
        for point in found.summary["mock_over_engine_minus_one"]["ttft_ms"]
    )
    assert any("within 5" in sentence for sentence in found.findings)  # 50 per cent or a little more


@pytest.mark.parametrize(
    ("samples", "fault"),
    [
        (made(rounds=9), "9 rounds are too few"),
        (
            [{**sample, "others_cores": 0.2} if sample["arm"] == ENGINE else sample for sample in made()],
            "busy machine: others used 0.20 cores while the engine was measured, more than 0.15",
        ),
        (changed(made(), errors={"HTTP 500": 2}), "round 0, engine, concurrency 1: failed requests (HTTP 500: 2)"),
        (
            changed(made(), counted_completion_tokens=3201),
            "round 0, engine, concurrency 1: the answers have 3200 completion tokens, the server counted 3201",
        ),
        (changed(made(), counted_prompt_tokens=1), "the answers have 14400 prompt tokens, the server counted 1"),
        (
            [{**sample, "cache_hits": 1000} if sample["arm"] == ENGINE else sample for sample in made()],
            "engine: the prefix cache gave 60000 of 864000 prompt tokens",
        ),
    ],
)
def test_faults(samples: list[Sample], fault: str) -> None:
    faults = evaluate(samples, engine=ABOUT).faults
    assert len(faults) == 1
    assert fault in faults[0]


def test_a_block_without_an_answer_cannot_be_fitted() -> None:
    with pytest.raises(NotMeasured, match=r"round 0, engine, concurrency 1: no answer was measured \(timed out: 8\)"):
        fit(changed(made(), ttft_ms=[], tpot_ms=[], errors={"timed out": 8}))


def to_12_digits(value: Any) -> Any:
    """The last bits of a sum of squares depend on NumPy's build, which another Python has another one of."""
    if isinstance(value, dict):
        return {name: to_12_digits(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [to_12_digits(part) for part in value]
    return f"{value:.12g}" if isinstance(value, float) else value


def test_stored_results_say_what_their_samples_say(says_the_same: Callable[..., None]) -> None:
    paths = sorted(RESULTS.glob("*/*-engine_latency*.json"))
    assert paths
    for path in paths:
        stored = load_result(path)
        engine: Any = stored.summary["engine"]
        again = evaluate(stored.samples, engine=engine)
        says_the_same(stored, again, BENCHMARK)
        assert to_12_digits(again.summary["fit"]) == to_12_digits(stored.summary["fit"])


@pytest.mark.parametrize("name", PROFILES)
def test_the_mocks_profiles_are_the_fits_of_the_results_they_name(name: str) -> None:
    profile = PROFILES[name]
    stored = load_result(ROOT / profile.source)
    assert stored.validity.valid
    for field, value in fit(stored.samples).flags().items():
        # Microseconds are kept.
        assert getattr(profile.latency, field) == pytest.approx(value, abs=0.0005), field
    assert profile.latency.jitter == 0
