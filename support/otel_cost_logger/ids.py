"""Ids of spans: random ones, except where they were chosen before the call (see `planned`)."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry.sdk.trace.id_generator import RandomIdGenerator

from otel_cost_logger.planned import PlannedSpan


class _Planned(threading.local):
    span: PlannedSpan | None = None


# A span is started in one go, without an await: a thread is all the context there is.
_planned = _Planned()


@contextmanager
def using(planned: PlannedSpan | None) -> Iterator[None]:
    """Within it, the next span made by a provider with `PlannedIds` gets the ids of ``planned``, if any."""
    _planned.span = planned if planned is not None and planned.take() else None
    try:
        yield
    finally:
        _planned.span = None


class PlannedIds(RandomIdGenerator):
    """The SDK's random ids, but for what `using` says. The trace id of a child is its parent's in any case."""

    def generate_span_id(self) -> int:
        """64 bits, not zero."""
        planned = _planned.span
        return super().generate_span_id() if planned is None else planned.span_id

    def generate_trace_id(self) -> int:
        """128 bits, not zero."""
        planned = _planned.span
        return super().generate_trace_id() if planned is None else planned.trace_id
