"""Does a second result say the same as the first, and what do several say together?

Two intervals say the same when they overlap after one of them was widened by the A/A noise: the factor by which equal
things differed within either run. Only then is it called reproduced, and only beyond that is a difference claimed. The
intervals are those that hold for all comparisons of a run at once; a range decides nothing.
Ratios (``..._over_...``, or ``ratio`` beside its ``null``) were measured side by side and travel from run to run; they
decide. Absolute numbers move with the machine's clock and neighbours from one hour to the next, and are only shown.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.harness.comparable import NotComparable, circumstances, require_comparable
from benchmarks.harness.results import Result
from benchmarks.harness.statistics import MINIMUM_RUNS, Interval, Ratio, between_runs, resolution

EQUAL_THINGS = "equal_things"
"""The part of a summary that holds A/A comparisons as ratios, by quantity."""
_NULL = re.compile(r"null|.*_([a-z]+)_over_\1")  # what an A/A comparison is called elsewhere

_NOT_NAMES = ("repeats", "differs")

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
    def decides(self) -> bool:
        """False where one of both has too few rounds to claim anything."""
        return all(math.isfinite(end) for interval in (self.first, self.second) for end in interval.claims)

    @property
    def direction(self) -> int:
        """1 when the second is higher beyond both intervals and the noise, -1 when it is lower, otherwise 0."""
        margin = (self.noise - 1) * max(abs(self.first.median), abs(self.second.median))
        (low, high), (then_low, then_high) = self.first.claims, self.second.claims
        return 1 if then_low > high + margin else -1 if then_high < low - margin else 0

    def sentence(self) -> str:
        """Both with their intervals, and what they show together."""
        both = f"{self.name}: {self.first}, then {self.second}"
        if not self.decides:
            return f"{both}: too few repeats to tell"
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
        ratios = [quantity for quantity in self.quantities if quantity.is_ratio and quantity.decides]
        others = [quantity for quantity in self.quantities if not quantity.is_ratio]
        differing = [quantity for quantity in ratios if quantity.direction]
        moved = sum(quantity.direction != 0 for quantity in others)
        return [
            f"{len(ratios) - len(differing)} of {len(ratios)} ratios are reproduced. Absolute numbers, which move with "
            f"the machine from run to run: {moved} of {len(others)} differ.",
            *(f"DIFFERS: {quantity.sentence()}" for quantity in differing),
            *(f"not the same in both: {what}" for what in self.circumstances),
            *(f"ratio {one.sentence()}" for one in self.quantities if one.is_ratio and not one.direction),
            *(f"absolute {quantity.sentence()}" for quantity in others),
        ]


def compare(first: Result, second: Result) -> Comparison:
    """What ``second`` says beside ``first``.

    Raises `NotComparable` when they are of different benchmarks, machines, schema versions or measuring code, when
    their summaries have no ratio of enough rounds in common, and when one of them holds no A/A comparison: then nobody
    knows its noise.
    """
    require_comparable([first, second])
    one, other = (dict(_intervals(result.summary)) for result in (first, second))
    compared = _compared(one, other)
    if not any(quantity.is_ratio and quantity.decides for quantity in compared):
        raise NotComparable(f"the results of {first.benchmark} hold no ratio that both have measured often enough")
    return Comparison(compared, circumstances(first, second))


@dataclass(frozen=True)
class Headline:
    """One number of ``runs`` of one measurement, from the first to the last; ``differing`` pairs of them disagree.

    From `MINIMUM_RUNS` on, the spread between runs is in ``interval``; before, it is that of the last run alone.
    """

    interval: Interval
    runs: Sequence[Result]
    differing: int

    def __str__(self) -> str:
        when = " and ".join(f"{run.started:%Y-%m-%d %H:%M}" for run in (self.runs[0], self.runs[-1]))
        if len(self.runs) < MINIMUM_RUNS:
            return f"{self.interval} (of one run, {self.runs[-1].started:%Y-%m-%d %H:%M}: runs may differ by more)"
        pairs = len(self.runs) * (len(self.runs) - 1) // 2
        verdict = f"{self.differing} of {pairs} pairs of them differ" if self.differing else "they agree"
        return f"{self.interval} ({len(self.runs)} runs between {when}; {verdict})"


def headline(name: str, runs: Sequence[Result]) -> Headline:
    """The interval ``name`` (its place in the summary, with dots) of ``runs`` together, and whether they agree.

    Raises `NotComparable` as `compare` does, and where a run does not hold it.
    """
    require_comparable(runs)
    ordered = sorted(runs, key=lambda run: run.started)
    held = [dict(_intervals(run.summary)) for run in ordered]
    named = [{".".join(path): interval for path, interval in one.items()} for one in held]
    if not all(name in one for one in named):
        raise NotComparable(f"not every result of {ordered[0].benchmark} holds {name}")
    pairs = (_compared(first, second) for first, second in itertools.combinations(held, 2))
    differing = sum(any(one.direction for one in pair if one.name == name) for pair in pairs)
    found = [one[name] for one in named]
    return Headline(between_runs(found) if len(found) >= MINIMUM_RUNS else found[-1], ordered, differing)


def _compared(one: _Named, other: _Named) -> list[Compared]:
    noises = _noises(one, other)
    common = (path for path in one if path in other and not _is_null(path))
    return [
        Compared(".".join(path), one[path], other[path], _noise_of(path, noises), _is_ratio(path)) for path in common
    ]


def _intervals(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Interval]]:
    """Every interval in ``value``, with the names that lead to it."""
    if isinstance(value, dict):
        if value.keys() >= {"median", "low", "high", "confidence", "rounds"}:
            yield path, (Ratio if _is_ratio(path) or _is_null(path) else Interval)(**value)
        else:
            for name, part in value.items():
                yield from _intervals(part, (*path, name))
    elif isinstance(value, list):
        for number, part in enumerate(value):
            yield from _intervals(part, (*path, _label(part) or str(number)))


def _label(entry: Any) -> str:
    """The words and whole numbers by which an ``entry`` of a list is known, how often it was measured apart."""
    known = entry.items() if isinstance(entry, dict) else ()
    return " ".join(str(value) for name, value in known if isinstance(value, str | int) and name not in _NOT_NAMES)


def _noises(one: _Named, other: _Named) -> dict[tuple[str, ...], float]:
    """For each A/A comparison the larger noise of both results, as a factor."""
    noises: dict[tuple[str, ...], float] = {}
    for which, found in (("first", one), ("second", other)):
        nulls = {path: null for path, null in found.items() if _is_null(path) and isinstance(null, Ratio)}
        if not nulls:
            raise NotComparable(f"the {which} result holds no A/A comparison, so its noise is not known")
        for path, null in nulls.items():
            noises[path] = max(noises.get(path, 1.0), resolution(null))
    return noises


def _noise_of(path: tuple[str, ...], noises: Mapping[tuple[str, ...], float]) -> float:
    """The noise beside ``path``, or of the quantity that a name in it begins with; otherwise the largest of all."""
    beside = [noise for null, noise in noises.items() if null == (*path[:-1], "null")]
    own = [noise for null, noise in noises.items() if any(part.startswith(null[-1]) for part in path)]
    return max(beside or own or noises.values())


def _is_null(path: tuple[str, ...]) -> bool:
    return EQUAL_THINGS in path or _NULL.fullmatch(path[-1]) is not None


def _is_ratio(path: tuple[str, ...]) -> bool:
    return path[-1] == "ratio" or any("_over_" in part for part in path)
