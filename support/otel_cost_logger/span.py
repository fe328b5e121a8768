"""One record, one span: its name, kind, parent, status and times."""

from __future__ import annotations

from opentelemetry.context import Context
from opentelemetry.trace import SpanKind, Status, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from otel_cost_logger.attributes import attributes_of
from otel_cost_logger.ids import use
from otel_cost_logger.record import FAILURE, CallRecord

_propagator = TraceContextTextMapPropagator()
_NO_PARENT = Context()  # immutable


def emit_span(tracer: Tracer, record: CallRecord, *, genai: bool) -> None:
    """Write ``record`` as one finished span.

    The span begins and ends when the call did, not now. It is a child of the request's own trace context where
    one came with the request, and a root span otherwise: whatever span is active in this process is somebody
    else's. Its ids are those that the engine was told, where it was told any. ``genai`` gives it the name and kind
    of the OpenTelemetry GenAI conventions.
    """
    use(record.planned)
    try:
        span = tracer.start_span(
            span_name(record, genai=genai),
            context=parent_context(record.traceparent),
            kind=SpanKind.CLIENT if genai else SpanKind.INTERNAL,
            attributes=attributes_of(record),
            start_time=record.start_ns,
        )
    finally:
        use(None)
    if record.outcome == FAILURE:
        span.set_status(Status(StatusCode.ERROR, record.error))
    span.end(record.end_ns)


def parent_context(traceparent: str | None) -> Context:
    """The context that ``traceparent`` names; an empty one where there is none, or none that is well formed."""
    return _propagator.extract({"traceparent": traceparent}, _NO_PARENT) if traceparent else _NO_PARENT


def span_name(record: CallRecord, *, genai: bool) -> str:
    """``llm.completion.<call type>``, ``llm.completion.failure``, or ``<operation> <model>`` with ``genai``."""
    if genai:
        return f"{record.operation} {record.model}"
    return "llm.completion.failure" if record.outcome == FAILURE else f"llm.completion.{record.call_type}"
