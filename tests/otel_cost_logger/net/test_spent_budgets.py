"""A tenant whose budget is spent gets nothing from an engine, on any road and whatever is asked for."""

from __future__ import annotations

import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from random_requests import Request
from test_census import ADDRESSES, chat, needs
from test_random_requests import NO_BUDGET, SPENT, Books, books

__all__ = ["books"]  # the fixture

pytestmark = pytest.mark.timeout(300)

SHAPES: dict[str, dict[str, Any]] = {
    "plain": {},
    "streamed": {"stream": True},
    "streamed, with usage": {"stream": True, "stream_options": {"include_usage": True}},
    "three answers": {"n": 3},
    "one token": {"max_tokens": 1, "max_output_tokens": 1},
    "repeated": {"num_retries": 2, "fallbacks": ["mistral-7b-unpriced"]},
    "somebody else's": {"user": "tenant-umbrella", "metadata": {"user_api_key_team_id": "tenant-umbrella"}},
}
OPENED = "/azure/chat/completions"
TENANT = "tenant-globex"


def shapes() -> list[tuple[str, dict[str, Any]]]:
    """Each counted road and an opened one in every shape; lists of models where there are names of models."""
    asked = []
    for address in (*ADDRESSES, OPENED):
        request = needs(address)
        assert request is not None, f"{address} is counted, and the census has no request for it"
        if "json" not in request:
            asked.append((address, request))
            continue
        asked += [(address, {"json": {**request["json"], **shape}}) for shape in SHAPES.values()]
        if "model" in request["json"]:
            asked.append((address, {"json": {**request["json"], "model": "mistral-7b,mistral-7b-unpriced"}}))
    return asked


def test_a_spent_budget_is_spent_on_every_road_and_in_every_shape(books: Books) -> None:
    books.limit({TENANT: SPENT})
    engines, asked = books.engines(), books.side.requests
    before = books.rows("SELECT max(id) AS last FROM spans")[0]["last"] or 0
    answers = []
    with books.stack.http(TENANT) as client:
        for address, request in shapes():
            answer = client.post(address, **request)
            assert answer.status_code in (400, 429), (address, request, answer.text)
            # What cannot be answered in any case is refused without a look at the budget.
            assert answer.status_code == 429 or "," in json.dumps(request["json"]["model"]), (address, answer.text)
            answers.append(answer)
    assert books.engines() == engines
    assert books.side.requests == asked

    def refused() -> list[dict[str, Any]]:
        return books.rows("SELECT * FROM spans WHERE id > ?", before)

    books.wait(lambda: len(refused()) == len(answers), "each refusal leaves a record")
    rows = refused()
    assert {(row["tenant_id"], row["outcome"], row["cost_source"], row["cost_nano_usd"]) for row in rows} == {
        (TENANT, "failure", "not_charged", 0)
    }
    assert Counter(row["error_status"] for row in rows) == Counter(answer.status_code for answer in answers)


def test_a_hundred_callers_at_once_spend_what_there_is_and_no_more_than_one_call_beyond(books: Books) -> None:
    """On different roads at the same time: one budget is behind all of them."""
    books.limit({TENANT: NO_BUDGET})
    request = Request("/v1/chat/completions", chat())
    before = books.rows("SELECT max(id) AS last FROM spans")[0]["last"] or 0

    def records() -> list[dict[str, Any]]:
        return books.rows("SELECT * FROM spans WHERE id > ? AND tenant_id = ?", before, TENANT)

    assert books.ask(TENANT, request)[0] == 200
    books.wait(records, "the first call leaves a record")
    cost = records()[0]["cost_nano_usd"]
    spent = books.rows("SELECT sum(nano_usd) AS spent FROM spend WHERE tenant_id = ?", TENANT)[0]["spent"] or 0
    calls = 5
    limit = spent + calls * cost
    books.write(f"  {TENANT}: {{month: {limit / 1e9:.9f}}}\n")
    engines = books.engines()
    roads = ("/v1/chat/completions", "/vllm/chat/completions", "/direct", "/v1/messages")
    with ThreadPoolExecutor(100) as pool, books.stack.http(TENANT) as client:
        answers = list(
            pool.map(
                lambda number: client.post(roads[number % 4], json=chat(stream=number % 3 == 0), timeout=120),
                range(100),
            )
        )
    assert {answer.status_code for answer in answers} == {200, 429}
    books.wait(lambda: len(records()) == 101, "each call leaves a record")
    charged = sum(row["cost_nano_usd"] for row in records()[1:])
    assert calls * cost <= charged <= (calls + 1) * cost
    moved = books.engines()[1] - engines[1]
    assert (moved.prompt, moved.completion) == (
        sum(row["prompt_tokens"] for row in records()[1:]),
        sum(row["completion_tokens"] for row in records()[1:]),
    )
