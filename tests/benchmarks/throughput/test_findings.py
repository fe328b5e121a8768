"""The findings of throughput: figures, comparisons, rates for prices, the ceiling, and the faults of single runs."""

from __future__ import annotations

import random
from typing import Any

import pytest

from benchmarks.harness.rounds import Sample
from benchmarks.throughput.findings import (
    ARMS,
    ARMS_PHASE,
    BATCH,
    DIRECT,
    EXPORTING,
    LATENCY,
    OPEN,
    PREFILL,
    PROXY,
    PROXY_AGAIN,
    SWEEP,
    evaluate,
)
from benchmarks.throughput.roofline import Device, Model

ABOUT = {"kind": "vllm-cpu", "version": "0.32.0", "shape": "small", "weights": "random", "eager": True}
MOCK = {"kind": "mock", "version": "0.32.0", "shape": None, "weights": None, "eager": False}
PREFILL_RATE, DECODE_RATE = 5000.0, 400.0  # tokens per second of the made-up engine


def closed(phase: str, repeat: int, arm: str, concurrency: int, *, output_len: int = 10, slower: float = 1.0) -> Sample:
    """A run of 64 requests of 100 input tokens."""
    noise = random.Random(f"{phase} {repeat} {arm} {concurrency}").uniform(0.995, 1.005)
    duration = 64 * (100 / PREFILL_RATE + (output_len - 1) / DECODE_RATE) / concurrency * slower * noise
    return {
        **{"phase": phase, "repeat": repeat, "arm": arm, "input_len": 100, "output_len": output_len},
        **{"concurrency": concurrency, "seed": repeat, "num_prompts": 64, "good": 32},
        "client": {
            "completed": 64,
            "duration": duration,
            "output_throughput": 17.0,  # what the client makes of it is not used
            "median_ttft_ms": 80.0,
            "median_e2el_ms": 170.0,
            "mean_e2el_ms": 1000 * duration * concurrency / 64,
        },
        "median_tpot_ms": 10.0 if output_len > 1 else None,
        **{"counted_requests": 66, "counted_prompt_tokens": 6600, "counted_completion_tokens": 66 * output_len},
        **{"cache_queries": 0, "cache_hits": 0, "spans": 66 if arm in EXPORTING else 0},
        "recorded_prompt_tokens": 6600 if arm in EXPORTING else 0,
        "recorded_completion_tokens": 66 * output_len if arm in EXPORTING else 0,
        "proxy_cpu_seconds": None if arm == DIRECT else 0.66,
        "others_cores": 0.0,
        **({"paired_output_len": 10} if phase == PREFILL else {}),
    }


def opened(phase: str, repeat: int, arm: str, **values: Any) -> Sample:
    told = {"rate": 5.0, "sent": 50, "answered": 50, "errors": {}, "late_p99_ms": 1.0}
    told |= {"ttft_ms": {"p50": 50.0, "p99": 90.0}, "e2el_ms": {"p50": 200.0, "p99": 300.0}}
    run = closed(phase, repeat, arm, 1)
    return {**run, "concurrency": None, **told, **values}


def made(repeats: int = 3) -> list[Sample]:
    """An engine that is twice as fast at twice the load, proxies that take half, and a callback that takes 10% more."""
    slower = {DIRECT: 1.0, PROXY: 2.0, PROXY_AGAIN: 2.0, BATCH: 2.2}
    runs = list[Sample]()
    for repeat in range(repeats):
        runs += [closed(SWEEP, repeat, DIRECT, concurrency) for concurrency in (1, 8)]
        runs += [closed(PREFILL, repeat, DIRECT, 8, output_len=1)]
        runs += [closed(ARMS_PHASE, repeat, arm, 8, slower=factor) for arm, factor in slower.items()]
        runs += [opened(OPEN, repeat, arm) for arm in slower]
    return runs


def changed(samples: list[Sample], **values: Any) -> list[Sample]:
    return [{**samples[0], **values}, *samples[1:]]


def test_a_clear_case() -> None:
    found = evaluate(made(), engine=ABOUT)
    assert found.faults == []
    points = {(p["phase"], p["arm"], p["concurrency"]): p for p in found.summary["points"]}
    assert list(points)[:3] == [(SWEEP, DIRECT, 1), (SWEEP, DIRECT, 8), (PREFILL, DIRECT, 8)]
    alone, eight = points[SWEEP, DIRECT, 1], points[SWEEP, DIRECT, 8]
    assert eight["output_tokens_per_second"]["median"] == pytest.approx(
        8 * alone["output_tokens_per_second"]["median"], rel=0.02
    )
    assert alone["under_way"]["median"] == pytest.approx(1)
    assert eight["good_requests_per_second"]["median"] == pytest.approx(eight["requests_per_second"]["median"] / 2)
    assert alone["ceiling"] is alone["of_ceiling"] is alone["proxy_cpu_ms"] is None
    assert points[ARMS_PHASE, BATCH, 8]["proxy_cpu_ms"]["median"] == pytest.approx(10)
    assert "vllm-cpu 0.32.0 small, in eager mode: random weights" in found.findings[0]


def test_arms_are_compared_with_the_proxy_and_with_what_equal_proxies_show() -> None:
    compared = {(c["arm"], c["against"]): c for c in evaluate(made(10), engine=ABOUT).summary["comparisons"]}
    assert compared[PROXY, DIRECT]["ratio"]["median"] == pytest.approx(0.5, rel=0.02)
    assert compared[BATCH, PROXY]["ratio"]["median"] == pytest.approx(1 / 1.1, rel=0.02)
    assert compared[BATCH, PROXY]["differs"]
    assert not compared[PROXY_AGAIN, PROXY]["differs"]
    assert compared[PROXY_AGAIN, PROXY]["ratio"] == compared[BATCH, PROXY]["null"]


def test_prefill_and_decode_rates_come_from_answers_of_one_token_and_of_many() -> None:
    rates = evaluate(made(), engine=ABOUT).summary["token_rates"]
    assert (rates["input_len"], rates["output_len"], rates["concurrency"]) == (100, 10, 8)
    assert rates["prefill_input_tokens_per_second"]["median"] == pytest.approx(8 * PREFILL_RATE, rel=0.02)
    # Nine of ten tokens are decoded: the first comes from the prefill.
    assert rates["decode_output_tokens_per_second"]["median"] == pytest.approx(8 * DECODE_RATE / 0.9, rel=0.03)
    without = [run for run in made() if run["phase"] != PREFILL]
    assert evaluate(without, engine=ABOUT).summary["token_rates"] is None


def test_open_loops() -> None:
    summary = evaluate(made(), engine=ABOUT).summary
    assert [entry["arm"] for entry in summary[OPEN]] == [DIRECT, PROXY, PROXY_AGAIN, BATCH]
    assert summary[OPEN][0]["e2el_p50_ms"] == 200
    samples = [run | {"answered": 10, "errors": {"timed out": 40}} if run["phase"] == OPEN else run for run in made()]
    assert evaluate(samples, engine=ABOUT).summary[OPEN][0]["answered_share"] == 0.2


def test_the_fitted_mock_stands_beside_the_engine() -> None:
    runs = [
        closed(phase, repeat, DIRECT, concurrency)
        for repeat in range(3)
        for concurrency in (1, 4, 16)
        for phase in (SWEEP, LATENCY)
    ]
    for run in runs:
        run["client"]["median_ttft_ms"] = 50.0 + 2.0 * (run["concurrency"] - 1)
    latency = evaluate(runs, engine=ABOUT).summary[LATENCY]
    assert latency["fit"]["flags"] == {
        **{"ttft_ms": 50.0, "ttft_ms_per_running": 2.0, "tpot_ms": 10.0, "tpot_ms_per_running": 0.0}
    }
    for arm in ("engine", "mock"):
        assert [point["ttft_ms"]["median"] for point in latency["curves"][arm]] == [50.0, 56.0, 80.0]


def test_the_ceiling_is_told_and_cannot_be_exceeded() -> None:
    of = Model(parameters=10**6, weights_read=10**6, cache_bytes=0)
    slow, fast = (Device("one", bandwidth, 1e15, "https://example.org") for bandwidth in (2e8, 2e10))
    found = evaluate(made(), engine=ABOUT, of=of, on=fast)
    assert found.faults == []
    assert found.summary["points"][0]["ceiling"] == pytest.approx(10_000)
    assert 0 < found.summary["points"][0]["of_ceiling"] < 1
    assert "of the ceiling, 10,000" in found.findings[1]
    assert any("of the ceiling, which cannot be" in f for f in evaluate(made(), engine=ABOUT, of=of, on=slow).faults)


def test_what_was_cut_off_says_so_and_keeps_what_there_is() -> None:
    short = made()[:9]  # less than one repeat
    found = evaluate(short, engine=ABOUT, cut_off="interrupted after 9 runs")
    assert found.faults[0] == "interrupted after 9 runs"
    assert "1 repeats are too few" in found.faults[1]
    assert found.summary["points"] == []
    assert found.samples == short


def test_the_mock_is_told_for_what_it_is() -> None:
    found = evaluate(changed(made(), cache_queries=100, cache_hits=50), engine=MOCK)
    assert found.findings[0].startswith("mock 0.32.0: from the mock: it computes nothing")
    assert found.faults == []


def of_arm(arm: str, **values: Any) -> list[Sample]:
    first = next(run for run in made() if (run["arm"], run["phase"]) == (arm, ARMS_PHASE))
    return [{**first, **values} if run == first else run for run in made()]


WHERE = "repeat 0, sweep, direct, 100/10, concurrency 1: "


@pytest.mark.parametrize(
    ("samples", "fault"),
    [
        (made(repeats=2), "2 repeats are too few"),
        ([{**run, "others_cores": 0.5} for run in made()], "busy machine: others used 0.50 cores"),
        (changed(made(), num_prompts=65), f"{WHERE}64 of 65 requests were completed"),
        (changed(made(), counted_completion_tokens=659), "the engine counted 659 output tokens for 66 answers of 10"),
        (of_arm(BATCH, spans=65), "65 spans arrived, expected 66"),
        (of_arm(BATCH, recorded_prompt_tokens=6599), "the records have 6599 prompt_tokens, the engine counted 6600"),
        (changed(made(), cache_queries=100, cache_hits=3), "the prefix cache gave 3 of 100 prompt tokens"),
        ([*made(), opened(OPEN, 3, PROXY, errors={"HTTP 500": 1})], "requests failed: {'HTTP 500': 1}"),
        ([*made(), opened(OPEN, 3, PROXY, late_p99_ms=21.0)], "the client was late itself: 21 ms"),
    ],
)
def test_faults(samples: list[Sample], fault: str) -> None:
    (told,) = evaluate(samples, engine=ABOUT).faults
    assert fault in told


def test_more_under_way_than_asked_for_is_a_fault() -> None:
    samples = made()
    client = {**samples[0]["client"], "mean_e2el_ms": 2 * samples[0]["client"]["mean_e2el_ms"]}
    (told,) = evaluate(changed(samples, client=client), engine=ABOUT).faults
    assert told.startswith(f"{WHERE}Little's law: 2")


def test_every_arm_has_its_place() -> None:
    assert {DIRECT, PROXY, PROXY_AGAIN, *EXPORTING} < set(ARMS)
