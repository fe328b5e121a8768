"""Does a second result say the same as the first? Every interval that both summaries hold, one by one.

Two intervals say the same when they overlap after one of them was widened by the A/A noise: the factor by which equal
things differed within either run. Only then is it called reproduced, and only beyond that is a difference claimed.
Ratios (named ``..._over_...``) were measured side by side and travel from run to run; they decide. Absolute numbers
move with the machine's clock and neighbours from one hour to the next, and are only shown.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.harness.comparable import NotComparable, circumstances, require_comparable
from benchmarks.harness.results import Result
from benchmarks.harness.statistics import Interval, Ratio, resolution

EQUAL_THINGS = "equal_things"
"""The part of a summary that holds A/A comparisons as ratios, by quantity."""

_Named = Mapping[tuple[str, ...], Interval]


@dataclass(frozen=True)
class Compared:
    """One quantity in two results; ``noise`` is the factor by which equal things differed."""

    name: str
    first: Interval
    second: Interval
    noise: float
    is_ratio: bool

    @property
    def direction(self) -> int:
        """1 when the second is higher beyond both intervals and the noise, -1 when it is lower, otherwise 0."""
        margin = (self.noise - 1) * max(abs(self.first.median), abs(self.second.median))
        if self.second.low > self.first.high + margin:
            return 1
        return -1 if self.second.high < self.first.low - margin else 0

    def sentence(self) -> str:
        """Both with their intervals, and what they show together."""
        both = f"{self.name}: {self.first}, then {self.second}"
        if not self.direction:
            return f"{both}: the same within the intervals and noise"
        way = "higher" if self.direction > 0 else "lower"
        if self.first.median <= 0:
            return f"{both}: {way}, beyond intervals and noise"
        change = abs(self.second.median / self.first.median - 1)
        return f"{both}: {change:.0%} {way}, beyond both intervals and a noise of {self.noise - 1:.1%}"


@dataclass(frozen=True)
class Comparison:
    """All quantities of two results, and what else differs between them."""

    quantities: list[Compared]
    circumstances: list[str]

    @property
    def reproduced(self) -> bool:
        """True when no ratio differs."""
        return not any(quantity.direction for quantity in self.quantities if quantity.is_ratio)

    def sentences(self) -> list[str]:
        """The verdict, then what may explain a difference, then the quantities: ratios first."""
        ratios = [quantity for quantity in self.quantities if quantity.is_ratio]
        others = [quantity for quantity in self.quantities if not quantity.is_ratio]
        differing = [quantity for quantity in ratios if quantity.direction]
        moved = sum(quantity.direction != 0 for quantity in others)
        return [
            f"{len(ratios) - len(differing)} of {len(ratios)} ratios are reproduced. Absolute numbers, which move with "
            f"the machine from run to run: {moved} of {len(others)} differ.",
            *(f"DIFFERS: {quantity.sentence()}" for quantity in differing),
            *(f"not the same in both: {what}" for what in self.circumstances),
            *(f"ratio {quantity.sentence()}" for quantity in ratios if not quantity.direction),
            *(f"absolute {quantity.sentence()}" for quantity in others),
        ]


def compare(first: Result, second: Result) -> Comparison:
    """What ``second`` says beside ``first``.

    Raises `NotComparable` when they are of different benchmarks, machines, schema versions or measuring code, when
    their summaries have no ratio in common, and when one of them holds no A/A comparison: then nobody knows its noise.
    """
    require_comparable([first, second])
    one, other = (dict(_intervals(result.summary)) for result in (first, second))
    noises = _noises(one, other)
    common = [path for path in one if path in other and path[0] != EQUAL_THINGS]
    compared = [
        Compared(".".join(path), one[path], other[path], _noise_of(path, noises), _is_ratio(path)) for path in common
    ]
    if not any(quantity.is_ratio for quantity in compared):
        raise NotComparable(f"the results of {first.benchmark} hold no ratio that both have measured")
    return Comparison(compared, circumstances(first, second))


def _intervals(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Interval]]:
    """Every interval in ``value``, with the names that lead to it."""
    if isinstance(value, dict):
        if value.keys() >= {"median", "low", "high", "confidence", "rounds"}:
            numbers = [value[name] for name in ("median", "low", "high", "confidence", "rounds")]
            yield path, (Ratio if path[0] == EQUAL_THINGS else Interval)(*numbers)
        else:
            for name, part in value.items():
                yield from _intervals(part, (*path, name))
    elif isinstance(value, list):
        for number, part in enumerate(value):
            yield from _intervals(part, (*path, str(number)))


def _noises(one: _Named, other: _Named) -> dict[str, float]:
    """For each A/A comparison the larger noise of both results, as a factor."""
    noises: dict[str, float] = {}
    for which, found in (("first", one), ("second", other)):
        nulls = {path[-1]: null for path, null in found.items() if path[0] == EQUAL_THINGS and isinstance(null, Ratio)}
        if not nulls:
            raise NotComparable(f"the {which} result holds no A/A comparison, so its noise is not known")
        for name, null in nulls.items():
            noises[name] = max(noises.get(name, 1.0), resolution(null))
    return noises


def _noise_of(path: tuple[str, ...], noises: Mapping[str, float]) -> float:
    """The noise of the quantity that a name in ``path`` begins with; the largest of all where none does."""
    own = [noise for name, noise in noises.items() if any(part.startswith(name) for part in path)]
    return max(own or noises.values())


def _is_ratio(path: tuple[str, ...]) -> bool:
    return any("_over_" in part for part in path)
