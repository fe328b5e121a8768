"""The plugin's own metrics: what is wrong can be seen from outside, also when no span gets through."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import httpx
import pytest
from opentelemetry.metrics import get_meter_provider
from opentelemetry.sdk.metrics import MeterProvider

from otel_cost_logger import OtelCostLogger
from otel_cost_logger.provider import build_provider
from otel_cost_logger.settings import Ledger, Settings
from workbook.paths import BUILD_VARIABLE
from workbook.stacks import stack

KEY = SimpleNamespace(api_key="a" * 64, team_id="tenant-acme", key_alias="acme-key-1")


@pytest.fixture
def metrics_environment(monkeypatch: pytest.MonkeyPatch, otlp_server: Any) -> None:
    """Only at the end, unless a test says how often."""
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", otlp_server.url)
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "3600000")


def settings(folder: Path) -> Settings:
    ledger = Ledger(folder / "ledger.db")
    return Settings(exporters=(), processor="durable", ledger=ledger, metrics_protocol="http/protobuf")


def values(server: Any, name: str) -> list[int]:
    return [value for _, value in server.points(name)]


def test_a_lost_record_is_seen_in_the_metrics(
    tmp_path: Path,
    metrics_environment: None,
    otlp_server: Any,
    make_call: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "litellm.proxy.proxy_server", ModuleType("litellm.proxy.proxy_server"))
    provider = build_provider(settings(tmp_path))
    logger = OtelCostLogger(Settings(), provider)

    async def serve() -> None:
        for call_id in ("recorded", "lost"):
            data = {"litellm_call_id": call_id, "model": "mistral", "metadata": {}}
            await logger.async_pre_call_hook(KEY, None, data, "acompletion")
        for call_id in ("recorded", "lost"):
            call = make_call({"litellm_call_id": call_id})
            await logger.async_log_success_event(kwargs=call, response_obj=None, start_time=None, end_time=None)
            monkeypatch.setattr("otel_cost_logger.logger.emit_span", None)  # what fails from here on

    asyncio.run(serve())
    provider.shutdown()
    names = ("seen", "recorded", "dropped", "missing")
    counted = {name: values(otlp_server, f"llm.calls.{name}")[-1] for name in names}
    assert counted == {"seen": 2, "recorded": 1, "dropped": 1, "missing": 1}
    assert values(otlp_server, "llm.ledger.lost_calls")[-1] == 1
    states = {point["state"]: value for point, value in otlp_server.points("llm.ledger.spans")}
    assert states == {"written": 1, "lost": 0, "exported": 0, "dead": 0, "pruned": 0}


def test_an_unpriced_call_is_seen_in_the_metrics(
    tmp_path: Path, metrics_environment: None, otlp_server: Any, make_call: Any
) -> None:
    provider = build_provider(settings(tmp_path))
    logger = OtelCostLogger(Settings(), provider)
    for number, cost in enumerate([5e-06, 0.0, 0.0]):
        call = make_call({"litellm_call_id": f"{number}"}, response_cost=cost)
        call["litellm_params"]["metadata"].pop("model_info")
        logger.log_success_event(kwargs=call, response_obj=None, start_time=None, end_time=None)
    assert (logger.counts.recorded, logger.counts.unpriced) == (3, 2)
    provider.shutdown()
    assert values(otlp_server, "llm.calls.unpriced")[-1] == 2


def test_the_meter_provider_is_private_and_there_only_when_asked_for(tmp_path: Path, metrics_environment: None) -> None:
    assert build_provider(Settings(exporters=())).meter_provider is None
    provider = build_provider(settings(tmp_path))
    assert isinstance(provider.meter_provider, MeterProvider)
    assert get_meter_provider() is not provider.meter_provider
    provider.shutdown()


def test_a_forked_child_leaves_its_parents_metrics_to_the_parent(
    tmp_path: Path, metrics_environment: None, otlp_server: Any, monkeypatch: pytest.MonkeyPatch, eventually: Any
) -> None:
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "20")
    provider = build_provider(settings(tmp_path))
    eventually(lambda: otlp_server.metrics, "the parent's metrics")
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        import threading

        own = build_provider(settings(tmp_path))  # as the plugin does at the first call
        names = [thread.name for thread in threading.enumerate()]
        os.write(writing, b"x" * names.count("OtelPeriodicExportingMetricReader"))
        threading.Event().wait(0.5)  # many intervals
        own.shutdown()
        provider.shutdown()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    provider.shutdown()
    assert os.read(reading, 10) == b"xx"  # the SDK has started the parent's reader again: it has to be silent
    sources = {
        (point["process.pid"], point["service.instance.id"]) for point, _ in otlp_server.points("llm.ledger.pending")
    }
    assert sorted(process for process, _ in sources) == sorted([os.getpid(), pid])


@pytest.mark.timeout(300)
def test_a_backlog_behind_the_real_proxy_is_seen_while_the_collector_refuses_spans(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, otlp_server: Any, eventually: Any
) -> None:
    monkeypatch.setenv(BUILD_VARIABLE, str(tmp_path / "build"))
    env = {
        "OTEL_METRICS_EXPORTER": "otlp",
        "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": f"{otlp_server.url}/v1/metrics",
        "OTEL_METRIC_EXPORT_INTERVAL": "200",
    }
    body = {"model": "mistral-7b", "max_tokens": 4, "messages": [{"role": "user", "content": "hello"}]}
    with stack("metrics", processor="durable", env=env) as running:
        url = running.collector.endpoint("http/protobuf")
        assert httpx.put(f"{url}/fault", json={"status": 503}, trust_env=False).status_code == httpx.codes.OK
        with running.http("tenant-acme") as client:
            for _ in range(3):
                assert client.post("/v1/chat/completions", json=body).status_code == httpx.codes.OK
        for name in ("llm.calls.seen", "llm.calls.recorded", "llm.ledger.failures"):
            assert values(otlp_server, name)[0] == 0, name  # an increase is seen of what began at 0 only
        eventually(lambda: 3 in values(otlp_server, "llm.ledger.pending"), "three spans are seen to wait")
        eventually(lambda: max(values(otlp_server, "llm.ledger.failures")) > 0, "and why")
        assert values(otlp_server, "llm.calls.seen")[-1] == 3
        assert httpx.put(f"{url}/fault", json={}, trust_env=False).status_code == httpx.codes.OK
        eventually(lambda: values(otlp_server, "llm.ledger.pending")[-1] == 0, "they have gone")
        assert values(otlp_server, "llm.calls.missing")[-1] == 0
        (point, _), *_ = otlp_server.points("llm.calls.seen")
        assert point["service.name"] == "litellm-proxy"
