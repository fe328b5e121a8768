"""What does each span processor cost the caller, what does it cost in all, and how fast does it drain?

Each processor of OpenTelemetry, and the durable one, stands between the same finished cost spans and OpenTelemetry's
own OTLP exporter, which sends to a receiver in another process that counts and discards. Two kinds of block are
measured, all of them in every round, in random order, in one process:

- *Emission.* A fresh processor (a durable one on a fresh file) gets two bursts of spans, each shorter than the queue of
  ``BatchSpanProcessor``, which would drop what is more; after each everything is flushed, so that every processor
  delivers everything. Over the first burst the CPU time of the calling thread in ``on_end`` is read, and the wall
  time; in the second each call is timed by itself. The CPU time of the process goes on until the receiver has
  confirmed the last span, and with it what background threads do.
- *Draining.* The durable processor is started on a file that holds many spans to be sent, as after an outage of the
  collector. Beside it the exporter alone sends the same spans from memory, in batches of 512 as ``BatchSpanProcessor``
  would: its ceiling.

Before each block some spans are sent, so that connections, files and threads are there, and garbage is collected.
Python's garbage collector is on, as in production, but does not look at the spans themselves, which would not all be
alive there. The receiver's own CPU time is read too: it says whether it was the receiver that limited a rate.
"""

from __future__ import annotations

import gc
import random
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry.sdk.trace import ReadableSpan
from tqdm import tqdm

from benchmarks.harness import machine, statistics
from benchmarks.harness.benchmark import Benchmark, Choice, Measurement, NotMeasured, Parameter, Parameters
from benchmarks.span_processors import blocks, findings, receiver, spans
from benchmarks.span_processors.blocks import FIRST, QUEUE, Bench
from benchmarks.span_processors.findings import ARMS, MINIMUM_ROUNDS, WARM_UP_ROUNDS, evaluate
from benchmarks.span_processors.receiver import counting_receiver
from benchmarks.span_processors.spans import cost_spans
from otel_cost_logger.otlp.encoding import span_bytes
from otel_cost_logger.settings import GRPC, HTTP_PROTOBUF
from workbook.paths import build_dir

NAME = "span_processors"


def measure(parameters: Parameters) -> Measurement:
    """Start the receiver, make the spans and a file of them, measure all blocks. Takes ten blocks a round.

    Raises `NotMeasured` for bursts that a processor would drop spans of.
    """
    burst, seed, protocol = int(parameters["burst"]), int(parameters["seed"]), str(parameters["protocol"])
    if burst > QUEUE - FIRST:
        raise NotMeasured(f"bursts of {burst} spans overflow the queue of BatchSpanProcessor, which holds {QUEUE}")
    folder = build_dir() / "runs" / NAME
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    print("making the spans and a backlog of them ...", file=sys.stderr)
    spans = cost_spans(burst, seed=seed)
    with counting_receiver(folder) as receiver, _hidden_from_the_garbage_collector():
        bench = Bench(receiver, protocol, spans, int(parameters["backlog"]), folder)
        for number, arm in _plan(WARM_UP_ROUNDS, seed):
            bench.sample(number, arm)  # and not kept: first imports, caches
        plan = list(_plan(int(parameters["rounds"]), seed))
        samples = [bench.sample(number, arm) for number, arm in tqdm(plan, unit="block", disable=None)]
    shutil.rmtree(folder)
    return evaluate(samples, seed=seed, setting={"protocol": protocol, **_described(spans)})


def _plan(rounds: int, seed: int) -> Iterator[tuple[int, str]]:
    order = random.Random(seed)
    for number in range(rounds):
        for arm in order.sample(ARMS, len(ARMS)):
            yield number, arm


@contextmanager
def _hidden_from_the_garbage_collector() -> Iterator[None]:
    """What exists now is left out of collections."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _described(spans: list[ReadableSpan]) -> dict[str, int]:
    """Means; the spans differ in little more than digits."""
    return {
        "attributes": round(sum(len(span.attributes or {}) for span in spans) / len(spans)),
        "bytes": round(sum(len(span_bytes(span)) for span in spans) / len(spans)),
    }


BENCHMARK = Benchmark(
    name=NAME,
    question="What does each span processor cost the caller, what does it cost in all, and how fast does it drain?",
    parameters=(
        Choice("protocol", HTTP_PROTOBUF, (HTTP_PROTOBUF, GRPC), "of the OTLP exporter"),
        Parameter("rounds", 20, 2, f"of one block per arm; fewer than {MINIMUM_ROUNDS} are not for quoting"),
        Parameter("burst", 1000, 64, f"spans between two flushes, at most {QUEUE - FIRST}"),
        Parameter("backlog", 20_000, 512, "spans in the file that is drained"),
        Parameter("seed", 0, 0, "of the order of blocks, the spans and the bootstrap"),
    ),
    measure=measure,
    modules=(
        *(sys.modules[__name__], blocks, findings),
        *(receiver, spans, machine, statistics),
    ),
)
