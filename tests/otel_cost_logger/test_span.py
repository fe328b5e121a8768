"""A record's span is what the SDK itself would have made of it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from otel_cost_logger.attributes import attributes_of
from otel_cost_logger.identity import SCOPE, plugin_version
from otel_cost_logger.planned import PlannedSpan
from otel_cost_logger.provider import build_provider
from otel_cost_logger.record import CallRecord, build_record
from otel_cost_logger.settings import Settings
from otel_cost_logger.span import emit_span, finished_span, parent_of, span_name

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Ids:
    """The same ids each time, as two spans of one record need them to be compared."""

    def __init__(self, random: bool) -> None:
        self._random = random

    def generate_span_id(self) -> int:
        return 0x1234

    def generate_trace_id(self) -> int:
        return 0x5678

    def is_trace_id_random(self) -> bool:
        return self._random


def by_the_tracer(provider: TracerProvider, record: CallRecord, *, genai: bool) -> ReadableSpan:
    memory = InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(memory))
    context = Context()
    if record.traceparent:
        context = TraceContextTextMapPropagator().extract({"traceparent": record.traceparent}, context)
    span = provider.get_tracer(SCOPE, plugin_version()).start_span(
        span_name(record, genai=genai),
        context=context,
        kind=SpanKind.CLIENT if genai else SpanKind.INTERNAL,
        attributes=attributes_of(record),
        start_time=record.start_ns,
    )
    if not record.success:
        span.set_status(Status(StatusCode.ERROR, record.error))
    span.end(record.end_ns)
    (finished,) = memory.get_finished_spans()
    return finished


@pytest.mark.parametrize("genai", [False, True])
@pytest.mark.parametrize("random", [False, True])
@pytest.mark.parametrize("failed", [False, True])
@pytest.mark.parametrize("traceparent", [None, TRACEPARENT, TRACEPARENT[:-1] + "3", "00-not-a-context-01"])
def test_it_is_the_span_that_the_tracer_makes(
    make_call: Any, genai: bool, random: bool, failed: bool, traceparent: str | None
) -> None:
    call = make_call({"exception": ValueError("x")}) if failed else make_call()
    record = build_record(call, None, None, None, failed=failed, behind_proxy=True)._replace(traceparent=traceparent)
    provider = build_provider(Settings(exporters=()))
    provider.id_generator = Ids(random)  # type: ignore[assignment]
    ours, theirs = finished_span(provider, record, genai=genai), by_the_tracer(provider, record, genai=genai)
    assert encode_spans([ours]).SerializeToString(deterministic=True) == encode_spans([theirs]).SerializeToString(
        deterministic=True
    )
    assert json.loads(ours.to_json()) == json.loads(theirs.to_json())
    assert ours.context == theirs.context
    assert ours.context is not None
    assert ours.context.trace_flags == (theirs.context.trace_flags if theirs.context else None)
    assert ours.attributes == dict(theirs.attributes or {})


def test_every_processor_gets_it_once(make_call: Any) -> None:
    record = build_record(make_call(), None, None, None, failed=False, behind_proxy=True)
    provider, first, second = build_provider(Settings(exporters=())), InMemorySpanExporter(), InMemorySpanExporter()
    for memory in (first, second):
        provider.add_span_processor(SimpleSpanProcessor(memory))
    emit_span(provider, record, genai=False)
    assert first.get_finished_spans() == second.get_finished_spans()
    assert len(first.get_finished_spans()) == 1


def test_planned_ids_are_used_once(make_call: Any) -> None:
    planned = PlannedSpan(0xABC, 0xDEF, None)
    record = build_record(make_call(), None, None, None, failed=False, behind_proxy=True)._replace(planned=planned)
    contexts = [finished_span(TracerProvider(), record, genai=False).context for _ in range(3)]
    first, *others = [(context.trace_id, context.span_id) for context in contexts if context]
    assert first == (0xABC, 0xDEF)
    assert len({first, *others}) == 3


@pytest.mark.parametrize("traceparent", [None, "", "nonsense", "00-" + "0" * 32 + "-b7ad6b7169203331-01"])
def test_what_is_no_trace_context_is_no_parent(traceparent: str | None) -> None:
    assert parent_of(traceparent) is None
