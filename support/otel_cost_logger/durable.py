"""A span processor that loses nothing: spans go to a local file first, and from there to the collector.

It stands where ``SimpleSpanProcessor`` or ``BatchSpanProcessor`` would::

    provider.add_span_processor(DurableSpanProcessor(OTLPSpanExporter(), "spans.db"))

When `on_end` returns the span is in the file, and survives the death of the process. A background thread exports from
the file, at least once, for as long as it takes; what was exported stays in the file as the ledger. Span and trace
ids are the same in every attempt, so that a backend can tell repetitions.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import weakref
from dataclasses import dataclass
from pathlib import Path

from opentelemetry.context import Context
from opentelemetry.metrics import MeterProvider
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor
from opentelemetry.sdk.trace.export import SpanExporter

from otel_cost_logger.ledger.defaults import DEFAULT_KEEP_DAYS, SYNC_FULL, SYNC_NORMAL
from otel_cost_logger.ledger.drain import Drain
from otel_cost_logger.ledger.group_commit import GroupCommit
from otel_cost_logger.ledger.stored_span import Encoder
from otel_cost_logger.ledger.writer import LedgerWriter
from otel_cost_logger.metrics import publish_ledger
from otel_cost_logger.otlp.sending import sender_for

_SHUTDOWN_SECONDS = 5.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class DurableCounts:
    """This process's spans: ``written`` to the file, ``waiting`` in memory because it cannot be written, ``lost``
    because too many waited (or the collector refused one that was in no file).

    What this process did with the file: spans ``exported`` (and confirmed) from it whoever wrote them, ``dead``
    (refused for good), ``pruned``; ``failures`` are exports that were put off, and ``files_replaced`` is how often the
    file vanished while in use.
    """

    written: int
    waiting: int
    lost: int
    exported: int
    dead: int
    pruned: int
    failures: int
    files_replaced: int


class DurableSpanProcessor(SpanProcessor):
    """Writes each span to the SQLite file ``path``, and exports it from there with ``exporter``.

    ``exporter`` None keeps the ledger and sends nothing. ``sync`` "normal" survives the death of the process, "full"
    that of the machine too: then `on_end` also waits until the disk has the span, unless it is called on an event
    loop, which does not wait; the flush is on its way. Exported spans are kept for ``keep_days`` days.
    ``schedule_delay_millis`` and ``max_export_batch_size`` mean what they mean to ``BatchSpanProcessor`` and default
    to ``OTEL_BSP_SCHEDULE_DELAY`` (here 1000) and ``OTEL_BSP_MAX_EXPORT_BATCH_SIZE`` (512), except that with a backlog
    up to 16 times as many spans go together, but no more than 3.5 MB. ``meter_provider`` (default: the global one) gets
    the counters as metrics, see `metrics`.

    Several processes may use one file, and a forked child may go on with its parent's processor. Raises `ValueError`
    for a setting that makes no sense; of the file itself it only ever complains in the log and in `counts`.
    """

    def __init__(
        self,
        exporter: SpanExporter | None,
        path: str | os.PathLike[str],
        *,
        sync: str = SYNC_NORMAL,
        keep_days: float = DEFAULT_KEEP_DAYS,
        schedule_delay_millis: float | None = None,
        max_export_batch_size: int | None = None,
        meter_provider: MeterProvider | None = None,
    ) -> None:
        if sync not in (SYNC_NORMAL, SYNC_FULL):
            raise ValueError(f"sync={sync!r} is not supported; use one of: {SYNC_NORMAL}, {SYNC_FULL}")
        if not keep_days > 0:
            raise ValueError(f"keep_days={keep_days!r} must be more than 0")
        delay = _number("OTEL_BSP_SCHEDULE_DELAY", 1000.0) if schedule_delay_millis is None else schedule_delay_millis
        batch = max_export_batch_size or int(_number("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 512))
        if delay <= 0 or batch <= 0:
            raise ValueError("schedule_delay_millis and max_export_batch_size must be more than 0")
        self.path = Path(path).absolute()
        self._encoder = Encoder()
        self._group_commit = GroupCommit(self.path) if sync == SYNC_FULL else None
        self._writer = LedgerWriter(self.path, exporting=exporter is not None, group_commit=self._group_commit)
        self._drain = Drain(
            self.path,
            self._writer,
            sender_for(exporter) if exporter is not None else None,
            delay_seconds=delay / 1000,
            batch_size=batch,
            keep_days=keep_days,
        )
        _processors.add(self)
        publish_ledger(self, meter_provider)
        self._drain.start()  # what an earlier process left behind need not wait for a new span

    @property
    def counts(self) -> DurableCounts:
        """What became of the spans, as far as this process knows."""
        write, export = self._writer.counts, self._drain.counts
        return DurableCounts(
            written=write.written,
            waiting=write.waiting,
            lost=write.lost,
            exported=export.exported,
            dead=export.dead,
            pruned=export.pruned,
            failures=export.failures,
            files_replaced=write.files_replaced,
        )

    @property
    def writer(self) -> LedgerWriter:
        """This process's hand in the file; budgets ask there."""
        return self._writer

    @property
    def pending(self) -> int:
        """How many spans in the file no collector has confirmed yet, whichever process wrote them; 0 when the file
        cannot be read."""
        try:
            return self._drain.pending()
        except sqlite3.Error:
            return 0

    @property
    def lost_calls(self) -> int:
        """How many calls began, in any process, and can have no record any more; 0 when the file cannot be read."""
        try:
            return self._drain.lost_calls()
        except sqlite3.Error:
            return 0

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Called when a span starts: nothing to do yet."""

    def on_end(self, span: ReadableSpan) -> None:
        """Write ``span`` to the file. Never raises, and never waits for the network."""
        try:
            if span.context is None or not span.context.trace_flags.sampled:
                return
            self._writer.write(self._encoder.encode(span))
            self._drain.span_written()
        except Exception:
            _log.exception("a span could not be kept")

    def expect_call(self, call_id: str, tenant_id: str, model: str) -> None:
        """A call is about to be dispatched whose record, a span with this ``llm.call_id``, is due. Never raises.

        If the process ends before the record is written, the ledger shows the call among those without one.
        """
        try:
            self._writer.expect(call_id, tenant_id, model)
        except Exception:
            _log.exception("a call could not be noted in the ledger")

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Export now. True only when everything that waited at the call was confirmed by the collector in time."""
        try:
            if self._group_commit is not None and not self._group_commit.wait(timeout_millis / 1000):
                return False
            return self._drain.flush(timeout_millis / 1000)
        except Exception:
            _log.exception("the ledger could not be asked what is still to be sent")
            return False

    def leave_whole(self) -> None:
        """The end is near: from now on the ledger's file alone is whole, without SQLite's write-ahead log beside it.

        For a process that may end without `shutdown`. Never raises; others who are at the file can delay it.
        """
        try:
            self._writer.end_if_idle()
            self._drain.leave_whole()
        except Exception:
            _log.exception("the ledger's write-ahead log stays beside it")

    def shutdown(self) -> None:
        """Send what can be sent in five seconds; the rest stays in the file for the next start.

        A span that ends later is still written.
        """
        self._drain.stop(_SHUTDOWN_SECONDS)
        if self._group_commit is not None:
            self._group_commit.stop()
        self._writer.close()

    def _before_fork(self) -> None:
        self._writer.before_fork()
        self._drain.before_fork()

    def _after_fork_in_parent(self) -> None:
        self._drain.after_fork_in_parent()
        self._writer.after_fork_in_parent()

    def _after_fork_in_child(self) -> None:
        if self._group_commit is not None:
            self._group_commit.after_fork_in_child()
        self._writer.after_fork_in_child()
        self._drain.after_fork_in_child()


def _number(variable: str, default: float) -> float:
    text = os.environ.get(variable, "").strip()
    try:
        return float(text) if text else default
    except ValueError:
        raise ValueError(f"{variable}={text!r} is not a number") from None


_processors: weakref.WeakSet[DurableSpanProcessor] = weakref.WeakSet()
_forking: list[DurableSpanProcessor] = []
_forking_lock = threading.Lock()


def _before_fork() -> None:
    _forking_lock.acquire()
    _forking.extend(_processors)
    for processor in _forking:
        processor._before_fork()


def _after_fork_in_parent() -> None:
    for processor in _forking:
        processor._after_fork_in_parent()
    _forking.clear()
    _forking_lock.release()


def _after_fork_in_child() -> None:
    for processor in _forking:
        processor._after_fork_in_child()
    _forking.clear()
    _forking_lock.release()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
