"""A process that makes spans, to be killed.

``python -m benchmarks.processors.emitter JSON`` does what the `Task` in ``JSON`` says: it makes spans at a steady
pace, or a number of them as fast as it can. It says ``{"ready": true}``, and begins when it is told to, so that many
can begin together. When its stdin closes it shuts the provider down, in order, and ends. How many spans have ended is
in a file after each of them, so that it outlives ``kill -9``. A span is made only when the one before has ended: when a
processor holds it up, nothing is made up for afterwards.
"""

from __future__ import annotations

import json
import mmap
import os
import signal
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanLimits, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON

from benchmarks.harness.receiver import span_id
from benchmarks.processors.costs import otlp_exporter, processor
from benchmarks.processors.names import BATCH, BATCH_FLUSHING
from otel_cost_logger.termination import FlushOnTermination

COUNT_BYTES = 8
_POLL_SECONDS = 0.002


@dataclass(frozen=True)
class Task:
    """``spans`` of run ``run``, ``per_second`` of them (0: as fast as can be), through a ``processor`` to ``endpoint``
    by ``protocol``; each with the attributes of one of those in the file ``attributes``. ``ended`` is the file with the
    number of spans that ended, ``ledger`` that of a durable processor; when the file ``begin`` is there it begins."""

    run: int
    spans: int
    per_second: float
    processor: str
    protocol: str
    endpoint: str
    attributes: str
    ended: str
    ledger: str
    begin: str


class _NumberedIds(RandomIdGenerator):
    """Span ids that say which span of which run it is; see `receiver.span_id`."""

    def __init__(self, run: int) -> None:
        self._run = run
        self._number = 0

    def generate_span_id(self) -> int:
        self._number += 1
        return span_id(self._run, self._number)


def run(task: Task) -> None:
    """Do what ``task`` says, until stdin closes or SIGTERM comes (see `_processor`)."""
    over, terminated = threading.Event(), threading.Event()

    def watch_stdin() -> None:
        sys.stdin.buffer.read()
        over.set()

    def on_sigterm(signum: int, frame: FrameType | None) -> None:
        terminated.set()
        over.set()

    threading.Thread(target=watch_stdin, daemon=True).start()
    if task.processor == BATCH_FLUSHING:
        # As a server does, which finishes what it has begun, and lets the signal end it then.
        signal.signal(signal.SIGTERM, on_sigterm)
    unlimited = SpanLimits.UNSET
    provider = TracerProvider(
        resource=Resource.create({"service.name": "processors"}),
        sampler=ALWAYS_ON,
        id_generator=_NumberedIds(task.run),
        span_limits=SpanLimits(max_span_attributes=unlimited, max_span_attribute_length=unlimited),
        shutdown_on_exit=False,
    )
    provider.add_span_processor(_processor(task))
    attributes: list[dict[str, Any]] = json.loads(Path(task.attributes).read_text())
    tracer = provider.get_tracer("processors")
    with Path(task.ended).open("r+b") as file:
        ended = mmap.mmap(file.fileno(), COUNT_BYTES)
    print(json.dumps({"ready": True}), flush=True)
    while not (Path(task.begin).exists() or over.is_set()):
        time.sleep(_POLL_SECONDS)
    due = time.monotonic()
    for number in range(task.spans):
        if task.per_second:
            due = max(due + 1 / task.per_second, time.monotonic())
            if over.wait(max(0.0, due - time.monotonic())):
                break
        tracer.start_span("llm.completion.acompletion", attributes=attributes[number % len(attributes)]).end()
        ended[:] = (number + 1).to_bytes(COUNT_BYTES, "little")
    over.wait()
    if terminated.is_set():
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)
    provider.shutdown()


def _processor(task: Task) -> SpanProcessor:
    exporter = otlp_exporter(task.protocol, task.endpoint)
    if task.processor == BATCH_FLUSHING:
        return FlushOnTermination(processor(BATCH, exporter, Path(task.ledger)))
    return processor(task.processor, exporter, Path(task.ledger))


if __name__ == "__main__":
    run(Task(**json.loads(sys.argv[1])))
