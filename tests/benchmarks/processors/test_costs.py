"""The span processors measured for real, in miniature: everything arrives and is counted, and nothing stays behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

from benchmarks import __main__ as command_line
from benchmarks.harness.receiver import counting_receiver
from benchmarks.harness.results import load_result
from benchmarks.processors.names import ARMS, DRAIN_ARMS, DURABLE_NOTED
from benchmarks.processors.spans import cost_records, cost_spans
from otel_cost_logger.attributes import SCHEMA
from otel_cost_logger.settings import CONSOLE
from workbook.paths import BUILD_VARIABLE


def test_spans_are_the_plugins_own_and_repeat() -> None:
    spans, again = (cost_spans(cost_records(20, seed=5)) for _ in range(2))
    attributes = [dict(span.attributes or {}) for span in spans]
    assert attributes == [dict(span.attributes or {}) for span in again]
    assert attributes != [dict(span.attributes or {}) for span in cost_spans(cost_records(20, seed=6))]
    assert {name for found in attributes for name in found} <= {row.name for row in SCHEMA}
    assert all(len(found) >= 35 for found in attributes)
    assert len({found["llm.call_id"] for found in attributes}) == 20
    assert len({span.context.span_id for span in spans if span.context}) == 20


def test_the_receiver_counts_and_keeps_nothing(tmp_path: Path) -> None:
    spans = cost_spans(cost_records(7, seed=0))
    with counting_receiver(tmp_path) as receiver:
        assert receiver.spans() == 0
        exporter = OTLPSpanExporter(endpoint=f"{receiver.endpoints['http/protobuf']}/v1/traces")
        for _ in range(2):
            exporter.export(spans)
        exporter.shutdown()
        assert receiver.spans() == 14
        url = receiver.endpoints["http/protobuf"]
        assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 1000
    with pytest.raises(httpx.ConnectError):
        httpx.get(url, trust_env=False)


def test_bursts_that_batch_would_drop_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(BUILD_VARIABLE, str(tmp_path / "build"))
    assert command_line.main(["processors", "--burst", "2048", "--out", str(tmp_path / "results")]) == 1
    assert "overflow the queue of BatchSpanProcessor, which holds 2048" in capsys.readouterr().err


def test_two_small_rounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(BUILD_VARIABLE, str(tmp_path / "build"))
    words = ["processors", "--phases", "costs", "--rounds", "2", "--burst", "64", "--backlog", "1100"]
    assert command_line.main([*words, "--out", str(tmp_path / "results")]) == command_line.NOT_FOR_QUOTING
    (path,) = (tmp_path / "results").glob("*/*-processors.json")
    result = load_result(path)
    assert "costs: 2 rounds are too few: an interval needs at least 10" in result.validity.reasons
    assert not [reason for reason in result.validity.reasons if "arrived" in reason or "confirmed" in reason]
    samples: list[Any] = list(result.samples)
    order = [(s["round"], (s["arm"], s["exporter"])) for s in samples]
    assert sorted(order) == sorted((n, arm) for n in range(2) for arm in ARMS)
    assert [arm for _, arm in order[: len(ARMS)]] != [arm for _, arm in order[len(ARMS) :]]
    for sample in samples:
        drains = (sample["arm"], sample["exporter"]) in DRAIN_ARMS
        assert sample["received"] == sample["spans"] == (1100 if drains else 128)
        assert sample["process_cpu_seconds"] > 0
        assert (sample["receiver_cpu_seconds"] > 0) or sample["exporter"] == CONSOLE
        if drains:
            continue
        assert sample["unwritten"] == 0
        assert sample["callback_received"] == 64
        assert 0 < sample["on_end_cpu_seconds"] <= sample["process_cpu_seconds"]
        assert 0 < sample["on_end_seconds"] < sample["seconds"]
        assert 0 < sample["on_end_p50_us"] <= sample["on_end_p99_us"] <= sample["slowest_us"][0]
        assert sample["slowest_us"] == sorted(sample["slowest_us"], reverse=True)
        assert sample["callback_cpu_seconds"] > 0
        assert sample["callback_seconds"] > 0
        assert (sample["noting_cpu_seconds"] > 0) is (sample["arm"] == DURABLE_NOTED)
    summary: Any = result.summary["costs"]
    for protocol in ("http/protobuf", "grpc"):
        assert {target["limit"] for target in summary["targets"][protocol].values()} == {8.0, 2.0, 0.5, 10_000.0}
    assert list((tmp_path / "build").rglob("*.db*")) == []
    assert str(tmp_path) not in result.model_dump_json()
