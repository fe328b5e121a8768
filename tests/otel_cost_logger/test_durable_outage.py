"""The durable processor and a collector that is away, busy, broken or slow: everything arrives in the end."""

from __future__ import annotations

import socketserver
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter

from otel_cost_logger.durable import DurableSpanProcessor
from otel_cost_logger.ledger import drain
from otel_cost_logger.otlp.channel import CHANNEL_OPTIONS
from otel_cost_logger.provider import span_exporter
from otel_cost_logger.settings import Settings
from workbook.paths import BUILD_VARIABLE
from workbook.ports import free_port
from workbook.services import Receiver

REAL_LONGEST_PAUSE = drain._LONGEST_PAUSE_SECONDS
Make = Callable[..., DurableSpanProcessor]


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that an outage of a test's length has several attempts in it."""
    monkeypatch.setattr(drain, "_FIRST_PAUSE_SECONDS", 0.05)
    monkeypatch.setattr(drain, "_MISDIRECTED_PAUSE_SECONDS", 0.05)
    monkeypatch.setattr(drain, "_LONGEST_PAUSE_SECONDS", 0.2)


@pytest.fixture
def durable(tmp_path: Path) -> Iterator[Make]:
    made: list[DurableSpanProcessor] = []

    def make(exporter: Any, **options: Any) -> DurableSpanProcessor:
        made.append(
            DurableSpanProcessor(
                exporter, tmp_path / "ledger.db", schedule_delay_millis=20, max_export_batch_size=50, **options
            )
        )
        return made[-1]

    yield make
    for processor in made:
        processor.shutdown()


def exporter_to(collector: Any, protocol: str) -> Any:
    if protocol == "grpc":
        return GrpcExporter(collector.grpc_url, timeout=5)
    return HttpExporter(collector.traces_url, timeout=5)


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
@pytest.mark.parametrize(
    "fault",
    [
        {"status": 503},
        {"status": 429},
        {"status": 500},
        {"status": 401},
        {"status": 404},
        {"reset": True},
    ],
    ids=str,
)
def test_everything_arrives_once_after_an_outage(
    durable: Make, collector: Any, make_spans: Any, ids_of: Any, eventually: Any, fault: dict[str, Any], protocol: str
) -> None:
    collector.fault(fault)
    processor = durable(exporter_to(collector, protocol))
    spans = make_spans(200)
    for span in spans[:150]:
        processor.on_end(span)
    eventually(lambda: processor.counts.failures >= 3, "three attempts in vain")
    assert (collector.ids(), processor.pending) == ([], 150)
    collector.fault({})
    for span in spans[150:]:
        processor.on_end(span)
    assert processor.force_flush()
    assert collector.ids() == ids_of(spans)
    assert processor.counts.dead == 0


def test_a_redirect_is_no_success(durable: Make, collector: Any, make_spans: Any, ids_of: Any, eventually: Any) -> None:
    collector.fault({"status": 307})
    processor = durable(exporter_to(collector, "http/protobuf"))
    spans = make_spans(3)
    for span in spans:
        processor.on_end(span)
    eventually(lambda: processor.counts.failures >= 2, "two attempts in vain")
    assert (processor.counts.exported, processor.pending) == (0, 3)
    collector.fault({})
    assert processor.force_flush()
    assert collector.ids() == ids_of(spans)


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
@pytest.mark.parametrize("status", [429, 503])
def test_the_pause_that_the_collector_asks_for_is_kept(
    durable: Make, collector: Any, make_spans: Any, protocol: str, status: int
) -> None:
    collector.fault({"status": status, "retry_after": 1, "requests": 1})
    processor = durable(exporter_to(collector, protocol))
    processor.on_end(make_spans(1)[0])
    began = time.monotonic()
    assert not processor.force_flush(500)  # impatience changes nothing
    assert processor.counts.failures == 1
    assert processor.force_flush()
    assert time.monotonic() - began >= 0.9
    assert processor.counts.failures == 1


def test_a_slow_collector_holds_up_nobody(durable: Make, collector: Any, make_spans: Any, ids_of: Any) -> None:
    collector.fault({"delay": 1.0, "requests": 2})
    processor = durable(exporter_to(collector, "http/protobuf"))
    spans = make_spans(500)
    longest = 0.0
    for span in spans:
        began = time.thread_time()  # of this thread's own: others work on this machine too
        processor.on_end(span)
        longest = max(longest, time.thread_time() - began)
    assert processor.counts.exported < 500  # the first answer had not come yet
    assert longest < 0.5
    assert processor.force_flush()
    assert collector.ids() == ids_of(spans)


def test_an_answer_that_does_not_come_in_time_is_no_success(
    durable: Make, collector: Any, make_spans: Any, ids_of: Any, eventually: Any
) -> None:
    collector.fault({"delay": 1.5, "requests": 1})
    processor = durable(HttpExporter(collector.traces_url, timeout=0.3))
    spans = make_spans(10)
    for span in spans:
        processor.on_end(span)
    assert processor.force_flush()
    assert processor.counts.failures >= 1
    eventually(lambda: len(collector.ids()) >= 20, "the one that was too late is there too")
    assert set(collector.ids()) == set(ids_of(spans))


def test_a_collector_that_starts_later_gets_everything(
    durable: Make, make_spans: Any, ids_of: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, eventually: Any
) -> None:
    monkeypatch.setenv(BUILD_VARIABLE, str(tmp_path / "build"))
    port = free_port()
    processor = durable(HttpExporter(f"http://127.0.0.1:{port}/v1/traces"))
    spans = make_spans(120)
    for span in spans:
        processor.on_end(span)
    eventually(lambda: processor.counts.failures >= 3, "three refused connections")
    with Receiver("late", port=port) as receiver:
        assert processor.force_flush()
        assert receiver.ledger.read_text().count('"spanId"') == 120


def test_shutdown_is_bounded_and_leaves_the_rest(
    tmp_path: Path, make_spans: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(BUILD_VARIABLE, str(tmp_path / "build"))
    monkeypatch.setattr("otel_cost_logger.durable._SHUTDOWN_SECONDS", 0.2)
    answer_seconds = 3.0
    ledger = tmp_path / "ledger.db"
    with Receiver("slow") as receiver:  # of its own: the slow answer outlives the test
        url = receiver.endpoint("http/protobuf")
        httpx.put(f"{url}/fault", json={"delay": answer_seconds}, trust_env=False)
        processor = DurableSpanProcessor(HttpExporter(f"{url}/v1/traces"), ledger, max_export_batch_size=5)
        for span in make_spans(50):
            processor.on_end(span)
        began = time.monotonic()
        processor.shutdown()
        assert time.monotonic() - began < answer_seconds
    with sqlite3.connect(ledger) as connection:
        assert connection.execute("SELECT count(*) FROM outbox").fetchone() == (50,)


def test_a_grpc_collector_that_is_away_is_looked_for_at_nearly_every_attempt(
    durable: Make, make_spans: Any, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of itself gRPC waits ever longer between two attempts to connect, and fails every request meanwhile."""
    assert dict(CHANNEL_OPTIONS)["grpc.max_reconnect_backoff_ms"] <= 1000 * REAL_LONGEST_PAUSE
    connections = []

    class Door(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            connections.append(self.client_address)  # and closed at once

    with socketserver.TCPServer(("127.0.0.1", 0), Door) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{server.server_address[1]}")
        scaled = tuple((name, 100) for name, _ in CHANNEL_OPTIONS)
        monkeypatch.setattr("otel_cost_logger.provider.CHANNEL_OPTIONS", scaled)
        processor = durable(span_exporter("otlp", Settings(exporters=("otlp",))))
        processor.on_end(*make_spans(1))
        eventually(lambda: processor.counts.failures >= 30, "the collector is missed")
        server.shutdown()
        thread.join()
    assert len(connections) >= 15
