"""Sending spans to a collector, and hearing what it really answers.

OpenTelemetry's OTLP exporters (1.45.2) say SUCCESS to a redirect and to a partial success, and do not say whether a
failure is for good. So of those two exporters only the connection is used, as the operator's variables set it up
(endpoint, TLS, headers, compression, time-out), and the answer is read here. Any other exporter is called as it is.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from otel_cost_logger.otlp.answers import (
    Accepted,
    Answer,
    PartlyRefused,
    Refused,
    Unavailable,
    grpc_error,
    grpc_response,
    http_answer,
    short,
)
from otel_cost_logger.otlp.decoding import Payload, request_of, sdk_spans

_HTTP_MODULE = "opentelemetry.exporter.otlp.proto.http.trace_exporter"
_GRPC_MODULE = "opentelemetry.exporter.otlp.proto.grpc.trace_exporter"
_FAILURES_IN_A_ROW = 32  # all sixteenths of a batch, and what they are parts of
_GRPC_METHOD = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"

_log = logging.getLogger(__name__)


def deliver(sender: Sender, batch: list[Payload]) -> Iterator[tuple[list[Payload], Accepted | Refused | Unavailable]]:
    """Send ``batch`` and tell, part by part, what came of it. Ends early with the first part that is `Unavailable`.

    A batch that is refused goes again in halves, and their halves, until it is known which spans are meant. Of a
    partial success, what was accepted goes again too: an answer does not say which spans it speaks of.
    """
    parts = [batch]
    while parts:
        part = parts.pop()
        answer = _attempt(sender, part)
        if isinstance(answer, PartlyRefused) and answer.count >= len(part):
            answer = Refused(answer.reason)
        elif isinstance(answer, Refused | PartlyRefused) and len(part) > 1:
            parts += reversed(_halves(part))
            continue
        assert not isinstance(answer, PartlyRefused)  # of one span, one is all
        yield part, answer
        if isinstance(answer, Unavailable):
            return


def sift(sender: Sender, batch: list[Payload]) -> Iterator[tuple[list[Payload], Accepted | Refused | Unavailable]]:
    """Send ``batch``, over which the collector has failed as a whole, in parts, the largest first, and tell what came
    of each. A part over which it fails again (`Unavailable` and doubtful) goes in halves, down to single spans.

    Ends early with any other `Unavailable`, and when the collector fails over so many parts in a row that it is in
    trouble itself.
    """
    parts = deque(_halves(batch) if len(batch) > 1 else [batch])
    in_a_row = 0
    while parts and in_a_row < _FAILURES_IN_A_ROW:
        left = parts.popleft()
        for part, answer in deliver(sender, left):
            if not isinstance(answer, Unavailable):
                in_a_row = 0
                left = left[len(part) :]
                yield part, answer
                continue
            yield left, answer
            if not answer.doubtful:
                return
            in_a_row += 1
            if len(left) > 1:
                parts += _halves(left)


def _halves(part: list[Payload]) -> list[list[Payload]]:
    middle = len(part) // 2
    return [part[:middle], part[middle:]]


def _attempt(sender: Sender, part: list[Payload]) -> Answer:
    try:
        request = request_of(part)
    except Exception as error:  # a damaged row
        return Refused(f"the stored span cannot be read: {type(error).__name__}: {error}")
    return sender.send(request)


class Sender(ABC):
    """Sends a request once and tells what came of it. Never raises."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter: Any = exporter

    def send(self, request: ExportTraceServiceRequest) -> Answer:
        """One attempt. What no answer came to (refused connection, reset, time-out) is `Unavailable`."""
        try:
            return self._send(request)
        except Exception as error:
            return Unavailable(short(f"{type(error).__name__}: {error}"))

    @abstractmethod
    def _send(self, request: ExportTraceServiceRequest) -> Answer: ...

    def after_fork(self) -> None:  # noqa: B027  (for most there is nothing to do)
        """Called in a forked child before its first attempt: the parent's connections are not ours to use."""

    def shutdown(self) -> None:
        """Close the connection."""
        self._exporter.shutdown()


def sender_for(exporter: SpanExporter) -> Sender:
    """The sender that understands ``exporter``'s answers best."""
    modules = [f"{kind.__module__}." for kind in type(exporter).__mro__]
    if any(name.startswith(_HTTP_MODULE) for name in modules) and _has(
        exporter, "_client._submit", "_client._compress"
    ):
        return HttpSender(exporter)
    if any(name.startswith(_GRPC_MODULE) for name in modules) and _has(exporter, "_channel.unary_unary", "_headers"):
        return GrpcSender(exporter)
    if any(name.startswith((_HTTP_MODULE, _GRPC_MODULE)) for name in modules):
        _log.warning(
            "this version of %s does not let its answers be read: a partial success and a redirect will be taken for "
            "success",
            type(exporter).__qualname__,
        )
    return ExporterSender(exporter)


def _has(thing: Any, *paths: str) -> bool:
    for path in paths:
        found = thing
        for name in path.split("."):
            found = getattr(found, name, None)
        if found is None:
            return False
    return True


class ExporterSender(Sender):
    """Any exporter: its word is taken for it, and a failure is tried again."""

    def _send(self, request: ExportTraceServiceRequest) -> Answer:
        result = self._exporter.export(sdk_spans(request))
        if result is SpanExportResult.SUCCESS:
            return Accepted()
        return Unavailable(f"{type(self._exporter).__qualname__} reported a failure")


class HttpSender(Sender):
    """OTLP over HTTP, on the official exporter's connection."""

    def _send(self, request: ExportTraceServiceRequest) -> Answer:
        client = self._exporter._client
        result = client._submit(client._compress(request.SerializeToString()), client._timeout)
        if result.status_code is None:
            return Unavailable(short(f"no answer: {result.error}"))
        return http_answer(result.status_code, result.headers(), result.content())

    def after_fork(self) -> None:
        self._exporter._client._transport.close()  # its pool of connections; the next request opens a new one


class GrpcSender(Sender):
    """OTLP over gRPC, on the official exporter's channel."""

    def _send(self, request: ExportTraceServiceRequest) -> Answer:
        export = self._exporter._channel.unary_unary(
            _GRPC_METHOD,
            request_serializer=ExportTraceServiceRequest.SerializeToString,
            response_deserializer=ExportTraceServiceResponse.FromString,
        )
        try:
            response = export(request, metadata=self._exporter._headers, timeout=self._exporter._timeout)
        except Exception as error:
            if not callable(getattr(error, "code", None)):
                raise
            return grpc_error(error)
        return grpc_response(response)

    def after_fork(self) -> None:
        self._exporter._initialize_channel_and_stub()
