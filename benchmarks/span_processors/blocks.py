"""One block of `span_processors`: some spans through one processor, or one way to send many, and what that took."""

from __future__ import annotations

import gc
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor, SpanExporter, SpanExportResult

from benchmarks.harness.machine import CpuMeter
from benchmarks.span_processors.findings import (
    BATCH,
    BATCH_AGAIN,
    DURABLE,
    DURABLE_AGAIN,
    DURABLE_FULL,
    DURABLE_NOTED,
    EXPORTER,
    SIMPLE,
    Sample,
)
from benchmarks.span_processors.receiver import CountingReceiver
from benchmarks.span_processors.spans import CALL_ID
from otel_cost_logger.durable import DurableSpanProcessor
from otel_cost_logger.ledger.defaults import SYNC_FULL, SYNC_NORMAL
from otel_cost_logger.ledger.stored_span import Encoder
from otel_cost_logger.ledger.writer import LedgerWriter
from otel_cost_logger.settings import GRPC

QUEUE = 2048  # spans that BatchSpanProcessor holds, by default
FIRST = 16  # spans that a fresh processor gets before it is measured
_BATCH = 512  # spans in a request, by default
_PATIENCE_MILLIS = 120_000


def _simple(exporter: SpanExporter, path: Path) -> SpanProcessor:
    del path
    return SimpleSpanProcessor(exporter)


def _batch(exporter: SpanExporter, path: Path) -> SpanProcessor:
    del path
    return BatchSpanProcessor(exporter, max_queue_size=QUEUE, schedule_delay_millis=5000, max_export_batch_size=_BATCH)


def _durable(exporter: SpanExporter, path: Path, sync: str = SYNC_NORMAL) -> DurableSpanProcessor:
    return DurableSpanProcessor(exporter, path, sync=sync, schedule_delay_millis=1000, max_export_batch_size=_BATCH)


def _durable_full(exporter: SpanExporter, path: Path) -> DurableSpanProcessor:
    return _durable(exporter, path, SYNC_FULL)


# Each with its defaults, whatever the environment's variables say.
PROCESSORS: dict[str, Callable[[SpanExporter, Path], SpanProcessor]] = {
    SIMPLE: _simple,
    BATCH: _batch,
    BATCH_AGAIN: _batch,
    DURABLE: _durable,
    DURABLE_AGAIN: _durable,
    DURABLE_NOTED: _durable,
    DURABLE_FULL: _durable_full,
}


class Bench:
    """Measures blocks: of ``spans`` as bursts, and of ``backlog`` of them, over and over, as what is to be drained.

    ``protocol`` is http/protobuf or grpc. Files are made in ``folder``, which exists, on the disk that is measured.
    """

    def __init__(
        self, receiver: CountingReceiver, protocol: str, spans: list[ReadableSpan], backlog: int, folder: Path
    ) -> None:
        self._receiver = receiver
        self._protocol = protocol
        self._spans = spans
        self._folder = folder
        self._meter = CpuMeter({"receiver": receiver.pid})
        self._backlog = [spans[number % len(spans)] for number in range(backlog)]
        self._backlog_file = folder / "backlog.db"
        _write(self._backlog_file, self._backlog)

    def sample(self, number: int, arm: str) -> Sample:
        """Measure one block of round ``number``."""
        exporter = self._exporter()
        if arm not in PROCESSORS:
            return {"round": number, "arm": arm, **self._draining(exporter, durable=arm != EXPORTER)}
        with TemporaryDirectory(dir=self._folder) as folder:
            processor = PROCESSORS[arm](exporter, Path(folder) / "ledger.db")
            try:
                measured = self._emission(processor, noted=arm == DURABLE_NOTED)
            finally:
                processor.shutdown()
        return {"round": number, "arm": arm, **measured}

    def _exporter(self) -> SpanExporter:
        url = self._receiver.endpoints[self._protocol]
        if self._protocol == GRPC:
            return GrpcExporter(endpoint=url, insecure=True)
        return HttpExporter(endpoint=f"{url}/v1/traces")

    def _emission(self, processor: SpanProcessor, *, noted: bool) -> dict[str, Any]:
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
        p50, p99 = np.percentile(np.diff(moments), [50, 99])
        return {
            "spans": 2 * len(spans),
            "confirmed": confirmed,
            "burst": len(spans),
            "unwritten": unwritten,
            "on_end_cpu_seconds": cpu / 1e9,
            "on_end_seconds": wall / 1e9,
            "on_end_p50_us": p50 / 1e3,
            "on_end_p99_us": p99 / 1e3,
            "noting_cpu_seconds": noting / 1e9,
            **used,
        }

    def _note(self, processor: SpanProcessor) -> int:
        """Note every call of the burst as dispatched, as the plugin does; CPU nanoseconds of the calling thread."""
        assert isinstance(processor, DurableSpanProcessor)
        calls = [str((span.attributes or {})[CALL_ID]) for span in self._spans]
        began = time.thread_time_ns()
        for call in calls:
            processor.expect_call(call, "tenant-acme", "mistral-7b")
        return time.thread_time_ns() - began

    def _draining(self, exporter: SpanExporter, *, durable: bool) -> dict[str, Any]:
        exporter.export(self._spans[:FIRST])  # opens the connection
        if durable:
            _fill_outbox(self._backlog_file)
        with self._metered() as used:
            if durable:
                processor = _durable(exporter, self._backlog_file)
                confirmed = processor.force_flush(_PATIENCE_MILLIS)
            else:
                batches = (self._backlog[at : at + _BATCH] for at in range(0, len(self._backlog), _BATCH))
                confirmed = all(exporter.export(batch) is SpanExportResult.SUCCESS for batch in batches)
        processor.shutdown() if durable else exporter.shutdown()
        return {"spans": len(self._backlog), "confirmed": confirmed, **used}

    @contextmanager
    def _metered(self) -> Iterator[dict[str, float]]:
        """Fills what it gives with what was used inside; it holds something at the end only."""
        used: dict[str, float] = {}
        gc.collect()
        received, looked = self._receiver.spans(), time.perf_counter()
        before = self._meter.read()
        began, cpu = time.perf_counter(), time.process_time()
        yield used
        cpu, seconds = time.process_time() - cpu, time.perf_counter() - began
        after = self._meter.read()
        used |= {
            "received": self._receiver.spans() - received,
            "seconds": seconds,
            "process_cpu_seconds": cpu,
            "receiver_cpu_seconds": after["receiver"] - before["receiver"],
            "others_cores": (after["others"] - before["others"]) / (time.perf_counter() - looked),
        }


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
