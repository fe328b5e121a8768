"""The books balance: hundreds of calls of every kind through a real proxy, held against the engine's counters.

Once with the mock, and once with a real vLLM (marked `engine`): the same calls, the same statements.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pandas as pd
import pytest
import yaml

from workbook.accounts import (
    ABANDONED,
    ABANDONED_GUESSED,
    ABANDONED_UNCOUNTED,
    FAILED,
    FINISHED_UNSEEN,
    REFUSED_BY_ENGINE,
    REFUSED_BY_GATEWAY,
    REPEATED,
)
from workbook.counters import EngineCounters, wait_idle
from workbook.paths import BUILD_VARIABLE
from workbook.ports import free_port
from workbook.reconcile import Reconciliation, during, reconcile
from workbook.services import DEFAULT_CONFIG, Mock, Receiver
from workbook.spans import read_ledger
from workbook.stacks import TENANTS, Stack, stack
from workbook.traces import PHASES, join

AT_A_TIME = 8
LONG = "The quick brown fox jumps over the lazy dog and runs away. " * 12  # several blocks of any prefix cache
CHAT, COMPLETIONS, MESSAGES, RESPONSES = "/v1/chat/completions", "/v1/completions", "/v1/messages", "/v1/responses"
ABANDONED_TOKENS = 300  # more than is delivered before the caller leaves
CAUSES = {
    *(ABANDONED, ABANDONED_GUESSED, ABANDONED_UNCOUNTED, FAILED, FINISHED_UNSEEN),
    *(REFUSED_BY_ENGINE, REFUSED_BY_GATEWAY),
}
MOCK_ARGS = ("--enable-prompt-tokens-details", "--ttft-ms", "20", "--tpot-ms", "5")


@dataclass(frozen=True)
class Backend:
    """An engine's URL, and the ledger that its own spans arrive in."""

    url: str
    spans: Path


@dataclass(frozen=True)
class Ask:
    """A request and what becomes of it: answered, refused, left in mid-stream, or left early: mostly before a token."""

    path: str
    body: dict[str, Any]
    end: str = "answered"


@dataclass(frozen=True)
class Round:
    """How the calls ended that were made between two reads of the counters."""

    ends: Counter[str]
    before: EngineCounters
    after: EngineCounters


@pytest.fixture(scope="module", params=["mock", pytest.param("vllm", marks=pytest.mark.engine)])
def backend(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(BUILD_VARIABLE, str(tmp_path_factory.mktemp("books")))
        if request.param == "vllm":
            shared = request.getfixturevalue("engine")
            yield Backend(shared.url, shared.spans)
            return
        with Receiver("mock_spans") as receiver:
            endpoint = receiver.endpoint("http/protobuf")
            with Mock("books_mock", args=MOCK_ARGS, traces_endpoint=endpoint) as mock:
                yield Backend(mock.url, receiver.ledger)


@pytest.fixture(scope="module")
def running(backend: Backend) -> Iterator[Stack]:
    with stack("books", backend=backend.url) as started:
        yield started


def asks_of(tenant: str) -> list[Ask]:
    """81 calls: every endpoint and way of asking, and every way for a call to end."""
    numbers = iter(range(1000))

    def chat(**more: Any) -> dict[str, Any]:
        text = f"{tenant} asks: what is {next(numbers)}? {LONG if more.pop('long', False) else ''}"
        return {"model": "mistral-7b", "messages": [{"role": "user", "content": text}], "max_tokens": 6} | more

    def completion(**more: Any) -> dict[str, Any]:
        return {"model": "mistral-7b", "prompt": f"{tenant} says {next(numbers)}", "max_tokens": 6} | more

    def response(**more: Any) -> dict[str, Any]:
        return {"model": "mistral-7b", "input": f"{tenant} wants {next(numbers)}", "max_output_tokens": 6} | more

    streamed: dict[str, Any] = {"stream": True}
    with_usage = streamed | {"stream_options": {"include_usage": True}}
    two: dict[str, Any] = {"n": 2, "temperature": 1.0}
    three_prompts = [f"{tenant} one", f"{tenant} number two", f"{tenant} has three"]
    endless: dict[str, Any] = {"max_tokens": ABANDONED_TOKENS, "ignore_eos": True}
    return [
        *(Ask(CHAT, chat(long=index % 8 == 0)) for index in range(20)),
        *(Ask(CHAT, chat(**streamed, long=index % 8 == 0)) for index in range(16)),
        *(Ask(CHAT, chat(**with_usage)) for _ in range(8)),
        *(Ask(CHAT, chat(**two, long=index == 0)) for index in range(4)),
        *(Ask(CHAT, chat(**streamed, **two)) for _ in range(4)),
        *(Ask(CHAT, chat(stop=["e", "a"], max_tokens=20, stream=stream)) for stream in (False, True)),
        *(Ask(COMPLETIONS, completion()) for _ in range(3)),
        *(Ask(COMPLETIONS, completion(**options)) for options in (streamed, with_usage, two)),
        *(
            Ask(COMPLETIONS, completion(prompt=three_prompts, **options))
            for options in ({}, streamed, two, streamed | two)
        ),
        *(Ask(MESSAGES, chat(stream=stream)) for stream in (False, True) for _ in range(2)),
        *(Ask(RESPONSES, response(stream=stream)) for stream in (False, True) for _ in range(2)),
        *(Ask(CHAT, chat(**streamed, **endless), "left in mid-stream") for _ in range(2)),
        Ask(CHAT, chat(**streamed, **endless, **two), "left in mid-stream"),
        Ask(COMPLETIONS, completion(**streamed, **endless), "left in mid-stream"),
        *(Ask(CHAT, chat(**streamed, **endless, long=True), "left early") for _ in range(2)),
        Ask(CHAT, chat(model="nobody-serves-this"), "refused"),
        Ask(CHAT, chat(temperature="hot"), "refused"),
        Ask(CHAT, chat(messages=[{"role": "user", "content": "word " * 9000}]), "refused"),
    ]


def make(http: httpx.Client, ask: Ask) -> str:
    """Make the call; returns its end, which is "failed" where the gateway took a connection that the engine closed."""
    if ask.end == "left early":
        patience = httpx.Timeout(60, read=0.02)
        with suppress(httpx.ReadTimeout), http.stream("POST", ask.path, json=ask.body, timeout=patience):
            pass
        return ask.end
    with http.stream("POST", ask.path, json=ask.body) as answer:
        if answer.status_code >= 500:
            return "failed"
        if ask.end == "refused":
            assert 400 <= answer.status_code < 500
            return ask.end
        if ask.end == "left in mid-stream":
            lines = (line for line in answer.iter_lines() if line)
            assert [next(lines) for _ in range(6)]
        else:
            answer.read()
        assert answer.status_code == 200, answer.text
    return ask.end


def make_all(running: Stack, backend: Backend, asks: dict[str, list[Ask]]) -> Round:
    """All the calls in a fixed, mixed order, `AT_A_TIME` at a time."""
    calls = [(tenant, ask) for tenant, own in asks.items() for ask in own]
    random.Random(0).shuffle(calls)
    clients = {tenant: running.http(tenant) for tenant in asks}
    for client in clients.values():
        client.headers["Connection"] = "close"  # or a busy client takes a connection that the proxy is closing
    before = wait_idle(backend.url)
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        ends = list(pool.map(lambda call: make(clients[call[0]], call[1]), calls))
    after = wait_idle(backend.url)
    for client in clients.values():
        client.close()
    return Round(Counter(ends), before, after)


def engine_spans(backend: Backend, rounds: list[Round], eventually: Callable[..., None]) -> pd.DataFrame:
    """The engine's own spans of the rounds, as soon as there is one for each request that it says it finished."""

    def finished(round_: Round) -> int:
        return sum(model.requests for model in round_.after.since(round_.before).values())

    def arrived() -> bool:
        spans = read_ledger(backend.spans)
        requests = spans[spans["span_name"] == "llm_request"]
        return all(len(during(requests, each.before, each.after)) >= finished(each) for each in rounds)

    eventually(arrived, "the engine's spans")
    return read_ledger(backend.spans)


def row(result: Reconciliation, quantity: str) -> pd.Series:
    return result.table.set_index("quantity").loc[quantity]


@pytest.mark.timeout(600)
def test_every_call_is_in_both_books_twice_in_a_row(
    running: Stack, backend: Backend, eventually: Callable[..., None]
) -> None:
    asks = {tenant: asks_of(tenant) for tenant in TENANTS}
    rounds = [make_all(running, backend, asks) for _ in range(2)]
    calls = sum(each.ends.total() for each in rounds)
    assert all(each.ends.total() >= 300 and each.ends["failed"] <= 10 for each in rounds)
    records = running.wait_for_records(calls)
    assert len(records) == calls
    traces = engine_spans(backend, rounds, eventually)

    results = [
        reconcile(
            each.before,
            each.after,
            during(records, each.before, each.after),
            during(traces, each.before, each.after),
        )
        for each in rounds
    ]

    for each, result in zip(rounds, results, strict=True):
        ends = each.ends
        assert result.balanced, f"{result}\n{result.calls.to_string()}"
        # The completed calls: to the token, all together and each by itself.
        for quantity in ("prompt tokens, finished", "generated tokens, finished"):
            # An abandoned call that the engine finished before it heard of it is known by its span.
            assert row(result, quantity)["residual"] == row(result, quantity)["lowest"], str(result)
        assert result.proven == ends["answered"]
        assert result.contradicted.empty
        assert result.untraced.empty
        assert result.unrecorded.empty
        assert result.elsewhere == {}
        # The others: each has its cause, and together they explain what is left.
        causes = result.calls["cause"].value_counts()
        assert 2 * causes[REFUSED_BY_GATEWAY] == causes[REFUSED_BY_ENGINE] == 2 / 3 * ends["refused"]
        left = ends["left in mid-stream"] + ends["left early"]
        assert causes.drop([REFUSED_BY_GATEWAY, REFUSED_BY_ENGINE]).sum() == left + ends["failed"]
        assert set(causes.index) <= CAUSES
        generated = row(result, "generated tokens")
        assert generated["lowest"] <= generated["residual"]
        assert pd.isna(generated["highest"])  # nobody knows how many prompts an abandoned completion had
        assert generated["residual"] <= 2 * ABANDONED_TOKENS * (left + ends["failed"])
        # Everything belongs to somebody.
        assert sorted(result.tenants["tenant"]) == sorted(TENANTS)
        assert (result.tenants["calls"] == ends.total() / len(TENANTS)).all()
        assert result.tenants["prompt_tokens"].sum() == row(result, "prompt tokens")["records"]
        assert result.tenants["generation_tokens"].sum() == generated["records"]

    first, second = (row(result, "cached prompt tokens") for result in results)
    assert second["engine"] > first["engine"]
    assert second["records"] > first["records"]

    traced = join(records, traces)
    completed = traced[traced["success"].astype(bool)]
    assert (completed["engine_requests"] > 0).all()
    assert ((completed[list(PHASES)].sum(axis=1) - completed["duration_ms"]).abs() < 0.01).all()


@pytest.mark.timeout(300)
def test_cached_tokens_agree_exactly(running: Stack, backend: Backend) -> None:
    """Of calls with one prompt and one choice; those with more tell the engine's hits of one only."""
    requests = [
        Ask(path, {"model": "mistral-7b", "messages": [{"role": "user", "content": text}], "max_tokens": 2} | way)
        for text in ("First " + LONG, "Second " + LONG)
        for path in (CHAT, MESSAGES)
        for way in ({}, {"stream": True})
    ]
    recorded = len(read_ledger(running.ledger))
    before = wait_idle(backend.url)
    with running.http(TENANTS[0]) as http:
        assert [make(http, request) for request in requests] == ["answered"] * len(requests)
    after = wait_idle(backend.url)
    records = running.wait_for_records(recorded + len(requests))
    result = reconcile(before, after, during(records, before, after))
    assert set(result.table["balance"]) == {"exact"}, str(result)
    assert row(result, "cached prompt tokens")["engine"] > 0


def test_embeddings_count_prompts_and_generate_nothing(build: Path) -> None:
    with (
        Mock("pooling_mock", args=["--runner", "pooling"]) as mock,
        stack("pooling", backend=mock.url, tenants=["one"]) as started,
    ):
        before = wait_idle(mock.url)
        for text in ("one text", ["two", "texts in a list"]):
            started.client("one").embeddings.create(model="mistral-7b", input=text)
        result = reconcile(before, wait_idle(mock.url), started.wait_for_records(2))
    assert result.verdict.startswith("balanced exactly: 2 completed calls"), str(result)
    assert row(result, "prompt tokens")["engine"] > 0
    assert row(result, "generated tokens")["engine"] == 0


def test_a_repeated_attempt_is_explained(build: Path) -> None:
    """Two deployments under one name, and nobody listens at one of them."""
    config = yaml.safe_load(DEFAULT_CONFIG.read_text())
    (deployment,) = (entry for entry in config["model_list"] if entry["model_name"] == "mistral-7b")
    dead = deployment | {
        "litellm_params": deployment["litellm_params"] | {"api_base": f"http://127.0.0.1:{free_port()}/v1"}
    }
    config["model_list"].append(dead)
    config["litellm_settings"]["num_retries"] = 3
    config["router_settings"]["retry_after"] = 0
    calls = 12  # each tries the dead one first with a probability of one half
    with Mock("half_dead_mock") as mock, stack("half_dead", config=config, backend=mock.url) as started:
        before = wait_idle(mock.url)
        with started.http(TENANTS[0]) as http:
            body = {"model": "mistral-7b", "messages": [{"role": "user", "content": "Again?"}], "max_tokens": 2}
            answers = [http.post(CHAT, json=body).status_code for _ in range(calls)]
        result = reconcile(before, wait_idle(mock.url), started.wait_for_records(calls))
    assert result.verdict.startswith("balanced exactly"), str(result)
    assert (result.calls["attempts"] > 1).all()
    assert set(result.calls["cause"]) <= {REPEATED, FAILED}
    assert (result.calls["cause"] == FAILED).sum() == sum(status != 200 for status in answers)
    assert len(result.calls) > 0
