"""The findings of proxy_scale: scaling, what the callback costs, what the limit is, and the faults of blocks."""

from __future__ import annotations

import random
from typing import Any

import pytest

from benchmarks.proxy_scale.findings import ARMS, DURABLE, Sample, evaluate


def made(rounds: int = 5, cores: float = 2.0) -> list[Sample]:
    """100 requests a second for each of up to two workers, and a callback that takes a tenth of the CPU time more."""
    samples = list[Sample]()
    noise = random.Random(1)
    for number in range(rounds):
        for workers in (1, 2, 4):
            for arm in ARMS:
                answered = round(100 * min(workers, cores) * noise.uniform(0.99, 1.01))
                cpu = answered * (0.0088 if arm == DURABLE else 0.008) * noise.uniform(0.998, 1.002)
                samples.append(
                    {
                        **{"round": number, "workers": workers, "arm": arm, "answered": answered, "errors": {}},
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


@pytest.mark.parametrize(("cores", "said"), [(2, "The cores are the limit"), (16, "The cores are not the limit")])
def test_it_says_what_the_limit_is(cores: int, said: str) -> None:
    assert any(finding.startswith(said) for finding in evaluate(made(), cores=cores).findings)


@pytest.mark.parametrize(
    ("samples", "fault"),
    [
        (made(rounds=4), "4 rounds are too few"),
        (changed(records=1), "round 0, 1 worker, durable: 1 records arrived, expected"),
        (changed(errors={"HTTP 500": 2}), "requests failed: {'HTTP 500': 2}"),
        (changed(served=1), "and the mock served 1"),
        ([{**sample, "others_cores": 0.5} for sample in made()], "busy machine: others used 0.50 cores"),
    ],
)
def test_faults(samples: list[Sample], fault: str) -> None:
    (told,) = evaluate(samples, cores=2).faults
    assert fault in told
