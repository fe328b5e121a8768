"""Budgets through the real proxy, with one worker and with two."""

from __future__ import annotations

import json
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from workbook.paths import BUILD_VARIABLE
from workbook.stacks import Stack, stack

pytestmark = pytest.mark.timeout(300)

MESSAGES = [{"role": "user", "content": "How much is left of it? " * 20}]
CHAT = {"model": "mistral-7b", "max_tokens": 8, "messages": MESSAGES}
TENANTS = ("rich", "many", "types", "killed", "streams", "broken", "full", "early")


class Running:
    """A stack with a budgets file, and the questions that the tests ask its ledger."""

    def __init__(self, running: Stack, budgets: Path) -> None:
        self.stack = running
        self._budgets = budgets
        self._limits: dict[str, str] = {}

    def limit(self, tenant: str, nano_usd: int, period: str = "day") -> None:
        """From the next call on."""
        self._limits[tenant] = f"{{{period}: {nano_usd / 1e9:.9f}}}"
        text = "".join(f"  {name}: {limits}\n" for name, limits in self._limits.items())
        partial = self._budgets.with_suffix(".partial")
        partial.write_text(f"tenants:\n{text}")
        partial.replace(self._budgets)

    def post(self, tenant: str, path: str = "chat/completions", **body: Any) -> httpx.Response:
        return httpx.post(
            f"{self.stack.proxy_url}/v1/{path}",
            json=body or CHAT,
            headers=self.stack.headers(tenant),
            timeout=120,
            trust_env=False,
        )

    def rows(self, sql: str, *values: Any) -> list[Any]:
        with sqlite3.connect(self.stack.durable_ledger) as connection:
            return connection.execute(sql, values).fetchall()

    def records(self, tenant: str) -> list[Any]:
        """Cost, what is left, outcome and status, in the order in which they were written."""
        columns = "cost_nano_usd, budget_remaining_usd, outcome, error_status"
        return self.rows(f"SELECT {columns} FROM spans WHERE tenant_id = ? ORDER BY id", tenant)

    def in_flight(self) -> int:
        return int(self.rows("SELECT count(*) FROM calls_in_flight")[0][0])


def start(folder: Path, workers: int) -> Iterator[Running]:
    budgets = folder / "budgets.yaml"
    budgets.write_text("tenants: {nobody: {day: 1}}\n")
    options: dict[str, Any] = {
        "env": {"OTEL_COST_LOGGER_BUDGETS_FILE": str(budgets)},
        "tenants": TENANTS,
        "mock_args": ["--enable-faults", "--tpot-ms", "1"],
        "workers": workers,
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(BUILD_VARIABLE, str(folder))
        with stack(f"budgets-{workers}", processor="durable", **options) as started:
            yield Running(started, budgets)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """With one worker."""
    yield from start(tmp_path_factory.mktemp("budgets"), 1)


@pytest.fixture
def two_workers(tmp_path: Path) -> Iterator[Running]:
    yield from start(tmp_path, 2)


def cost_of_a_call(running: Running) -> int:
    """What one call of `CHAT` costs, in billionths of a dollar."""
    assert running.post("rich").status_code == 200
    deadline = time.monotonic() + 30
    while not (found := running.records("rich")):
        assert time.monotonic() < deadline, "no record came"
        time.sleep(0.02)
    assert found[0][0] > 0
    return int(found[0][0])


@pytest.fixture(scope="module")
def cost(running: Running) -> int:
    return cost_of_a_call(running)


@pytest.mark.parametrize("workers", ["running", "two_workers"])
def test_fifty_callers_spend_a_budget_and_no_more(
    workers: str, request: pytest.FixtureRequest, eventually: Callable[[Callable[[], object], str], None]
) -> None:
    running: Running = request.getfixturevalue(workers)
    cost = cost_of_a_call(running)
    limit = 100 * cost
    running.limit("many", limit)
    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda _: running.post("many"), range(130)))
    counts = Counter(answer.status_code for answer in answers)
    assert set(counts) == {200, 429}
    assert 100 <= counts[200] <= 102
    eventually(lambda: len(running.records("many")) == 130, "every call has left a record")
    records = running.records("many")
    assert Counter(status for *_, status in records) == {None: counts[200], 429: counts[429]}
    spent = sum(record[0] for record in records)
    assert spent == counts[200] * cost
    assert running.rows("SELECT sum(nano_usd) FROM spend WHERE tenant_id = 'many'") == [(spent,)]
    # Each record says what its own call left, whichever worker wrote it.
    passed = [round(left * 1e9) for _, left, outcome, _ in records if outcome == "success"]
    assert passed == [limit - cost * number for number in range(1, counts[200] + 1)]
    assert {(cost_, outcome) for cost_, _, outcome, status in records if status == 429} == {(0, "failure")}
    eventually(lambda: running.in_flight() == 0, "nothing is reserved any more")
    refused = next(answer for answer in answers if answer.status_code == 429)
    error = refused.json()["error"]
    assert (error["type"], error["code"]) == ("budget_exceeded", "429")
    assert "tenant many has spent" in error["message"]
    assert error["provider_specific_fields"]["budget"]["spent_usd"] == f"{spent // 10**9}.{spent % 10**9:09d}"
    assert 0 < int(refused.headers["retry-after"]) <= 86_400


def test_every_kind_of_call_is_refused_before_it_is_dispatched(
    running: Running, eventually: Callable[[Callable[[], object], str], None]
) -> None:
    running.limit("types", 0)
    seen = httpx.get(f"{running.stack.mock_url}/metrics", trust_env=False).text
    calls: list[tuple[str, dict[str, Any]]] = [
        ("chat/completions", CHAT),
        ("chat/completions", {**CHAT, "stream": True}),
        ("completions", {"model": "mistral-7b", "prompt": "hello"}),
        ("embeddings", {"model": "mistral-7b", "input": "hello"}),
        ("messages", CHAT),
        ("responses", {"model": "mistral-7b", "input": "hello"}),
        ("chat/completions", {**CHAT, "model": "mistral-7b-unpriced"}),
        ("chat/completions", {**CHAT, "metadata": {"user_api_key_team_id": "rich", "tenant_id": "rich"}}),
    ]
    for path, body in calls:
        answer = running.post("types", path, **body)
        assert answer.status_code == 429, (path, answer.text)
        assert "Budget exceeded: tenant types" in answer.json()["error"]["message"]
    eventually(lambda: len(running.records("types")) == len(calls), "each has a record")
    assert {record[0] for record in running.records("types")} == {0}
    assert {record[2:] for record in running.records("types")} == {("failure", 429)}
    errors = running.rows("SELECT DISTINCT error_type, model_served FROM spans WHERE tenant_id = 'types'")
    assert errors == [("BudgetExceeded", None)]
    total = [line for line in seen.splitlines() if line.startswith("vllm:prompt_tokens_total")]
    assert total
    assert total[0] in httpx.get(f"{running.stack.mock_url}/metrics", trust_env=False).text
    eventually(lambda: running.in_flight() == 0, "nothing was reserved")


def test_streams_failures_and_hung_up_callers_release_what_they_reserved(
    running: Running, cost: int, eventually: Callable[[Callable[[], object], str], None]
) -> None:
    running.limit("streams", 10_000 * cost)
    assert running.post("streams", **CHAT, stream=True).status_code == 200
    assert running.post("streams", **CHAT, mock_fault="500").status_code == 500
    long = {**CHAT, "max_tokens": 2000, "ignore_eos": True, "stream": True}
    url = f"{running.stack.proxy_url}/v1/chat/completions"
    with httpx.stream("POST", url, json=long, headers=running.stack.headers("streams"), trust_env=False) as answer:
        held = running.rows("SELECT reserved_nano_usd FROM calls_in_flight WHERE tenant_id = 'streams'")
        assert held
        assert held[0][0] > 2000 * 600
        next(answer.iter_lines())
    eventually(lambda: len(running.records("streams")) == 3, "each has a record")
    stream, failed, abandoned = running.records("streams")
    assert (stream[0], stream[2]) == (cost, "success")
    assert (failed[0], failed[2], failed[3]) == (0, "failure", 500)
    assert abandoned[2] == "client_disconnected"
    assert round(abandoned[1] * 1e9) == 9_999 * cost - abandoned[0]
    eventually(lambda: running.in_flight() == 0, "nothing is reserved any more")


def test_a_killed_proxy_forgets_neither_what_was_spent_nor_who_is_gone(
    running: Running, cost: int, eventually: Callable[[Callable[[], object], str], None]
) -> None:
    running.limit("killed", 20 * cost)
    for _ in range(12):
        assert running.post("killed").status_code == 200
    eventually(lambda: len(running.records("killed")) == 12, "they are recorded")
    long = {**CHAT, "max_tokens": 2000, "ignore_eos": True, "stream": True}
    url = f"{running.stack.proxy_url}/v1/chat/completions"
    with httpx.stream("POST", url, json=long, headers=running.stack.headers("killed"), trust_env=False):
        eventually(lambda: running.in_flight() == 1, "one is in flight")  # alone: its bound is beyond what is left
        running.stack.proxy.kill()
    running.stack.proxy.restart()
    assert running.in_flight() == 1  # of a process that is gone, which holds up nobody
    with ThreadPoolExecutor(5) as pool:
        answers = list(pool.map(lambda _: running.post("killed"), range(15)))
    counts = Counter(answer.status_code for answer in answers)
    assert 8 <= counts[200] <= 9
    assert counts[200] + counts[429] == 15
    refused = [answer.json()["error"]["type"] for answer in answers if answer.status_code == 429]
    assert set(refused) == {"budget_exceeded"}  # and not in vain for what somebody who is gone had reserved
    assert running.post("rich").status_code == 200  # nobody else is concerned
    eventually(lambda: len(running.records("killed")) == 27, "each has a record")


def test_a_broken_budgets_file_leaves_the_last_good_one_in_force(running: Running, cost: int) -> None:
    running.limit("broken", 0)
    assert running.post("broken").status_code == 429
    running._budgets.write_text("tenants:\n  broken: {day: NaN}\n")
    assert running.post("broken").status_code == 429
    log = running.stack.proxy.log.read_text()
    assert f"{running._budgets}, line 2: broken, day: 'NaN' is not an amount" in log
    running.limit("broken", 1000 * cost)
    assert running.post("broken").status_code == 200


def test_records_have_what_is_left_in_the_spans_that_are_sent(
    running: Running, cost: int, eventually: Callable[[Callable[[], object], str], None]
) -> None:
    running.limit("early", 50 * cost, "month")
    assert running.post("early").status_code == 200

    def sent() -> list[float]:
        spans = [
            json.loads(line)["resourceSpans"][0]["scopeSpans"][0]["spans"][0]
            for line in running.stack.ledger.read_text().splitlines()
        ]
        values = [{a["key"]: a["value"] for a in span["attributes"]} for span in spans]
        return [
            of["llm.budget_remaining_usd"]["doubleValue"]
            for of in values
            if of["llm.tenant_id"]["stringValue"] == "early"
        ]

    eventually(sent, "it has arrived")
    assert sent() == [pytest.approx(49 * cost / 1e9)]
