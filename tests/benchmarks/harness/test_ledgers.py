"""Ledgers read without pandas: counted as lines come, and added up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from benchmarks.harness.ledgers import Recorded, SpanCount, recorded
from workbook.paths import BUILD_VARIABLE
from workbook.services import Receiver


def sent(**attributes: int) -> dict[str, Any]:
    """An OTLP request with one span."""
    span = {
        "traceId": "0af7651916cd43dd8448eb211c80319c",
        "spanId": "b7ad6b7169203331",
        "name": "call",
        "startTimeUnixNano": "1",
        "endTimeUnixNano": "2",
        "attributes": [{"key": f"llm.{name}", "value": {"intValue": str(value)}} for name, value in attributes.items()],
    }
    return {"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}


def test_spans_are_counted_and_their_tokens_added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(BUILD_VARIABLE, str(tmp_path))
    with Receiver("test_ledgers") as receiver:
        count = SpanCount(receiver.ledger)
        assert count.so_far() == 0
        assert recorded(receiver.ledger) == Recorded(0, 0, 0)
        for tokens in ({"prompt_tokens": 7, "completion_tokens": 5}, {"prompt_tokens": 3}, {}):
            url = f"{receiver.endpoint('http/protobuf')}/v1/traces"
            httpx.post(url, json=sent(**tokens), trust_env=False).raise_for_status()
        count.wait_for(3)
        assert count.so_far() == 3
        first = receiver.ledger.read_bytes().index(b"\n") + 1
        assert recorded(receiver.ledger, since=first) == Recorded(1, 3, 0)
        with receiver.ledger.open("a") as torn:
            torn.write('{"resourceSpans": [{')
        # A failed call has no completion; a span that is no call has no tokens at all.
        assert recorded(receiver.ledger) == Recorded(2, 10, 5)
        assert count.so_far() == 3


def test_a_lost_span_is_not_waited_for_forever(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.jsonl"
    ledger.write_text("{}\n")
    count = SpanCount(ledger)
    count.wait_for(2, seconds=0.05)
    assert count.so_far() == 1
