"""The durable processor's counters as OpenTelemetry metrics, for a process that has set up a meter provider.

``llm.ledger.spans`` counts spans by ``state`` (written, lost, exported, dead, pruned), ``llm.ledger.failures`` exports
that were put off; ``llm.ledger.pending`` and ``llm.ledger.waiting`` show how many spans are still to be sent, and how
many wait in memory for a file that can be written.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import TYPE_CHECKING

from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation, get_meter_provider

if TYPE_CHECKING:
    from otel_cost_logger.durable import DurableSpanProcessor

_STATES = ("written", "lost", "exported", "dead", "pruned")


def publish(processor: DurableSpanProcessor, meter_provider: MeterProvider | None = None) -> None:
    """Show the counters of ``processor``, as long as it lives. The meter provider defaults to the global one."""
    meter = (meter_provider or get_meter_provider()).get_meter("litellm.cost_attribution")
    reference = weakref.ref(processor)
    path = {"llm.ledger.file": str(processor.path)}

    def spans(_: CallbackOptions) -> Iterable[Observation]:
        if living := reference():
            counts = living.counts
            yield from (Observation(getattr(counts, state), {**path, "state": state}) for state in _STATES)

    def failures(_: CallbackOptions) -> Iterable[Observation]:
        if living := reference():
            yield Observation(living.counts.failures, path)

    def pending(_: CallbackOptions) -> Iterable[Observation]:
        if living := reference():
            yield Observation(living.pending, path)

    def waiting(_: CallbackOptions) -> Iterable[Observation]:
        if living := reference():
            yield Observation(living.counts.waiting, path)

    meter.create_observable_counter("llm.ledger.spans", [spans], "{span}", "Spans by what became of them")
    meter.create_observable_counter("llm.ledger.failures", [failures], "{attempt}", "Exports that were put off")
    meter.create_observable_gauge("llm.ledger.pending", [pending], "{span}", "Spans that no collector has confirmed")
    meter.create_observable_gauge("llm.ledger.waiting", [waiting], "{span}", "Spans that wait for a writable file")
