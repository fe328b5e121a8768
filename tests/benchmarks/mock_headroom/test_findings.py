"""The findings say what the samples say, and no fault of a sample goes unnoticed."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from benchmarks.harness.results import RESULTS, load_result
from benchmarks.mock_headroom.findings import ARMS, MOCK, MOCK_AGAIN, PROXY, SHAPES, Sample, evaluate
from benchmarks.mock_headroom.measure import BENCHMARK


def made(factor: float = 17.0, rounds: int = 12, cores: float = 0.0) -> list[Sample]:
    """Samples of a mock that serves 2,000 requests a second and a proxy that asks for ``factor`` times fewer."""
    noise = random.Random(3)
    samples = []
    for number in range(rounds):
        for shape in SHAPES:
            for arm in ARMS:
                slower = factor if arm == PROXY else 1.0
                answered = round(4000 / slower)
                samples.append(
                    {
                        "round": number,
                        "shape": shape,
                        "arm": arm,
                        "answered": answered,
                        "errors": {},
                        "seconds": 2.0 * noise.uniform(0.97, 1.03),
                        "client_cpu_seconds": 0.4,
                        "served_by_mock": answered,
                        "spans": answered if arm == PROXY else 0,
                        "mock_cpu_seconds": 2.0 * noise.uniform(0.97, 1.03) / slower,
                        "proxy_cpu_seconds": 2.0 if arm == PROXY else 0.001,
                        "receiver_cpu_seconds": 0.05,
                        "others_cores": cores,
                    }
                )
    return samples


def changed(samples: list[Sample], arm: str, **values: Any) -> list[Sample]:
    """``samples`` with ``values`` in the first of ``arm``."""
    first = next(sample for sample in samples if sample["arm"] == arm)
    return [{**sample, **values} if sample is first else sample for sample in samples]


def test_a_clear_case() -> None:
    found = evaluate(made())
    assert found.faults == found.caveats == []
    assert found.summary["target"] == {"factor": 5.0, "reached": True}
    for shape in SHAPES:
        for name in (
            "requests_per_second_mock_over_proxy",
            "cpu_per_request_proxy_over_mock",
            "cpu_per_request_proxy_over_mock_while_the_proxy_asks",
        ):
            ratio = found.summary[shape][name]
            assert ratio["low"] <= 17 <= ratio["high"]
            assert ratio["median"] == pytest.approx(17, rel=0.03)
        for null in ("requests_per_second_mock_over_mock", "cpu_per_request_mock_over_mock"):
            assert found.summary[shape][null]["low"] <= 1 <= found.summary[shape][null]["high"]
        medians = found.summary[shape]["median_cpu_microseconds_per_request"]
        assert medians["proxy"] == pytest.approx(8500, rel=0.05)
        assert medians["mock"] == pytest.approx(500, rel=0.05)
    assert "At least 5 times" in found.findings[-2]
    assert "shown, for plain and streamed answers" in found.findings[-2]
    assert "95% intervals of the median over 12 rounds" in found.findings[-1]


@pytest.mark.parametrize("factor", [4.0, 4.9])
def test_a_mock_that_is_too_slow_is_told(factor: float) -> None:
    found = evaluate(made(factor))
    assert found.faults == []
    assert found.summary["target"]["reached"] is False
    assert "not shown for plain and streamed answers" in found.findings[-2]


def test_one_slow_shape_is_enough() -> None:
    slow = [{**s, "seconds": s["seconds"] * 5} if (s["shape"], s["arm"]) == ("streamed", MOCK) else s for s in made()]
    assert "not shown for streamed answers" in evaluate(slow).findings[-2]


def test_no_difference_is_not_claimed() -> None:
    found = evaluate(made(factor=1.0))
    assert all("the same within 10%" in sentence for sentence in found.findings if "over proxy" in sentence)
    assert found.summary["target"]["reached"] is False


def test_the_same_samples_in_another_order_say_the_same() -> None:
    samples = made()
    assert evaluate(samples[::-1]).summary == evaluate(samples).summary


@pytest.mark.parametrize(
    ("samples", "fault"),
    [
        (made(rounds=9), "9 rounds are too few"),
        (made(cores=0.5), "busy machine: others used 0.50 cores"),
        (
            changed(made(), PROXY, errors={"HTTP 500": 2}),
            "round 0, plain, proxy: failed requests (HTTP 500: 2) beside 235 good ones",
        ),
        (
            changed(made(), MOCK, served_by_mock=3999),
            "round 0, plain, mock: the client counts 4000 answers, the mock 3999",
        ),
        (changed(made(), PROXY, spans=234), "round 0, plain, proxy: 234 spans arrived, expected 235"),
        (changed(made(), MOCK_AGAIN, spans=1), "round 0, plain, mock_again: 1 spans arrived, expected 0"),
    ],
)
def test_faults(samples: list[Sample], fault: str) -> None:
    faults = evaluate(samples).faults
    assert len(faults) == 1
    assert fault in faults[0]


def test_arms_that_should_be_equal_and_are_not() -> None:
    biased = [{**s, "seconds": s["seconds"] * 1.1} if s["arm"] == MOCK_AGAIN else s for s in made()]
    faults = evaluate(biased).faults
    assert len(faults) == len(SHAPES)
    assert all("A/A comparison of requests per second should contain 1" in fault for fault in faults)


def test_a_block_without_an_answer_gives_no_ratio() -> None:
    samples = changed(made(), PROXY, answered=0, errors={"HTTP 500": 9}, served_by_mock=0, spans=0)
    found = evaluate(samples)
    assert found.summary == {}
    assert "Nothing was found" in found.findings[0]
    assert "HTTP 500: 9" in found.faults[0]


def test_a_client_at_its_limit_is_told() -> None:
    found = evaluate(changed(made(), MOCK, client_cpu_seconds=1.95, seconds=2.0))
    assert found.faults == []
    assert found.caveats == [
        "the client used up to 0.97 cores in mock blocks: their rate is a lower bound",
    ]


def test_stored_results_say_what_their_samples_say(says_the_same: Callable[..., None]) -> None:
    paths = sorted(RESULTS.glob("*/*-mock_headroom*.json"))
    assert paths
    for path in paths:
        stored = load_result(path)
        again = evaluate(stored.samples)
        says_the_same(stored, again, BENCHMARK)
        assert again.summary["target"] == stored.summary["target"]
