"""What is measured on a host with a GPU, the most valuable first, and how the same is rehearsed on a CPU."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.gpu.smoke import BENCHMARK as SMOKE
from benchmarks.harness.benchmark import Benchmark, Value
from benchmarks.throughput.measure import BENCHMARK as THROUGHPUT


@dataclass(frozen=True)
class Step:
    """One benchmark with its parameters.

    ``given`` are those that differ from the defaults, ``rehearsed`` those that differ again on a CPU. ``minutes`` is
    what it is expected to take on a GPU: a step is not begun with less time left than half of that. ``proxied``: it
    needs LiteLLM.
    """

    name: str
    what: str
    benchmark: Benchmark
    minutes: float
    given: Mapping[str, Value]
    rehearsed: Mapping[str, Value]
    proxied: bool

    def parameters(self, engine: str, shape: str, attempt: int, compiles: bool) -> dict[str, Value]:
        """The benchmark's parameters on ``engine``, started as ``attempt`` says; eager where nothing ``compiles``."""
        chosen = {parameter.name: parameter.default for parameter in self.benchmark.parameters} | dict(self.given)
        if engine != "vllm":
            chosen |= self.rehearsed
        decided: dict[str, Value] = {"engine": engine, "shape": shape, "attempt": attempt}
        if not compiles:
            decided["eager"] = "yes"
        return chosen | {name: value for name, value in decided.items() if name in chosen}


_BENCHMARKS = {"smoke": SMOKE, "throughput": THROUGHPUT}
_DATA = tomllib.loads(Path(__file__).with_name("steps.toml").read_text(encoding="utf-8"))["step"]
STEPS = tuple(Step(**{**step, "benchmark": _BENCHMARKS[step["benchmark"]]}) for step in _DATA)
"""In order of value: whoever has less time measures a beginning of it."""
NAMES = tuple(step.name for step in STEPS)
