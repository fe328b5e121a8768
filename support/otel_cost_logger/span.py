"""One record, one span: its name, kind, ids, parent, status and times.

A record becomes a span when its call is over, so the span is built in one piece, as what the SDK hands to its
processors at the end of any span. To start one with the tracer and end it at once gives the same at four times the cost
(each attribute is checked and copied again), and the tracer cannot be told the ids that the engine was told.
"""

from __future__ import annotations

from functools import cache

from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags, get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from otel_cost_logger.attributes import attributes_of
from otel_cost_logger.identity import SCOPE, plugin_version
from otel_cost_logger.record import FAILURE, CallRecord

_propagator = TraceContextTextMapPropagator()
_UNSET = Status(StatusCode.UNSET)
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)  # a record that pays for something is never sampled away
_SAMPLED_AND_RANDOM = TraceFlags(TraceFlags.SAMPLED | TraceFlags.RANDOM_TRACE_ID)


def emit_span(provider: TracerProvider, record: CallRecord, *, genai: bool) -> None:
    """Give ``record`` as one finished span to the processors of ``provider``; see `finished_span`.

    They get it with ``on_end``; there is no moment at which it has started and not ended. Raises what they raise.
    """
    # What a span of the SDK does in its end(); there is no public way in.
    provider._active_span_processor.on_end(finished_span(provider, record, genai=genai))


def finished_span(provider: TracerProvider, record: CallRecord, *, genai: bool) -> ReadableSpan:
    """The span of ``record``, with the resource and the id generator of ``provider``.

    It begins and ends when the call did, not now. It is a child of the request's own trace context where one came with
    the request, and a root span otherwise: whatever span is active in this process is somebody else's. Its ids are
    those that the engine was told, where it was told any. ``genai`` gives it the name and kind of the OpenTelemetry
    GenAI conventions.
    """
    parent = parent_of(record.traceparent)
    planned = record.planned if record.planned is not None and record.planned.take() else None
    ids = provider.id_generator
    if parent is not None:
        trace_id, random = parent.trace_id, parent.trace_flags.random_trace_id
    else:
        trace_id = planned.trace_id if planned else ids.generate_trace_id()
        random = ids.is_trace_id_random()
    return ReadableSpan(
        name=span_name(record, genai=genai),
        context=SpanContext(
            trace_id,
            planned.span_id if planned else ids.generate_span_id(),
            is_remote=False,
            trace_flags=_SAMPLED_AND_RANDOM if random else _SAMPLED,
        ),
        parent=parent,
        resource=provider.resource,
        attributes=attributes_of(record),
        kind=SpanKind.CLIENT if genai else SpanKind.INTERNAL,
        status=Status(StatusCode.ERROR, record.error) if record.outcome == FAILURE else _UNSET,
        start_time=record.start_ns,
        end_time=record.end_ns,
        instrumentation_scope=_scope(),
    )


def parent_of(traceparent: str | None) -> SpanContext | None:
    """The span that a W3C ``traceparent`` names; None where there is none, or none that is well formed."""
    if not traceparent:
        return None
    found = get_current_span(_propagator.extract({"traceparent": traceparent}, Context())).get_span_context()
    return found if found.is_valid else None


def span_name(record: CallRecord, *, genai: bool) -> str:
    """``llm.completion.<call type>``, ``llm.completion.failure``, or ``<operation> <model>`` with ``genai``."""
    if genai:
        return f"{record.operation} {record.model}"
    return "llm.completion.failure" if record.outcome == FAILURE else f"llm.completion.{record.call_type}"


@cache  # one object for all spans: an exporter's batches are grouped by it
def _scope() -> InstrumentationScope:
    return InstrumentationScope(SCOPE, plugin_version())
