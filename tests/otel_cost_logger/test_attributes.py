"""The schema table: complete, unambiguous, and true to what is emitted."""

from __future__ import annotations

from typing import Any

from otel_cost_logger.attributes import COST_VIEWS, SCHEMA, attributes_of, schema_markdown
from otel_cost_logger.record import CallRecord, build_record

TUTORIAL = {
    "llm.model": str,
    "llm.call_type": str,
    "llm.tenant_id": str,
    "llm.prompt_tokens": int,
    "llm.completion_tokens": int,
    "llm.total_tokens": int,
    "llm.cost_usd": float,
    "llm.duration_ms": float,
    "llm.success": bool,
}
TYPES = {"string": str, "int": int, "float": float, "bool": bool, "string[]": tuple}


def test_the_nine_attributes_of_the_tutorial_keep_name_and_type(make_call: Any) -> None:
    attributes = attributes_of(build_record(make_call(), None, None, None, failed=False, behind_proxy=True))
    assert {name: type(attributes[name]) for name in TUTORIAL} == TUTORIAL


def test_every_row_names_a_field_and_every_field_has_a_row() -> None:
    properties = {"success", "duration_ms", "cost_usd", "cost_nano_usd", "cost_source", "price_version"}
    # These are the span's own times, ids and parent, or are shown by the properties above.
    not_attributes = {"start_ns", "end_ns", "traceparent", "planned", "cost"}
    fields = set(CallRecord._fields) - not_attributes
    assert {row.field for row in SCHEMA} == fields | properties


def test_names_are_unique() -> None:
    names = [row.name for row in SCHEMA]
    assert len(names) == len(set(names))
    assert "gen_ai.usage.cost" not in names


def test_types_are_as_the_table_says(make_call: Any) -> None:
    call = make_call({"stream": True, "exception": ValueError()}, error_information={"error_code": "500"})
    response = {"choices": [{"finish_reason": "stop"}]}
    record = build_record(call, response, None, None, failed=True, behind_proxy=True)
    record = record._replace(response_id="x", budget_remaining_usd=1.0, tenant_claimed="user=x")
    record = record._replace(model_requested="another", cache_hit=True)
    attributes = attributes_of(record)
    assert {row.name for row in SCHEMA} == set(attributes)
    for row in SCHEMA:
        assert type(attributes[row.name]) is TYPES[row.type], row.name


def test_seconds_where_the_convention_wants_seconds(make_call: Any) -> None:
    attributes = attributes_of(
        build_record(make_call({"stream": True}), None, None, None, failed=False, behind_proxy=True)
    )
    assert attributes["llm.time_to_first_token_ms"] == 250.0
    assert attributes["gen_ai.response.time_to_first_chunk"] == 0.25


def test_the_documentation_is_generated_from_the_table() -> None:
    text = schema_markdown()
    assert all(f"`{row.name}`" in text for row in SCHEMA)
    assert len(text.splitlines()) == len(SCHEMA) + 2


def test_cost_views_of_backends_are_filled_where_asked_for(make_call: Any) -> None:
    record = build_record(make_call({"stream": True}), None, None, None, failed=False, behind_proxy=True)
    usual, more = attributes_of(record), attributes_of(record, cost_views=True)
    added = {name: value for name, value in more.items() if name not in usual}
    assert added == {
        "gen_ai.usage.cost": record.cost_usd,
        "llm.cost.total": record.cost_usd,
        "gen_ai.server.ttft": 0.25,
    }
    assert usual.items() <= more.items()
    assert set(added) == {row.name for row in COST_VIEWS}


def test_what_nobody_has_priced_is_not_free_in_a_cost_view(make_call: Any) -> None:
    call = make_call(response_cost=0.0)
    call["litellm_params"]["metadata"].pop("model_info")
    record = build_record(call, None, None, None, failed=False, behind_proxy=True)
    assert record.cost_source == "unpriced"
    assert {"gen_ai.usage.cost", "llm.cost.total"}.isdisjoint(attributes_of(record, cost_views=True))
