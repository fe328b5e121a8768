import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from otel_cost_logger.attributes import SCHEMA
from workbook.spans import LedgerError, TornLine, cost_table, read_ledger

START = 1_767_225_600_123_456_789  # 2026-01-01T00:00:00.123456789Z


def value(plain: Any) -> dict[str, Any]:
    if isinstance(plain, bool):
        return {"boolValue": plain}
    if isinstance(plain, int):
        return {"intValue": str(plain)}
    if isinstance(plain, float):
        return {"doubleValue": plain}
    if isinstance(plain, list):
        return {"arrayValue": {"values": [value(item) for item in plain]}}
    return {"stringValue": plain}


def line(number: int, **attributes: Any) -> str:
    span = {
        "traceId": f"{number:032x}",
        "spanId": f"{number:016x}",
        "name": "llm.completion.acompletion",
        "kind": 1,
        "startTimeUnixNano": str(START + number),
        "endTimeUnixNano": str(START + number + 2_000_000_000),
        "attributes": [{"key": key, "value": value(plain)} for key, plain in attributes.items()],
        "status": {"code": 2, "message": "bad"} if number == 2 else {},
    }
    resource = {"attributes": [{"key": "service.name", "value": {"stringValue": "litellm-proxy"}}]}
    return json.dumps({"resourceSpans": [{"resource": resource, "scopeSpans": [{"spans": [span]}]}]}) + "\n"


def call(
    number: int, tenant: str, model: str, prompt: int, completion: int, nano_usd: int, success: bool = True
) -> str:
    return line(
        number,
        **{
            "llm.tenant_id": tenant,
            "llm.model": model,
            "llm.prompt_tokens": prompt,
            "llm.completion_tokens": completion,
            "llm.cost_nano_usd": nano_usd,
            "llm.success": success,
        },
    )


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    return tmp_path / "ledger.jsonl"


def test_attributes_become_fields_with_their_types(ledger: Path) -> None:
    exact = 2**53 + 1  # a double cannot hold it
    ledger.write_text(
        line(2, **{"gen_ai.response.finish_reasons": ["stop", "length"], "custom.attribute": "kept"})
        + line(
            1,
            **{
                "llm.tenant_id": "tenant-acme",
                "llm.cost_nano_usd": exact,
                "llm.cost_usd": 0.25,
                "llm.stream": False,
                "llm.time_to_first_token_ms": 12.5,
                "gen_ai.response.time_to_first_chunk": 0.0125,
            },
        )
    )
    spans = read_ledger(ledger)
    assert list(spans["span_id"]) == ["0000000000000001", "0000000000000002"]  # by start
    first, second = spans.iloc[0], spans.iloc[1]
    assert first["start"].value == START + 1
    assert (first["end"] - first["start"]).value == 2_000_000_000
    assert str(spans["start"].dtype) == "datetime64[ns, UTC]"
    assert (first["kind"], first["status"], second["status"]) == ("INTERNAL", "UNSET", "ERROR")
    assert (second["status_message"], first["service_name"]) == ("bad", "litellm-proxy")
    assert pd.isna(first["parent_span_id"])
    assert first["cost_nano_usd"] == exact
    assert pd.isna(second["cost_nano_usd"])
    assert first["cost_usd"] == 0.25
    assert not first["stream"]
    assert first["time_to_first_token_ms"] == 12.5  # in ms, not the other convention's seconds
    assert second["finish_reasons"] == ["stop", "length"]
    assert second["custom.attribute"] == "kept"
    dtypes = spans.dtypes.astype(str)
    assert (dtypes["cost_nano_usd"], dtypes["cost_usd"], dtypes["stream"], dtypes["tenant_id"]) == (
        "Int64",
        "Float64",
        "boolean",
        "str",
    )


def test_every_field_of_the_schema_is_a_column_once(ledger: Path) -> None:
    ledger.write_text(
        line(1, **{row.name: 1 if row.type == "int" else "x" for row in SCHEMA if row.type in ("int", "string")})
    )
    columns = list(read_ledger(ledger).columns)
    assert len(columns) == len(set(columns))
    assert {row.field for row in SCHEMA} <= set(columns)
    assert not [name for name in columns if "." in name]


def test_an_empty_ledger_has_the_columns_and_no_rows(ledger: Path) -> None:
    ledger.write_text("")
    spans = read_ledger(ledger)
    assert spans.empty
    assert {"start", "tenant_id", "cost_nano_usd"} <= set(spans.columns)
    assert list(cost_table(spans)["calls"]) == [0]


def test_a_torn_last_line_is_left_out_with_a_warning(ledger: Path) -> None:
    ledger.write_text(line(1) + line(2)[:100])
    with pytest.warns(TornLine, match=r"ledger\.jsonl, line 2: incomplete"):
        assert len(read_ledger(ledger)) == 1


def test_damage_elsewhere_is_an_error(ledger: Path) -> None:
    ledger.write_text(line(1)[:50] + "\n" + line(2))
    with pytest.raises(LedgerError, match=r"ledger\.jsonl, line 1: not JSON"):
        read_ledger(ledger)


def test_a_span_that_came_twice_is_one_row(ledger: Path) -> None:
    ledger.write_text(line(1) + line(2) + line(1))
    assert len(read_ledger(ledger)) == 2


def test_a_folder_is_read_whole(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(line(2))
    (tmp_path / "b.jsonl").write_text(line(1))
    (tmp_path / "c.txt").write_text("no ledger")
    assert list(read_ledger(tmp_path)["span_id"]) == ["0000000000000001", "0000000000000002"]


def test_a_missing_ledger_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no ledger at .*gone\.jsonl"):
        read_ledger(tmp_path / "gone.jsonl")


def test_costs_add_up_per_tenant_and_model(ledger: Path) -> None:
    ledger.write_text(
        call(1, "b", "m1", 10, 5, 100)
        + call(2, "a", "m2", 1, 0, 7, success=False)
        + call(3, "a", "m1", 3, 4, 2**53 + 1)
        + call(4, "a", "m1", 3, 4, 1)
    )
    table = cost_table(read_ledger(ledger))
    assert list(table["tenant"]) == ["a", "a", "b", "total"]
    assert list(table["model"]) == ["m1", "m2", "m1", ""]
    assert list(table["calls"]) == [2, 1, 1, 4]
    assert list(table["failures"]) == [0, 1, 0, 1]
    assert list(table["prompt_tokens"]) == [6, 1, 10, 17]
    assert list(table["completion_tokens"]) == [8, 0, 5, 13]
    assert list(table["cost_usd"]) == [(2**53 + 2) / 1e9, 7e-9, 1e-7, (2**53 + 109) / 1e9]
