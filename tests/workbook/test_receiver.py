import gzip
import json
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import httpx
import pytest
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import TraceServiceStub
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import Link, SpanKind, StatusCode

from workbook.children import ChildDied
from workbook.ports import HOST, PortTaken
from workbook.services import Receiver

HEX_32 = re.compile(r"[0-9a-f]{32}")
HEX_16 = re.compile(r"[0-9a-f]{16}")


@pytest.fixture
def receiver(build: Path) -> Iterator[Receiver]:
    with Receiver("receiver") as running:
        yield running


def two_spans(exporter: SpanExporter) -> None:
    provider = TracerProvider(resource=Resource({"service.name": "sender"}))
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("a scope", "1.0")
    with tracer.start_as_current_span("parent") as parent:
        link = Link(parent.get_span_context())
        attributes = {"tokens": 2**60, "cost": 0.5, "ok": True, "names": ["a", "b"], "text": "caf\u00e9\n"}
        with tracer.start_as_current_span("child", kind=SpanKind.CLIENT, attributes=attributes, links=[link]) as child:
            child.set_status(StatusCode.ERROR, "why")
    provider.shutdown()


def lines(ledger: Path) -> list[dict]:
    return [json.loads(line) for line in ledger.read_text(encoding="utf-8").splitlines()]


def only_span(line: dict) -> dict:
    [resource] = line["resourceSpans"]
    [scope] = resource["scopeSpans"]
    [span] = scope["spans"]
    assert resource["resource"]["attributes"] == [{"key": "service.name", "value": {"stringValue": "sender"}}]
    assert scope["scope"] == {"name": "a scope", "version": "1.0"}
    return span


def check_two_spans(ledger: Path) -> None:
    child, parent = map(only_span, lines(ledger))
    assert (child["name"], parent["name"]) == ("child", "parent")
    assert HEX_32.fullmatch(child["traceId"])
    assert child["traceId"] == parent["traceId"]
    assert HEX_16.fullmatch(parent["spanId"])
    assert child["parentSpanId"] == parent["spanId"]
    assert "parentSpanId" not in parent
    assert child["links"][0]["spanId"] == parent["spanId"]
    assert child["kind"] == 3  # SPAN_KIND_CLIENT
    assert child["status"] == {"code": 2, "message": "why"}
    assert isinstance(child["startTimeUnixNano"], str)
    assert {item["key"]: item["value"] for item in child["attributes"]} == {
        "tokens": {"intValue": str(2**60)},
        "cost": {"doubleValue": 0.5},
        "ok": {"boolValue": True},
        "names": {"arrayValue": {"values": [{"stringValue": "a"}, {"stringValue": "b"}]}},
        "text": {"stringValue": "caf\u00e9\n"},
    }


def test_the_official_http_exporter_is_understood(receiver: Receiver) -> None:
    two_spans(HttpExporter(f"{receiver.endpoint('http/protobuf')}/v1/traces"))
    check_two_spans(receiver.ledger)


def test_so_is_its_gzip(receiver: Receiver) -> None:
    url = f"{receiver.endpoint('http/protobuf')}/v1/traces"
    two_spans(HttpExporter(url, compression=Compression.Gzip))
    check_two_spans(receiver.ledger)


def test_the_official_grpc_exporter_is_understood(receiver: Receiver) -> None:
    two_spans(GrpcExporter(receiver.endpoint("grpc"), insecure=True))
    check_two_spans(receiver.ledger)


def test_a_ledger_line_sent_back_as_json_gives_the_same_line(receiver: Receiver) -> None:
    url = f"{receiver.endpoint('http/protobuf')}/v1/traces"
    two_spans(HttpExporter(url))
    first, _ = sent = receiver.ledger.read_bytes().splitlines()
    answer = httpx.post(
        url, content=gzip.compress(first), headers={"content-type": "application/json", "content-encoding": "gzip"}
    )
    assert (answer.status_code, answer.json()) == (200, {})
    assert receiver.ledger.read_bytes().splitlines() == [*sent, first]


def test_spans_of_one_request_get_a_line_each(receiver: Receiver) -> None:
    memory = InMemorySpanExporter()
    two_spans(memory)
    body = encode_spans(memory.get_finished_spans()).SerializeToString()
    answer = httpx.post(
        f"{receiver.endpoint('http/protobuf')}/v1/traces",
        content=body,
        headers={"content-type": "application/x-protobuf"},
    )
    assert answer.status_code == 200
    check_two_spans(receiver.ledger)


@pytest.mark.parametrize(
    ("path", "content", "headers", "status", "words"),
    [
        ("/v1/metrics", b"", {"content-type": "application/x-protobuf"}, 404, "only /v1/traces"),
        ("/v1/traces", b"\xff\xff", {"content-type": "application/x-protobuf"}, 400, "not an OTLP trace request"),
        ("/v1/traces", b"{", {"content-type": "application/json"}, 400, "not an OTLP trace request"),
        ("/v1/traces", b"[]", {"content-type": "application/json"}, 400, "not an OTLP trace request"),
        ("/v1/traces", b"{}", {"content-type": "text/html"}, 400, "text/html is not supported"),
        ("/v1/traces", b"no", {"content-type": "application/json", "content-encoding": "gzip"}, 400, "not an OTLP"),
        ("/v1/traces", b"{}", {"content-type": "application/json", "content-encoding": "br"}, 400, "send gzip"),
    ],
)
def test_other_requests_are_refused_and_leave_nothing(
    receiver: Receiver, path: str, content: bytes, headers: dict[str, str], status: int, words: str
) -> None:
    answer = httpx.post(receiver.endpoint("http/protobuf") + path, content=content, headers=headers)
    assert answer.status_code == status
    assert words in answer.text
    assert receiver.ledger.read_bytes() == b""


def test_the_ledger_starts_empty_at_each_start(receiver: Receiver) -> None:
    two_spans(GrpcExporter(receiver.endpoint("grpc"), insecure=True))
    with Receiver("receiver") as again:
        assert not receiver.running
        assert again.ledger == receiver.ledger
        assert again.ledger.read_bytes() == b""


@pytest.mark.parametrize("which", ["port", "grpc_port"])
def test_a_taken_port_is_refused(build: Path, which: str) -> None:
    with socket.create_server((HOST, 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(PortTaken, match=str(port)):
            Receiver("second", **{which: port}).start()


@pytest.mark.parametrize("which", ["--port", "--grpc-port"])
def test_the_program_itself_refuses_it_too(build: Path, which: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody may take the port between our look and its start."""
    monkeypatch.setattr("workbook.services.require_free", lambda port: None)
    with socket.create_server((HOST, 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(ChildDied, match=f"exit code 1: workbook.receiver: port {port} on {HOST}"):
            Receiver("second", **{which.strip("-").replace("-", "_"): port}).start()


def put_fault(receiver: Receiver, fault: dict[str, object]) -> httpx.Response:
    return httpx.put(f"{receiver.endpoint('http/protobuf')}/fault", json=fault)


def post(receiver: Receiver, names: list[str]) -> httpx.Response:
    memory = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(memory))
    for name in names:
        provider.get_tracer("t").start_span(name).end()
    return httpx.post(
        f"{receiver.endpoint('http/protobuf')}/v1/traces",
        content=encode_spans(memory.get_finished_spans()).SerializeToString(),
        headers={"content-type": "application/x-protobuf"},
    )


def names_in(ledger: Path) -> list[str]:
    return [line["resourceSpans"][0]["scopeSpans"][0]["spans"][0]["name"] for line in lines(ledger)]


def test_a_refusal_is_answered_and_ends_when_it_is_told_to(receiver: Receiver) -> None:
    assert put_fault(receiver, {"status": 503, "retry_after": 2}).status_code == 200
    answer = post(receiver, ["refused"])
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
    put_fault(receiver, {})
    assert post(receiver, ["kept"]).status_code == 200
    assert names_in(receiver.ledger) == ["kept"]


def test_a_fault_may_last_for_some_requests(receiver: Receiver) -> None:
    put_fault(receiver, {"status": 307, "requests": 2})
    assert [post(receiver, ["s"]).status_code for _ in range(4)] == [307, 307, 200, 200]


def test_a_reset_gives_no_answer(receiver: Receiver) -> None:
    put_fault(receiver, {"reset": True})
    with pytest.raises(httpx.TransportError):
        post(receiver, ["s"])
    assert names_in(receiver.ledger) == []


def test_a_partial_success_says_how_many_and_keeps_the_others(receiver: Receiver) -> None:
    put_fault(receiver, {"reject_every": 2})
    answer = ExportTraceServiceResponse.FromString(post(receiver, ["a", "b", "c", "d", "e"]).content)
    assert (answer.partial_success.rejected_spans, answer.partial_success.error_message) == (2, "rejected on purpose")
    assert names_in(receiver.ledger) == ["a", "c", "e"]


def test_poison_spoils_the_request_that_it_is_in(receiver: Receiver) -> None:
    put_fault(receiver, {"poison": "bad"})
    assert [post(receiver, names).status_code for names in (["good", "bad"], ["good"])] == [400, 200]
    assert names_in(receiver.ledger) == ["good"]


def test_a_delay_comes_before_the_answer_and_discard_keeps_nothing(receiver: Receiver) -> None:
    put_fault(receiver, {"delay": 0.2, "discard": True})
    answer = post(receiver, ["s"])
    assert answer.status_code == 200
    assert answer.elapsed.total_seconds() >= 0.2
    assert names_in(receiver.ledger) == []


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "INVALID_ARGUMENT"),
        (401, "UNAUTHENTICATED"),
        (429, "RESOURCE_EXHAUSTED"),
        (503, "UNAVAILABLE"),
        (307, "UNKNOWN"),
    ],
)
def test_over_grpc_a_refusal_is_a_status(receiver: Receiver, status: int, code: str) -> None:
    put_fault(receiver, {"status": status, "retry_after": 1})
    channel = grpc.insecure_channel(receiver.endpoint("grpc").removeprefix("http://"))
    with channel, pytest.raises(grpc.RpcError) as raised:
        TraceServiceStub(channel).Export(ExportTraceServiceRequest(), timeout=10)
    assert raised.value.code().name == code
    assert b"google.rpc.RetryInfo" in dict(raised.value.trailing_metadata())["grpc-status-details-bin"]


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ({"status": 200}, "status 200 refuses nothing"),
        ({"explode": 1}, "unknown: explode; known: delay, discard"),
        ([], "a fault is a JSON object"),
    ],
)
def test_a_fault_that_makes_no_sense_is_refused(receiver: Receiver, fault: object, words: str) -> None:
    answer = httpx.put(f"{receiver.endpoint('http/protobuf')}/fault", json=fault)
    assert answer.status_code == 400
    assert words in answer.text
    assert post(receiver, ["s"]).status_code == 200


def test_only_a_fault_can_be_put(receiver: Receiver) -> None:
    assert httpx.put(f"{receiver.endpoint('http/protobuf')}/faults", json={}).status_code == 404


def test_the_program_takes_a_fault_to_begin_with(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "workbook.receiver", "--ledger", str(tmp_path / "x"), "--fault"]
    with subprocess.Popen([*command, '{"status": 429}'], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        url = json.loads(child.stdout.readline())["http"]
        headers = {"content-type": "application/x-protobuf"}
        assert httpx.post(f"{url}/v1/traces", content=b"", headers=headers).status_code == 429
        child.communicate()
    refused = subprocess.run([*command, "{"], capture_output=True, text=True, timeout=30, check=False)
    assert refused.returncode == 2
    assert "argument --fault: not JSON" in refused.stderr
