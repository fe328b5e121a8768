"""What does each span processor cost the caller, what does it cost in all, and how fast does it drain?

Each processor of OpenTelemetry, and the durable one, stands between the same cost spans and each of OpenTelemetry's own
exporters: OTLP over HTTP and over gRPC, to a receiver in another process that counts and discards, and the console,
whose text goes to ``/dev/null``. ``BatchSpanProcessor`` is there with its defaults and tuned (a queue for 65,536 spans,
in which they wait for half a second). Two kinds of block are measured, all of them in every round, in random order, in
one process:

- *Emission.* A fresh processor (a durable one on a fresh file) gets three bursts of spans, each shorter than the queue
  of ``BatchSpanProcessor``, which would drop what is more; after each everything is flushed, so that every processor
  delivers everything. Over the first burst the CPU time of the calling thread in ``on_end`` is read, and the wall
  time; in the second each call is timed by itself. The CPU time of the process goes on until the receiver has
  confirmed the last span, and with it what background threads do. The third burst is that of the callback: the
  plugin's own code makes each span from a record and ends it, while the processor's thread exports.
- *Draining.* The durable processor is started on a file that holds many spans to be sent, as after an outage of the
  collector. Beside it the exporter alone sends the same spans from memory, in batches of 512 as ``BatchSpanProcessor``
  would: its ceiling.

Before each block some spans are sent, so that connections, files and threads are there, and garbage is collected.
Python's garbage collector is on, as in production, but does not look at the spans themselves, which would not all be
alive there. The receiver's own CPU time is read too: it says whether it was the receiver that limited a rate.
What a processor loses is another question: see `span_losses`.
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
from benchmarks.harness.benchmark import Benchmark, Measurement, NotMeasured, Parameter, Parameters
from benchmarks.span_processors import blocks, findings, receiver, spans
from benchmarks.span_processors.blocks import FIRST, QUEUE, Bench
from benchmarks.span_processors.findings import ARMS, MINIMUM_ROUNDS, WARM_UP_ROUNDS, Arm, evaluate, slowest_kept
from benchmarks.span_processors.receiver import counting_receiver
from benchmarks.span_processors.spans import cost_records, cost_spans
from otel_cost_logger.otlp.encoding import span_bytes
from workbook.paths import build_dir

NAME = "span_processors"


def measure(parameters: Parameters) -> Measurement:
    """Start the receiver, make the spans and a file of them, measure all blocks. Takes 15 seconds a round.

    Raises `NotMeasured` for bursts that a processor would drop spans of.
    """
    burst, rounds, seed = (int(parameters[name]) for name in ("burst", "rounds", "seed"))
    if burst > QUEUE - FIRST:
        raise NotMeasured(f"bursts of {burst} spans overflow the queue of BatchSpanProcessor, which holds {QUEUE}")
    folder = build_dir() / "runs" / NAME
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    print("making the spans and a backlog of them ...", file=sys.stderr)
    records = cost_records(burst, seed=seed)
    with counting_receiver(folder) as receiver, _hidden_from_the_garbage_collector():
        bench = Bench(receiver, records, int(parameters["backlog"]), slowest_kept(burst, rounds), folder)
        for number, arm in tqdm(list(_plan(WARM_UP_ROUNDS, seed)), desc="warm-up", unit="block", disable=None):
            bench.sample(number, arm)  # and not kept: first imports, caches
        plan = list(_plan(rounds, seed))
        samples = [bench.sample(number, arm) for number, arm in tqdm(plan, unit="block", disable=None)]
    shutil.rmtree(folder)
    return evaluate(samples, setting=_described(cost_spans(records)))


def _plan(rounds: int, seed: int) -> Iterator[tuple[int, Arm]]:
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
        Parameter("rounds", 20, 2, f"of one block per arm; fewer than {MINIMUM_ROUNDS} are not for quoting"),
        Parameter("burst", 600, 64, f"spans between two flushes, at most {QUEUE - FIRST}"),
        Parameter("backlog", 10_000, 512, "spans in the file that is drained"),
        Parameter("seed", 0, 0, "of the order of blocks, the spans and the bootstrap"),
    ),
    measure=measure,
    modules=(
        *(sys.modules[__name__], blocks, findings),
        *(receiver, spans, machine, statistics),
    ),
)
