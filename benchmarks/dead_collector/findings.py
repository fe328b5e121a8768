"""What the samples of `dead_collector` say, in a table and in sentences.

A sample is one ``step`` (a request, or the probe ``GET /health/liveliness``) that took ``seconds``, in a ``round`` with
a ``processor`` while the ``collector`` was alive or dead.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any

from benchmarks.harness.benchmark import Measurement, Parameters
from benchmarks.span_processors.findings import NAMES, to_words
from workbook.stacks import Processor

PROCESSORS: tuple[Processor, ...] = ("simple", "batch", "durable")
ALIVE, DEAD = "alive", "dead"
REQUEST, PROBE = "request", "probe"
MINIMUM_ROUNDS = 3
PROBE_LIMIT = 1.0  # seconds: Kubernetes' default for the time-out of a probe

Sample = dict[str, Any]


def evaluate(samples: Sequence[Sample], parameters: Parameters) -> Measurement:
    """The measurement that ``samples``, taken with ``parameters``, are. The same ones always give the same."""
    rows = [
        _row(processor, collector, step, samples)
        for processor in PROCESSORS
        for collector in (ALIVE, DEAD)
        for step in (REQUEST, PROBE)
    ]
    rounds = int(parameters["rounds"])
    return Measurement(
        samples=list(samples),
        summary={"rows": rows, "probe_limit_seconds": PROBE_LIMIT},
        findings=[
            *(_sentence(processor, rows) for processor in PROCESSORS),
            f"One caller, one request at a time, {to_words(str(parameters['protocol']))}; {2 * rounds} requests and "
            f"{rounds} probes in each state of the collector.",
        ],
        faults=[f"{rounds} rounds are too few: it takes {MINIMUM_ROUNDS}"] if rounds < MINIMUM_ROUNDS else [],
        caveats=["so few requests show whether callers wait for seconds or for milliseconds, and no more"],
    )


def _row(processor: str, collector: str, step: str, samples: Sequence[Sample]) -> dict[str, Any]:
    wanted = (processor, collector, step)
    seconds = [
        float(sample["seconds"])
        for sample in samples
        if (sample["processor"], sample["collector"], sample["step"]) == wanted
    ]
    return {
        "processor": processor,
        "collector": collector,
        "step": step,
        "count": len(seconds),
        "least_seconds": min(seconds),
        "median_seconds": median(seconds),
        "most_seconds": max(seconds),
        "over_limit": sum(one > PROBE_LIMIT for one in seconds),
    }


def _sentence(processor: str, rows: Sequence[Sample]) -> str:
    def found(collector: str, step: str) -> Sample:
        return next(
            row for row in rows if (row["processor"], row["collector"], row["step"]) == (processor, collector, step)
        )

    dead = found(DEAD, PROBE)
    return (
        f"{NAMES[processor]}: requests take {_range(found(ALIVE, REQUEST))} with a collector and "
        f"{_range(found(DEAD, REQUEST))} without; /health/liveliness {_range(found(ALIVE, PROBE))} and {_range(dead)}; "
        f"{dead['over_limit']} of {dead['count']} such probes took longer than {PROBE_LIMIT:g} s, after which "
        "Kubernetes gives up on a probe by default."
    )


def _range(row: Sample) -> str:
    return f"{_in_units(row['least_seconds'])} to {_in_units(row['most_seconds'])}"


def _in_units(seconds: float) -> str:
    return f"{seconds:.2g} s" if seconds >= 1 else f"{seconds * 1000:.2g} ms"
