"""From stored spans back to what exporters, collectors and files take: requests, SDK spans, OTLP JSON.

Specification of the JSON form: https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans
from opentelemetry.proto.trace.v1.trace_pb2 import Span as ProtoSpan
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope as SdkScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

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
    """``payload`` as a ``TracesData`` object of OTLP JSON: hexadecimal ids, integers of 64 bits as text."""
    (resource,) = request_of([payload]).resource_spans
    scope = resource.scope_spans[0]
    return {"resourceSpans": [_json_resource_spans(resource, scope, _json_span(scope.spans[0]))]}


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


def _json_resource_spans(resource: ResourceSpans, scope: ScopeSpans, span: dict[str, Any]) -> dict[str, Any]:
    return _present(
        resource={"attributes": _json_attributes(resource.resource.attributes)},
        scopeSpans=[_present(scope=_json_scope(scope.scope), spans=[span], schemaUrl=scope.schema_url)],
        schemaUrl=resource.schema_url,
    )


def _json_scope(scope: InstrumentationScope) -> dict[str, Any]:
    return _present(name=scope.name, version=scope.version, attributes=_json_attributes(scope.attributes))


def _json_span(span: ProtoSpan) -> dict[str, Any]:
    return _present(
        traceId=span.trace_id.hex(),
        spanId=span.span_id.hex(),
        traceState=span.trace_state,
        parentSpanId=span.parent_span_id.hex(),
        flags=span.flags,
        name=span.name,
        kind=int(span.kind),
        startTimeUnixNano=str(span.start_time_unix_nano),
        endTimeUnixNano=str(span.end_time_unix_nano),
        attributes=_json_attributes(span.attributes),
        droppedAttributesCount=span.dropped_attributes_count,
        events=[
            _present(
                timeUnixNano=str(event.time_unix_nano), name=event.name, attributes=_json_attributes(event.attributes)
            )
            for event in span.events
        ],
        droppedEventsCount=span.dropped_events_count,
        links=[
            _present(
                traceId=link.trace_id.hex(),
                spanId=link.span_id.hex(),
                traceState=link.trace_state,
                attributes=_json_attributes(link.attributes),
                flags=link.flags,
            )
            for link in span.links
        ],
        droppedLinksCount=span.dropped_links_count,
        status=_present(message=span.status.message, code=int(span.status.code)),
    )


def _present(**fields: Any) -> dict[str, Any]:
    """Protobuf JSON leaves out what has its default value; ``status`` stays even when empty, as a message does."""
    return {name: value for name, value in fields.items() if value or name == "status"}


def _json_attributes(attributes: Sequence[KeyValue]) -> list[dict[str, Any]]:
    return [{"key": item.key, "value": _json_value(item.value)} for item in attributes]


def _json_value(value: AnyValue) -> dict[str, Any]:
    kind = value.WhichOneof("value")
    if kind is None:
        return {}
    if kind == "array_value":
        return {"arrayValue": {"values": [_json_value(item) for item in value.array_value.values]}}
    if kind == "kvlist_value":
        return {"kvlistValue": {"values": _json_attributes(value.kvlist_value.values)}}
    if kind == "bytes_value":
        return {"bytesValue": base64.b64encode(value.bytes_value).decode()}
    names = {"string_value": "stringValue", "bool_value": "boolValue", "double_value": "doubleValue"}
    return {"intValue": str(value.int_value)} if kind == "int_value" else {names[kind]: _json_number(value, kind)}


def _json_number(value: AnyValue, kind: str) -> Any:
    found = getattr(value, kind)
    # JSON has no such numbers; protobuf JSON writes their names.
    if found != found:
        return "NaN"
    if found in (float("inf"), float("-inf")):
        return "Infinity" if found > 0 else "-Infinity"
    return found
