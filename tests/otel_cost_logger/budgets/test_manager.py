"""LiteLLM's BudgetManager, charged by the callback, as the tutorial asks."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import litellm
import pytest
from litellm import BudgetManager
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from otel_cost_logger import OtelCostLogger
from otel_cost_logger.budgets.manager import require_budget
from otel_cost_logger.provider import build_provider
from otel_cost_logger.settings import Settings


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BudgetManager:
    monkeypatch.chdir(tmp_path)  # it writes where it is
    # Its own thread may write after the test, and elsewhere.
    monkeypatch.setattr(BudgetManager, "_save_data_thread", BudgetManager.save_data)
    manager = BudgetManager(project_name="test")
    manager.create_budget(total_budget=0.00001, user="tenant-acme")
    return manager


def test_spans_say_what_is_left_and_a_spent_budget_raises(
    manager: BudgetManager, spans: InMemorySpanExporter, make_call: Any, tmp_path: Path
) -> None:
    provider = build_provider(Settings(exporters=()))
    provider.add_span_processor(SimpleSpanProcessor(spans))
    logger = OtelCostLogger(Settings(), provider, budget_manager=manager)
    for number in range(2):
        require_budget(manager, "tenant-acme")
        kwargs = make_call({"litellm_call_id": str(number)})  # costs 5 millionths
        asyncio.run(logger.async_log_success_event(kwargs, None, None, None))
    left = [span.attributes["llm.budget_remaining_usd"] for span in spans.get_finished_spans() if span.attributes]
    assert left == pytest.approx([0.000005, 0.0])
    with pytest.raises(litellm.BudgetExceededError):
        require_budget(manager, "tenant-acme")
    require_budget(manager, "tenant-globex")  # has none
    kept = json.loads((tmp_path / "user_cost.json").read_text())
    assert kept["tenant-acme"]["current_cost"] == pytest.approx(0.00001)
    assert kept["tenant-acme"]["model_cost"] == {"mistral": pytest.approx(0.00001)}


def test_a_budget_with_a_duration_begins_anew(manager: BudgetManager) -> None:
    manager.create_budget(total_budget=1.0, user="daily", duration="daily", created_at=0.0)
    manager.user_dict["daily"]["current_cost"] = 2.0
    require_budget(manager, "daily")
    assert manager.get_current_cost("daily") == 0
