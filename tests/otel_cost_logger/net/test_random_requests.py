"""Random requests through the shipped configuration: the records hold what the engines did, whatever was asked.

Each tenant has an engine of its own, whose counters say what was done for that tenant; who is the "stranger" of a round
may ask for everything that the proxy has. ``SOAK_SEED`` and ``SOAK_REQUESTS`` choose the long run of `make test-soak`.
"""

from __future__ import annotations

import json
import os
import re
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from random_requests import LEAVES_IN_MID_STREAM, Request, any_request, generating
from test_census import PRICES, SideEngine, config

from workbook.paths import BUILD_VARIABLE
from workbook.services import Mock
from workbook.stacks import TENANTS, Stack, stack

SEED = int(os.environ.get("SOAK_SEED", "1"))
REQUESTS = int(os.environ.get("SOAK_REQUESTS", "1000"))
COLUMNS = (
    "id, start_ns, tenant_id, call_id, call_type, outcome, error_status, usage_source, prompt_tokens, "
    "completion_tokens, choice_count, attempts, cost_source, cost_nano_usd, model, stream"
)
NO_BUDGET, AMPLE, LAST_CALL, SPENT = "no budget", "ample", "last call", "spent"
_COUNTER = re.compile(r"^vllm:(prompt_tokens_total|generation_tokens_total|num_requests_running)\{.*\} (\S+)$", re.M)


@dataclass(frozen=True)
class Round:
    """One request of each tenant, at the same time, and how the tenants' budgets stand."""

    requests: dict[str, Request]
    stranger: str
    budgets: dict[str, str]


@dataclass(frozen=True)
class Worked:
    """Tokens that engines counted."""

    prompt: int
    completion: int

    def __add__(self, other: Worked) -> Worked:
        return Worked(self.prompt + other.prompt, self.completion + other.completion)

    def __sub__(self, other: Worked) -> Worked:
        return Worked(self.prompt - other.prompt, self.completion - other.completion)


@dataclass
class Books:
    """The running proxy, an engine for each tenant and those that all can reach, and what was found so far."""

    stack: Stack
    budgets: Path
    own: dict[str, Mock]
    shared: tuple[Mock, ...]
    side: SideEngine
    named: Counter[str] = field(default_factory=Counter)
    requests: int = 0
    worked: int = 0

    def engine(self, mock: Mock) -> Worked:
        """The counters of an engine, as soon as nothing runs there."""
        deadline = time.monotonic() + 30
        while True:
            found: Counter[str] = Counter()
            for name, value in _COUNTER.findall(self._http.get(f"{mock.url}/metrics").text):
                found[name] += int(float(value))
            if not found["num_requests_running"]:
                return Worked(found["prompt_tokens_total"], found["generation_tokens_total"])
            assert time.monotonic() < deadline, f"{mock.url} is not idle"

    def __post_init__(self) -> None:
        self._http = httpx.Client(trust_env=False, timeout=10)
        self._clients = {tenant: self.stack.http(tenant) for tenant in TENANTS}

    def engines(self) -> tuple[dict[str, Worked], Worked]:
        """What each tenant's engine has counted, and all others together."""
        others = sum(map(self.engine, self.shared), Worked(self.side.prompt_tokens, 0))
        return {tenant: self.engine(mock) for tenant, mock in self.own.items()}, others

    def rows(self, sql: str, *values: Any) -> list[dict[str, Any]]:
        with closing(sqlite3.connect(self.stack.durable_ledger)) as connection:
            connection.row_factory = sqlite3.Row
            return [dict(row) for row in connection.execute(sql, values)]

    def in_flight(self) -> bool:
        return bool(self.rows("SELECT 1 FROM calls_in_flight LIMIT 1"))

    def wait(self, condition: Callable[[], object], what: str, seconds: float = 20) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, what
            time.sleep(0.01)

    def limit(self, budgets: dict[str, str]) -> None:
        spent = {row["tenant_id"]: row["nano_usd"] for row in self.rows("SELECT tenant_id, nano_usd FROM spend")}
        limits = {SPENT: lambda _: 0, AMPLE: lambda _: 10**12, LAST_CALL: lambda tenant: spent.get(tenant, 0) + 1}
        text = "".join(
            f"  {tenant}: {{month: {limits[name](tenant) / 1e9:.9f}}}\n"
            for tenant, name in budgets.items()
            if name != NO_BUDGET
        )
        self.write(text)

    def write(self, limits: str) -> None:
        """The budgets file with these ``limits``, from the next call on."""
        partial = self.budgets.with_suffix(".partial")
        partial.write_text(f"tenants:\n  nobody: {{day: 1}}\n{limits}")
        partial.replace(self.budgets)

    def ask(self, tenant: str, request: Request) -> tuple[int | None, str]:
        """Status and text of the answer, as far as the caller got it."""
        client = self._clients[tenant]
        raw = request.body if isinstance(request.body, bytes) else json.dumps(request.body).encode()
        sent = {"content": raw, "headers": {"content-type": "application/json", **request.headers}}
        try:
            with client.stream("POST", request.path, **sent) as answer:
                if request.caller == LEAVES_IN_MID_STREAM and answer.status_code == 200:
                    return 200, next(answer.iter_lines(), "")
                answer.read()
                return answer.status_code, answer.text
        except httpx.RemoteProtocolError as error:  # the engine's stream was cut, and so is the caller's
            return None, repr(error)

    def play(self, played: Round) -> None:
        """Make the requests of a round, and hold what was recorded against what the engines did."""
        self.limit(played.budgets)
        began, (own, others) = time.time_ns(), self.engines()
        with ThreadPoolExecutor(len(TENANTS)) as pool:
            asked = {tenant: pool.submit(self.ask, tenant, request) for tenant, request in played.requests.items()}
        answers = {tenant: answer.result() for tenant, answer in asked.items()}
        self.wait(lambda: not self.in_flight(), "a call was noted and never recorded")
        own_now, others_now = self.engines()

        def recorded() -> dict[str, list[dict[str, Any]]]:
            found: dict[str, list[dict[str, Any]]] = {tenant: [] for tenant in TENANTS}
            for row in self.rows(f"SELECT {COLUMNS} FROM spans WHERE start_ns >= ?", began):
                found.setdefault(row["tenant_id"], []).append(row)
            return found

        def has_record(tenant: str) -> bool:
            return bool(recorded()[tenant])

        worked = {tenant: own_now[tenant] - own[tenant] for tenant in TENANTS}
        worked[played.stranger] += others_now - others
        for tenant, request in played.requests.items():
            self.requests += 1
            status, text = answers[tenant]
            what = (
                f"{tenant} ({played.budgets[tenant]}) asked {request}; {status} {text[:300]}; engine: {worked[tenant]}"
            )
            if worked[tenant] != Worked(0, 0) or status == 403:
                self.worked += status != 403
                self.wait(partial(has_record, tenant), f"no record: {what}")
            rows = recorded()[tenant]
            self._hold(rows, worked[tenant], played.budgets[tenant], f"{what}; records: {rows}", request)
        others_rows = {tenant: rows for tenant, rows in recorded().items() if tenant not in TENANTS}
        assert not others_rows, f"records of nobody who asked: {others_rows}; {played}"

    def _hold(self, rows: list[dict[str, Any]], worked: Worked, budget: str, what: str, request: Request) -> None:
        assert len(rows) <= 1, f"more than one record: {what}"
        if budget == SPENT:
            assert worked == Worked(0, 0), f"an engine worked past a spent budget: {what}"
        if not rows:
            assert worked == Worked(0, 0), what
            return
        row = rows[0]
        prompt, completion = row["prompt_tokens"] * max(1, row["choice_count"]), row["completion_tokens"]
        if Worked(prompt, completion) == worked:
            charged = row["prompt_tokens"] + completion
            assert not charged or row["cost_nano_usd"] > 0 or row["cost_source"] in ("unpriced", "custom_price"), what
            return
        # From here on the answer is one of those that are named.
        assert row["cost_source"] != "not_charged", f"an engine worked, and the record says that it did not: {what}"
        name = (
            f"{row['outcome']} {row['usage_source']} {row['cost_source']} attempts={row['attempts']} {request.caller}"
        )
        if row["cost_source"] == "unknown":
            self.named[name] += 1
            return
        # An attempt that failed has worked, too: the record is of the one that was answered, and says how many it took.
        repeated = row["attempts"] > 1 and worked.prompt == prompt * row["attempts"]
        assert row["outcome"] != "success" or repeated, f"a success that was counted wrong: {what}"
        assert prompt + completion <= worked.prompt + worked.completion or row["usage_source"] == "estimated", what
        if row["usage_source"] == "engine" and row["attempts"] == 1:
            assert prompt == worked.prompt, what
            assert worked.completion - completion <= 2 * max(1, row["choice_count"]), what
        else:
            assert row["usage_source"] in ("none", "estimated") or row["attempts"] > 1, what
        self.named[name] += 1

    def close(self) -> None:
        for client in (self._http, *self._clients.values()):
            client.close()


@pytest.fixture(scope="module")
def books(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Books]:
    folder = tmp_path_factory.mktemp("random")
    budgets = folder / "budgets.yaml"
    budgets.write_text("tenants: {nobody: {day: 1}}\n")
    env = {"OTEL_COST_LOGGER_BUDGETS_FILE": str(budgets), "OTEL_COST_LOGGER_OPEN_ROADS": "/azure/*"}
    faulty = ["--enable-faults", "--tpot-ms", "0.2"]
    with ExitStack() as resources:
        patch = resources.enter_context(pytest.MonkeyPatch.context())
        patch.setenv(BUILD_VARIABLE, str(folder))
        side = resources.enter_context(SideEngine())
        own = {
            tenant: Mock(f"random-{tenant}", args=[*faulty, "--served-model-name", f"of-{tenant}", "mistral-7b"])
            for tenant in TENANTS
        }
        pooling = Mock("random-pooling", args=["--runner", "pooling", "--served-model-name", "mistral-7b"])
        shared = Mock("random-shared", args=faulty)
        for mock in (*own.values(), pooling, shared):
            resources.enter_context(mock)
        shipped_and_more = config(side, pooling.url, shared.url, shared.url)
        shipped_and_more["model_list"] += [
            {
                "model_name": f"of-{tenant}",
                "litellm_params": {
                    "model": f"hosted_vllm/of-{tenant}",
                    "api_base": f"{mock.url}/v1",
                    "api_key": "none",
                },
                "model_info": PRICES,
            }
            for tenant, mock in own.items()
        ]
        running = resources.enter_context(
            stack("random", config=shipped_and_more, backend=shared.url, processor="durable", env=env)
        )
        found = Books(running, budgets, own, (shared, pooling), side)
        resources.callback(found.close)
        yield found


@st.composite
def rounds(draw: st.DrawFn) -> Round:
    stranger = draw(st.sampled_from(TENANTS))
    requests = {tenant: draw(any_request() if tenant == stranger else generating(f"of-{tenant}")) for tenant in TENANTS}
    budgets = st.sampled_from([NO_BUDGET, NO_BUDGET, AMPLE, AMPLE, LAST_CALL, SPENT])
    return Round(requests, stranger, {tenant: draw(budgets) for tenant in TENANTS})


OPTIONS: dict[str, Any] = {
    "deadline": None,
    "database": None,
    "suppress_health_check": list(HealthCheck),
    "print_blob": False,
}


def play_all(books: Books, number: int, options: dict[str, Any], choose: Callable[..., Any]) -> None:
    @settings(max_examples=number // len(TENANTS), **OPTIONS, **options)
    @given(rounds())
    def played(played: Round) -> None:
        books.play(played)

    choose(played)()
    print(f"\n{books.requests} requests, {books.worked} of them worked for by an engine; named: {dict(books.named)}")
    total = books.rows("SELECT count(*) AS number FROM spans")[0]["number"]
    assert total <= books.requests, "more records than requests"


@pytest.mark.timeout(300)
def test_random_requests_leave_what_the_engines_did(books: Books) -> None:
    play_all(books, 100, {"derandomize": True}, lambda test: test)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_a_thousand_random_requests_leave_what_the_engines_did(books: Books) -> None:
    play_all(books, REQUESTS, {}, seed(SEED))
