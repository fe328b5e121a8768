"""The mock's latency model: straight lines by least squares through the engine's times against its concurrency."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


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
    # The unbounded least squares line if it is allowed, else the best of those on the two bounds.
    one, columns = np.ones_like(y), np.column_stack([1 / y, x / y])
    (base, slope), *_ = np.linalg.lstsq(columns, one, rcond=None)
    if base < 0 or slope < 0:
        (level,), *_ = np.linalg.lstsq(columns[:, :1], one, rcond=None)
        (through_zero,), *_ = np.linalg.lstsq(columns[:, 1:], one, rcond=None)
        bounds = ((level, 0.0), (0.0, through_zero))
        base, slope = min(bounds, key=lambda line: float(((columns @ line - 1) ** 2).sum()))
    residuals = y - (base + slope * x)
    spread = float(((y - y.mean()) ** 2).sum())
    return Line(
        base_ms=float(base),
        per_other_ms=float(slope),
        r_squared=1.0 - float((residuals**2).sum()) / spread if spread else 1.0,
        worst_relative_error=float(np.abs(residuals / y).max()),
    )


@dataclass(frozen=True)
class Fit:
    """Milliseconds to the first token, and per output token, against the number of other requests that run."""

    ttft: Line
    tpot: Line

    def flags(self) -> dict[str, float]:
        """The fields of `mock_vllm.latency.LatencyModel`, rounded as a profile holds them, to the microsecond."""
        return {
            "ttft_ms": round(self.ttft.base_ms, 3),
            "ttft_ms_per_running": round(self.ttft.per_other_ms, 3),
            "tpot_ms": round(self.tpot.base_ms, 3),
            "tpot_ms_per_running": round(self.tpot.per_other_ms, 3),
        }
