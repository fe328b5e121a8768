from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from workbook.spans import read_ledger
from workbook.traces import PHASES, engine_requests, join

TRACE = "0af7651916cd43dd8448eb211c80319c"
CALL = "b7ad6b7169203331"
START = 1_795_422_652_000_000_000  # ns
# The attributes of a span that vLLM 0.32 left.
RECORDED = {
    "gen_ai.latency.time_to_first_token": 0.0071980953216552734,
    "gen_ai.latency.e2e": 0.00998377799987793,
    "gen_ai.latency.time_in_queue": 2.556899994488049e-05,
    "gen_ai.usage.prompt_tokens": 17,
    "gen_ai.usage.completion_tokens": 2,
    "gen_ai.latency.time_in_model_prefill": 0.004737775999956284,
    "gen_ai.latency.time_in_model_decode": 0.0029408719999537425,
    "gen_ai.latency.time_in_model_inference": 0.0076786479999100266,
    "gen_ai.request.id": "chatcmpl-trace-1",
    "gen_ai.request.n": 1,
}


def value(plain: Any) -> dict[str, Any]:
    kind = {int: "intValue", float: "doubleValue", str: "stringValue"}[type(plain)]
    return {kind: str(plain) if kind == "intValue" else plain}


def span(name: str, number: int, parent: str, begin_us: int, end_us: int, attributes: dict[str, Any]) -> str:
    """A line of a ledger: a span from ``begin_us`` to ``end_us`` microseconds after `START`."""
    fields = {
        "traceId": TRACE,
        "spanId": f"{number:016x}",
        "parentSpanId": parent,
        "name": name,
        "startTimeUnixNano": str(START + begin_us * 1000),
        "endTimeUnixNano": str(START + end_us * 1000),
        "attributes": [{"key": key, "value": value(plain)} for key, plain in attributes.items()],
    }
    return json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [fields]}]}]}) + "\n"


def call(number: int, end_us: int, outcome: str = "success") -> str:
    attributes = {"llm.outcome": outcome, "llm.tenant_id": "acme", "llm.duration_ms": end_us / 1000}
    return span("llm.completion.acompletion", number, "", 0, end_us, attributes)


@pytest.fixture
def ledgers(tmp_path: Path) -> tuple[Path, Path]:
    """The gateway's and the engine's."""
    return tmp_path / "gateway.jsonl", tmp_path / "engine.jsonl"


def joined(ledgers: tuple[Path, Path]) -> pd.DataFrame:
    gateway, engine = ledgers
    return join(read_ledger(gateway), read_ledger(engine))


def test_a_recorded_engine_span_is_put_into_its_call(ledgers: tuple[Path, Path]) -> None:
    gateway, engine = ledgers
    gateway.write_text(call(int(CALL, 16), 15_000))
    engine.write_text(
        span("Load model", 7, "", -9_000_000, -1_000_000, {"vllm.model": "m"})
        + span("llm_request", 8, CALL, 2_000, 12_334, RECORDED)
    )
    (row,) = joined(ledgers).to_dict("records")
    assert (row["tenant_id"], row["trace_id"], row["span_id"]) == ("acme", TRACE, CALL)
    assert (row["engine_requests"], row["engine_span_id"], row["request_id"]) == (
        1,
        f"{8:016x}",
        "chatcmpl-trace-1",
    )
    assert (row["engine_start"].value, row["engine_end"].value) == (START + 2_000_000, START + 12_334_000)
    assert [row[phase] for phase in PHASES] == pytest.approx(
        [2.0, 2.4347507, 0.0255690, 4.7377760, 2.9408720, 0.1950323, 2.666], abs=1e-6
    )
    assert sum(row[phase] for phase in PHASES) == pytest.approx(row["duration_ms"])
    assert "gen_ai.latency.e2e" not in row  # the engine's attributes are in its own ledger


def test_of_several_choices_the_last_to_end_is_taken(ledgers: tuple[Path, Path]) -> None:
    gateway, engine = ledgers
    gateway.write_text(call(1, 30_000))
    engine.write_text(
        span("llm_request", 8, f"{1:016x}", 1_000, 25_000, RECORDED | {"gen_ai.latency.time_in_queue": 0.011})
        + span("llm_request", 9, f"{1:016x}", 2_000, 20_000, RECORDED)
    )
    (row,) = joined(ledgers).to_dict("records")
    assert (row["engine_requests"], row["engine_span_id"], row["queue_ms"]) == (2, f"{8:016x}", 11)
    assert (row["gateway_before_ms"], row["gateway_after_ms"]) == (1, 5)


def test_no_part_inside_the_engine_is_negative(ledgers: tuple[Path, Path]) -> None:
    """The first token's way back is in its time, and may be longer than that of the last."""
    gateway, engine = ledgers
    gateway.write_text(call(1, 10_000))
    slow_first = RECORDED | {"gen_ai.latency.time_to_first_token": 0.009}
    engine.write_text(span("llm_request", 8, f"{1:016x}", 1_000, 10_000, slow_first))
    (row,) = joined(ledgers).to_dict("records")
    assert row["engine_after_ms"] == 0
    assert sum(row[phase] for phase in PHASES) == pytest.approx(10)


def test_a_call_without_an_engine_span_stays(ledgers: tuple[Path, Path]) -> None:
    gateway, engine = ledgers
    gateway.write_text(call(1, 30_000, "client_disconnected") + call(2, 30_000))
    engine.write_text(
        span("llm_request", 8, f"{2:016x}", 1_000, 25_000, RECORDED)
        + span("llm_request", 9, f"{3:016x}", 1_000, 25_000, RECORDED)  # nobody recorded that call
        + span("llm_request", 10, "", 1_000, 25_000, RECORDED)  # and this one came past the gateway
    )
    calls = joined(ledgers).set_index("span_id")
    assert list(calls["engine_requests"]) == [0, 1]
    assert calls.loc[f"{1:016x}", [*PHASES, "engine_span_id", "engine_start"]].isna().all()
    assert calls.loc[f"{2:016x}", list(PHASES)].notna().all()


def test_an_engine_that_was_not_traced_gives_calls_without_parts(ledgers: tuple[Path, Path]) -> None:
    gateway, engine = ledgers
    gateway.write_text(call(1, 30_000))
    engine.write_text("")
    calls = joined(ledgers)
    assert list(calls["engine_requests"]) == [0]
    assert calls[list(PHASES)].isna().all(axis=None)
    gateway.write_text("")
    assert joined(ledgers).empty


def test_other_spans_of_the_engine_are_left_out(ledgers: tuple[Path, Path]) -> None:
    engine = ledgers[1]
    engine.write_text(
        span("Load model", 7, "", 0, 1, {}) + span("llm_request", 8, CALL, 0, 1, {"gen_ai.usage.prompt_tokens": 3})
    )
    requests = engine_requests(read_ledger(engine))
    assert list(requests["gen_ai.usage.prompt_tokens"]) == [3]
    assert requests["gen_ai.usage.completion_tokens"].isna().all()
