"""What a benchmark is: a name, a question, parameters, and a function that measures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

Parameters = Mapping[str, int | float]


@dataclass(frozen=True)
class Parameter:
    """One number that a run can be given; its type is that of ``default``."""

    name: str
    default: int | float
    minimum: int | float
    help: str


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


@dataclass(frozen=True)
class Benchmark:
    """``modules`` are those whose code decides what is measured; results of different code are not comparable."""

    name: str
    question: str
    parameters: tuple[Parameter, ...]
    measure: Callable[[Parameters], Measurement]
    modules: tuple[ModuleType, ...]
