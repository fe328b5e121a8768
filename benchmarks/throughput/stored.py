"""Which stored results of `throughput` there are to show, and what they found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.harness.results import RESULTS, Result, current_results, load_result
from benchmarks.harness.statistics import Interval, Ratio, in_words
from benchmarks.throughput.findings import ARMS_PHASE, CALLBACK, OPEN, SWEEP

GPU = "vllm"
NOT_YET = "On a GPU: not yet measured."


def newest(phase: str, root: Path = RESULTS) -> list[Result]:
    """The results with ``phase``, of each machine, engine and plan the newest, one for quoting before any other.

    Those of GPUs come first. Raises `ResultError` for a file that cannot be used.
    """
    found = dict[tuple[Any, ...], Result]()
    for path in current_results(root):
        if "-throughput" not in path.name:
            continue
        result = load_result(path)
        summary: Any = result.summary
        has = summary[OPEN] if phase == OPEN else any(point["phase"] == phase for point in summary["points"])
        if "plan" not in summary or not has:
            continue
        engine, lengths = summary["engine"], str(summary["plan"]["lengths"])
        which = (engine["kind"], engine["shape"], engine["eager"], result.machine.label)
        key = (*which, lengths, result.parameters["workers"])
        if key not in found or _rank(result) > _rank(found[key]):
            found[key] = result
    return [found[key] for key in sorted(found, key=lambda key: (key[0] != GPU, *map(str, key)))]


def _rank(result: Result) -> tuple[bool, Any]:
    return result.validity.valid, result.started


def headlines(root: Path = RESULTS) -> list[str]:
    """What was found, in sentences with intervals; and what has not been measured."""
    sweeps, arms = newest(SWEEP, root), newest(ARMS_PHASE, root)
    sentences = [_fastest(result) for result in sweeps]
    for result in arms:
        summary: Any = result.summary
        for entry in summary["comparisons"]:
            if entry["arm"] != CALLBACK:
                ratio = Ratio(**entry["ratio"])
                told = in_words(ratio, Ratio(**entry["null"])) if entry["null"] else str(ratio)
                what = f"output tokens/s, {entry['arm']} over {entry['against']}: {told}"
                sentences.append(f"{_where(result)}, {entry['concurrency']} at once: {what}.")
    on_a_gpu = any(_where(result).startswith(f"{GPU} ") for result in (*sweeps, *arms))
    return sentences if on_a_gpu else [*sentences, NOT_YET]


def _where(result: Result) -> str:
    engine: Any = result.summary["engine"]
    quoting = "" if result.validity.valid else " (not for quoting)"
    return f"{engine['kind']} {engine['shape'] or ''} on {result.machine.label}{quoting}"


def _fastest(result: Result) -> str:
    summary: Any = result.summary
    points = [point for point in summary["points"] if point["phase"] == SWEEP]
    best = max(points, key=lambda point: float(point["output_tokens_per_second"]["median"]))
    text = (
        f"{_where(result)}: at most {Interval(**best['output_tokens_per_second'])} output tokens/s, with "
        f"{best['input_len']}/{best['output_len']} tokens and {best['concurrency']} requests at once"
    )
    return f"{text}, {best['of_ceiling']:.0%} of the ceiling." if best["of_ceiling"] else f"{text}."
