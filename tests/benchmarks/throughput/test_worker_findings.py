"""The findings of proxy_scale: scaling, what the callback costs, what the limit is, and the faults of blocks."""

from __future__ import annotations

import random
from typing import Any

import pytest

from benchmarks.harness.results import RESULTS, load_result
from benchmarks.harness.rounds import Sample
from benchmarks.throughput.figure import draw
from benchmarks.throughput.measure import BENCHMARK
from benchmarks.throughput.worker_findings import COMPLETE, DURABLE, MOCK, MOCK_AGAIN, PROXY_ARMS, STREAMED, evaluate


def made(rounds: int = 5, cores: float = 2.0) -> list[Sample]:
    """100 requests a second for each of up to two workers, and a callback that takes a tenth of the CPU time more."""
    samples = list[Sample]()
    noise = random.Random(1)
    for number in range(rounds):
        blocks = [(COMPLETE, workers, arm) for workers in (1, 2, 4) for arm in PROXY_ARMS] + [(STREAMED, 1, DURABLE)]
        blocks += [(answer, 0, arm) for answer in (COMPLETE, STREAMED) for arm in (MOCK, MOCK_AGAIN)]
        for answer, workers, arm in blocks:
            rate = 100 * min(workers, cores) if workers else {COMPLETE: 1000, STREAMED: 300}[answer]
            answered = round(rate * noise.uniform(0.99, 1.01))
            cpu = answered * (0.0088 if arm == DURABLE else 0.008) * noise.uniform(0.998, 1.002)
            samples.append(
                {
                    **{
                        "round": number,
                        "answer": answer,
                        "workers": workers,
                        "arm": arm,
                        "answered": answered,
                        "errors": {},
                    },
                    **{"seconds": 1.0, "served": answered, "records": answered if arm == DURABLE else 0},
                    **{"proxy_cpu_seconds": cpu, "mock_cpu_seconds": 0.05, "receiver_cpu_seconds": 0.0},
                    **{"client_cpu_seconds": 0.02, "others_cores": 0.0},
                }
            )
    return samples


def changed(**values: Any) -> list[Sample]:
    samples = made()
    place = next(number for number, sample in enumerate(samples) if sample["arm"] == DURABLE)
    samples[place] |= values
    return samples


def test_a_clear_case() -> None:
    found = evaluate(made(rounds=12), cores=2)
    assert found.faults == []
    rows = {(row["workers"], row["arm"]): row for row in found.summary["rows"]}
    assert rows[2, DURABLE]["over_one"]["median"] == pytest.approx(2, rel=0.02)
    assert rows[2, DURABLE]["differs"]
    assert not rows[1, DURABLE]["differs"]
    assert rows[4, DURABLE]["over_one"]["median"] == pytest.approx(2, rel=0.02)
    assert rows[1, "plain"]["proxy_cpu_ms"]["median"] == pytest.approx(8, rel=0.01)
    for entry in found.summary["callback"]:
        assert entry["ratio"]["median"] == pytest.approx(1.1, rel=0.02)
        assert entry["differs"]


def test_the_mock_serves_more_than_the_proxy_asks_or_it_is_told() -> None:
    found = evaluate(made(rounds=12), cores=2)
    plain, streamed = (found.summary["headroom"][answer] for answer in (COMPLETE, STREAMED))
    assert plain["requests_per_second_mock_over_proxy"]["median"] == pytest.approx(10, rel=0.02)
    assert streamed["requests_per_second_mock_over_proxy"]["median"] == pytest.approx(3, rel=0.02)
    assert [said.endswith("5 times is reached.") for said in found.findings[-3:-1]] == [True, False]


def test_stored_results_say_what_their_samples_say_and_are_drawn(says_the_same: Any) -> None:
    for path in RESULTS.glob("*/*-proxy_scale*.json"):
        stored = load_result(path)
        says_the_same(stored, evaluate(stored.samples, cores=2), BENCHMARK)
    assert [axes.get_xlabel() for axes in draw(stored).axes] == ["workers of the proxy"] * 3


@pytest.mark.parametrize(("cores", "said"), [(2, "The cores are the limit"), (16, "The cores are not the limit")])
def test_it_says_what_the_limit_is(cores: int, said: str) -> None:
    assert any(finding.startswith(said) for finding in evaluate(made(), cores=cores).findings)


@pytest.mark.parametrize(
    ("samples", "fault"),
    [
        (made(rounds=4), "4 rounds are too few"),
        (changed(records=1), "round 0, plain, 1 worker, durable: 1 records arrived, expected"),
        (changed(errors={"HTTP 500": 2}), "requests failed: HTTP 500: 2"),
        (changed(served=1), "and the mock served 1"),
        ([{**sample, "others_cores": 0.5} for sample in made()], "busy machine: others used 0.50 cores"),
    ],
)
def test_faults(samples: list[Sample], fault: str) -> None:
    (told,) = evaluate(samples, cores=2).faults
    assert fault in told
