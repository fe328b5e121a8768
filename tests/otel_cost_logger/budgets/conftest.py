"""A ledger's writer, and records in it that ended when a test says."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from otel_cost_logger.ledger.stored_span import Encoder
from otel_cost_logger.ledger.writer import LedgerWriter
from otel_cost_logger.provider import build_provider
from otel_cost_logger.settings import Settings

WriteRecord = Callable[..., None]


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[LedgerWriter]:
    made = LedgerWriter(tmp_path / "ledger.db", exporting=False)
    yield made
    made.close()


@pytest.fixture
def write_record() -> WriteRecord:
    """``write_record(writer, "tenant", nano_usd, alias="key", call_id="c", at=ns)`` writes one as the plugin does."""
    memory = InMemorySpanExporter()
    provider = build_provider(Settings(exporters=()))
    provider.add_span_processor(SimpleSpanProcessor(memory))
    tracer = provider.get_tracer("test")

    def write(
        to: LedgerWriter, tenant: str, nano_usd: int, *, alias: str = "", call_id: str = "c", at: int | None = None
    ) -> None:
        at = time.time_ns() if at is None else at
        attributes: dict[str, Any] = {"llm.tenant_id": tenant, "llm.cost_nano_usd": nano_usd, "llm.call_id": call_id}
        attributes |= {"llm.key_alias": alias} if alias else {}
        tracer.start_span("call", attributes=attributes, start_time=at).end(at)
        to.write(Encoder().encode(memory.get_finished_spans()[-1]))

    return write


@pytest.fixture
def run() -> Callable[[Awaitable[Any]], Any]:
    """Run a coroutine to its end."""

    async def wait(awaitable: Awaitable[Any]) -> Any:
        return await awaitable

    return lambda awaitable: asyncio.run(wait(awaitable))
