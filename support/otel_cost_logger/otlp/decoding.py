"""From stored spans back to what exporters, collectors and files take: requests, SDK spans, OTLP JSON.

Specification of the JSON form: https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf import json_format  # type: ignore[import-untyped]
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans, TracesData
from opentelemetry.proto.trace.v1.trace_pb2 import Span as ProtoSpan
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope as SdkScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

ID_FIELDS = ("traceId", "spanId", "parentSpanId")
_REMOTE = 0x200  # SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK


@dataclass(frozen=True, slots=True)
class Payload:
    """A span as the ledger gives it back: its id there, the ``ResourceSpans`` around it, and itself, as protobuf."""

    id: int
    scope: int
    envelope: bytes
    otlp: bytes


def request_of(payloads: Iterable[Payload]) -> ExportTraceServiceRequest:
    """One OTLP request with all of ``payloads``, each under its own resource and scope."""
    request = ExportTraceServiceRequest()
    spans_of: dict[int, Any] = {}
    for payload in payloads:
        spans = spans_of.get(payload.scope)
        if spans is None:
            resource_spans = request.resource_spans.add()
            resource_spans.ParseFromString(payload.envelope)
            spans = spans_of[payload.scope] = resource_spans.scope_spans[0].spans
        spans.add().ParseFromString(payload.otlp)
    return request


def sdk_spans(request: ExportTraceServiceRequest) -> list[ReadableSpan]:
    """The spans of ``request`` for an exporter that does not take protobuf: their ids and times are the first ones."""
    return [
        _sdk_span(span, Resource(_values(resource.resource.attributes), resource.schema_url), _sdk_scope(scope))
        for resource in request.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]


def json_of(payload: Payload) -> dict[str, Any]:
    """``payload`` as a ``TracesData`` object of OTLP JSON."""
    return traces_json(request_of([payload]))


def traces_json(spans: ExportTraceServiceRequest | TracesData) -> dict[str, Any]:
    """``spans`` as OTLP JSON: protobuf's JSON, but with integer enums and hexadecimal ids."""
    encoded: dict[str, Any] = json_format.MessageToDict(spans, use_integers_for_enums=True)
    for resource in encoded.get("resourceSpans", ()):
        for scope in resource.get("scopeSpans", ()):
            for span in scope.get("spans", ()):
                for holder in (span, *span.get("links", ())):
                    for field in holder.keys() & set(ID_FIELDS):
                        holder[field] = base64.b64decode(holder[field]).hex()
    return encoded


def _sdk_scope(scope: ScopeSpans) -> SdkScope:
    of = scope.scope
    return SdkScope(of.name, of.version or None, scope.schema_url or None, _values(of.attributes))


def _sdk_span(span: ProtoSpan, resource: Resource, scope: SdkScope) -> ReadableSpan:
    trace_id = int.from_bytes(span.trace_id, "big")
    parent = _context(trace_id, span.parent_span_id, remote=bool(span.flags & _REMOTE)) if span.parent_span_id else None
    return ReadableSpan(
        name=span.name,
        context=_context(trace_id, span.span_id, remote=False, state=span.trace_state),
        parent=parent,
        resource=resource,
        attributes=_values(span.attributes),
        events=[Event(event.name, _values(event.attributes), event.time_unix_nano) for event in span.events],
        links=[
            Link(
                _context(int.from_bytes(link.trace_id, "big"), link.span_id, remote=bool(link.flags & _REMOTE)),
                _values(link.attributes),
            )
            for link in span.links
        ],
        kind=SpanKind(span.kind - 1) if span.kind else SpanKind.INTERNAL,  # OTLP begins with UNSPECIFIED
        status=Status(StatusCode(span.status.code), span.status.message or None),
        start_time=span.start_time_unix_nano,
        end_time=span.end_time_unix_nano,
        instrumentation_scope=scope,
    )


def _context(trace_id: int, span_id: bytes, *, remote: bool, state: str = "") -> SpanContext:
    return SpanContext(
        trace_id,
        int.from_bytes(span_id, "big"),
        is_remote=remote,
        trace_flags=TraceFlags(TraceFlags.SAMPLED),
        trace_state=TraceState.from_header([state]) if state else None,
    )


def _values(attributes: Sequence[KeyValue]) -> dict[str, Any]:
    return {item.key: _value(item.value) for item in attributes}


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind is None:
        return None
    if kind == "array_value":
        return [_value(item) for item in value.array_value.values]
    if kind == "kvlist_value":
        return _values(value.kvlist_value.values)
    return getattr(value, kind)
