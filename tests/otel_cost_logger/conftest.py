"""Payloads in LiteLLM's shape, and a logger whose spans stay in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from otel_cost_logger import OtelCostLogger
from otel_cost_logger.provider import build_provider
from otel_cost_logger.settings import Settings

MakeCall = Callable[..., dict[str, Any]]


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
