"""The interval holds what it says, finds what was planted, and finds nothing where nothing is."""

from __future__ import annotations

import math

import numpy as np
import pytest

from benchmarks.harness.statistics import (
    Ratio,
    at_least,
    differs,
    in_words,
    median_interval,
    paired_difference,
    paired_ratio,
    resolution,
    side,
)

ROUNDS = 20
CONFIDENCE = 0.99


def measured(seed: int, effect: float) -> tuple[list[float], list[float], list[float]]:
    """Blocks of A, A again and B = ``effect`` times A: 8 % drift shared by a round, 2 % noise of each block."""
    noise = np.random.default_rng(seed)
    drift = np.exp(noise.normal(0, 0.08, ROUNDS))
    a, again, b = (1000 * drift * np.exp(noise.normal(0, 0.02, ROUNDS)) for _ in range(3))
    return a.tolist(), again.tolist(), (effect * b).tolist()


def compared(seed: int, effect: float) -> tuple[Ratio, Ratio]:
    a, again, b = measured(seed, effect)
    return ratio_for(b, a, seed), ratio_for(a, again, seed)


def ratio_for(above: list[float], below: list[float], seed: int) -> Ratio:
    return paired_ratio(above, below, seed=seed, confidence=CONFIDENCE, resamples=2000)


def test_exact_ratios_have_an_exact_interval() -> None:
    ratio = paired_ratio([20.0, 40.0, 60.0], [10.0, 20.0, 30.0], seed=0, confidence=CONFIDENCE)
    assert ratio == Ratio(2.0, 2.0, 2.0, CONFIDENCE, 3)


def test_pairing_removes_the_drift_that_rounds_share() -> None:
    drift = np.linspace(1, 3, ROUNDS)
    ratio = paired_ratio((drift * 1.02).tolist(), drift.tolist(), seed=0, confidence=CONFIDENCE)
    assert ratio.low == pytest.approx(1.02)
    assert ratio.high == pytest.approx(1.02)


def test_a_planted_tenth_is_found() -> None:
    for seed in range(100):
        ratio, null = compared(seed, effect=0.9)
        assert differs(ratio, null), f"seed {seed}: {ratio} against {null}"


def test_no_change_is_not_found() -> None:
    found = sum(differs(*compared(seed, effect=1.0)) for seed in range(200))
    assert found <= 4


@pytest.mark.parametrize("effect", [1.0, 0.9, 17.0])
def test_the_interval_covers_the_truth_as_often_as_it_says(effect: float) -> None:
    # 99 % nominal; a percentile bootstrap of 20 rounds falls a little short of that.
    covered = sum(ratio.low <= effect <= ratio.high for ratio, _ in (compared(seed, effect) for seed in range(400)))
    assert covered >= 0.96 * 400


def test_the_interval_is_not_needlessly_wide() -> None:
    ratio, _ = compared(0, effect=1.0)
    assert ratio.high / ratio.low < 1.1


def test_a_seed_repeats_its_interval_and_another_does_not() -> None:
    a, again, _ = measured(1, 1.0)
    one, same, other = (paired_ratio(a, again, seed=seed, confidence=0.9, resamples=50) for seed in (5, 5, 6))
    assert one == same != other


def test_a_higher_confidence_gives_a_wider_interval() -> None:
    a, again, _ = measured(1, 1.0)
    narrow, wide = (paired_ratio(a, again, seed=0, confidence=confidence) for confidence in (0.5, 0.99))
    assert wide.low < narrow.low <= narrow.high < wide.high


@pytest.mark.parametrize(
    ("above", "below"),
    [([1.0], [1.0]), ([], []), ([1.0, 2.0], [1.0]), ([1.0, 0.0], [1.0, 1.0]), ([1.0, 1.0], [1.0, math.nan])],
)
def test_numbers_without_a_ratio_are_refused(above: list[float], below: list[float]) -> None:
    with pytest.raises(ValueError, match="ratios need"):
        paired_ratio(above, below, seed=0, confidence=CONFIDENCE)


def ratio_of(low: float, high: float) -> Ratio:
    return Ratio((low * high) ** 0.5, low, high, CONFIDENCE, ROUNDS)


def test_the_resolution_is_the_larger_side_of_the_null() -> None:
    assert resolution(ratio_of(0.8, 1.1)) == pytest.approx(1.25)
    assert resolution(ratio_of(0.95, 1.2)) == pytest.approx(1.2)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(1.05, 1.3, False), (1.3, 1.4, True), (0.7, 0.75, True), (0.75, 0.9, False), (0.7, 1.4, False)],
)
def test_nothing_within_the_noise_is_claimed(low: float, high: float, expected: bool) -> None:
    null, ratio = ratio_of(0.8, 1.1), ratio_of(low, high)
    assert differs(ratio, null) is expected
    assert ("no difference beyond noise" in in_words(ratio, null)) is not expected


@pytest.mark.parametrize(
    ("low", "high", "null_high", "expected"),
    [(5.0, 6.0, 1.1, True), (4.9, 9.0, 1.1, False), (5.5, 6.0, 5.6, False)],
)
def test_at_least_needs_the_whole_interval_and_little_noise(
    low: float, high: float, null_high: float, expected: bool
) -> None:
    assert at_least(ratio_of(low, high), 5.0, ratio_of(1.0, null_high)) is expected


@pytest.mark.parametrize(
    ("low", "high", "null_high", "expected"),
    [
        (1.0, 1.5, 1.1, -1),
        (1.0, 2.1, 1.1, 0),
        (1.8, 1.95, 1.1, 0),
        (2.5, 3.0, 1.1, 1),
        (2.1, 2.2, 1.1, 0),
        (1.9, 9.0, 1.1, 0),
    ],
)
def test_a_side_needs_the_whole_interval_and_little_noise(
    low: float, high: float, null_high: float, expected: int
) -> None:
    assert side(ratio_of(low, high), 2.0, ratio_of(1.0, null_high)) == expected


def test_the_interval_of_a_median_holds_it_and_most_of_its_rounds() -> None:
    rounds = np.random.default_rng(1).normal(100, 5, size=20)
    interval = median_interval(rounds.tolist(), seed=0, confidence=0.95)
    assert interval.low <= interval.median <= interval.high
    assert interval.median == pytest.approx(float(np.median(rounds)))
    assert interval.low < 100 < interval.high
    assert interval.high - interval.low < rounds.max() - rounds.min()
    assert interval == median_interval(rounds.tolist(), seed=0, confidence=0.95)
    assert (interval.confidence, interval.rounds) == (0.95, 20)


@pytest.mark.parametrize("values", [[], [1.0], [1.0, math.nan], [1.0, math.inf]])
def test_values_without_an_interval_are_refused(values: list[float]) -> None:
    with pytest.raises(ValueError, match="two or more finite values"):
        median_interval(values, seed=0, confidence=0.95)


def test_a_paired_difference_is_in_the_unit_of_its_values() -> None:
    noise = np.random.default_rng(3).normal(0, 50, 30)  # the same in both of a round
    added = paired_difference([1000 + shared + 12 for shared in noise], 1000 + noise, seed=1, confidence=0.99)
    assert added.median == pytest.approx(12)
    assert added.high - added.low < 1e-6
    assert added.rounds == 30


def test_a_difference_needs_pairs() -> None:
    with pytest.raises(ValueError, match="got 3 minuends and 2 subtrahends"):
        paired_difference([1, 2, 3], [1, 2], seed=1, confidence=0.99)
