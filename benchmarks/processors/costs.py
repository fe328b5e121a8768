"""Costs: some spans through one processor, or one way to send many, and what that took; a block of each in every round.

Each processor of OpenTelemetry, and the durable one, stands between the same cost spans and each of OpenTelemetry's own
exporters: OTLP over HTTP and over gRPC, to a receiver in another process that counts and discards, and the console,
whose text goes to ``/dev/null``. ``BatchSpanProcessor`` is there with its defaults and tuned (a queue for 65,536 spans,
in which they wait for half a second). All blocks are measured in one process, in random order within a round:

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
"""

from __future__ import annotations

import gc
import os
import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import (
    BatchSpanProcessor,
    ConsoleSpanExporter,
    SimpleSpanProcessor,
    SpanExporter,
    SpanExportResult,
)
from tqdm import tqdm

from benchmarks.harness.benchmark import Measurement, NotMeasured, Parameters
from benchmarks.harness.machine import CpuMeter
from benchmarks.harness.receiver import CountingReceiver, counting_receiver
from benchmarks.harness.rounds import Sample, in_rounds
from benchmarks.processors import names
from benchmarks.processors.cost_findings import WARM_UP_ROUNDS, evaluate, slowest_kept
from benchmarks.processors.names import Arm
from benchmarks.processors.spans import CALL_ID, cost_records, cost_spans
from otel_cost_logger.durable import DurableSpanProcessor
from otel_cost_logger.ledger.defaults import SYNC_FULL, SYNC_NORMAL
from otel_cost_logger.ledger.stored_span import Encoder
from otel_cost_logger.ledger.writer import LedgerWriter
from otel_cost_logger.otlp.encoding import span_bytes
from otel_cost_logger.provider import build_provider
from otel_cost_logger.settings import CONSOLE, GRPC, Settings

if TYPE_CHECKING:
    from otel_cost_logger.record import CallRecord

QUEUE = 2048  # spans that BatchSpanProcessor holds, by default
FIRST = 16  # spans that a fresh processor gets before it is measured
_BATCH = 512  # spans in a request, by default
_PATIENCE_MILLIS = 120_000


def measure(parameters: Parameters, folder: Path) -> Measurement:
    """Start the receiver, make the spans and a file of them, measure all blocks. Takes 15 seconds a round.

    Raises `NotMeasured` for bursts that a processor would drop spans of.
    """
    burst, rounds, seed = (int(parameters[name]) for name in ("burst", "rounds", "seed"))
    if burst > QUEUE - FIRST:
        raise NotMeasured(f"bursts of {burst} spans overflow the queue of BatchSpanProcessor, which holds {QUEUE}")
    print("making the spans and a backlog of them ...", file=sys.stderr)
    records = cost_records(burst, seed=seed)
    with counting_receiver(folder) as receiver, _hidden_from_the_garbage_collector():
        bench = _Bench(receiver, records, int(parameters["backlog"]), slowest_kept(burst, rounds), folder)
        for number, arm in in_rounds(names.ARMS, WARM_UP_ROUNDS, seed):
            bench.sample(number, arm)  # and not kept: first imports, caches
        plan = list(in_rounds(names.ARMS, rounds, seed))
        samples = [bench.sample(number, arm) for number, arm in tqdm(plan, unit="block", disable=None)]
        attributes = np.mean([len(span.attributes or {}) for span in bench.spans])
        size = np.mean([len(span_bytes(span)) for span in bench.spans])
    return evaluate(samples, setting={"attributes": round(attributes), "bytes": round(size)})


@contextmanager
def _hidden_from_the_garbage_collector() -> Iterator[None]:
    """What exists now is left out of collections."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def processor(name: str, exporter: SpanExporter, path: Path) -> SpanProcessor:
    """The processor ``name`` with its settings, whatever the environment's variables say.

    ``path`` is the file of a durable one.
    """
    if name == names.SIMPLE:
        return SimpleSpanProcessor(exporter)
    if name in (names.BATCH, names.BATCH_AGAIN, names.BATCH_TUNED):
        queue, delay = (65_536, 500) if name == names.BATCH_TUNED else (QUEUE, 5000)
        return BatchSpanProcessor(
            exporter, max_queue_size=queue, schedule_delay_millis=delay, max_export_batch_size=_BATCH
        )
    sync = SYNC_FULL if name == names.DURABLE_FULL else SYNC_NORMAL
    return DurableSpanProcessor(exporter, path, sync=sync, schedule_delay_millis=1000, max_export_batch_size=_BATCH)


def otlp_exporter(protocol: str, endpoint: str) -> SpanExporter:
    """OpenTelemetry's own for ``protocol`` (grpc or http/protobuf), to the URL ``endpoint`` without a path."""
    if protocol == GRPC:
        return GrpcExporter(endpoint=endpoint, insecure=True)
    return HttpExporter(endpoint=f"{endpoint}/v1/traces")


class _Bench:
    """Measures blocks: bursts of ``records`` and of the spans made of them, and of ``backlog`` spans, over and over, as
    what is to be drained.

    Of each burst whose calls are timed singly the ``slowest`` durations are kept. Files are made in ``folder``, which
    exists, on the disk that is measured.
    """

    def __init__(
        self, receiver: CountingReceiver, records: list[CallRecord], backlog: int, slowest: int, folder: Path
    ) -> None:
        self.spans = cost_spans(records)
        self._receiver = receiver
        self._records = records
        self._slowest = slowest
        self._folder = folder
        self._console = _CountingConsole()
        self._meter = CpuMeter({"receiver": receiver.pid})
        self._backlog = [self.spans[number % len(self.spans)] for number in range(backlog)]
        self._backlog_file = folder / "backlog.db"
        encoder, writer = Encoder(), LedgerWriter(self._backlog_file, exporting=True)
        for span in self._backlog:
            writer.write(encoder.encode(span))
        writer.close()  # as a process leaves it that could send nothing

    def sample(self, number: int, arm: Arm) -> Sample:
        """Measure one block of round ``number``."""
        name, to = arm
        exporter: SpanExporter
        if to == CONSOLE:
            exporter = ConsoleSpanExporter(out=self._console)
        else:
            exporter = otlp_exporter(to, self._receiver.endpoints[to])
        found: Sample = {"round": number, "arm": name, "exporter": to}
        if arm in names.DRAIN_ARMS:
            return {**found, **self._draining(exporter, from_file=name != names.EXPORTER_ALONE)}
        with TemporaryDirectory(dir=self._folder) as folder:
            made = processor(name, exporter, Path(folder) / "ledger.db")
            provider = build_provider(Settings(exporters=()))
            provider.add_span_processor(made)
            try:
                return {**found, **self._emission(made, provider, noted=name == names.DURABLE_NOTED)}
            finally:
                provider.shutdown()

    def _emission(self, processor: SpanProcessor, provider: TracerProvider, *, noted: bool) -> dict[str, Any]:
        on_end, spans = processor.on_end, self.spans
        for span in spans[:FIRST]:
            on_end(span)
        confirmed = processor.force_flush(_PATIENCE_MILLIS)
        with self._metered() as used:
            noting = self._note(processor) if noted else 0
            began, cpu = time.perf_counter_ns(), time.thread_time_ns()
            for span in spans:
                on_end(span)
            cpu, wall = time.thread_time_ns() - cpu, time.perf_counter_ns() - began
            unwritten = (
                FIRST + len(spans) - processor.counts.written if isinstance(processor, DurableSpanProcessor) else 0
            )
            confirmed &= processor.force_flush(_PATIENCE_MILLIS)
            if noted:
                self._note(processor)
            moments = [time.perf_counter_ns()]
            for span in spans:
                on_end(span)
                moments.append(time.perf_counter_ns())
            confirmed &= processor.force_flush(_PATIENCE_MILLIS)
        with self._metered() as used_by_callback:
            if noted:
                self._note(processor)
            callback_cpu, callback_wall = self._as_the_callback(provider)
            confirmed &= processor.force_flush(_PATIENCE_MILLIS)
        single = np.diff(moments) / 1e3
        p50, p99 = np.percentile(single, [50, 99])
        return {
            "spans": 2 * len(spans),
            "confirmed": confirmed,
            "burst": len(spans),
            "unwritten": unwritten,
            "on_end_cpu_seconds": cpu / 1e9,
            "on_end_seconds": wall / 1e9,
            "on_end_p50_us": round(float(p50), 3),
            "on_end_p99_us": round(float(p99), 3),
            "slowest_us": [round(float(slow), 2) for slow in sorted(single)[: -self._slowest - 1 : -1]],
            "noting_cpu_seconds": noting / 1e9,
            "callback_cpu_seconds": callback_cpu / 1e9,
            "callback_seconds": callback_wall / 1e9,
            "callback_received": used_by_callback["received"],
            **used,
        }

    def _as_the_callback(self, provider: TracerProvider) -> tuple[int, int]:
        """Make the spans of the burst from their records and end them; CPU and wall nanoseconds of that."""
        from otel_cost_logger.span import emit_span  # imports LiteLLM

        began, cpu = time.perf_counter_ns(), time.thread_time_ns()
        for record in self._records:
            emit_span(provider, record, genai=False)
        return time.thread_time_ns() - cpu, time.perf_counter_ns() - began

    def _note(self, processor: SpanProcessor) -> int:
        """Note every call of the burst as dispatched, as the plugin does; CPU nanoseconds of the calling thread."""
        assert isinstance(processor, DurableSpanProcessor)
        calls = [str((span.attributes or {})[CALL_ID]) for span in self.spans]
        began = time.thread_time_ns()
        for call in calls:
            processor.expect_call(call, "tenant-acme", "mistral-7b")
        return time.thread_time_ns() - began

    def _draining(self, exporter: SpanExporter, *, from_file: bool) -> dict[str, Any]:
        exporter.export(self.spans[:FIRST])  # opens the connection
        if from_file:
            with closing(sqlite3.connect(self._backlog_file)) as connection, connection:
                connection.execute("INSERT OR IGNORE INTO outbox SELECT id FROM spans")  # all is to be sent again
        with self._metered() as used:
            if from_file:
                durable = processor(names.DURABLE, exporter, self._backlog_file)
                confirmed = durable.force_flush(_PATIENCE_MILLIS)
            else:
                batches = (self._backlog[at : at + _BATCH] for at in range(0, len(self._backlog), _BATCH))
                confirmed = all(exporter.export(batch) is SpanExportResult.SUCCESS for batch in batches)
        durable.shutdown() if from_file else exporter.shutdown()
        return {"spans": len(self._backlog), "confirmed": confirmed, **used}

    def _arrived(self) -> int:
        return self._receiver.spans() + self._console.spans

    @contextmanager
    def _metered(self) -> Iterator[dict[str, float]]:
        """Fills what it gives with what was used inside; it holds something at the end only."""
        used: dict[str, float] = {}
        gc.collect()
        arrived, looked = self._arrived(), time.perf_counter()
        before = self._meter.read()
        began, cpu = time.perf_counter(), time.process_time()
        yield used
        cpu, seconds = time.process_time() - cpu, time.perf_counter() - began
        after = self._meter.read()
        used |= {
            "received": self._arrived() - arrived,
            "seconds": seconds,
            "process_cpu_seconds": cpu,
            "receiver_cpu_seconds": after["receiver"] - before["receiver"],
            "others_cores": (after["others"] - before["others"]) / (time.perf_counter() - looked),
        }


class _CountingConsole(StringIO):
    """A console that shows nothing: what is written goes to ``/dev/null``, with one call for each of the ``spans``."""

    def __init__(self) -> None:
        super().__init__()
        self._null = os.open(os.devnull, os.O_WRONLY)
        self.spans = 0

    def write(self, text: str) -> int:
        self.spans += 1
        return os.write(self._null, text.encode())
