"""Ids of spans: random ones, except where they were chosen before the call (see `planned`)."""

from __future__ import annotations

import threading

from opentelemetry.sdk.trace.id_generator import RandomIdGenerator

from otel_cost_logger.planned import PlannedSpan


class _Planned(threading.local):
    span: PlannedSpan | None = None


# A span is started in one go, without an await: a thread is all the context there is.
_planned = _Planned()


def use(planned: PlannedSpan | None) -> None:
    """Spans that this thread makes from now on with `PlannedIds` get the ids of ``planned``; None makes them random
    again."""
    _planned.span = planned if planned is not None and planned.take() else None


class PlannedIds(RandomIdGenerator):
    """The SDK's random ids, but for what `use` says. The trace id of a child is its parent's in any case."""

    def generate_span_id(self) -> int:
        """64 bits, not zero."""
        planned = _planned.span
        return super().generate_span_id() if planned is None else planned.span_id

    def generate_trace_id(self) -> int:
        """128 bits, not zero."""
        planned = _planned.span
        return super().generate_trace_id() if planned is None else planned.trace_id
