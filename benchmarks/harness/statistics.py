"""Is it different, and by how much? Ratios of paired blocks, with an interval.

Two things are compared in rounds; each round measures both, in random order. The round is the unit: requests
within a block share the same noise, so the interval comes from resampling rounds (a paired block bootstrap).
The same comparison of a thing with itself, an A/A comparison, shows what the machine's noise alone can produce.
On interleaving and A/A: Abedi & Brecht, "Conducting Repeatable Experiments in Highly Variable Cloud Computing
Environments", ICPE 2017, https://doi.org/10.1145/3030207.3030229.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

RESAMPLES = 10_000


@dataclass(frozen=True)
class Interval:
    """The median of ``rounds`` values; ``low`` and ``high`` bound it with ``confidence``."""

    median: float
    low: float
    high: float
    confidence: float
    rounds: int

    def __str__(self) -> str:
        return f"{self.median:.3g} [{self.low:.3g}, {self.high:.3g}]"


class Ratio(Interval):
    """The median ratio of ``rounds`` pairs."""


def paired_ratio(
    numerators: Sequence[float],
    denominators: Sequence[float],
    *,
    seed: int,
    confidence: float,
    resamples: int = RESAMPLES,
) -> Ratio:
    """The ratio of ``numerators[i]`` to ``denominators[i]``, both from round ``i``.

    The interval is the percentile bootstrap of the median over rounds; the same ``seed`` gives the same interval.
    With 10 to 30 rounds it is a little short: in simulation, 95 % intervals cover the truth 93 to 94 times in 100,
    99 % intervals 97 to 99 times.

    Raises ValueError unless both have the same length of two or more and hold positive, finite numbers.
    """
    above, below = np.asarray(numerators, dtype=float), np.asarray(denominators, dtype=float)
    if above.shape != below.shape or above.ndim != 1 or above.size < 2:
        raise ValueError(f"ratios need two or more pairs, got {above.size} numerators and {below.size} denominators")
    if not all(np.isfinite(side).all() and (side > 0).all() for side in (above, below)):
        raise ValueError("ratios need positive, finite numbers on both sides")
    return Ratio(*_bootstrap(above / below, seed, confidence, resamples), confidence, int(above.size))


def median_interval(values: Sequence[float], *, seed: int, confidence: float, resamples: int = RESAMPLES) -> Interval:
    """The median of ``values``, one from each round, with the percentile bootstrap interval over rounds.

    Raises ValueError unless there are two or more, all finite.
    """
    measured = np.asarray(values, dtype=float)
    if measured.ndim != 1 or measured.size < 2 or not np.isfinite(measured).all():
        raise ValueError(f"an interval needs two or more finite values, got {measured.size}")
    return Interval(*_bootstrap(measured, seed, confidence, resamples), confidence, int(measured.size))


def _bootstrap(
    values: npt.NDArray[np.float64], seed: int, confidence: float, resamples: int
) -> tuple[float, float, float]:
    """Median of ``values``, and the two ends of the interval."""
    rounds = np.random.default_rng(seed).integers(0, values.size, size=(resamples, values.size))
    low, high = np.quantile(np.median(values[rounds], axis=1), [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(np.median(values)), float(low), float(high)


def paired_difference(
    minuends: Sequence[float],
    subtrahends: Sequence[float],
    *,
    seed: int,
    confidence: float,
    resamples: int = RESAMPLES,
) -> Interval:
    """``minuends[i]`` less ``subtrahends[i]``, both from round ``i``: what one thing adds to another, in their unit.

    The interval is made as in `paired_ratio`. Raises ValueError unless both have the same length of two or more and
    hold finite numbers.
    """
    above, below = np.asarray(minuends, dtype=float), np.asarray(subtrahends, dtype=float)
    if above.shape != below.shape:
        raise ValueError(f"differences need pairs, got {above.size} minuends and {below.size} subtrahends")
    return median_interval((above - below).tolist(), seed=seed, confidence=confidence, resamples=resamples)


def resolution(null: Ratio) -> float:
    """The factor (1 or more) by which two equal things may appear to differ, from their A/A comparison ``null``."""
    return max(null.high, 1 / null.low)


def differs(ratio: Ratio, null: Ratio) -> bool:
    """True when every value in the interval of ``ratio`` is beyond what equal things show in ``null``."""
    noise = resolution(null)
    return ratio.low > noise or ratio.high < 1 / noise


def at_least(ratio: Ratio, factor: float, null: Ratio) -> bool:
    """True when the whole interval of ``ratio`` reaches ``factor``, and the difference is not noise."""
    return ratio.low >= factor and differs(ratio, null)


def side(measured: Interval, limit: float, null: Ratio) -> int:
    """-1 when all of ``measured`` lies below ``limit``, 1 when all of it lies above, 0 when that is not shown.

    It is not shown either where the median is no further from ``limit`` than equal things are from each other in
    ``null``.
    """
    noise = resolution(null)
    if measured.high < limit and measured.median * noise < limit:
        return -1
    if measured.low > limit and measured.median > limit * noise:
        return 1
    return 0


def in_words(ratio: Ratio, null: Ratio) -> str:
    """``ratio`` with its interval, and the remark that it shows nothing where it does not."""
    return str(ratio) if differs(ratio, null) else f"{ratio}, no difference beyond noise"
