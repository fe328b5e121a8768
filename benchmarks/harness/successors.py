"""What older benchmarks are now: a stored result keeps its name, and is one phase of a benchmark of today."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.harness.results import RESULTS, Result, ResultError, current_results, load_result

SUCCESSORS = {
    "span_processors": ("processors", "costs"),
    "span_losses": ("processors", "losses"),
    "survival": ("processors", "proxy"),
    "dead_collector": ("processors", "collector"),
    "mock_headroom": ("throughput", "headroom"),
    "proxy_scale": ("throughput", "workers"),
    "engine_latency": ("throughput", "latency"),
}
"""The benchmark and the phase of it, by the old name."""


def benchmark_of(result: Result) -> str:
    """The name of the benchmark that draws ``result`` today."""
    return SUCCESSORS.get(result.benchmark, (result.benchmark, ""))[0]


def has(result: Result, benchmark: str, phase: str) -> bool:
    """True when ``result`` holds the ``phase`` of ``benchmark``, under whichever name it was measured."""
    return SUCCESSORS.get(result.benchmark) == (benchmark, phase) or (
        result.benchmark == benchmark and bool(result.summary.get(phase))
    )


def part(result: Result, benchmark: str, phase: str) -> Any:
    """What the summary of ``result`` holds of ``phase``. Raises ValueError when it has nothing of it."""
    if not has(result, benchmark, phase):
        raise ValueError(f"this figure shows the phase {phase} of {benchmark}, which a {result.benchmark} has not")
    return result.summary if result.benchmark in SUCCESSORS else result.summary[phase]


def samples_of(result: Result, phase: str) -> list[Any]:
    """The samples of one phase."""
    return [sample for sample in result.samples if sample.get("phase", phase) == phase]


def newest(benchmark: str, phase: str, root: Path = RESULTS) -> Result:
    """The newest result with ``phase``, one for quoting before any other. Raises `ResultError` when there is none."""
    found = [result for path in current_results(root) if has(result := load_result(path), benchmark, phase)]
    if not found:
        raise ResultError(f"no result has the phase {phase} of {benchmark}: python -m benchmarks run {benchmark}")
    return max(found, key=lambda result: (result.validity.valid, result.started))
