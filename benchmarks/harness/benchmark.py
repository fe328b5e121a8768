"""What a benchmark is: a name, a question, parameters, and a function that measures."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

Value = int | float | str
Parameters = Mapping[str, Value]


@dataclass(frozen=True)
class Parameter:
    """One number that a run can be given; its type is that of ``default``."""

    name: str
    default: int | float
    minimum: int | float
    help: str

    def parse(self, text: str) -> int | float:
        """The number in ``text``. Raises ValueError when it is none, or below the minimum."""
        kind = type(self.default)
        try:
            value: float = kind(text)
        except ValueError:
            value = math.nan
        if not self.minimum <= value < math.inf:
            whole = "a whole number" if kind is int else "a number"
            raise ValueError(f"must be {whole}, at least {self.minimum}, got {text!r}")
        return value


@dataclass(frozen=True)
class Choice:
    """One of several words."""

    name: str
    default: str
    choices: tuple[str, ...]
    help: str

    def parse(self, text: str) -> str:
        """``text``. Raises ValueError when it is not among the choices."""
        if text not in self.choices:
            raise ValueError(f"must be one of {', '.join(self.choices)}, got {text!r}")
        return text


@dataclass(frozen=True)
class WholeNumbers:
    """``count`` or more whole numbers with commas between them, in rising order; read them with `whole_numbers`."""

    name: str
    default: str
    minimum: int
    help: str
    count: int = 1

    def parse(self, text: str) -> str:
        """``text`` without spaces. Raises ValueError unless it holds different numbers in rising order."""
        try:
            numbers = [int(word) for word in text.split(",")]
        except ValueError:
            numbers = []
        if len(numbers) < self.count or numbers[0] < self.minimum or numbers != sorted(set(numbers)):
            raise ValueError(
                f"must be {self.count} or more whole numbers, at least {self.minimum}, in rising order with commas "
                f"between them, got {text!r}"
            )
        return ",".join(map(str, numbers))


@dataclass(frozen=True)
class Words:
    """One or more of ``choices`` with commas between them, each once; read them with `words`."""

    name: str
    default: str
    choices: tuple[str, ...]
    help: str

    def parse(self, text: str) -> str:
        """``text`` without spaces. Raises ValueError for a word that is not among the choices, or is there twice."""
        found = [word.strip() for word in text.split(",")]
        if not set(found) <= set(self.choices) or len(found) != len(set(found)):
            raise ValueError(f"must be one or more of {', '.join(self.choices)}, with commas, got {text!r}")
        return ",".join(found)


PRESET = "preset"


@dataclass(frozen=True)
class OrPreset:
    """A parameter whose default, `PRESET`, is decided by others: by what is measured, and how long it may take."""

    name: str
    given: Parameter | WholeNumbers | Words
    default: str = PRESET

    @property
    def help(self) -> str:
        return self.given.help

    def parse(self, text: str) -> Value:
        """`PRESET`, or what ``given`` makes of ``text``. Raises ValueError as it does."""
        return PRESET if text == PRESET else self.given.parse(text)


class NotMeasured(RuntimeError):
    """A benchmark ran, and there is nothing to store; the message says why."""


AnyParameter = Parameter | Choice | WholeNumbers | Words | OrPreset


def whole_numbers(value: Value) -> tuple[int, ...]:
    """The numbers in the value of a `WholeNumbers` parameter."""
    return tuple(int(word) for word in str(value).split(","))


def words(value: Value) -> tuple[str, ...]:
    """The words in the value of a `Words` parameter."""
    return tuple(str(value).split(","))


@dataclass(frozen=True)
class Measurement:
    """What `Benchmark.measure` found.

    ``samples`` are the raw measurements, one flat object each; ``summary`` is what was computed from them;
    ``findings`` says it in sentences. ``faults`` are reasons not to quote it, ``caveats`` what a reader must know.
    All of it can be written as JSON.
    """

    samples: list[dict[str, Any]]
    summary: dict[str, Any]
    findings: list[str]
    faults: list[str] = field(default_factory=list)
    caveats: list[str] = field(default_factory=list)


def joined(parts: Mapping[str, Measurement]) -> Measurement:
    """One measurement of several phases: by their names in the summary, and in each sample's ``phase``."""
    return Measurement(
        samples=[{"phase": phase, **sample} for phase, part in parts.items() for sample in part.samples],
        summary={phase: part.summary for phase, part in parts.items()},
        findings=[f"{phase}: {finding}" for phase, part in parts.items() for finding in part.findings],
        faults=list(dict.fromkeys(f"{phase}: {fault}" for phase, part in parts.items() for fault in part.faults)),
        caveats=list(dict.fromkeys(f"{phase}: {caveat}" for phase, part in parts.items() for caveat in part.caveats)),
    )


@dataclass(frozen=True)
class Benchmark:
    """``modules`` are those whose code decides what is measured; results of different code are not comparable."""

    name: str
    question: str
    parameters: tuple[AnyParameter, ...]
    measure: Callable[[Parameters], Measurement]
    modules: tuple[ModuleType, ...]
