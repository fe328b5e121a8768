"""One block of `span_processors`: some spans through one processor, or one way to send many, and what that took."""

from __future__ import annotations

import gc
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import (
    BatchSpanProcessor,
    ConsoleSpanExporter,
    SimpleSpanProcessor,
    SpanExporter,
    SpanExportResult,
)

from benchmarks.harness.machine import CpuMeter
from benchmarks.span_processors.findings import (
    BATCH,
    BATCH_AGAIN,
    BATCH_TUNED,
    DURABLE,
    DURABLE_AGAIN,
    DURABLE_FULL,
    DURABLE_NOTED,
    EXPORTER_ALONE,
    SIMPLE,
    Arm,
    Sample,
)
from benchmarks.span_processors.receiver import CountingReceiver
from benchmarks.span_processors.spans import CALL_ID, cost_spans
from otel_cost_logger.durable import DurableSpanProcessor
from otel_cost_logger.ledger.defaults import SYNC_FULL, SYNC_NORMAL
from otel_cost_logger.ledger.stored_span import Encoder
from otel_cost_logger.ledger.writer import LedgerWriter
from otel_cost_logger.provider import build_provider
from otel_cost_logger.settings import CONSOLE, GRPC, Settings

if TYPE_CHECKING:
    from otel_cost_logger.record import CallRecord

QUEUE = 2048  # spans that BatchSpanProcessor holds, by default
TUNED_QUEUE = 65_536
TUNED_DELAY_MS = 500
FIRST = 16  # spans that a fresh processor gets before it is measured
_BATCH = 512  # spans in a request, by default
_PATIENCE_MILLIS = 120_000


def _simple(exporter: SpanExporter, path: Path) -> SpanProcessor:
    """OpenTelemetry's, which has no settings; ``path`` is for those that keep a file."""
    del path
    return SimpleSpanProcessor(exporter)


def _batch(exporter: SpanExporter, path: Path) -> SpanProcessor:
    """OpenTelemetry's, with its defaults."""
    del path
    return BatchSpanProcessor(exporter, max_queue_size=QUEUE, schedule_delay_millis=5000, max_export_batch_size=_BATCH)


def _batch_tuned(exporter: SpanExporter, path: Path) -> SpanProcessor:
    """OpenTelemetry's, with a queue for 32 times as many spans, in which they wait a tenth of the time."""
    del path
    return BatchSpanProcessor(
        exporter, max_queue_size=TUNED_QUEUE, schedule_delay_millis=TUNED_DELAY_MS, max_export_batch_size=_BATCH
    )


def _durable(exporter: SpanExporter, path: Path, sync: str = SYNC_NORMAL) -> DurableSpanProcessor:
    """The plugin's, with its defaults, on the file ``path``."""
    return DurableSpanProcessor(exporter, path, sync=sync, schedule_delay_millis=1000, max_export_batch_size=_BATCH)


def _durable_full(exporter: SpanExporter, path: Path) -> DurableSpanProcessor:
    return _durable(exporter, path, SYNC_FULL)


# Each with its settings, whatever the environment's variables say.
PROCESSORS: dict[str, Callable[[SpanExporter, Path], SpanProcessor]] = {
    SIMPLE: _simple,
    BATCH: _batch,
    BATCH_AGAIN: _batch,
    BATCH_TUNED: _batch_tuned,
    DURABLE: _durable,
    DURABLE_AGAIN: _durable,
    DURABLE_NOTED: _durable,
    DURABLE_FULL: _durable_full,
}


def otlp_exporter(protocol: str, endpoint: str) -> SpanExporter:
    """OpenTelemetry's own for ``protocol`` (grpc or http/protobuf), to the URL ``endpoint`` without a path."""
    if protocol == GRPC:
        return GrpcExporter(endpoint=endpoint, insecure=True)
    return HttpExporter(endpoint=f"{endpoint}/v1/traces")


class Bench:
    """Measures blocks: bursts of ``records`` and of the spans made of them, and of ``backlog`` spans, over and over, as
    what is to be drained.

    Of each burst whose calls are timed singly the ``slowest`` durations are kept. Files are made in ``folder``, which
    exists, on the disk that is measured.
    """

    def __init__(
        self, receiver: CountingReceiver, records: list[CallRecord], backlog: int, slowest: int, folder: Path
    ) -> None:
        self._receiver = receiver
        self._records = records
        self._spans = cost_spans(records)
        self._slowest = slowest
        self._folder = folder
        self._console = _CountingConsole()
        self._meter = CpuMeter({"receiver": receiver.pid})
        self._backlog = [self._spans[number % len(self._spans)] for number in range(backlog)]
        self._backlog_file = folder / "backlog.db"
        _write(self._backlog_file, self._backlog)

    def sample(self, number: int, arm: Arm) -> Sample:
        """Measure one block of round ``number``."""
        name, to = arm
        exporter = self._exporter(to)
        found: Sample = {"round": number, "arm": name, "exporter": to}
        if name not in PROCESSORS:
            return {**found, **self._draining(exporter, from_file=name != EXPORTER_ALONE)}
        with TemporaryDirectory(dir=self._folder) as folder:
            processor = PROCESSORS[name](exporter, Path(folder) / "ledger.db")
            provider = build_provider(Settings(exporters=()))
            provider.add_span_processor(processor)
            try:
                return {**found, **self._emission(processor, provider, noted=name == DURABLE_NOTED)}
            finally:
                provider.shutdown()

    def _exporter(self, to: str) -> SpanExporter:
        if to == CONSOLE:
            return ConsoleSpanExporter(out=self._console)
        return otlp_exporter(to, self._receiver.endpoints[to])

    def _emission(self, processor: SpanProcessor, provider: TracerProvider, *, noted: bool) -> dict[str, Any]:
        on_end, spans = processor.on_end, self._spans
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
        calls = [str((span.attributes or {})[CALL_ID]) for span in self._spans]
        began = time.thread_time_ns()
        for call in calls:
            processor.expect_call(call, "tenant-acme", "mistral-7b")
        return time.thread_time_ns() - began

    def _draining(self, exporter: SpanExporter, *, from_file: bool) -> dict[str, Any]:
        exporter.export(self._spans[:FIRST])  # opens the connection
        if from_file:
            _fill_outbox(self._backlog_file)
        with self._metered() as used:
            if from_file:
                processor = _durable(exporter, self._backlog_file)
                confirmed = processor.force_flush(_PATIENCE_MILLIS)
            else:
                batches = (self._backlog[at : at + _BATCH] for at in range(0, len(self._backlog), _BATCH))
                confirmed = all(exporter.export(batch) is SpanExportResult.SUCCESS for batch in batches)
        processor.shutdown() if from_file else exporter.shutdown()
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


def _write(path: Path, spans: Iterable[ReadableSpan]) -> None:
    """A ledger with ``spans``, as a process leaves it that could send nothing."""
    encoder, writer = Encoder(), LedgerWriter(path, exporting=True)
    for span in spans:
        writer.write(encoder.encode(span))
    writer.close()


def _fill_outbox(path: Path) -> None:
    """Everything in the ledger ``path`` is to be sent again."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("INSERT OR IGNORE INTO outbox SELECT id FROM spans")
