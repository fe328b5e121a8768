"""What a collector's answers mean, and how a batch with bad spans in it is taken apart."""

from __future__ import annotations

import logging
from email.utils import formatdate
from time import time
from types import SimpleNamespace
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import Link, SpanKind, StatusCode

from otel_cost_logger.ledger.stored_span import Encoder
from otel_cost_logger.otlp.answers import Accepted, Answer, PartlyRefused, Refused, Unavailable, http_answer
from otel_cost_logger.otlp.decoding import Payload, json_of, request_of, sdk_spans
from otel_cost_logger.otlp.sending import ExporterSender, GrpcSender, HttpSender, Sender, deliver, sender_for

PROTOBUF = {"content-type": "application/x-protobuf"}


def partial(rejected: int, message: str = "") -> bytes:
    response = ExportTraceServiceResponse()
    response.partial_success.rejected_spans = rejected
    response.partial_success.error_message = message
    return response.SerializeToString()


@pytest.mark.parametrize(
    ("status", "headers", "body", "answer"),
    [
        (200, PROTOBUF, b"", Accepted()),
        (202, {}, b"", Accepted()),
        (200, {"content-type": "application/json"}, b"{}", Accepted()),
        (200, {"content-type": "text/plain"}, b"ok", Accepted()),
        (200, PROTOBUF, partial(0, "mind the gap"), Accepted()),
        (200, PROTOBUF, partial(7, "no"), PartlyRefused(7, "partial success: no")),
        (
            200,
            {"content-type": "application/json; charset=utf-8"},
            b'{"partialSuccess": {"rejectedSpans": "2"}}',
            PartlyRefused(2, "partial success: no reason given"),
        ),
        (400, {}, b"bad", Refused("HTTP 400 bad")),
        (413, {}, b"", Refused("HTTP 413")),
        (429, {"retry-after": "7"}, b"", Unavailable("HTTP 429", 7.0)),
        (503, {"retry-after": "soon"}, b"", Unavailable("HTTP 503", None)),
        (503, {"retry-after": "-5"}, b"", Unavailable("HTTP 503", 0.0)),
        (503, {"retry-after": "inf"}, b"", Unavailable("HTTP 503", None)),
        (502, {}, b"", Unavailable("HTTP 502")),
        (500, {}, b"", Unavailable("HTTP 500", doubtful=True)),
        (599, {}, b"", Unavailable("HTTP 599", doubtful=True)),
        (302, {}, b"", Unavailable("HTTP 302", misdirected=True)),
        (307, {}, b"", Unavailable("HTTP 307", misdirected=True)),
        (401, {}, b"", Unavailable("HTTP 401", misdirected=True)),
        (404, {}, b"", Unavailable("HTTP 404", misdirected=True)),
    ],
)
def test_what_an_http_response_means(status: int, headers: dict[str, str], body: bytes, answer: Answer) -> None:
    assert http_answer(status, headers, body) == answer


@pytest.mark.parametrize(
    ("headers", "body"),
    [(PROTOBUF, b"\xff\xff"), ({"content-type": "application/json"}, b"["), ({"content-type": "text/html"}, b"<html>")],
)
def test_a_success_that_is_not_otlp_is_none(headers: dict[str, str], body: bytes) -> None:
    answer = http_answer(200, headers, body)
    assert isinstance(answer, Unavailable)
    assert answer.misdirected


def test_a_date_to_retry_after() -> None:
    answer = http_answer(503, {"retry-after": formatdate(time() + 100, usegmt=True)}, b"")
    assert isinstance(answer, Unavailable)
    assert answer.retry_after is not None
    assert 90 < answer.retry_after <= 100


def test_the_official_exporters_answers_can_be_read() -> None:
    """Their connection is reached through private names: a version that changes them shows here."""
    assert type(sender_for(HttpExporter("http://127.0.0.1:1"))) is HttpSender
    assert type(sender_for(GrpcExporter("http://127.0.0.1:1"))) is GrpcSender
    assert type(sender_for(InMemorySpanExporter())) is ExporterSender


def test_a_version_whose_answers_cannot_be_read_is_said_aloud(caplog: pytest.LogCaptureFixture) -> None:
    exporter = HttpExporter("http://127.0.0.1:1")
    exporter._client = SimpleNamespace()  # type: ignore[assignment]
    with caplog.at_level(logging.WARNING):
        assert type(sender_for(exporter)) is ExporterSender
    assert "a partial success and a redirect will be taken for success" in caplog.text


class Choosy(Sender):
    """Refuses requests with a span whose name is in ``bad``, or rejects just those; counts requests."""

    def __init__(self, bad: set[str], *, partial: bool, fails_at: int = 0) -> None:
        super().__init__(InMemorySpanExporter())
        self._bad, self._partial, self._fails_at = bad, partial, fails_at
        self.requests = 0
        self.kept: list[str] = []

    def _send(self, request: ExportTraceServiceRequest) -> Answer:
        self.requests += 1
        if self.requests == self._fails_at:
            raise ConnectionError("gone")
        names = [span.name for span in sdk_spans(request)]
        bad = [name for name in names if name in self._bad]
        if bad and not self._partial:
            return Refused("bad")
        self.kept += [name for name in names if name not in self._bad]
        return PartlyRefused(len(bad), "bad") if bad else Accepted()


def batch_of(make_spans: Any, names: list[str]) -> list[Payload]:
    encoder = Encoder()
    stored = [encoder.encode(make_spans(1, name)[0]) for name in names]
    return [Payload(number, one.scope, one.envelope, one.otlp) for number, one in enumerate(stored)]


@pytest.mark.parametrize("by_parts", [False, True])
def test_bad_spans_are_found_and_the_others_get_through(make_spans: Any, by_parts: bool) -> None:
    names = [str(number) for number in range(64)]
    sender = Choosy({"5", "40"}, partial=by_parts)
    outcomes = [(part, answer) for part, answer in deliver(sender, batch_of(make_spans, names))]
    refused = [payload.id for part, answer in outcomes if isinstance(answer, Refused) for payload in part]
    accepted = [payload.id for part, answer in outcomes if isinstance(answer, Accepted) for payload in part]
    assert refused == [5, 40]
    assert accepted == [number for number in range(64) if number not in (5, 40)]  # each once, in order
    assert set(sender.kept) == {str(number) for number in accepted}
    assert sender.requests < 30


def test_what_is_not_settled_when_the_collector_goes_is_not_told_of(make_spans: Any) -> None:
    sender = Choosy({"1"}, partial=False, fails_at=4)
    outcomes = list(deliver(sender, batch_of(make_spans, ["0", "1", "2", "3"])))
    assert [(len(part), type(answer)) for part, answer in outcomes] == [(1, Accepted), (1, Unavailable)]
    assert outcomes[-1][1] == Unavailable("ConnectionError: gone")


def test_a_damaged_row_is_refused_by_itself(make_spans: Any) -> None:
    batch = batch_of(make_spans, ["0", "1", "2"])
    batch[1] = Payload(1, batch[1].scope, batch[1].envelope, b"\xff\xff")
    outcomes = list(deliver(Choosy(set(), partial=False), batch))
    assert [(payload.id, type(answer)) for part, answer in outcomes for payload in part] == [
        (0, Accepted),
        (1, Refused),
        (2, Accepted),
    ]


def test_our_encoding_is_the_official_one() -> None:
    """Field by field, for a span with everything in it."""
    memory = InMemorySpanExporter()
    provider = TracerProvider(resource=Resource({"service.name": "s", "n": 1}, "https://example.org/schema"))
    provider.add_span_processor(SimpleSpanProcessor(memory))
    tracer = provider.get_tracer("scope", "1.0", "https://example.org/scope", {"scope attribute": True})
    attributes = {"t": "caf\u00e9", "i": -(2**63), "f": 0.5, "b": False, "l": ["a", "b"], "n": [1, 2], "empty": []}
    with tracer.start_as_current_span("parent") as parent:
        links = [Link(parent.get_span_context(), {"why": "because"})]
        span = tracer.start_span("child", kind=SpanKind.CLIENT, attributes=attributes, links=links)
        span.add_event("event", {"text": "x"}, 123)
        span.set_status(StatusCode.ERROR, "why not")
        span.end()
    encoder = Encoder()
    for finished in memory.get_finished_spans():
        stored = encoder.encode(finished)
        request = request_of([Payload(1, stored.scope, stored.envelope, stored.otlp)])
        assert request == encode_spans([finished])
        (again,) = sdk_spans(request)
        assert again.to_json() == finished.to_json()


def test_spans_of_two_scopes_stay_under_their_own(make_spans: Any) -> None:
    memory = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(memory))
    for scope in ("one", "two", "one"):
        provider.get_tracer(scope).start_span(f"of {scope}").end()
    encoder = Encoder()
    stored = [encoder.encode(span) for span in memory.get_finished_spans()]
    payloads = [Payload(number, one.scope, one.envelope, one.otlp) for number, one in enumerate(stored)]
    (first, second) = request_of(payloads).resource_spans
    assert [span.name for span in first.scope_spans[0].spans] == ["of one", "of one"]
    assert second.scope_spans[0].scope.name == "two"


def test_numbers_that_json_has_not_have_names(make_spans: Any) -> None:
    stored = Encoder().encode(make_spans(1, nan=float("nan"), much=float("inf"), little=float("-inf"))[0])
    line = json_of(Payload(1, stored.scope, stored.envelope, stored.otlp))
    values = [item["value"] for item in line["resourceSpans"][0]["scopeSpans"][0]["spans"][0]["attributes"][1:]]
    assert values == [{"doubleValue": "NaN"}, {"doubleValue": "Infinity"}, {"doubleValue": "-Infinity"}]


def test_what_a_collector_says_with_every_success_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        for number in range(20):
            assert http_answer(200, PROTOBUF, partial(0, f"attribute {number % 2} is deprecated")) == Accepted()
    assert [record.message.rpartition("said: ")[2] for record in caplog.records] == [
        "attribute 0 is deprecated",
        "attribute 1 is deprecated",
    ]
