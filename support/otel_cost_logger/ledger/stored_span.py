"""A finished span in the form in which the ledger keeps it: the record's columns, and the span as OTLP protobuf."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass
from typing import Any

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from otel_cost_logger.ledger.schema import RECORD_FIELDS
from otel_cost_logger.otlp.encoding import envelope_bytes, span_bytes, unicode_text

_MAX_BYTES = 64 * 1024 * 1024  # of one span: what an OTLP exporter sends in a request
_INT64 = range(-(2**63), 2**63)
_RECORD_ATTRIBUTES = tuple(row.name for row in RECORD_FIELDS.values())


@dataclass(frozen=True, slots=True)
class StoredSpan:
    """One row for each of the ledger's tables.

    ``columns`` are the values of `ledger.schema.COLUMNS` but for ``process``, which is None. ``otlp`` is the span as
    protobuf, ``envelope`` the ``ResourceSpans`` around it without it, and ``scope`` that envelope's id. ``problem``
    says why ``otlp`` is empty, for a span that OTLP cannot carry.
    """

    columns: tuple[Any, ...]
    scope: int
    envelope: bytes
    otlp: bytes
    problem: str | None = None


class Encoder:
    """Makes stored spans. Remembers the last resource and scope: a process has hardly more than one."""

    def __init__(self) -> None:
        self._last: tuple[Resource, InstrumentationScope | None, int, bytes] | None = None

    def encode(self, span: ReadableSpan) -> StoredSpan:
        """``span`` as the ledger keeps it; one that cannot be encoded gets a ``problem``. Never raises."""
        try:
            otlp = span_bytes(span)
            if len(otlp) > _MAX_BYTES:
                return _without_payload(span, f"the span has {len(otlp)} bytes; a request carries {_MAX_BYTES}")
            last = self._last
            if last is None or last[0] is not span.resource or last[1] is not span.instrumentation_scope:
                envelope = envelope_bytes(span.resource, span.instrumentation_scope)
                last = span.resource, span.instrumentation_scope, _content_id(envelope), envelope
                self._last = last
            return StoredSpan(_columns(span), last[2], last[3], otlp)
        except Exception as error:  # whatever a caller's objects raise
            return _without_payload(span, f"the span cannot be encoded: {type(error).__name__}: {error}"[:1000])


def _content_id(envelope: bytes) -> int:
    """The same number for the same content in every process, so that none has to ask which number it got."""
    return int.from_bytes(hashlib.sha256(envelope).digest()[:8], "big") >> 1


def _columns(span: ReadableSpan) -> tuple[Any, ...]:
    context = span.context
    attributes = dict(span.attributes or {})  # as in `encoding`: a copy is quicker to ask
    return (
        f"{context.trace_id:032x}" if context else None,
        f"{context.span_id:016x}" if context else None,
        f"{span.parent.span_id:016x}" if span.parent else None,
        unicode_text(span.name),
        *_times(span),
        time.time_ns(),
        None,
        *[_column(attributes.get(name)) for name in _RECORD_ATTRIBUTES],
    )


def _without_payload(span: ReadableSpan, problem: str) -> StoredSpan:
    """What can be said of a span that cannot be sent: when it was, and its ids where it has some."""
    context = span.context
    ids = (f"{context.trace_id:032x}", f"{context.span_id:016x}") if context else (None, None)
    nothing = (None,) * (1 + len(_RECORD_ATTRIBUTES))
    return StoredSpan((*ids, None, None, *_times(span), time.time_ns(), *nothing), 0, b"", b"", unicode_text(problem))


def _times(span: ReadableSpan) -> tuple[int | None, ...]:
    return tuple(moment if moment in _INT64 else None for moment in (span.start_time, span.end_time))


def _column(value: Any) -> Any:
    """``value`` as SQLite takes it."""
    if isinstance(value, str):
        return unicode_text(value)
    if isinstance(value, int):
        return value if value in _INT64 else str(value)
    if value is None or isinstance(value, float | bytes):
        return value
    return unicode_text(json.dumps(value, default=str))
