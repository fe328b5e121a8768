"""The durable processor in one process: what it writes, sends, keeps and sets aside."""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from otel_cost_logger.attributes import attributes_of
from otel_cost_logger.durable import DurableSpanProcessor
from otel_cost_logger.ledger.schema import RECORD_FIELDS
from otel_cost_logger.record import build_record
from otel_cost_logger.span import emit_span

Make = Callable[..., DurableSpanProcessor]


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "ledger.db"


def ask(ledger: Path, sql: str) -> list[Any]:
    with sqlite3.connect(ledger) as connection:
        return connection.execute(sql).fetchall()


def end(processor: DurableSpanProcessor, spans: list[ReadableSpan]) -> None:
    for span in spans:
        processor.on_end(span)


class Flaky(SpanExporter):
    """An exporter that fails until it is told otherwise."""

    def __init__(self) -> None:
        self.works = False
        self.got: list[ReadableSpan] = []
        self.attempts = 0

    def export(self, spans: Any) -> SpanExportResult:
        self.attempts += 1
        if not self.works:
            return SpanExportResult.FAILURE
        self.got += spans
        return SpanExportResult.SUCCESS


def test_a_span_is_in_the_file_when_on_end_returns(ledger: Path, durable: Make, make_spans: Any, ids_of: Any) -> None:
    processor = durable(Flaky())
    spans = make_spans(1)
    processor.on_end(spans[0])
    assert ask(ledger, "SELECT span_id, name, end_ns FROM spans") == [(*ids_of(spans), "call", spans[0].end_time)]
    assert ask(ledger, "SELECT count(*) FROM outbox") == [(1,)]
    assert stat.S_IMODE(ledger.stat().st_mode) == 0o600


def test_the_columns_are_the_records_fields(ledger: Path, durable: Make, make_call: Any) -> None:
    record = build_record(make_call(), None, None, None, failed=False, behind_proxy=True)
    provider = TracerProvider()
    provider.add_span_processor(durable())
    emit_span(provider, record, genai=False)
    emit_span(provider, record, genai=False)
    assert ask(ledger, "SELECT tenant_id, sum(cost_nano_usd) FROM spans GROUP BY 1") == [("tenant-acme", 10_000)]
    names = list(RECORD_FIELDS)
    (row, _) = ask(ledger, f"SELECT {', '.join(names)} FROM spans")
    assert dict(zip(names, row, strict=True)) == {name: getattr(record, name) for name in names}
    assert len(names) == len({row.field for row in RECORD_FIELDS.values()}) >= len(attributes_of(record)) - 12


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_spans_arrive_with_their_ids_oldest_first(
    durable: Make, collector: Any, make_spans: Any, ids_of: Any, protocol: str
) -> None:
    exporter = GrpcExporter(collector.grpc_url) if protocol == "grpc" else HttpExporter(collector.traces_url)
    processor = durable(exporter, max_export_batch_size=7)
    spans = make_spans(20)
    end(processor, spans)
    assert processor.force_flush()
    assert collector.ids() == ids_of(spans)
    assert (processor.counts.written, processor.counts.exported, processor.pending) == (20, 20, 0)


def test_an_exporter_of_another_kind_gets_sdk_spans(durable: Make, make_spans: Any) -> None:
    memory = InMemorySpanExporter()
    processor = durable(memory)
    spans = make_spans(3, text="caf\u00e9", numbers=[1, 2], cost=0.5, ok=True)
    end(processor, spans)
    assert processor.force_flush()
    assert [span.to_json() for span in memory.get_finished_spans()] == [span.to_json() for span in spans]


def test_without_an_exporter_the_ledger_stands_alone(ledger: Path, durable: Make, make_spans: Any) -> None:
    processor = durable(None)
    end(processor, make_spans(5))
    assert processor.force_flush()
    assert processor.pending == 0
    assert ask(ledger, "SELECT count(*) FROM spans") == [(5,)]


def test_a_later_exporter_does_not_send_what_was_never_to_be_sent(durable: Make, make_spans: Any) -> None:
    first = durable(None)
    end(first, make_spans(5))
    first.shutdown()
    memory = InMemorySpanExporter()
    second = durable(memory)
    end(second, make_spans(1, "later"))
    assert second.force_flush()
    assert [span.name for span in memory.get_finished_spans()] == ["later"]


def test_a_second_start_finds_what_the_first_left(
    durable: Make, collector: Any, make_spans: Any, ids_of: Any, eventually: Any
) -> None:
    first = durable(Flaky())
    spans = make_spans(30)
    end(first, spans)
    assert not first.force_flush(200)
    first.shutdown()
    durable(HttpExporter(collector.traces_url))  # no new span, and nobody asks
    eventually(lambda: len(collector.ids()) == 30, "what the first process left has arrived")
    assert collector.ids() == ids_of(spans)


def test_force_flush_is_true_only_for_what_was_confirmed(durable: Make, make_spans: Any) -> None:
    exporter = Flaky()
    processor = durable(exporter)
    assert processor.force_flush(0)  # nothing waits
    end(processor, make_spans(3))
    assert not processor.force_flush(100)
    exporter.works = True
    assert processor.force_flush()
    assert (len(exporter.got), processor.pending) == (3, 0)


def test_failures_are_put_off_and_said_once(
    durable: Make, make_spans: Any, eventually: Any, caplog: pytest.LogCaptureFixture
) -> None:
    exporter = Flaky()
    processor = durable(exporter)
    with caplog.at_level(logging.WARNING):
        end(processor, make_spans(3))
        eventually(lambda: exporter.attempts >= 3, "three attempts")
        exporter.works = True
        assert processor.force_flush()
    texts = [record.message for record in caplog.records if record.name == "otel_cost_logger.ledger.drain"]
    assert len(texts) == 2
    assert "cannot be exported now (Flaky reported a failure)" in texts[0]
    assert "exported again" in texts[1]
    assert processor.counts.failures >= 3


def test_one_poisoned_span_is_found_and_set_aside(
    ledger: Path, durable: Make, collector: Any, make_spans: Any, ids_of: Any
) -> None:
    collector.fault({"poison": "poison"})
    processor = durable(HttpExporter(collector.traces_url), schedule_delay_millis=60_000)
    good, bad = make_spans(40), make_spans(1, "poison")
    end(processor, [*good[:13], *bad, *good[13:]])
    assert not processor.force_flush()  # not everything was confirmed
    assert sorted(collector.ids()) == sorted(ids_of(good))  # each once: a refused request leaves nothing
    assert processor.counts.dead == 1
    ((id_, reason),) = ask(ledger, "SELECT s.span_id, d.reason FROM dead_letters d JOIN spans s USING (id)")
    assert [id_] == ids_of(bad)
    assert reason.startswith("HTTP 400")
    assert processor.force_flush()  # it does not wait any more


def test_a_partial_success_is_no_success(durable: Make, collector: Any, make_spans: Any, ids_of: Any) -> None:
    collector.fault({"reject_every": 3})  # of a request of one or two, it rejects none
    processor = durable(HttpExporter(collector.traces_url), schedule_delay_millis=60_000)
    spans = make_spans(20)
    end(processor, spans)
    assert processor.force_flush()
    assert set(collector.ids()) == set(ids_of(spans))


def test_spans_that_are_rejected_one_by_one_stay_as_dead_letters(
    ledger: Path, durable: Make, collector: Any, make_spans: Any
) -> None:
    collector.fault({"reject_every": 1})
    processor = durable(HttpExporter(collector.traces_url), schedule_delay_millis=60_000)  # not before the flush
    end(processor, make_spans(4))
    assert not processor.force_flush()
    assert collector.ids() == []
    assert ask(ledger, "SELECT DISTINCT reason FROM dead_letters") == [("partial success: rejected on purpose",)]
    assert processor.counts.dead == 4


@pytest.mark.parametrize("sync", ["normal", "full"])
def test_on_an_event_loop_and_off_it(ledger: Path, durable: Make, make_spans: Any, sync: str) -> None:
    processor = durable(InMemorySpanExporter(), sync=sync)

    async def serve() -> None:
        end(processor, make_spans(10))

    asyncio.run(serve())
    end(processor, make_spans(10))
    assert processor.force_flush()
    assert ask(ledger, "SELECT count(*) FROM spans") == [(20,)]


def test_with_full_sync_a_span_is_flushed_before_on_end_returns(
    durable: Make, make_spans: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[str] = []
    fsync = os.fsync

    def counting(descriptor: int) -> None:
        fsync(descriptor)
        flushed.append(os.readlink(f"/proc/self/fd/{descriptor}"))

    processor = durable(None, sync="full")
    monkeypatch.setattr(os, "fsync", counting)
    for number, span in enumerate(make_spans(3), 1):
        processor.on_end(span)
        assert len(flushed) == number
    assert all(name.endswith("ledger.db-wal") for name in flushed)


def test_after_shutdown_a_span_is_still_written(ledger: Path, durable: Make, make_spans: Any) -> None:
    exporter = Flaky()
    processor = durable(exporter)
    end(processor, make_spans(1))
    processor.shutdown()
    attempts = exporter.attempts
    end(processor, make_spans(1, "late"))
    assert ask(ledger, "SELECT name FROM spans ORDER BY id") == [("call",), ("late",)]
    assert ask(ledger, "SELECT count(*) FROM outbox") == [(2,)]
    assert not processor.force_flush(100)
    assert exporter.attempts == attempts


def test_only_what_is_old_and_confirmed_is_pruned(
    ledger: Path, durable: Make, make_spans: Any, eventually: Any
) -> None:
    exporter = Flaky()
    first = durable(exporter)
    end(first, make_spans(3, "waits"))
    exporter.works = True
    first.force_flush()
    exporter.works = False
    end(first, make_spans(2, "pending"))
    end(first, make_spans(1, "young"))
    first.shutdown()
    ask(ledger, "UPDATE spans SET written_ns = written_ns - 200 * 86400 * 1000000000 WHERE name != 'young'")
    second = durable(Flaky())
    eventually(lambda: second.counts.pruned == 3, "the old spans that were sent are gone")
    assert ask(ledger, "SELECT name FROM spans ORDER BY id") == [("pending",), ("pending",), ("young",)]
    assert ask(ledger, "SELECT count(*) FROM payloads") == [(3,)]


def test_a_clock_that_goes_backwards_changes_no_order(
    durable: Make, make_spans: Any, collector: Any, ids_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    processor = durable(HttpExporter(collector.traces_url), schedule_delay_millis=60_000)
    spans = make_spans(10)
    for number, span in enumerate(spans):
        monkeypatch.setattr("time.time_ns", lambda number=number: 10**18 - number * 10**15)
        processor.on_end(span)
    monkeypatch.undo()
    assert processor.force_flush()
    assert collector.ids() == ids_of(spans)


def test_huge_and_malformed_spans_are_stored(
    ledger: Path, durable: Make, collector: Any, make_spans: Any, ids_of: Any, caplog: pytest.LogCaptureFixture
) -> None:
    processor = durable(HttpExporter(collector.traces_url))
    spans = [
        *make_spans(1, big="x" * 10_000_000),
        *make_spans(1, **{f"attribute {number}": number for number in range(1000)}),
        *make_spans(1, "name \ud800", **{"text \udfff": "a\ud800b", "list": ["\ud801"], "number beyond": 2**70}),
        *make_spans(1),
    ]
    end(processor, spans)
    assert processor.force_flush()
    arrived = {span["spanId"]: span for span in collector.spans()}
    assert list(arrived) == ids_of(spans)
    big, many, malformed, _ = (arrived[id_] for id_ in ids_of(spans))
    assert len(big["attributes"][1]["value"]["stringValue"]) == 10_000_000
    assert len(many["attributes"]) == 1001
    assert malformed["name"] == "name \ufffd"
    assert {item["key"]: item["value"] for item in malformed["attributes"]} == {
        "number": {"intValue": "0"},
        "text \ufffd": {"stringValue": "a\ufffdb"},
        "list": {"arrayValue": {"values": [{"stringValue": "\ufffd"}]}},
        "number beyond": {"stringValue": str(2**70)},
    }
    assert "Traceback" not in caplog.text


def test_a_span_too_big_for_the_collector_is_a_dead_letter(
    ledger: Path, durable: Make, collector: Any, make_spans: Any, ids_of: Any
) -> None:
    processor = durable(GrpcExporter(collector.grpc_url))  # which takes 4 MiB
    spans = [*make_spans(2), *make_spans(1, "big", big="x" * 5_000_000), *make_spans(2)]
    end(processor, spans)
    assert not processor.force_flush()
    assert sorted(collector.ids()) == sorted(ids_of([*spans[:2], *spans[3:]]))
    ((name, reason),) = ask(ledger, "SELECT s.name, d.reason FROM dead_letters d JOIN spans s USING (id)")
    assert (name, "larger than max" in reason) == ("big", True)


def test_a_span_that_cannot_be_encoded_is_a_dead_letter_with_a_reason(ledger: Path, durable: Make) -> None:
    processor = durable(InMemorySpanExporter())
    provider = TracerProvider()
    provider.add_span_processor(processor)
    provider.get_tracer("t").start_span("before the epoch", start_time=-1).end()
    assert processor.force_flush()
    ((id_, reason),) = ask(ledger, "SELECT s.span_id, d.reason FROM dead_letters d JOIN spans s USING (id)")
    assert len(id_) == 16
    assert reason.startswith("the span cannot be encoded: ValueError")


def test_the_counters_are_metrics(durable: Make, make_spans: Any) -> None:
    reader = InMemoryMetricReader()
    processor = durable(Flaky(), meter_provider=MeterProvider([reader]))
    end(processor, make_spans(3))
    data: Any = reader.get_metrics_data()
    (scope,) = data.resource_metrics[0].scope_metrics
    values = {
        (metric.name, point.attributes.get("state")): point.value
        for metric in scope.metrics
        for point in metric.data.data_points
    }
    assert values["llm.ledger.spans", "written"] == 3
    assert values["llm.ledger.spans", "lost"] == 0
    assert values["llm.ledger.pending", None] == 3
    assert values["llm.ledger.waiting", None] == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"sync": "sometimes"}, "sync='sometimes' is not supported; use one of: normal, full"),
        ({"keep_days": 0}, "keep_days=0 must be more than 0"),
        ({"schedule_delay_millis": 0}, "must be more than 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(ledger: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        DurableSpanProcessor(None, ledger, **options)
    assert not ledger.exists()
