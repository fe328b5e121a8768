"""A call that was seen and left no record is noticed: in this process's counts, and in the ledger after its end."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import litellm
import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from otel_cost_logger import OtelCostLogger
from otel_cost_logger.expected import Expected
from otel_cost_logger.ledger.file import open_for_reading
from otel_cost_logger.ledger.reading import status
from otel_cost_logger.provider import build_provider
from otel_cost_logger.settings import Ledger, Settings


@pytest.fixture(autouse=True)
def behind_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "litellm.proxy.proxy_server", ModuleType("litellm.proxy.proxy_server"))


KEY = SimpleNamespace(api_key="a" * 64, team_id="tenant-acme", key_alias="acme-key-1")


async def begin(logger: OtelCostLogger, call_id: str) -> None:
    data = {"litellm_call_id": call_id, "model": "mistral", "metadata": {}}
    await logger.async_pre_call_hook(KEY, None, data, "acompletion")


async def succeed(logger: OtelCostLogger, call: Any) -> None:
    await logger.async_log_success_event(kwargs=call, response_obj=None, start_time=None, end_time=None)


def test_calls_are_due_until_their_record_is_written() -> None:
    expected = Expected()
    for call_id in ("a", "a", "b"):
        expected.begin(call_id)
    expected.recorded("a")
    expected.recorded("never seen")
    assert (expected.seen, len(expected)) == (3, 2)
    expected.recorded("a")
    expected.recorded("b")
    assert len(expected) == 0


def test_a_recorded_call_is_not_missing_and_one_in_flight_is_neither(logger: OtelCostLogger, make_call: Any) -> None:
    async def serve() -> None:
        await begin(logger, "one")
        await begin(logger, "two")
        await succeed(logger, make_call({"litellm_call_id": "one"}))
        assert (logger.counts.seen, logger.counts.recorded, logger.counts.missing) == (2, 1, 0)

    asyncio.run(serve())


def test_a_failure_that_may_be_retried_is_not_missing(logger: OtelCostLogger, make_call: Any) -> None:
    async def serve() -> None:
        await begin(logger, "one")
        call = make_call({"litellm_call_id": "one"})
        call["litellm_params"]["metadata"]["user_api_key_hash"] = KEY.api_key
        await logger.async_log_failure_event(kwargs=call, response_obj=None, start_time=None, end_time=None)
        assert (logger.counts.recorded, logger.counts.missing) == (0, 0)
        await logger.async_post_call_failure_hook({"litellm_call_id": "one"}, ValueError(), KEY)
        assert (logger.counts.recorded, logger.counts.missing) == (1, 0)

    asyncio.run(serve())


def test_a_record_that_is_lost_is_missing(
    logger: OtelCostLogger, make_call: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("no span today")

    monkeypatch.setattr("otel_cost_logger.logger.emit_span", broken)

    async def serve() -> None:
        await begin(logger, "one")
        await succeed(logger, make_call({"litellm_call_id": "one"}))
        assert (logger.counts.dropped, logger.counts.missing) == (1, 1)

    asyncio.run(serve())


def test_the_ledger_knows_the_calls_in_flight(tmp_path: Path, make_call: Any) -> None:
    ledger = Ledger(tmp_path / "ledger.db")
    provider = build_provider(Settings(exporters=(), processor="durable", ledger=ledger))
    logger = OtelCostLogger(Settings(), provider)

    async def serve() -> None:
        await begin(logger, "one")
        await begin(logger, "two")
        await succeed(logger, make_call({"litellm_call_id": "one"}))

    asyncio.run(serve())
    with closing(sqlite3.connect(ledger.path)) as connection:
        rows = connection.execute("SELECT call_id, tenant_id, model FROM calls_in_flight").fetchall()
    assert rows == [("two", "tenant-acme", "mistral")]
    with closing(open_for_reading(ledger.path)) as connection:
        found = status(connection)
        assert (found.calls_seen, found.calls_in_flight, found.calls_lost) == (2, 1, 0)
    provider.shutdown()
    with closing(open_for_reading(ledger.path)) as connection:
        assert status(connection).calls_lost == 1


KILLED = """
import os, signal, sys
from otel_cost_logger.durable import DurableSpanProcessor
from opentelemetry.sdk.trace import TracerProvider
durable = DurableSpanProcessor(None, sys.argv[1])
provider = TracerProvider()
provider.add_span_processor(durable)
for call_id in ("recorded", "lost"):
    durable.expect_call(call_id, "acme", "mistral")
provider.get_tracer("t").start_span("call", attributes={"llm.call_id": "recorded"}).end()
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_calls_in_flight_when_a_process_is_killed_are_named(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    subprocess.run([sys.executable, "-c", KILLED, str(path)], timeout=60, check=False)
    with closing(open_for_reading(path)) as connection:
        found = status(connection)
        assert (found.calls_seen, found.calls_in_flight, found.calls_lost) == (2, 0, 1)
        assert connection.execute("SELECT call_id FROM calls_in_flight").fetchall() == [("lost",)]


def test_spans_of_other_providers_are_counted_without_a_ledger(spans: InMemorySpanExporter, make_call: Any) -> None:
    logger = OtelCostLogger(Settings(exporters=()), build_provider(Settings(exporters=())))

    async def serve() -> None:
        await begin(logger, "one")
        await succeed(logger, make_call({"litellm_call_id": "one"}))

    asyncio.run(serve())
    assert (logger.counts.seen, logger.counts.missing) == (1, 0)


def test_a_program_that_calls_litellm_itself_is_told_of_lost_records_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, eventually: Any
) -> None:
    monkeypatch.delitem(sys.modules, "litellm.proxy.proxy_server")
    ledger = Ledger(tmp_path / "ledger.db")
    provider = build_provider(Settings(exporters=(), processor="durable", ledger=ledger))
    logger = OtelCostLogger(Settings(), provider)
    monkeypatch.setattr(litellm, "callbacks", [logger])
    call: Any = {"model": "openai/mistral", "messages": [{"role": "user", "content": "hi"}], "mock_response": "hello"}

    def in_flight() -> list[Any]:
        with closing(sqlite3.connect(ledger.path)) as connection:
            return connection.execute("SELECT tenant_id, model FROM calls_in_flight").fetchall()

    async def serve() -> None:
        await litellm.acompletion(**call)
        async for _ in await litellm.acompletion(stream=True, **call):
            pass

    litellm.completion(**call)
    asyncio.run(serve())
    with pytest.raises(litellm.InternalServerError):
        litellm.completion(**{**call, "mock_response": "litellm.InternalServerError"}, num_retries=2)
    eventually(lambda: logger.counts.recorded >= 4, "four calls are recorded")
    eventually(lambda: in_flight() == [], "and due no longer")
    assert logger.counts.missing == 0

    async def abandon() -> None:
        stream = await litellm.acompletion(stream=True, metadata={"tenant_id": "acme"}, **call)
        await anext(aiter(stream))

    asyncio.run(abandon())
    assert in_flight() == [("acme", "mistral")]
    provider.shutdown()
    with closing(open_for_reading(ledger.path)) as connection:
        assert status(connection).calls_lost == 1
