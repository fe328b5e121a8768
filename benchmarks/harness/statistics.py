"""Is it different, and by how much? Medians and ratios of paired blocks, with intervals of one level: 95%.

Two things are compared in rounds; each round measures both, in random order. The round is the unit: requests within a
block share the same noise. The same comparison of a thing with itself, an A/A comparison, shows what the machine's
noise alone can produce, and a difference is claimed against it.
On interleaving and A/A: Abedi & Brecht, "Conducting Repeatable Experiments in Highly Variable Cloud Computing
Environments", ICPE 2017, https://doi.org/10.1145/3030207.3030229.

The interval of a median is that of the sign test, interpolated between order statistics: Hettmansperger & Sheather,
"Confidence intervals based on interpolated order statistics", Statistics & Probability Letters 4 (1986). It needs no
shape of the noise. In simulation it covers the truth 94 to 96 times in 100, from ten rounds on (a percentile bootstrap:
93 to 94). Fewer than ten values have no interval here, but a range: the least and the greatest.

The interval of several runs, `between_runs`, is Student's over the runs' medians, so how much runs differ from each
other is in it. With three runs it covers 95 in 100; resampling runs and rounds covers 83 to 99 in 100.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

import numpy as np
import numpy.typing as npt

CONFIDENCE = 0.95
"""Of every interval, and of all that a run claims: where it makes several comparisons, each is decided by a second
interval, at the level at which all of them hold at once (Bonferroni)."""
MINIMUM_REPEATS = 10
MINIMUM_RUNS = 3
EQUAL_WITHIN = 1.1
"""The factor by which things may differ and still be called the same, set before anything was measured."""

# Student's t, 97.5%, for 2 to 9 degrees of freedom; more runs get the last, which is a little too wide.
_STUDENT = (4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
# What an effect must have for nine runs of ten to notice it, in half-widths of the A/A interval: by simulation, see the
# tests. It must clear the noise of equal things, and a run's luck.
_NOISE, _LUCK = 1.3, 1.2

_Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """The median of ``rounds`` values; ``low`` and ``high`` bound the true one with ``confidence``.

    Of fewer than `MINIMUM_REPEATS` values they are the least and the greatest, and ``confidence`` is None: a range.
    It is one of ``comparisons`` in its run: ``low_of_all`` and ``high_of_all`` hold for all of these at once, and are
    None where there is only one, and where there are too few rounds for that.
    """

    median: float
    low: float
    high: float
    confidence: float | None
    rounds: int
    comparisons: int = 1
    low_of_all: float | None = None
    high_of_all: float | None = None

    @property
    def is_range(self) -> bool:
        """True where there are too few values for an interval, also where an earlier version stored one."""
        return self.rounds < MINIMUM_REPEATS

    @property
    def claims(self) -> tuple[float, float]:
        """The two ends by which something is claimed: without limit where there are too few rounds to claim."""
        if self.is_range or (self.comparisons > 1 and self.low_of_all is None):
            return -math.inf, math.inf
        if self.low_of_all is None or self.high_of_all is None:
            return self.low, self.high
        return self.low_of_all, self.high_of_all

    @property
    def kind(self) -> str:
        """What ``low`` and ``high`` are, in words."""
        if self.is_range or self.confidence is None:
            return f"range of {self.rounds}"
        return f"{100 * self.confidence:g}% interval over {self.rounds} rounds"

    def __format__(self, spec: str) -> str:
        median, low, high = (format(value, spec or ".3g") for value in (self.median, self.low, self.high))
        return f"{median} (range of {self.rounds}: {low} to {high})" if self.is_range else f"{median} [{low}, {high}]"

    def __str__(self) -> str:
        return format(self)


class Ratio(Interval):
    """The median ratio of ``rounds`` pairs."""

    @property
    def may_be_one(self) -> bool:
        """True unless it is shown, for all comparisons at once, that the two are not equal."""
        low, high = self.claims
        return low <= 1 <= high


def median_interval(values: Sequence[float], *, comparisons: int = 1) -> Interval:
    """The median of ``values``, one from each round, where a run makes so many ``comparisons``.

    Raises ValueError unless there are two or more, all finite.
    """
    measured = np.sort(np.asarray(values, dtype=float))
    if measured.ndim != 1 or measured.size < 2 or not np.isfinite(measured).all():
        raise ValueError(f"an interval needs two or more finite values, got {measured.size}")
    count, median = int(measured.size), float(np.median(measured))
    if count < MINIMUM_REPEATS or (ends := order_statistics(measured, CONFIDENCE)) is None:
        return Interval(median, float(measured[0]), float(measured[-1]), None, count, comparisons)
    of_all = order_statistics(measured, 1 - (1 - CONFIDENCE) / comparisons) if comparisons > 1 else None
    low, high = map(float, ends)
    low_of_all, high_of_all = map(float, of_all) if of_all else (None, None)
    return Interval(median, low, high, CONFIDENCE, count, comparisons, low_of_all, high_of_all)


def order_statistics(ordered: _Values, confidence: float) -> tuple[_Values, _Values] | None:
    """The ends of the interval of the median of ``ordered`` values, along the last axis, in an array of its own each.

    None where there are too few for ``confidence``.
    """
    count = ordered.shape[-1]
    # From the d-th value from below to the d-th from above: it holds the median unless fewer than d lie on one side.
    depth, outer = 1, 1 - 2 / 2**count
    if outer < confidence:
        return None
    while (inner := outer - 2 * math.comb(count, depth) / 2**count) >= confidence:
        depth, outer = depth + 1, inner
    share = (outer - confidence) / (outer - inner)
    weight = (count - depth) * share / (depth + (count - 2 * depth) * share)
    low = (1 - weight) * ordered[..., depth - 1] + weight * ordered[..., depth]
    high = (1 - weight) * ordered[..., count - depth] + weight * ordered[..., count - depth - 1]
    return low, high


def paired_ratio(numerators: Sequence[float], denominators: Sequence[float], *, comparisons: int = 1) -> Ratio:
    """The ratio of ``numerators[i]`` to ``denominators[i]``, both from round ``i``.

    Raises ValueError unless both have the same length of two or more and hold positive, finite numbers.
    """
    above, below = np.asarray(numerators, dtype=float), np.asarray(denominators, dtype=float)
    if above.shape != below.shape or above.ndim != 1 or above.size < 2:
        raise ValueError(f"ratios need two or more pairs, got {above.size} numerators and {below.size} denominators")
    if not all(np.isfinite(side).all() and (side > 0).all() for side in (above, below)):
        raise ValueError("ratios need positive, finite numbers on both sides")
    return Ratio(**vars(median_interval((above / below).tolist(), comparisons=comparisons)))


def paired_difference(minuends: Sequence[float], subtrahends: Sequence[float], *, comparisons: int = 1) -> Interval:
    """``minuends[i]`` less ``subtrahends[i]``, both from round ``i``: what one thing adds to another, in their unit.

    Raises ValueError unless both have the same length of two or more and hold finite numbers.
    """
    above, below = np.asarray(minuends, dtype=float), np.asarray(subtrahends, dtype=float)
    if above.shape != below.shape:
        raise ValueError(f"differences need pairs, got {above.size} minuends and {below.size} subtrahends")
    return median_interval((above - below).tolist(), comparisons=comparisons)


def between_runs(runs: Sequence[Interval]) -> Interval:
    """What ``runs`` of one measurement say together: the mean of their medians (of positive ones the geometric mean).

    The interval is Student's over the runs, ``rounds`` are those of all. Raises ValueError for fewer than
    `MINIMUM_RUNS`.
    """
    if len(runs) < MINIMUM_RUNS:
        raise ValueError(f"the spread between runs needs {MINIMUM_RUNS} of them, got {len(runs)}")
    medians = [run.median for run in runs]
    rounds = sum(run.rounds for run in runs)
    if rounds < MINIMUM_REPEATS:
        return Interval(float(np.median(medians)), min(medians), max(medians), None, rounds)
    positive = min(medians) > 0
    values = [math.log(median) for median in medians] if positive else medians
    middle = fmean(values)
    half = _STUDENT[min(len(runs) - MINIMUM_RUNS, len(_STUDENT) - 1)] * stdev(values) / math.sqrt(len(runs))
    median, low, high = (math.exp(x) if positive else x for x in (middle, middle - half, middle + half))
    return Interval(median, low, high, CONFIDENCE, rounds)


def resolution(null: Ratio) -> float:
    """The factor (1 or more) by which two equal things may appear to differ, from their A/A comparison ``null``."""
    return math.inf if null.is_range else max(null.high, 1 / null.low)


def differs(ratio: Ratio, null: Ratio) -> bool:
    """True when ``ratio`` is shown to be above or below 1, and is further from it than equal things are in ``null``."""
    return side(ratio, 1.0, null) != 0


def at_least(ratio: Ratio, factor: float, null: Ratio) -> bool:
    """True when the whole interval of ``ratio`` reaches ``factor``, and the difference is not noise."""
    return ratio.claims[0] >= factor and differs(ratio, null)


def side(measured: Interval, limit: float, null: Ratio) -> int:
    """-1 when all of ``measured`` lies below ``limit``, 1 when all of it lies above, 0 when that is not shown.

    What decides is the interval that holds for all comparisons at once; a range shows nothing. It is not shown either
    where the median is no further from ``limit`` than equal things are from each other in ``null``. With a limit that
    was set before, -1 is the test of "no more than".
    """
    noise, (low, high) = resolution(null), measured.claims
    if high < limit and measured.median * noise < limit:
        return -1
    return 1 if low > limit and measured.median > limit * noise else 0


def the_same(ratio: Ratio, null: Ratio) -> bool:
    """True when ``ratio`` is shown to be within `EQUAL_WITHIN` of 1: two one-sided tests, at 2.5% each.

    Where equal things differ by more than that in ``null``, nothing is shown.
    """
    low, high = ratio.claims
    return low > 1 / EQUAL_WITHIN and high < EQUAL_WITHIN and resolution(null) < EQUAL_WITHIN


def in_words(ratio: Ratio, null: Ratio) -> str:
    """``ratio`` with its interval, and what it shows where that is no difference."""
    if ratio.claims[1] == math.inf or null.is_range:
        return f"{ratio}, too few repeats to claim anything"
    if differs(ratio, null):
        return str(ratio)
    same = the_same(ratio, null)
    return f"{ratio}, the same within {EQUAL_WITHIN - 1:.0%}" if same else f"{ratio}, no difference beyond noise"


def rounds_to_notice(effect: float, null: Ratio) -> int:
    """The rounds in which a factor of ``effect`` would be noticed in nine runs of ten, by the noise in ``null``.

    Raises ValueError where ``null`` claims nothing: then its noise is not known.
    """
    low, high = null.claims
    if low <= 0:
        raise ValueError("too few rounds to know the noise")
    own, of_all = math.log(null.high / null.low) / 2, math.log(high / low) / 2
    needed = max(of_all, _NOISE * own) + _LUCK * own
    return max(MINIMUM_REPEATS, math.ceil(null.rounds * (needed / abs(math.log(effect))) ** 2))


def ranked(costs: Mapping[str, Interval], *nulls: str) -> str:
    """``costs`` from the lowest to the highest, those of ``nulls``, which do nothing, among them.

    What is not shown to differ from each of these says so. Raises KeyError when one of them was not measured.
    """
    nothing, told = [costs[null].claims for null in nulls], []
    for name, cost in sorted(costs.items(), key=lambda item: item[1].median):
        low, high = cost.claims
        apart = all(low > null_high or high < null_low for null_low, null_high in nothing)
        told.append(f"{name} {cost}" if apart or name in nulls else f"{name} {cost} (not told apart from nothing)")
    return "; ".join(told)


def in_brackets(rounds: int, comparisons: int = 1, unit: str = "rounds") -> str:
    """The sentence with which a result says what its intervals are."""
    if rounds < MINIMUM_REPEATS:
        return f"In brackets: the range of {rounds} {unit}, too few for an interval; nothing is claimed from it."
    told = f"In brackets: {CONFIDENCE:.0%} intervals of the median over {rounds} {unit}"
    if comparisons == 1:
        return f"{told}."
    return f"{told}; what is claimed holds for all {comparisons} comparisons at once (Bonferroni)."
