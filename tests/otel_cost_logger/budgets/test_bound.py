"""What a call may cost at most: never less than what it does cost, whatever a caller writes into the request."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest
from litellm import Router

from otel_cost_logger.budgets.bound import DEFAULT_OUTPUT_TOKENS, MAX_BOUND, Bounds

PER_INPUT, PER_OUTPUT = 200, 600  # nano-USD per token
PRICES = {"input_cost_per_token": 2e-7, "output_cost_per_token": 6e-7}
CHAT = {"model": "priced", "messages": [{"role": "user", "content": "hello"}]}


def deployment(name: str, info: dict[str, Any], **params: Any) -> dict[str, Any]:
    return {
        "model_name": name,
        "litellm_params": {"model": "hosted_vllm/m", "api_base": "http://127.0.0.1:1/v1", **params},
        "model_info": {"id": f"id-of-{name}", **info},
    }


@pytest.fixture
def bounds(monkeypatch: pytest.MonkeyPatch) -> Bounds:
    proxy = ModuleType("litellm.proxy.proxy_server")
    proxy.llm_router = Router(  # type: ignore[attr-defined]
        model_list=[
            deployment("priced", PRICES),
            deployment("declared", {**PRICES, "max_output_tokens": 50}),
            deployment("capped", PRICES, max_tokens=7),
            deployment("free", {}),
        ]
    )
    monkeypatch.setitem(sys.modules, "litellm.proxy.proxy_server", proxy)
    return Bounds(lambda: None)


def output_tokens(bounds: Bounds, **body: Any) -> int:
    request = {**CHAT, **body}
    with_output, without = (bounds.of(request, with_output=with_output) for with_output in (True, False))
    return (with_output - without) // PER_OUTPUT


@pytest.mark.parametrize(
    ("body", "tokens"),
    [
        ({"max_tokens": 4}, 4),
        ({"max_completion_tokens": 5}, 5),
        ({"max_tokens": 4, "max_completion_tokens": 9}, 9),
        ({"max_tokens": 4, "n": 3}, 12),
        ({"max_tokens": 4, "n": 2, "best_of": 5}, 20),
        ({"max_tokens": "16"}, 16),
        ({"prompt": ["a", "b", "c"], "max_tokens": 4, "n": 2}, 24),
        ({"prompt": [1, 2, 3], "max_tokens": 4}, 4),
        ({"prompt": [[1, 2], [3]], "max_tokens": 4}, 8),
        ({"max_tokens": 1, "extra_body": {"max_tokens": 100, "n": 10}}, 1000),  # merged into the engine's request
        ({"max_tokens": 1, "extra_body": {"max_completion_tokens": 100}}, 100),
        ({}, DEFAULT_OUTPUT_TOKENS),
        ({"max_tokens": None}, DEFAULT_OUTPUT_TOKENS),
        ({"max_tokens": -1}, DEFAULT_OUTPUT_TOKENS),
        ({"max_tokens": "many"}, DEFAULT_OUTPUT_TOKENS),
        ({"max_tokens": True}, DEFAULT_OUTPUT_TOKENS),
        ({"max_tokens": float("nan")}, DEFAULT_OUTPUT_TOKENS),
        ({"model": "declared"}, 50),
        ({"model": "declared", "max_tokens": 5000}, 50),
        ({"model": "capped"}, 7),
    ],
)
def test_output_tokens(bounds: Bounds, body: dict[str, Any], tokens: int) -> None:
    assert output_tokens(bounds, **body) == tokens


@pytest.mark.parametrize(
    "more",
    [
        {"messages": [{"role": "user", "content": "x" * 1000}]},
        {"messages": [{"role": "user", "content": "\U0001f600" * 250}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "x" * 1000}]}]},
        {"prompt": list(range(1000))},
        {"tools": [{"type": "function", "function": {"name": "f", "description": "x" * 1000}}]},
        {"system": "x" * 1000},
        {"extra_body": {"messages": [{"role": "user", "content": "x" * 1000}]}},
        {"input": ["x" * 500, "x" * 500]},
    ],
)
def test_a_prompt_has_no_more_tokens_than_bytes(bounds: Bounds, more: dict[str, Any]) -> None:
    assert bounds.of({"model": "priced", **more}, with_output=False) >= 1000 * PER_INPUT


def test_the_dearest_of_those_that_may_serve_counts(bounds: Bounds) -> None:
    asked = {**CHAT, "max_tokens": 4}
    priced = bounds.of(asked, with_output=True)
    assert priced > 0
    assert bounds.of({**asked, "model": "free"}, with_output=True) == 0
    # A caller may name a deployment by its id, and fallbacks.
    assert bounds.of({**asked, "model": "id-of-priced"}, with_output=True) == priced
    assert bounds.of({**asked, "model": "free", "fallbacks": ["priced"]}, with_output=True) == priced


def test_no_number_is_too_large_for_the_ledger(bounds: Bounds) -> None:
    assert bounds.of({**CHAT, "max_tokens": 10**30, "n": 10**30}, with_output=True) == MAX_BOUND
