"""The provider: private, per process, never sampling, and exporting where the standard variables say."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from otel_cost_logger.attributes import attributes_of
from otel_cost_logger.provider import build_provider, get_tracer_provider
from otel_cost_logger.record import build_record
from otel_cost_logger.settings import Settings
from otel_cost_logger.span import emit_span
from otel_cost_logger.termination import FlushOnTermination


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)


def processors(provider: TracerProvider) -> tuple[Any, ...]:
    return provider._active_span_processor._span_processors


def test_it_is_never_the_global_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "none")
    ours = get_tracer_provider()
    assert ours is get_tracer_provider()
    assert trace.get_tracer_provider() is not ours


def test_a_forked_child_builds_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "none")
    ours = get_tracer_provider()
    pid = os.fork()
    if pid == 0:
        os._exit(0 if get_tracer_provider() is not ours else 1)
    assert os.waitpid(pid, 0)[1] == 0


def test_console_exports_each_span_at_once_and_otlp_in_batches() -> None:
    console, otlp = processors(build_provider(Settings(exporters=("console", "otlp"))))
    assert isinstance(console, SimpleSpanProcessor)
    assert isinstance(console.span_exporter, ConsoleSpanExporter)
    assert isinstance(otlp, FlushOnTermination)
    assert isinstance(otlp._inner, BatchSpanProcessor)


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_the_protocol_chooses_the_exporter(protocol: str) -> None:
    (processor,) = processors(build_provider(Settings(exporters=("otlp",), protocol=protocol, processor="simple")))
    assert isinstance(processor, SimpleSpanProcessor)
    assert (".http." in type(processor.span_exporter).__module__) is (protocol == "http/protobuf")


def test_samplers_and_limits_meant_for_others_do_not_touch_a_billing_record(
    monkeypatch: pytest.MonkeyPatch, make_call: Any
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    monkeypatch.setenv("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "1")
    monkeypatch.setenv("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "1")
    provider, memory = build_provider(Settings(exporters=())), InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(memory))
    record = build_record(make_call(), None, None, None, failed=False, behind_proxy=True)
    emit_span(provider, record, genai=False)
    (span,) = memory.get_finished_spans()
    assert span.attributes == attributes_of(record)


def test_the_operators_service_name_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    assert build_provider(Settings(exporters=())).resource.attributes["service.name"] == "litellm-proxy"
    monkeypatch.setenv("OTEL_SERVICE_NAME", "my-gateway")
    assert build_provider(Settings(exporters=())).resource.attributes["service.name"] == "my-gateway"


def test_a_disabled_sdk_is_said_aloud(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    provider = build_provider(Settings())
    assert "no cost span will be written" in caplog.text
    assert processors(provider) == ()


SERVER = """
import signal, sys
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter
from otel_cost_logger.termination import FlushOnTermination

stopping = []
signal.signal(signal.SIGTERM, lambda *_: stopping.append(1))  # as a server does
provider = TracerProvider()
batch = BatchSpanProcessor(ConsoleSpanExporter(), schedule_delay_millis=3_600_000)
provider.add_span_processor(FlushOnTermination(batch))
tracer = provider.get_tracer("t")
tracer.start_span("before").end()
signal.raise_signal(signal.SIGTERM)
assert stopping
tracer.start_span("after").end()
sys.stdout.flush()
signal.signal(signal.SIGTERM, signal.SIG_DFL)  # and then dies of the signal, without exit handlers
signal.raise_signal(signal.SIGTERM)
"""


def test_a_terminated_server_exports_what_waited_and_what_still_came() -> None:
    done = subprocess.run([sys.executable, "-c", SERVER], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == -signal.SIGTERM, done.stderr
    assert '"name": "before"' in done.stdout
    assert '"name": "after"' in done.stdout


class Undelivered(SpanProcessor):
    """One whose every flush fails, after a while."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.asked: list[int] = []

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        self.asked.append(timeout_millis)
        time.sleep(self.seconds)
        return False


@pytest.mark.parametrize(("seconds", "flushes"), [(0.0, 4), (0.2, 1)])
def test_failed_exports_after_the_signal_are_repeated_as_long_as_there_is_time(
    monkeypatch: pytest.MonkeyPatch, make_spans: Any, seconds: float, flushes: int
) -> None:
    monkeypatch.setattr(signal, "getsignal", lambda _: lambda *_: None)
    handlers: list[Any] = []
    monkeypatch.setattr(signal, "signal", lambda _, handler: handlers.append(handler))
    inner = Undelivered(seconds)
    processor = FlushOnTermination(inner, patience_millis=100)
    for span in make_spans(2):
        processor.on_end(span)
    assert inner.asked == []
    handlers[0](signal.SIGTERM, None)
    for span in make_spans(3):
        processor.on_end(span)
    assert len(inner.asked) == flushes
    assert inner.asked[0] == 100


def test_a_program_without_a_handler_keeps_its_default(monkeypatch: pytest.MonkeyPatch) -> None:
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    build_provider(Settings(exporters=("otlp",)))
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
