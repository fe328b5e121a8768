"""A plugin that cannot record says so to the readiness probe, and only there, until it can again."""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from otel_cost_logger import OtelCostLogger
from otel_cost_logger.asgi import READINESS, Readiness
from otel_cost_logger.ledger.file import open_for_writing
from otel_cost_logger.metrics import publish_calls
from otel_cost_logger.settings import Ledger, Settings

LIVELINESS = "/health/liveliness"


def probe(problem: str | None, path: str = READINESS, **scope: Any) -> tuple[int, Any]:
    """What is answered to a GET of ``path``: the application behind answers 200 to everything."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b'"of the application"'})

    asyncio.run(Readiness(app, lambda: problem)({"type": "http", "path": path, **scope}, None, send))  # type: ignore[arg-type]
    return sent[0]["status"], json.loads(sent[1]["body"])


@pytest.mark.parametrize(
    ("path", "scope"),
    [(READINESS, {}), (f"/under{READINESS}", {"root_path": "/under"}), (READINESS, {"root_path": "/under"})],
)
def test_the_probe_fails_with_the_reason(path: str, scope: dict[str, Any]) -> None:
    reason = "calls cannot be recorded: the disk is full"
    assert probe("the disk is full", path, **scope) == (503, {"status": "unhealthy", "reason": reason})
    assert probe(None, path, **scope) == (200, "of the application")


@pytest.mark.parametrize(("path", "kind"), [(LIVELINESS, "http"), ("/health", "http"), (READINESS, "websocket")])
def test_everything_else_is_the_applications(path: str, kind: str) -> None:
    assert probe("the disk is full", path, type=kind) == (200, "of the application")


class Clock:
    """Of the logger."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr("otel_cost_logger.logger.time.monotonic", lambda: self.now)


def call(logger: OtelCostLogger, make_call: Any, number: int) -> None:
    logger.log_success_event(make_call({"litellm_call_id": f"call-{number}"}, id=f"id-{number}"), None, None, None)


def lose(logger: OtelCostLogger, make_call: Any, monkeypatch: pytest.MonkeyPatch, numbers: range) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("otel_cost_logger.logger.emit_span", lambda *_, **__: 1 / 0)
        for number in numbers:
            call(logger, make_call, number)


def test_ten_records_lost_in_a_row_are_a_problem_until_one_is_not(
    logger: OtelCostLogger, make_call: Any, monkeypatch: pytest.MonkeyPatch, spans: InMemorySpanExporter
) -> None:
    lose(logger, make_call, monkeypatch, range(9))
    assert logger.problem is None
    call(logger, make_call, 9)
    lose(logger, make_call, monkeypatch, range(10, 19))
    assert logger.problem is None  # nine and nine, with one between
    lose(logger, make_call, monkeypatch, range(19, 20))
    assert logger.problem == "the last 10 records were lost, see the log"
    assert probe(logger.problem)[0] == 503
    call(logger, make_call, 20)
    assert logger.problem is None
    assert logger.counts.dropped == 19
    assert len(spans.get_finished_spans()) == 2


def test_lost_records_are_a_problem_for_a_minute(
    logger: OtelCostLogger, make_call: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    lose(logger, make_call, monkeypatch, range(10))
    clock.now += 59
    assert logger.problem is not None
    clock.now += 2  # nobody calls a proxy that is out of service: it must come back by itself
    assert logger.problem is None


def test_a_metric_says_whether_calls_can_be_recorded(
    logger: OtelCostLogger, make_call: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = InMemoryMetricReader()
    publish_calls(logger, MeterProvider([reader]))

    def ready() -> int:
        data = reader.get_metrics_data()
        assert data is not None
        metrics = data.resource_metrics[0].scope_metrics[0].metrics
        (metric,) = (metric for metric in metrics if metric.name == "llm.recorder.ready")
        (point,) = metric.data.data_points
        return int(point.value)  # type: ignore[union-attr]

    assert ready() == 1
    lose(logger, make_call, monkeypatch, range(10))
    assert ready() == 0
    call(logger, make_call, 10)
    assert ready() == 1


def move(ledger: Path, to: Path) -> None:
    """With all that SQLite keeps beside it."""
    to.parent.mkdir(exist_ok=True)
    for suffix in ("", "-wal", "-shm"):
        if (file := ledger.with_name(ledger.name + suffix)).exists():
            file.rename(to.with_name(to.name + suffix))


def test_a_ledger_of_a_newer_version_in_its_place_is_a_problem_until_the_right_one_is_back(
    tmp_path: Path,
    make_call: Any,
    eventually: Any,
    caplog: pytest.LogCaptureFixture,
    collector: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The collector is away as well: what the file still held for it is there when the file comes back, once."""
    collector.fault({"status": 503})
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", collector.traces_url)
    ledger, kept = tmp_path / "ledger.db", tmp_path / "kept" / "ledger.db"
    settings = Settings(("otlp",), "http/protobuf", processor="durable", ledger=Ledger(ledger))
    logger = OtelCostLogger(settings)
    for number in range(3):
        call(logger, make_call, number)
    assert logger.problem is None
    move(ledger, kept)
    with closing(open_for_writing(ledger, busy_seconds=1)) as connection:
        connection.execute("PRAGMA user_version = 99")
    with caplog.at_level(logging.ERROR):
        for number in range(3, 8):
            call(logger, make_call, number)
    assert "newer version of this plugin (schema 99" in str(logger.problem)
    move(ledger, tmp_path / "newer" / "ledger.db")
    move(kept, ledger)
    eventually(lambda: logger.problem is None, "the file is written again")
    call(logger, make_call, 8)

    def rows(sql: str) -> list[Any]:
        with closing(sqlite3.connect(ledger)) as connection:
            return connection.execute(sql).fetchall()

    eventually(lambda: rows("SELECT count(*) FROM spans")[0][0] >= 9, "every record is in the file")
    durable = logger._durable()
    assert durable is not None
    durable.force_flush(100)
    assert rows("SELECT count(*), count(DISTINCT call_id) FROM spans") == [(9, 9)]
    collector.fault({})
    assert durable.force_flush()
    assert len(collector.ids()) == 9
