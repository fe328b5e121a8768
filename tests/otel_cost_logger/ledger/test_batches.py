"""A backlog goes in larger requests, as long as the collector answers quickly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter

from otel_cost_logger.ledger.batches import BatchSize


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


def test_a_backlog_goes_in_larger_requests(durable: Any, make_spans: Any, otlp_server: Any, eventually: Any) -> None:
    otlp_server.judge = lambda _: 503
    processor = durable(
        HttpExporter(f"{otlp_server.url}/v1/traces"), max_export_batch_size=10, schedule_delay_millis=60_000
    )
    for span in make_spans(600):
        processor.on_end(span)
    eventually(lambda: otlp_server.requests, "an attempt in vain")
    assert set(map(len, otlp_server.requests)) == {10}
    otlp_server.judge = lambda _: 200
    assert processor.force_flush()
    sizes = [len(names) for names in otlp_server.requests if names]
    assert [size for size in sizes if size > 10] == [20, 40, 80, 160, 160, 130]  # 16 times the usual number at most
    assert len(otlp_server.taken) == 600


def test_the_number_grows_with_quick_full_batches_alone() -> None:
    size = BatchSize(100)
    size.delivered(100, seconds=5.0)
    assert size.now == 100
    for expected in (200, 400, 800, 1600, 1600):
        size.delivered(size.now, seconds=1.0)
        assert size.now == expected
    size.delivered(700, seconds=1.0)  # a request of 3.5 MB
    assert size.now == 1600
    size.failed()
    assert size.now == 100
    size.delivered(100, seconds=1.0)
    size.delivered(99, seconds=1.0)  # nothing waits any more
    assert size.now == 100
