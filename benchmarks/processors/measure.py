"""What does each span processor cost, what does it lose, and whom does it hold up when the collector is dead?

Four phases, each described where it is measured: *costs* (`costs`), *losses* of processes that make spans (`losses`),
and through the real LiteLLM proxy the records of its calls on a bad day, *proxy*, and what callers wait for a dead
collector, *collector* (`proxied`).
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable

from benchmarks.harness import ledgers, load, machine, receiver, rounds, statistics
from benchmarks.harness.benchmark import Benchmark, Choice, Measurement, Parameter, Parameters, Words, joined, words
from benchmarks.processors import cost_findings, costs, emitter, findings, losses, names, proxied, spans
from benchmarks.processors.cost_findings import MINIMUM_ROUNDS
from benchmarks.processors.findings import MINIMUM_CALLS, MINIMUM_OUTAGE_SECONDS, MINIMUM_RUNS
from benchmarks.processors.names import COLLECTOR, COSTS, LOSSES, PHASES, PROXY
from otel_cost_logger.settings import GRPC, HTTP_PROTOBUF
from workbook.paths import build_dir

NAME = "processors"


def measure(parameters: Parameters) -> Measurement:
    """The chosen phases, one after the other. Takes half an hour for all of them."""
    folder = build_dir() / "runs" / NAME
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    phases: dict[str, Callable[[], Measurement]] = {
        COSTS: lambda: costs.measure(parameters, folder),
        LOSSES: lambda: losses.measure(parameters, folder),
        PROXY: lambda: proxied.measure_records(parameters),
        COLLECTOR: lambda: proxied.measure_collector(parameters),
    }
    chosen = words(parameters["phases"])
    found = joined({phase: measured() for phase, measured in phases.items() if phase in chosen})
    shutil.rmtree(folder)
    return found


BENCHMARK = Benchmark(
    name=NAME,
    question="What does each span processor cost, what does it lose, and whom does it hold up when the collector is "
    "dead?",
    parameters=(
        Words("phases", ",".join(PHASES), PHASES, "what is measured"),
        Choice("protocol", HTTP_PROTOBUF, (HTTP_PROTOBUF, GRPC), "of the OTLP exporter; costs have both"),
        Parameter("rounds", 20, 2, f"of costs, one block per arm; fewer than {MINIMUM_ROUNDS} are not for quoting"),
        Parameter("burst", 600, 64, f"spans between two flushes, at most {costs.QUEUE - costs.FIRST}"),
        Parameter("backlog", 10_000, 512, "spans in the file that is drained"),
        Parameter("runs", MINIMUM_RUNS, 1, "of each processor in each scenario of loss, and rounds of waiting"),
        Parameter("rate", 100.0, 1.0, "spans per second of a process that is killed or without a collector"),
        Parameter("flood", 10_000, 1, "spans made as fast as can be"),
        Parameter("calls", MINIMUM_CALLS, 8, "through the proxy in each scenario"),
        Parameter("outage_seconds", 60.0, 0.1, f"of the collector; under {MINIMUM_OUTAGE_SECONDS:g} not for quoting"),
        Parameter("seed", 0, 0, "of the order of blocks, the spans, the moments of signals and the bootstrap"),
    ),
    measure=measure,
    modules=(
        *(sys.modules[__name__], cost_findings, costs, emitter, findings, losses, names, proxied, spans),
        *(ledgers, load, machine, receiver, rounds, statistics),
    ),
)
