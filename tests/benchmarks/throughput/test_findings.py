"""The findings of throughput: figures, their ratio, and the faults of single runs."""

from __future__ import annotations

import random
from typing import Any

import pytest

from benchmarks.throughput.findings import ARMS, PROXY, Sample, evaluate

ABOUT = {"kind": "vllm-cpu", "version": "0.32.0", "shape": "small", "weights": "random"}


def made(repeats: int = 5, cores: float = 0.0) -> list[Sample]:
    """Runs of an engine that gives 100 tokens per second for each request under way, and of a proxy that takes half."""
    noise = random.Random(6)
    return [
        {
            "repeat": repeat,
            "arm": arm,
            "concurrency": concurrency,
            "seed": repeat,
            "client": {
                "completed": 64,
                "duration": 6.4 / concurrency * (2 if arm == PROXY else 1) * noise.uniform(0.99, 1.01),
                "output_throughput": 17.0,  # what the client makes of it is not used
                "median_ttft_ms": 80.0,
                "median_e2el_ms": 170.0,
            },
            "median_tpot_ms": 10.0,
            "num_prompts": 64,
            "output_len": 10,
            "counted_requests": 66,
            "counted_prompt_tokens": 6600,
            "counted_completion_tokens": 660,
            "cache_queries": 0,
            "cache_hits": 0,
            "spans": 66 if arm == PROXY else 0,
            "others_cores": cores,
        }
        for repeat in range(repeats)
        for arm in ARMS
        for concurrency in (1, 8)
    ]


def changed(samples: list[Sample], **values: Any) -> list[Sample]:
    return [{**samples[0], **values}, *samples[1:]]


def test_a_clear_case() -> None:
    found = evaluate(made(), seed=0, engine=ABOUT)
    assert found.faults == []
    for ratio in found.summary["output_tokens_per_second_proxy_over_engine"]:
        assert ratio["median"] == pytest.approx(0.5, rel=0.03)
        assert ratio["rounds"] == 5
    assert [(entry["arm"], entry["concurrency"]) for entry in found.summary["figures"]] == [
        ("engine", 1),
        ("engine", 8),
        ("proxy", 1),
        ("proxy", 8),
    ]
    assert found.summary["figures"][1]["output_tokens_per_second"]["median"] == pytest.approx(800, rel=0.02)
    assert found.summary["figures"][1]["requests_per_second"]["median"] == pytest.approx(80, rel=0.02)
    assert found.summary["figures"][1]["median_tpot_ms"]["median"] == 10
    assert "vllm-cpu 0.32.0 small: random weights" in found.findings[0]


def test_the_mock_is_told_for_what_it_is() -> None:
    mock = {"kind": "mock", "version": "0.32.0", "shape": None, "weights": None}
    found = evaluate(changed(made(), cache_queries=100, cache_hits=50), seed=0, engine=mock)
    assert found.findings[0].startswith("mock 0.32.0: from the mock: it computes nothing")
    assert found.faults == []


@pytest.mark.parametrize(
    ("samples", "fault"),
    [
        (made(repeats=4), "4 repeats are too few"),
        (made(cores=0.5), "busy machine: others used 0.50 cores"),
        (changed(made(), num_prompts=65), "repeat 0, engine, concurrency 1: 64 of 65 requests were completed"),
        (changed(made(), counted_completion_tokens=659), "the engine counted 659 output tokens for 66 answers of 10"),
        (changed(made(), spans=1), "repeat 0, engine, concurrency 1: 1 spans arrived, expected 0"),
        (changed(made(), arm=ARMS[0], cache_queries=100, cache_hits=3), "the prefix cache gave 3 of 100 prompt tokens"),
    ],
)
def test_faults(samples: list[Sample], fault: str) -> None:
    faults = evaluate(samples, seed=0, engine=ABOUT).faults
    assert len(faults) == 1
    assert fault in faults[0]
