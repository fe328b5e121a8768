"""What the plugin says about itself as OpenTelemetry metrics: every instrument, and where they are sent.

Of this process's calls, by the proxy's own hooks:

- ``llm.calls.seen`` (counter): noticed before they were dispatched.
- ``llm.calls.recorded`` (counter): records written, also of calls that were rejected before they could be noticed.
- ``llm.calls.dropped`` (counter): records lost with an exception.
- ``llm.calls.unpriced`` (counter): records of calls that used tokens and that nobody had a price for.
- ``llm.calls.missing`` (gauge): calls that were seen, have ended and left no record. Above 0 is an alarm.
- ``llm.recorder.ready`` (gauge): 1 while calls can be recorded, 0 while not (the readiness probe fails). An alarm.

Of budgets (see `budgets`), by ``llm.tenant_id``:

- ``llm.budget.calls`` (counter) by ``state``: exceeded and reserved were refused with 429, unknown with 503,
  unchecked were admitted although the ledger could not be asked.
- ``llm.budget.remaining`` (gauge, in US dollars) by ``period`` and, for a key's own, ``llm.key_alias``.

Of the ledger, by ``llm.ledger.file``; what a process does is its own, what is in the file every worker reports:

- ``llm.ledger.spans`` (counter) by ``state``: written, lost (in no file: an alarm), exported, dead, pruned.
- ``llm.ledger.failures`` (counter): exports that were put off.
- ``llm.ledger.waiting`` (gauge): spans that wait in memory for a file that can be written.
- ``llm.ledger.pending`` (gauge, of the file): spans that no collector has confirmed.
- ``llm.ledger.lost_calls`` (gauge, of the file): calls whose process has ended without a record of them. An alarm.
"""

from __future__ import annotations

import os
import uuid
import weakref
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation, get_meter_provider
from opentelemetry.sdk.metrics import MeterProvider as SdkMeterProvider
from opentelemetry.sdk.metrics.export import MetricExporter, MetricsData, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import PROCESS_PID, SERVICE_INSTANCE_ID, Resource

from otel_cost_logger.identity import SCOPE
from otel_cost_logger.settings import GRPC

if TYPE_CHECKING:
    from otel_cost_logger.budgets.gate import Gate
    from otel_cost_logger.ledger.writer import LedgerWriter

_STATES = ("written", "lost", "exported", "dead", "pruned")
_T = TypeVar("_T")


class Counted(Protocol):
    """Whatever counts: the fields of ``counts`` are named as the instruments are."""

    @property
    def counts(self) -> Any: ...


class LedgerFile(Counted, Protocol):
    """The durable processor, as far as its metrics go."""

    path: Path

    @property
    def pending(self) -> int: ...

    @property
    def lost_calls(self) -> int: ...


def publish_ledger(processor: LedgerFile, meter_provider: MeterProvider | None = None) -> None:
    """Show the counters of ``processor``, as long as it lives. The meter provider defaults to the global one."""
    meter = (meter_provider or get_meter_provider()).get_meter(SCOPE)
    path = {"llm.ledger.file": str(processor.path)}

    def spans(living: LedgerFile) -> Iterable[Observation]:
        counts = living.counts
        return [Observation(getattr(counts, state), {**path, "state": state}) for state in _STATES]

    def one(value: Callable[[LedgerFile], int]) -> list[Any]:
        return [_while_alive(processor, lambda living: [Observation(value(living), path)])]

    meter.create_observable_counter(
        "llm.ledger.spans", [_while_alive(processor, spans)], "{span}", "Spans by what became of them"
    )
    meter.create_observable_counter(
        "llm.ledger.failures", one(lambda living: living.counts.failures), "{attempt}", "Exports that were put off"
    )
    meter.create_observable_gauge(
        "llm.ledger.waiting", one(lambda living: living.counts.waiting), "{span}", "Spans waiting for a writable file"
    )
    meter.create_observable_gauge(
        "llm.ledger.pending", one(lambda living: living.pending), "{span}", "Spans that no collector has confirmed"
    )
    meter.create_observable_gauge(
        "llm.ledger.lost_calls", one(lambda living: living.lost_calls), "{call}", "Calls that ended without a record"
    )


class Recorder(Counted, Protocol):
    """The logger, as far as its metrics go."""

    @property
    def problem(self) -> str | None: ...


def publish_calls(logger: Recorder, meter_provider: MeterProvider) -> None:
    """Show the counts of ``logger``, as long as it lives."""
    meter = meter_provider.get_meter(SCOPE)

    def one(name: str) -> list[Any]:
        return [_while_alive(logger, lambda living: [Observation(getattr(living.counts, name))])]

    for name, words in (
        ("seen", "Calls noticed before they were dispatched"),
        ("recorded", "Records written"),
        ("dropped", "Records lost with an exception"),
        ("unpriced", "Records of calls that nobody had a price for"),
    ):
        meter.create_observable_counter(f"llm.calls.{name}", one(name), "{call}", words)
    meter.create_observable_gauge("llm.calls.missing", one("missing"), "{call}", "Calls that left no record")
    ready = _while_alive(logger, lambda living: [Observation(int(living.problem is None))])
    meter.create_observable_gauge("llm.recorder.ready", [ready], "1", "1 while calls can be recorded, 0 while not")


def publish_budgets(gate: Gate, writer: LedgerWriter, meter_provider: MeterProvider) -> None:
    """Show what became of calls at ``gate``, and how its budgets stand in the ledger of ``writer``, as long as the gate
    lives."""
    meter = meter_provider.get_meter(SCOPE)

    def calls(living: Gate) -> Iterable[Observation]:
        states = asdict(living.counts).items()
        return [
            Observation(number, {"llm.tenant_id": tenant, "state": state})
            for state, tenants in states
            for tenant, number in tenants.items()
        ]

    def remaining(living: Gate) -> Iterable[Observation]:
        for standing in living.standings(writer):
            budget = standing.budget
            key = {} if budget.key_alias is None else {"llm.key_alias": budget.key_alias}
            yield Observation(standing.left / 1e9, {"llm.tenant_id": budget.tenant_id, "period": budget.period, **key})

    meter.create_observable_counter(
        "llm.budget.calls",
        [_while_alive(gate, calls)],
        "{call}",
        "Calls that a budget met with something else than yes",
    )
    meter.create_observable_gauge(
        "llm.budget.remaining", [_while_alive(gate, remaining)], "{USD}", "What records leave of a budget"
    )


def build_meter_provider(protocol: str, resource: Resource) -> SdkMeterProvider:
    """A private provider that sends to the collector which the ``OTEL_EXPORTER_OTLP_*`` variables name, by
    ``protocol``, every ``OTEL_METRIC_EXPORT_INTERVAL`` milliseconds; the caller shuts it down.

    The resource also tells the processes of one service apart: two workers' counters are two series.
    """
    process = Resource({SERVICE_INSTANCE_ID: str(uuid.uuid4()), PROCESS_PID: os.getpid()})
    reader = _ReaderOfThisProcess(_exporter(protocol))
    return SdkMeterProvider([reader], process.merge(resource), shutdown_on_exit=False)


class _ReaderOfThisProcess(PeriodicExportingMetricReader):
    """Is silent in a forked child, where the SDK starts its thread again: the child has a provider of its own."""

    def __init__(self, exporter: MetricExporter) -> None:
        self._pid = os.getpid()
        super().__init__(exporter)

    def _receive_metrics(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any) -> None:
        if os.getpid() == self._pid:
            super()._receive_metrics(metrics_data, timeout_millis, **kwargs)

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        """As the SDK's, in the process that made it."""
        if os.getpid() == self._pid:
            super().shutdown(timeout_millis, **kwargs)


def _exporter(protocol: str) -> MetricExporter:
    # Imported where chosen, as the exporters of spans are.
    if protocol == GRPC:
        from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter as GrpcExporter

        return GrpcExporter()
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter as HttpExporter

    return HttpExporter()


def _while_alive(
    thing: _T, observe: Callable[[_T], Iterable[Observation]]
) -> Callable[[CallbackOptions], Iterable[Observation]]:
    reference = weakref.ref(thing)

    def callback(_: CallbackOptions) -> Iterable[Observation]:
        living = reference()
        return observe(living) if living is not None else ()

    return callback
