"""Payloads in LiteLLM's shape, and a logger whose spans stay in memory."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from otel_cost_logger import OtelCostLogger, settings
from otel_cost_logger.durable import DurableSpanProcessor
from otel_cost_logger.provider import build_provider
from otel_cost_logger.settings import Settings
from workbook.paths import BUILD_VARIABLE
from workbook.services import Receiver

MakeCall = Callable[..., dict[str, Any]]


@pytest.fixture(autouse=True)
def nothing_in_force(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test begins as a process does in which no logger was made."""
    monkeypatch.setattr(settings, "_in_force", None)


@pytest.fixture
def make_call() -> MakeCall:
    """The ``kwargs`` of a successful proxied call, as LiteLLM 1.106.2 gives them to a hook; keywords change
    fields of the payload, ``call`` those around it."""

    def make(call: dict[str, Any] | None = None, **payload: Any) -> dict[str, Any]:
        return {
            "litellm_call_id": "11111111-2222-3333-4444-555555555555",
            "call_type": "acompletion",
            "model": "mistral-7b",
            "custom_llm_provider": "hosted_vllm",
            "stream": False,
            "litellm_params": {
                "api_base": "http://10.1.2.3:8001/v1/chat/completions",
                "metadata": {
                    "user_api_key_hash": "a" * 64,
                    "user_api_key_team_id": "tenant-acme",
                    "model_group": "mistral",
                    "attempted_retries": 0,
                    "model_info": {"input_cost_per_token": 2e-7, "output_cost_per_token": 6e-7},
                },
                "proxy_server_request": {"headers": {"user-agent": "test"}, "body": {}},
            },
            "standard_logging_object": {
                "id": "chatcmpl-1",
                "call_type": "acompletion",
                "status": "success",
                "model_group": "mistral",
                "prompt_tokens": 10,
                "completion_tokens": 5,
                "total_tokens": 15,
                "response_cost": 5e-06,
                "startTime": 1_795_437_312.25,
                "endTime": 1_795_437_313.5,
                "completionStartTime": 1_795_437_312.5,
                "api_base": "http://10.1.2.3:8001/v1/chat/completions",
                "error_information": {},
                "metadata": {
                    "user_api_key_team_id": "tenant-acme",
                    "user_api_key_alias": "acme-key-1",
                    "usage_object": {
                        "prompt_tokens": 10,
                        "completion_tokens": 5,
                        "prompt_tokens_details": {"cached_tokens": 4},
                        "completion_tokens_details": {"reasoning_tokens": 2},
                    },
                },
                **payload,
            },
            **(call or {}),
        }

    return make


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    """Where the logger's spans arrive."""
    exporter = InMemorySpanExporter()
    yield exporter
    exporter.clear()


@pytest.fixture
def logger(spans: InMemorySpanExporter) -> OtelCostLogger:
    """A logger that exports to `spans` at once."""
    provider = build_provider(Settings(exporters=()))
    provider.add_span_processor(SimpleSpanProcessor(spans))
    return OtelCostLogger(Settings(), provider)


class Collector:
    """The test receiver as one test sees it: what arrived since the test began, and faults on demand."""

    def __init__(self, receiver: Receiver, ledger: Path) -> None:
        self._receiver = receiver
        self._ledger = ledger
        self._start = ledger.stat().st_size
        self.fault({})

    @property
    def traces_url(self) -> str:
        return f"{self._receiver.endpoint('http/protobuf')}/v1/traces"

    @property
    def grpc_url(self) -> str:
        return self._receiver.endpoint("grpc")

    def fault(self, fault: dict[str, Any]) -> None:
        """From now on answer as `workbook.faults` says."""
        answer = httpx.put(f"{self._receiver.endpoint('http/protobuf')}/fault", json=fault, trust_env=False)
        assert answer.status_code == 200, answer.text

    def spans(self) -> list[dict[str, Any]]:
        """Every span that arrived, repetitions included, in OTLP JSON."""
        with self._ledger.open("rb") as ledger:
            ledger.seek(self._start)
            lines = [json.loads(line) for line in ledger]
        return [line["resourceSpans"][0]["scopeSpans"][0]["spans"][0] for line in lines]

    def ids(self) -> list[str]:
        """Their span ids."""
        return [span["spanId"] for span in self.spans()]


@pytest.fixture(scope="session")
def _receiver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Receiver, Path]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(BUILD_VARIABLE, str(tmp_path_factory.mktemp("collector")))
        receiver = Receiver("collector")
        with receiver:
            ledger = receiver.ledger
            patch.undo()  # the tests have build folders of their own
            yield receiver, ledger


@pytest.fixture
def collector(_receiver: tuple[Receiver, Path]) -> Collector:
    """A real OTLP receiver, shared by all tests, without a fault at first."""
    return Collector(*_receiver)


class OtlpServer(ThreadingHTTPServer):
    """What the shared receiver is not: it takes metrics, and answers a request as ``judge`` says of its span names.

    ``requests`` are the span names of each request, ``metrics`` the requests with metrics.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _OtlpHandler)
        self.judge: Callable[[list[str]], int] = lambda _: 200
        self.requests: list[list[str]] = []
        self.taken: list[str] = []
        self.metrics: list[ExportMetricsServiceRequest] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def points(self, name: str) -> list[tuple[dict[str, Any], int]]:
        """Every point of the metric ``name`` that came, with its attributes and those of its resource."""
        return [
            (
                {item.key: item.value.string_value or item.value.int_value for item in [*resource, *point.attributes]},
                point.as_int,
            )
            for request in self.metrics
            for of in request.resource_metrics
            for resource in [of.resource.attributes]
            for scope in of.scope_metrics
            for metric in scope.metrics
            if metric.name == name
            for point in (*metric.sum.data_points, *metric.gauge.data_points)
        ]


class _OtlpHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: OtlpServer

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        status = 200
        if self.path == "/v1/metrics":
            self.server.metrics.append(ExportMetricsServiceRequest.FromString(body))
        else:
            request = ExportTraceServiceRequest.FromString(body)
            names = [span.name for of in request.resource_spans for scope in of.scope_spans for span in scope.spans]
            status = self.server.judge(names)
            self.server.requests.append(names)
            self.server.taken += names if status == 200 else []
        self.send_response(status)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def otlp_server() -> Iterator[OtlpServer]:
    """A server of one test's own for traces and metrics over HTTP."""
    with OtlpServer() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def eventually() -> Callable[[Callable[[], object], str], None]:
    """Wait until a condition holds; fails with the given words after a deadline."""

    def wait(condition: Callable[[], object], what: str) -> None:
        deadline = time.monotonic() + 30
        while not condition():
            assert time.monotonic() < deadline, f"not within 30 s: {what}"
            time.sleep(0.02)

    return wait


class SpanFactory:
    """Finished spans, each with ids of its own."""

    def __init__(self) -> None:
        self._memory = InMemorySpanExporter()
        unlimited = SpanLimits(max_span_attributes=SpanLimits.UNSET, max_span_attribute_length=SpanLimits.UNSET)
        provider = TracerProvider(span_limits=unlimited)
        provider.add_span_processor(SimpleSpanProcessor(self._memory))
        self._tracer = provider.get_tracer("a scope", "1.0")

    def __call__(self, count: int, name: str = "call", **attributes: Any) -> list[ReadableSpan]:
        for number in range(count):
            self._tracer.start_span(name, attributes={"number": number, **attributes}).end()
        spans = list(self._memory.get_finished_spans())
        self._memory.clear()
        return spans


@pytest.fixture
def make_spans() -> SpanFactory:
    """``make_spans(3, "name", attribute=1)`` gives three finished spans."""
    return SpanFactory()


def span_id(span: ReadableSpan) -> str:
    """As OTLP JSON shows it."""
    assert span.context is not None
    return f"{span.context.span_id:016x}"


@pytest.fixture
def ids_of() -> Callable[[list[ReadableSpan]], list[str]]:
    """The ids of spans as OTLP JSON shows them."""
    return lambda spans: [span_id(span) for span in spans]


@pytest.fixture
def durable(ledger: Path) -> Iterator[Callable[..., DurableSpanProcessor]]:
    """Durable processors on the test's `ledger`, shut down after it: `durable(exporter, sync="full")`."""
    made: list[DurableSpanProcessor] = []

    def make(exporter: SpanExporter | None = None, **options: Any) -> DurableSpanProcessor:
        made.append(DurableSpanProcessor(exporter, ledger, **{"schedule_delay_millis": 20, **options}))
        return made[-1]

    yield make
    for processor in made:
        processor.shutdown()


@pytest.fixture
def no_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """Root may write to a read-only file: SQLite is told instead."""
    connect = sqlite3.connect

    def read_only(path: Any, **options: Any) -> sqlite3.Connection:
        connection = connect(path, **options)
        connection.execute("PRAGMA query_only = 1")
        return connection

    monkeypatch.setattr("otel_cost_logger.ledger.file.sqlite3.connect", read_only)
