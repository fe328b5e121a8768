"""How a time grows with the requests that run beside one: a straight line, by least squares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Line:
    """``base_ms`` + ``per_other_ms`` times the other requests.

    ``r_squared`` is the share of the variance that it explains, ``worst_relative_error`` the largest distance of a
    measured point from it, as a fraction of the measured value.
    """

    base_ms: float
    per_other_ms: float
    r_squared: float
    worst_relative_error: float

    def at(self, others: float) -> float:
        """Milliseconds beside so many other requests."""
        return self.base_ms + self.per_other_ms * others


def fit_line(others: Sequence[float], milliseconds: Sequence[float]) -> Line:
    """The line that minimises the sum of squared *relative* errors, with neither coefficient below zero.

    Relative, because a model that is 20 ms off matters at 10 ms and not at 1,000. ``milliseconds[i]`` was measured
    beside ``others[i]`` requests. Raises ValueError for fewer than three points, for points that all have the same
    number of others, and for times that are not positive and finite.
    """
    x, y = np.asarray(others, dtype=float), np.asarray(milliseconds, dtype=float)
    if x.shape != y.shape or x.ndim != 1 or x.size < 3 or np.unique(x).size < 2:
        raise ValueError(
            f"a line needs three or more points at two or more concurrencies, got {x.size} and {y.size} numbers"
        )
    if not (np.isfinite(y).all() and (y > 0).all()):
        raise ValueError("times must be positive and finite")
    base, slope = min(_candidates(x, y), key=lambda line: float((((line[0] + line[1] * x) / y - 1) ** 2).sum()))
    residuals = y - (base + slope * x)
    spread = float(((y - y.mean()) ** 2).sum())
    return Line(
        base_ms=base,
        per_other_ms=slope,
        r_squared=1.0 - float((residuals**2).sum()) / spread if spread else 1.0,
        worst_relative_error=float(np.abs(residuals / y).max()),
    )


def _candidates(x: _Floats, y: _Floats) -> list[tuple[float, float]]:
    """The unbounded least squares line if it is allowed, else the best ones on the two bounds."""
    one = np.ones_like(y)
    (base, slope), *_ = np.linalg.lstsq(np.column_stack([1 / y, x / y]), one, rcond=None)
    if base >= 0 and slope >= 0:
        return [(float(base), float(slope))]
    (level,), *_ = np.linalg.lstsq((1 / y)[:, None], one, rcond=None)
    (through_zero,), *_ = np.linalg.lstsq((x / y)[:, None], one, rcond=None)
    return [(float(level), 0.0), (0.0, float(through_zero))]
