"""The same through the proxy: several real proxies side by side, each with another callback, in front of the mock.

They differ in nothing else. Blocks of requests go to one after the other, in random order; what is read is the CPU time
of the proxy's process, until its spans have arrived. Spans are sent by OTLP over HTTP, in batches.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

from benchmarks.callback_overhead.names import NAIVE, NONE, NOOP, NOOP_AGAIN, OTEL_V1, OURS_BATCH
from benchmarks.harness.load import Request, closed_loop
from benchmarks.harness.machine import CpuMeter
from benchmarks.harness.receiver import CountingReceiver
from otel_cost_logger.settings import HTTP_PROTOBUF
from workbook.ports import listener
from workbook.services import Mock, Proxy

PROXY_ARMS = (NONE, NOOP, NOOP_AGAIN, OURS_BATCH, NAIVE, OTEL_V1)
CONNECTIONS = 8
_CALLBACKS = {
    NOOP: "benchmarks.callback_overhead.proxied.noop",
    NOOP_AGAIN: "benchmarks.callback_overhead.proxied.noop",
    OURS_BATCH: "otel_cost_logger.proxy_handler_instance",
    NAIVE: "benchmarks.callback_overhead.proxied.naive",
    OTEL_V1: "otel",
}
_ONE_SPAN_PER_CALL = (OURS_BATCH, NAIVE)
_SETTLE_SECONDS = 0.5  # spans leave after a fifth of a second
_PATIENCE_SECONDS = 20.0


class Proxies:
    """The running proxies, by callback."""

    def __init__(self, running: dict[str, Proxy], receiver: CountingReceiver) -> None:
        self._running = running
        self._receiver = receiver
        self._meter = CpuMeter({arm: _pid(proxy.url) for arm, proxy in running.items()})

    def sample(self, number: int, arm: str, seconds: float) -> dict[str, Any]:
        """One block of round ``number``."""
        proxy, spans = self._running[arm], self._receiver.spans()
        looked, before = time.perf_counter(), self._meter.read()
        seen = closed_loop(_request(proxy), connections=CONNECTIONS, seconds=seconds)
        time.sleep(_SETTLE_SECONDS)
        if arm in _ONE_SPAN_PER_CALL:
            self._wait_for(spans + seen.answered)
        after = self._meter.read()
        return {
            "round": number,
            "mode": "proxy",
            "arm": arm,
            "calls": seen.answered,
            "records": self._receiver.spans() - spans if arm in _ONE_SPAN_PER_CALL else None,
            "errors": sum(seen.errors.values()),
            "seconds": seen.seconds,
            "process_cpu_seconds": after[arm] - before[arm],
            "others_cores": (after["others"] - before["others"]) / (time.perf_counter() - looked),
        }

    def _wait_for(self, spans: int) -> None:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while self._receiver.spans() < spans and time.monotonic() < deadline:
            time.sleep(0.02)


@contextlib.contextmanager
def proxies(name: str, receiver: CountingReceiver) -> Iterator[Proxies]:
    """Start the mock and a proxy for each of `PROXY_ARMS`; all are stopped in the end."""
    with contextlib.ExitStack() as stack:
        mock = stack.enter_context(Mock(f"{name}_mock"))
        endpoint = receiver.endpoints[HTTP_PROTOBUF]
        running = {
            arm: stack.enter_context(
                Proxy(f"{name}_{arm}", config=_config(mock.url, _CALLBACKS.get(arm)), env=_environment(endpoint))
            )
            for arm in PROXY_ARMS
        }
        yield Proxies(running, receiver)


def _config(mock_url: str, callback: str | None) -> dict[str, Any]:
    deployment = {"model": "hosted_vllm/mistral-7b", "api_base": f"{mock_url}/v1", "api_key": "none"}
    prices = {"input_cost_per_token": 1.5e-07, "output_cost_per_token": 1.5e-07}
    return {
        "model_list": [{"model_name": "mistral-7b", "litellm_params": deployment, "model_info": prices}],
        "litellm_settings": {"callbacks": [callback]} if callback else {},
        "router_settings": {"disable_cooldowns": True},
        "general_settings": {"master_key": "os.environ/LITELLM_MASTER_KEY"},
    }


def _environment(endpoint: str) -> dict[str, str]:
    return {
        "OTEL_TRACES_EXPORTER": "otlp",
        "OTEL_EXPORTER_OTLP_PROTOCOL": HTTP_PROTOBUF,
        "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
        "OTEL_EXPORTER": "otlp_http",  # LiteLLM's own name for it
        "OTEL_ENDPOINT": endpoint,
        "OTEL_BSP_SCHEDULE_DELAY": "200",
        "AIOHTTP_KEEPALIVE_TIMEOUT": "4",  # before the mock closes idle connections
    }


def _request(proxy: Proxy) -> Request:
    body = {
        "model": "mistral-7b",
        "messages": [{"role": "user", "content": "What does a call cost?"}],
        "max_tokens": 16,
    }
    headers = {"Authorization": f"Bearer {proxy.master_key}"}
    return Request(f"{proxy.url}/v1/chat/completions", body, expected=b'"completion_tokens":', headers=headers)


def _pid(url: str) -> int:
    pid = listener(int(url.rpartition(":")[2]))
    if pid is None:
        raise ProcessLookupError(f"no process of this user listens at {url}, so its CPU time cannot be read")
    return pid
