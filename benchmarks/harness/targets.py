"""What was to be reached, and whether it was: a target is met only beyond the interval and beyond the noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from benchmarks.harness.rounds import number
from benchmarks.harness.statistics import Interval, Ratio, resolution, side

MET, MISSED, UNDECIDED = "met", "missed", "undecided"


@dataclass(frozen=True)
class Target:
    """Something measured that should be ``limit`` at most, or at least; ``null`` is what equal things show."""

    what: str
    measured: Interval
    limit: float
    null: Ratio
    at_most: bool = True

    @property
    def verdict(self) -> str:
        """Met, missed, or undecided where the interval or the noise reaches the limit."""
        where = side(self.measured, self.limit, self.null)
        return UNDECIDED if where == 0 else MET if (where < 0) == self.at_most else MISSED

    @property
    def factor(self) -> float:
        """How far the median is from the limit: 1 or more on the right side of it, less than 1 on the wrong one."""
        factor = self.limit / self.measured.median
        return factor if self.at_most else 1 / factor

    def sentence(self) -> str:
        """What was measured, and what that means for the target."""
        how = {
            MET: f"met, with a factor of {self.factor:.3g} to spare",
            MISSED: f"missed by a factor of {1 / self.factor:.3g}",
            UNDECIDED: f"not decided: the interval, or the noise of {resolution(self.null):.3g}, reaches the target",
        }
        which = "at most" if self.at_most else "at least"
        return f"{self.what}: {number(self.measured)}; target {which} {self.limit:,g}: {how[self.verdict]}."

    def summary(self) -> dict[str, Any]:
        """As it is stored."""
        return {"measured": self.measured, "limit": self.limit, "verdict": self.verdict, "factor": self.factor}
