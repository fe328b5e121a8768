"""Which stored results of `throughput` there are to show, and the first sentences about them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness.results import RESULTS, Result, current_results, load_result
from benchmarks.harness.statistics import Interval, Ratio, in_words
from benchmarks.throughput.findings import (
    ARMS_PHASE,
    BATCH,
    DURABLE,
    LITELLM_OTEL,
    OPEN,
    OUTAGE,
    PROXY,
    PROXY_AGAIN,
    SIMPLE,
    SWEEP,
)

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
        if "plan" not in summary or not _has(summary, phase):
            continue
        engine, plan = summary["engine"], summary["plan"]
        engine_key = (engine["kind"], engine["shape"], engine["eager"], result.machine.label)
        key = (*engine_key, str(plan["lengths"]), result.parameters["workers"])
        if key not in found or _rank(result) > _rank(found[key]):
            found[key] = result
    return [found[key] for key in sorted(found, key=lambda key: (key[0] != GPU, *map(str, key)))]


def _has(summary: Any, phase: str) -> bool:
    if phase in (OPEN, OUTAGE):
        return bool(summary[phase])
    return any(point["phase"] == phase for point in summary["points"])


def _rank(result: Result) -> tuple[bool, Any]:
    return result.validity.valid, result.started


def headlines(root: Path = RESULTS) -> list[str]:
    """What was found, in sentences with intervals; and what has not been measured."""
    sentences = list[str]()
    sweeps, arms = newest(SWEEP, root), newest(ARMS_PHASE, root)
    for result in sweeps:
        sentences.append(_fastest(result))
    for result in arms:
        sentences += _costs(result)
    for result in newest(OUTAGE, root):
        sentences += _away(result)
    if not any(_summary(result)["engine"]["kind"] == GPU for result in (*sweeps, *arms)):
        sentences.append(NOT_YET)
    return sentences


def _summary(result: Result) -> Any:
    return result.summary


def _where(result: Result) -> str:
    engine = _summary(result)["engine"]
    eager = ", eager" if engine["eager"] and engine["kind"] == GPU else ""
    quoting = "" if result.validity.valid else " (not for quoting)"
    return f"{engine['kind']} {engine['shape'] or ''}{eager} on {result.machine.label}{quoting}"


def _fastest(result: Result) -> str:
    points: Sequence[Any] = [point for point in _summary(result)["points"] if point["phase"] == SWEEP]
    best = max(points, key=lambda point: float(point["output_tokens_per_second"]["median"]))
    text = (
        f"{_where(result)}: at most {Interval(**best['output_tokens_per_second'])} output tokens/s, with "
        f"{best['input_len']}/{best['output_len']} tokens and {best['concurrency']} requests at once"
    )
    return f"{text}, {best['of_ceiling']:.0%} of the ceiling." if best["of_ceiling"] else f"{text}."


def _costs(result: Result) -> list[str]:
    sentences = []
    for entry in _summary(result)["comparisons"]:
        if entry["arm"] in (PROXY, PROXY_AGAIN, SIMPLE, BATCH, DURABLE, LITELLM_OTEL):
            ratio = Ratio(**entry["ratio"])
            told = in_words(ratio, Ratio(**entry["null"])) if entry["null"] else str(ratio)
            sentences.append(
                f"{_where(result)}, {entry['concurrency']} at once: output tokens/s, {entry['arm']} over "
                f"{entry['against']}: {told}."
            )
    return sentences


def _away(result: Result) -> list[str]:
    return [
        f"{_where(result)}, the collector away, {entry['rate']:.3g} requests/s: {entry['arm']} answered "
        f"{entry['answered_share']:.0%}"
        + (f", half of them within {entry['e2el_p50_ms']:,.0f} ms." if entry["e2el_p50_ms"] is not None else ".")
        for entry in _summary(result)[OUTAGE]
    ]
