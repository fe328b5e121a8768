"""Ids chosen before the call: found again by its report, and used for one span only."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from otel_cost_logger.planned import PlannedSpan, plan, planned_for, planned_for_logging_object


def test_a_plan_is_found_in_the_details_of_its_call_alone() -> None:
    call, another = SimpleNamespace(model_call_details={}), SimpleNamespace(model_call_details={})
    planned = PlannedSpan(1, 2, None)
    plan(call, planned)
    assert planned_for(call.model_call_details) is planned
    assert planned_for_logging_object(call) is planned
    assert planned_for_logging_object(another) is None


@pytest.mark.parametrize("logging_object", [None, SimpleNamespace(), SimpleNamespace(model_call_details="no mapping")])
def test_without_a_logging_object_nothing_is_planned(logging_object: object) -> None:
    plan(logging_object, PlannedSpan(1, 2, None))
    assert planned_for_logging_object(logging_object) is None


def test_a_caller_cannot_write_a_plan() -> None:
    (name,) = PlannedSpan(1, 2, None).as_detail()
    for forged in ({"trace_id": 1, "span_id": 2, "parent": None}, "00-1-2-01", [1, 2], None):
        assert planned_for({name: forged}) is None
