"""The straight line: recovered where there is one, allowed where there is none, refused without data."""

from __future__ import annotations

import random

import pytest

from benchmarks.throughput.latency_fit import fit_line

OTHERS = [0.0, 1.0, 3.0, 7.0, 15.0, 31.0]


def test_a_line_is_recovered() -> None:
    line = fit_line(OTHERS, [9.5 + 0.75 * others for others in OTHERS])
    assert line.base_ms == pytest.approx(9.5)
    assert line.per_other_ms == pytest.approx(0.75)
    assert line.r_squared == pytest.approx(1.0)
    assert line.worst_relative_error == pytest.approx(0.0, abs=1e-9)


def test_noise_moves_it_by_no_more_than_the_noise() -> None:
    noise = random.Random(4)
    line = fit_line(OTHERS * 5, [(100 + 20 * others) * noise.uniform(0.95, 1.05) for others in OTHERS * 5])
    assert line.base_ms == pytest.approx(100, rel=0.05)
    assert line.per_other_ms == pytest.approx(20, rel=0.05)
    assert 0.98 < line.r_squared < 1
    assert 0.02 < line.worst_relative_error < 0.1


def test_small_times_count_as_much_as_large_ones() -> None:
    # One point that is 300 ms off at 1,000 ms must not push the line 10 ms off where 10 ms are measured.
    line = fit_line(OTHERS, [10 + others for others in OTHERS[:-1]] + [45.0])
    assert line.base_ms == pytest.approx(10, rel=0.05)


def test_more_company_never_makes_it_faster() -> None:
    line = fit_line([0, 1, 2], [10.0, 8.0, 6.0])
    assert line.per_other_ms == 0
    assert 6 < line.base_ms < 10


def test_the_base_is_never_below_zero() -> None:
    line = fit_line([1, 2, 4], [1.0, 11.0, 31.0])
    assert line.base_ms == 0
    assert line.per_other_ms > 0


@pytest.mark.parametrize(
    ("others", "times", "message"),
    [
        ([0, 1], [1, 2], "three or more points"),
        ([3, 3, 3], [1, 2, 3], "two or more concurrencies"),
        ([0, 1, 2], [1, 2], "got 3 and 2 numbers"),
        ([0, 1, 2], [1, 0, 2], "positive and finite"),
        ([0, 1, 2], [1, float("nan"), 2], "positive and finite"),
    ],
)
def test_bad_input_is_refused(others: list[float], times: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit_line(others, times)
