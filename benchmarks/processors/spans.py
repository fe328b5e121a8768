"""Records of streamed chats of a few tenants, all answered, and the cost spans that the plugin makes of them."""

from __future__ import annotations

import random
import uuid
from collections.abc import Iterable
from typing import TYPE_CHECKING

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from otel_cost_logger.provider import build_provider
from otel_cost_logger.settings import Settings
from workbook.environment import go_offline

if TYPE_CHECKING:
    from otel_cost_logger.record import CallRecord

CALL_ID = "llm.call_id"
_TENANTS = ("tenant-acme", "tenant-globex", "tenant-initech", "tenant-umbrella")
_FIRST_NS = 1_795_000_000_000_000_000  # November 2026
_BETWEEN_NS = 12_000_000
_NANO_USD_PER_TOKEN = 150


def cost_records(count: int, *, seed: int) -> list[CallRecord]:
    """``count`` different records; the same for the same ``seed``."""
    # These import LiteLLM, which takes seconds: the benchmarks can be listed without it.
    go_offline()
    from otel_cost_logger.pricing import Cost
    from otel_cost_logger.record import SUCCESS, TENANT_TEAM, USAGE_ENGINE, CallRecord

    chance = random.Random(seed)
    records = []
    for number in range(count):
        tenant = chance.choice(_TENANTS)
        prompt, completion = chance.randrange(20, 4000), chance.randrange(1, 1000)
        began = _FIRST_NS + number * _BETWEEN_NS
        record = CallRecord(
            call_id=str(uuid.UUID(int=chance.getrandbits(128), version=4)),
            call_type="acompletion",
            operation="chat",
            stream=True,
            choice_count=1,
            model="mistral-7b",
            model_served="mistralai/Mistral-7B-Instruct-v0.3",
            provider="hosted_vllm",
            tenant_id=tenant,
            tenant_source=TENANT_TEAM,
            key_alias=f"{tenant}-{chance.randrange(8)}",
            outcome=SUCCESS,
            prompt_tokens=prompt,
            completion_tokens=completion,
            total_tokens=prompt + completion,
            cached_tokens=prompt // 16 * 8,
            reasoning_tokens=None,
            usage_source=USAGE_ENGINE,
            cost=Cost((prompt + completion) * _NANO_USD_PER_TOKEN, "custom_price", "0123456789ab"),
            budget_remaining_usd=round(chance.uniform(0, 500), 6),
            start_ns=began,
            end_ns=began + completion * 9_000_000,
            time_to_first_token_ms=round(chance.uniform(15, 400), 3),
            attempts=1,
            response_id=f"chatcmpl-{chance.getrandbits(128):032x}",
            finish_reasons=("stop",),
            error_type=None,
            error_status=None,
            error=None,
            server_address="10.20.30.40",
            server_port=8000,
            traceparent=f"00-{chance.getrandbits(128):032x}-{chance.getrandbits(64):016x}-01",
            planned=None,
        )
        records.append(record)
    return records


def cost_spans(records: Iterable[CallRecord]) -> list[ReadableSpan]:
    """A finished span of each record, with the plugin's own resource, scope and attributes."""
    from otel_cost_logger.span import emit_span

    memory = InMemorySpanExporter()
    provider = build_provider(Settings(exporters=()))
    provider.add_span_processor(SimpleSpanProcessor(memory))
    for record in records:
        emit_span(provider, record, genai=False)
    spans = list(memory.get_finished_spans())
    provider.shutdown()
    return spans
