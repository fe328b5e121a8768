"""Blocks that are measured in rounds: their order, and what they say of each other, round by round."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from typing import Any, TypeVar

from benchmarks.harness.statistics import Interval, Ratio, median_interval, paired_difference, paired_ratio

Sample = dict[str, Any]
Measure = Callable[[Sample], float]
_Block = TypeVar("_Block")


def in_rounds(blocks: Sequence[_Block], rounds: int, seed: int) -> Iterator[tuple[int, _Block]]:
    """Every one of ``blocks`` in each of so many ``rounds``, in random order within it, with the round's number."""
    order = random.Random(seed)
    for number in range(rounds):
        for block in order.sample(blocks, len(blocks)):
            yield number, block


class Rounds:
    """The ``samples`` by what their fields ``names`` hold, each group in the order of its rounds.

    A key is the value of the only name, or a tuple of several. The run makes so many ``comparisons``.
    """

    def __init__(self, samples: Sequence[Sample], *names: str, comparisons: int = 1, round: str = "round") -> None:
        self._comparisons = comparisons
        self.groups: dict[Any, list[Sample]] = {}
        for sample in sorted(samples, key=lambda sample: int(sample[round])):
            key = tuple(sample[name] for name in names)
            self.groups.setdefault(key if len(names) > 1 else key[0], []).append(sample)
        self.count = len({sample[round] for sample in samples})

    def each(self, key: Any, measure: Measure) -> list[float]:
        """By round."""
        return [float(measure(sample)) for sample in self.groups[key]]

    def of(self, values: Sequence[float]) -> Interval:
        """The median of one value from each round."""
        return median_interval(values, comparisons=self._comparisons)

    def interval(self, key: Any, measure: Measure) -> Interval:
        """The median over rounds."""
        return self.of(self.each(key, measure))

    def intervals(self, key: Any, measures: Mapping[str, Measure]) -> dict[str, Interval]:
        """Those of several measures, by name."""
        return {name: self.interval(key, measure) for name, measure in measures.items()}

    def over(self, above: Sequence[float], below: Sequence[float]) -> Ratio:
        """The median ratio of pairs, one from each round."""
        return paired_ratio(above, below, comparisons=self._comparisons)

    def ratio(self, above: Any, below: Any, measure: Measure, by: Measure | None = None) -> Ratio:
        """``measure`` of the group ``above`` over that of the group ``below``, or over ``by`` of it."""
        return self.over(self.each(above, measure), self.each(below, by or measure))

    def difference(self, above: Any, below: Any, measure: Measure) -> Interval:
        """What ``above`` has more than ``below``."""
        pairs = self.each(above, measure), self.each(below, measure)
        return paired_difference(*pairs, comparisons=self._comparisons)


def per(sample_field: str, count: str, scale: float = 1e6) -> Measure:
    """The measure of one field for each of another: seconds and calls give microseconds per call."""
    return lambda sample: float(sample[sample_field] / sample[count] * scale)


def stored(value: Any) -> Any:
    """``value`` as JSON holds it: intervals and other dataclasses as objects, tuples as lists."""
    if hasattr(value, "summary"):
        return stored(value.summary())
    if is_dataclass(value) and not isinstance(value, type):
        return stored(asdict(value))
    if isinstance(value, Mapping):
        return {key: stored(part) for key, part in value.items()}
    return [stored(part) for part in value] if isinstance(value, list | tuple) else value


def number(interval: Interval) -> str:
    """As ``str(interval)``, but thousands stay readable."""
    return str(interval) if interval.median < 1000 else f"{interval:,.0f}"
