"""Which stored results of `throughput` there are to show, and what they found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.harness.results import RESULTS, Result, load_result
from benchmarks.throughput.findings import ARMS_PHASE, OPEN, SWEEP

GPU = "vllm"
NOT_YET = "On a GPU: not yet measured."


def newest(phase: str, root: Path = RESULTS) -> list[Result]:
    """The results with ``phase``, of each machine, engine and plan the newest, one for quoting before any other.

    Those of GPUs come first. Raises `ResultError` for a file that cannot be used.
    """
    found = dict[tuple[Any, ...], Result]()
    for path in sorted(root.glob("*/*-throughput*.json")):
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
    results = {result.run_id: result for phase in (SWEEP, ARMS_PHASE, OPEN) for result in newest(phase, root)}
    sentences, kinds = list[str](), set[str]()
    for result in results.values():
        engine: Any = result.summary["engine"]
        kinds.add(engine["kind"])
        quoting = "" if result.validity.valid else " (not for quoting)"
        where = f"{engine['kind']} {engine['shape'] or ''} on {result.machine.label}{quoting}"
        sentences += [f"{where}: {finding}" for finding in result.findings[1:]]
    return sentences if GPU in kinds else [*sentences, NOT_YET]
