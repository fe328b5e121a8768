"""In simulation with known truth, for the repeats that are really used: the interval holds what it says, finds what was
planted, and finds nothing where nothing is."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from benchmarks.callback_overhead.findings import COMPARISONS, MINIMUM_ROUNDS
from benchmarks.harness.statistics import (
    CONFIDENCE,
    MINIMUM_REPEATS,
    Interval,
    Ratio,
    at_least,
    between_runs,
    differs,
    in_brackets,
    in_words,
    median_interval,
    order_statistics,
    paired_difference,
    paired_ratio,
    ranked,
    resolution,
    rounds_to_notice,
    side,
    the_same,
)

ROUNDS = 20
REPEATS = (MINIMUM_REPEATS, ROUNDS, 40)  # the fewest, those of span_processors, those of callback_overhead
Values = npt.NDArray[np.float64]
Noise = Callable[[np.random.Generator, tuple[int, ...]], Values]


def normal(source: np.random.Generator, shape: tuple[int, ...]) -> Values:
    return source.normal(0, 0.1, shape)


def with_bursts(source: np.random.Generator, shape: tuple[int, ...]) -> Values:
    """A tenth of the blocks meet a neighbour who makes them four times as uncertain."""
    return source.normal(0, 0.1, shape) * np.where(source.random(shape) < 0.1, 4, 1)


def delayed(source: np.random.Generator, shape: tuple[int, ...]) -> Values:
    """Some blocks are late and none is early; the median is 0."""
    return source.exponential(0.1, shape) - 0.1 * math.log(2)


NOISES = (normal, with_bursts, delayed)


def ratios(logarithms: Values, *, comparisons: int = 1) -> Ratio:
    return paired_ratio(np.exp(logarithms).tolist(), [1.0] * len(logarithms), comparisons=comparisons)


def within(interval: Interval, truth: float) -> bool:
    return interval.low <= truth <= interval.high


def coverage(runs: Values) -> float:
    """The share of ``runs`` whose interval holds 0."""
    ends = order_statistics(np.sort(runs), CONFIDENCE)
    assert ends
    return float(np.mean((ends[0] <= 0) & (ends[1] >= 0)))


def test_the_interval_is_the_one_whose_coverage_is_tested() -> None:
    values = normal(np.random.default_rng(1), (ROUNDS,))
    ends = order_statistics(np.sort(values), CONFIDENCE)
    interval = median_interval(values.tolist())
    assert ends == (interval.low, interval.high)
    assert interval == Interval(float(np.median(values)), interval.low, interval.high, CONFIDENCE, ROUNDS)


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("rounds", REPEATS)
def test_an_interval_covers_the_truth_as_often_as_it_says(noise: Noise, rounds: int) -> None:
    assert coverage(noise(np.random.default_rng(rounds), (20_000, rounds))) == pytest.approx(CONFIDENCE, abs=0.02)


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("between", [0.0, 0.02, 0.1])
@pytest.mark.parametrize("runs", [3, 5])
def test_three_runs_cover_the_truth_with_the_spread_between_them(noise: Noise, between: float, runs: int) -> None:
    source = np.random.default_rng(runs)
    offsets = source.normal(0, between, (2000, runs, 1))
    blocks = offsets + noise(source, (2000, runs, ROUNDS)) - noise(source, (2000, runs, ROUNDS))
    medians = np.exp(np.median(blocks, axis=2))
    together = [between_runs([Ratio(one, one, one, CONFIDENCE, ROUNDS) for one in run]) for run in medians]
    assert np.mean([within(interval, 1) for interval in together]) == pytest.approx(CONFIDENCE, abs=0.02)
    # A single run's own interval is only right where runs do not differ.
    single = coverage(blocks[:, 0])
    assert single < 0.8 if between == 0.1 else single > 0.85


@pytest.mark.parametrize(
    ("noise", "rounds", "comparisons"),
    [(normal, MINIMUM_REPEATS, 6), (with_bursts, ROUNDS, 15), (delayed, 40, COMPARISONS)],
)
def test_a_thousand_runs_of_equal_things_claim_a_difference_in_one_of_twenty_at_most(
    noise: Noise, rounds: int, comparisons: int
) -> None:
    source = np.random.default_rng(rounds)
    claimed = 0
    for _ in range(1000):
        one, again, *others = noise(source, (2 + comparisons, rounds))
        null = ratios(one - again, comparisons=comparisons)
        claimed += any(differs(ratios(other - one, comparisons=comparisons), null) for other in others)
    assert claimed <= 50


def test_all_that_a_run_claims_holds_at_once() -> None:
    """Fifteen ratios that are what their targets say: met or missed is said of any in one run of twenty at most."""
    source = np.random.default_rng(1)
    null = Ratio(1, 1, 1, CONFIDENCE, ROUNDS)  # the noise of equal things is no help here
    runs = ([ratios(one, comparisons=15) for one in with_bursts(source, (15, ROUNDS))] for _ in range(1000))
    wrong = sum(any(side(ratio, 1.0, null) for ratio in run) for run in runs)
    assert 10 <= wrong <= 65


@pytest.mark.parametrize("noise", NOISES)
def test_a_planted_tenth_is_within_its_interval_and_noticed_in_the_rounds_that_it_takes(noise: Noise) -> None:
    source = np.random.default_rng(5)
    known = np.median(
        [
            rounds_to_notice(1.1, ratios(noise(source, (40,)) - noise(source, (40,)), comparisons=COMPARISONS))
            for _ in range(101)
        ]
    )
    noticed = covered = 0
    for _ in range(1000):
        one, again, slower = noise(source, (3, int(known)))
        planted = ratios(slower - one + math.log(1.1), comparisons=COMPARISONS)
        noticed += differs(planted, ratios(one - again, comparisons=COMPARISONS))
        covered += within(planted, 1.1)
    assert covered / 1000 == pytest.approx(CONFIDENCE, abs=0.02)
    assert 0.9 <= noticed / 1000 <= 0.99
    assert known > MINIMUM_ROUNDS


def test_the_rounds_that_it_takes_are_not_told_from_too_few() -> None:
    with pytest.raises(ValueError, match="too few rounds"):
        rounds_to_notice(1.1, paired_ratio([1.0, 1.1], [1.0, 1.0]))


def test_exact_ratios_have_an_exact_interval() -> None:
    assert paired_ratio([20.0] * 12, [10.0] * 12) == Ratio(2.0, 2.0, 2.0, CONFIDENCE, 12)


def test_pairing_removes_the_drift_that_rounds_share() -> None:
    drift = np.linspace(1, 3, ROUNDS)
    ratio = paired_ratio((drift * 1.02).tolist(), drift.tolist())
    assert ratio.low == pytest.approx(1.02)
    assert ratio.high == pytest.approx(1.02)


@pytest.mark.parametrize("rounds", [2, 3, MINIMUM_REPEATS - 1])
def test_fewer_than_ten_are_a_range_that_says_so_and_claims_nothing(rounds: int) -> None:
    ratio, null = ratios(np.linspace(2, 3, rounds)), ratios(np.linspace(-0.01, 0.01, ROUNDS))
    assert (ratio.low, ratio.high, ratio.confidence) == (pytest.approx(math.exp(2)), pytest.approx(math.exp(3)), None)
    assert ratio.kind == f"range of {rounds}"
    assert f"(range of {rounds}: 7.39 to 20.1)" in str(ratio)
    assert not differs(ratio, null)
    assert not the_same(ratios(np.zeros(rounds)), null)
    assert side(ratio, 1.5, null) == 0
    assert not differs(ratios(np.full(ROUNDS, 2.0)), ratios(np.zeros(rounds)))
    assert in_words(ratio, null) == f"{ratio}, too few repeats to claim anything"
    assert in_brackets(rounds, 3, "repeats").startswith(f"In brackets: the range of {rounds} repeats")


def test_an_interval_stored_of_three_values_is_a_range_today() -> None:
    stored = Interval(**{"median": 136.0, "low": 132.0, "high": 156.0, "confidence": 0.95, "rounds": 3})
    assert str(stored) == "136 (range of 3: 132 to 156)"
    assert f"{stored:,.1f}" == "136.0 (range of 3: 132.0 to 156.0)"


def test_too_many_comparisons_for_so_few_rounds_claim_nothing() -> None:
    null = ratios(np.linspace(-0.01, 0.01, MINIMUM_REPEATS))
    far = np.linspace(2, 2.1, MINIMUM_REPEATS)
    assert differs(ratios(far, comparisons=25), null)
    assert not differs(ratios(far, comparisons=26), null)
    assert in_words(ratios(far, comparisons=26), null).endswith("too few repeats to claim anything")


def test_intervals_for_all_comparisons_are_the_wider_ones() -> None:
    ratio = ratios(np.linspace(-1, 1, ROUNDS), comparisons=15)
    low, high = ratio.claims
    assert low < ratio.low < ratio.high < high
    assert in_brackets(ROUNDS, 15).endswith("what is claimed holds for all 15 comparisons at once (Bonferroni).")


@pytest.mark.parametrize(
    ("above", "below"),
    [([1.0], [1.0]), ([], []), ([1.0, 2.0], [1.0]), ([1.0, 0.0], [1.0, 1.0]), ([1.0, 1.0], [1.0, math.nan])],
)
def test_numbers_without_a_ratio_are_refused(above: list[float], below: list[float]) -> None:
    with pytest.raises(ValueError, match="ratios need"):
        paired_ratio(above, below)


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
    ("low", "high", "noise", "expected"),
    [
        (0.95, 1.05, 1.05, "the same within 10%"),
        (0.95, 1.11, 1.05, "no difference beyond noise"),
        (0.90, 1.05, 1.05, "no difference beyond noise"),
        (0.95, 1.05, 1.11, "no difference beyond noise"),
    ],
)
def test_the_same_is_only_said_where_it_is_shown(low: float, high: float, noise: float, expected: str) -> None:
    assert in_words(ratio_of(low, high), ratio_of(1 / noise, noise)).endswith(expected)


def test_a_difference_of_the_margin_is_called_the_same_in_one_of_forty() -> None:
    source = np.random.default_rng(2)
    null = ratio_of(0.99, 1.01)
    called = sum(the_same(ratios(source.normal(math.log(1.1), 0.05, ROUNDS)), null) for _ in range(2000))
    assert 0.01 <= called / 2000 <= 0.04


@pytest.mark.parametrize(
    ("low", "high", "null_high", "expected"),
    [(5.0, 6.0, 1.1, True), (4.9, 9.0, 1.1, False), (5.5, 6.0, 5.8, False)],
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


@pytest.mark.parametrize("values", [[], [1.0], [1.0, math.nan], [1.0, math.inf]])
def test_values_without_an_interval_are_refused(values: list[float]) -> None:
    with pytest.raises(ValueError, match="two or more finite values"):
        median_interval(values)


def test_a_paired_difference_is_in_the_unit_of_its_values() -> None:
    noise = np.random.default_rng(3).normal(0, 50, 30)  # the same in both of a round
    added = paired_difference([1000 + shared + 12 for shared in noise], (1000 + noise).tolist())
    assert added.median == pytest.approx(12)
    assert added.high - added.low < 1e-6
    assert added.rounds == 30


def test_a_difference_needs_pairs() -> None:
    with pytest.raises(ValueError, match="got 3 minuends and 2 subtrahends"):
        paired_difference([1, 2, 3], [1, 2])


def test_two_runs_tell_no_spread_between_runs() -> None:
    with pytest.raises(ValueError, match="needs 3 of them, got 2"):
        between_runs([ratio_of(1, 2)] * 2)


def test_runs_of_a_difference_may_be_negative_and_three_single_values_are_a_range() -> None:
    runs = [Interval(median, median, median, CONFIDENCE, ROUNDS) for median in (-1.0, 0.0, 4.0)]
    assert within(between_runs(runs), 1.0)
    assert between_runs(runs).rounds == 60
    few = between_runs([Interval(median, 0, 9, None, 3) for median in (-1.0, 0.0, 4.0)][:3])
    assert few.rounds == 9
    assert str(few) == "0 (range of 9: -1 to 4)"


def test_a_ranking_names_what_does_nothing_and_what_it_cannot_tell_from_it() -> None:
    costs = {
        **{"ours": ratio_of(1.0, 4.0), "no-op": ratio_of(0.5, 1.2), "no-op again": ratio_of(0.4, 2.2)},
        **{"theirs": ratio_of(2.0, 6.0), "another's": ratio_of(5.0, 6.0), "of few": Ratio(9, 8, 9.5, None, 3)},
    }
    told = ranked(costs, "no-op", "no-op again").split("; ")
    order = ["no-op", "no-op again", "ours", "theirs", "another's", "of few"]
    assert all(one.startswith(f"{name} ") for name, one in zip(order, told, strict=True))
    alike = {name for name, one in zip(order, told, strict=True) if one.endswith(" (not told apart from nothing)")}
    assert alike == {"ours", "theirs", "of few"}
    with pytest.raises(KeyError):
        ranked(costs, "not measured")
