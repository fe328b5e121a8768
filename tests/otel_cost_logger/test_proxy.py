"""Behind the real LiteLLM proxy, over the network, to a real OTLP receiver: what is recorded is what happened."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import httpx
import pytest
import yaml

from workbook.paths import DEPLOY
from workbook.services import Mock
from workbook.spans import read_ledger
from workbook.stacks import TENANTS, Stack, stack

pytestmark = pytest.mark.timeout(300)

SHIPPED = yaml.safe_load((DEPLOY / "litellm_config.yaml").read_text())
PRICES = {
    model["model_name"]: {name: Decimal(str(price)) for name, price in model.get("model_info", {}).items()}
    for model in SHIPPED["model_list"]
}
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"


# LiteLLM puts some answer fields through a set: two proxies give the same bytes only under the same hash seed.
FIXED_ORDER = {"PYTHONHASHSEED": "0"}


def ask(text: str = "Explain token cost attribution in one sentence.", **more: Any) -> dict[str, Any]:
    return {"model": "mistral-7b", "max_tokens": 24, "messages": [{"role": "user", "content": text}], **more}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The shipped configuration, in front of a mock that fails on request."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORKBOOK_BUILD_DIR", str(tmp_path_factory.mktemp("build")))
        mock_args = ["--enable-faults", "--enable-prompt-tokens-details"]
        with stack("proxy-test", mock_args=mock_args, env=FIXED_ORDER) as started:
            yield started


class Ledger:
    """The records that came since this object was made."""

    def __init__(self, running: Stack) -> None:
        self._stack = running
        self._before = len(read_ledger(running.ledger)) if running.ledger.stat().st_size else 0
        self._known = set(read_ledger(running.ledger)["span_id"]) if self._before else set()

    def wait(self, n: int) -> list[dict[str, Any]]:
        frame = self._stack.wait_for_records(self._before + n, timeout=60)
        return [row for row in frame.to_dict("records") if row["span_id"] not in self._known]


@pytest.fixture
def ledger(running: Stack) -> Ledger:
    return Ledger(running)


@dataclass
class Seen:
    """What the client of one call saw."""

    call_id: str
    tenant: str
    kind: str
    model: str
    usage: dict[str, Any] | None = None

    def nano_usd(self) -> int:
        prices = PRICES[self.model]
        if not self.usage or not prices:
            return 0
        cached = ((self.usage.get("prompt_tokens_details") or {}).get("cached_tokens")) or 0
        usd = (
            (self.usage["prompt_tokens"] - cached) * prices["input_cost_per_token"]
            + cached * prices["cache_read_input_token_cost"]
            + self.usage["completion_tokens"] * prices["output_cost_per_token"]
        )
        return int(usd * 10**9)


def call(client: httpx.Client, seen: Seen, number: int) -> Seen:
    headers = {"x-litellm-call-id": seen.call_id}
    body = ask(f"Question {number}: who pays for the tokens of this answer?", model=seen.model)
    if seen.kind == "plain":
        answer = client.post("/v1/chat/completions", json=body, headers=headers)
        assert answer.status_code == 200, answer.text
        seen.usage = answer.json()["usage"]
    elif seen.kind == "completion":
        answer = client.post(
            "/v1/completions", json={"model": seen.model, "prompt": f"{number}", "max_tokens": 9}, headers=headers
        )
        assert answer.status_code == 200, answer.text
        seen.usage = answer.json()["usage"]
    elif seen.kind == "stream":
        body |= {"stream": True, "stream_options": {"include_usage": True}}
        answer = client.post("/v1/chat/completions", json=body, headers=headers)
        chunks = [json.loads(line[6:]) for line in answer.text.split("\n") if line.startswith("data: {")]
        (seen.usage,) = [chunk["usage"] for chunk in chunks if chunk.get("usage")]
    elif seen.kind == "failing":
        faults = [{"mock_fault": "500"}, {"model": "no-such-model"}, {"messages": "not a list"}]
        answer = client.post("/v1/chat/completions", json=body | faults[number % 3], headers=headers)
        assert answer.status_code >= 400, answer.text
    else:
        body |= {"stream": True, "mock_fault": f"hang:{1 + number % 5}"}
        with client.stream("POST", "/v1/chat/completions", json=body, headers=headers) as answer:
            assert answer.status_code == 200
            next(answer.iter_lines())  # and hang up
    return seen


def test_200_mixed_calls_leave_200_records_and_the_sums_agree(running: Stack, ledger: Ledger) -> None:
    kinds = ["plain"] * 7 + ["stream"] * 6 + ["completion"] * 2 + ["failing"] * 3 + ["disconnect"] * 2
    models = ["mistral-7b", "mistral-7b", "mistral-7b-unpriced"]
    plan = [
        Seen(f"mixed-{number}", TENANTS[(number * 7) % len(TENANTS)], kinds[number % len(kinds)], models[number % 3])
        for number in range(200)
    ]
    clients = {tenant: running.http(tenant) for tenant in TENANTS}
    with ThreadPoolExecutor(20) as pool:
        list(pool.map(lambda item: call(clients[item[1].tenant], item[1], item[0]), enumerate(plan)))
    records = ledger.wait(200)

    assert len(records) == 200
    assert Counter(row["call_id"] for row in records) == Counter(seen.call_id for seen in plan)
    by_id = {row["call_id"]: row for row in records}
    outcomes = {"failing": "failure", "disconnect": "client_disconnected"}
    for seen in plan:
        row = by_id[seen.call_id]
        assert row["tenant_id"] == seen.tenant
        assert row["outcome"] == outcomes.get(seen.kind, "success"), row
        if seen.usage:
            assert row["usage_source"] == "engine"

    clients_sums: dict[str, Counter[str]] = defaultdict(Counter)
    ledger_sums: dict[str, Counter[str]] = defaultdict(Counter)
    for seen in plan:
        if usage := seen.usage:
            clients_sums[seen.tenant].update(
                prompt=usage["prompt_tokens"], completion=usage["completion_tokens"], nano_usd=seen.nano_usd()
            )
    for row in records:
        if row["outcome"] == "success":
            ledger_sums[row["tenant_id"]].update(
                prompt=row["prompt_tokens"], completion=row["completion_tokens"], nano_usd=row["cost_nano_usd"]
            )
    assert ledger_sums == clients_sums
    assert all(sums["nano_usd"] > 0 for sums in clients_sums.values())
    abandoned = [row for row in records if row["outcome"] == "client_disconnected"]
    # The engine's count so far came with each chunk; "none" is for one who left before the first.
    assert {row["usage_source"] for row in abandoned} <= {"engine", "none"}


def normalised(answer: httpx.Response) -> tuple[int, str, str]:
    text = re.sub(r"(chatcmpl|cmpl|msg|resp|embd)[-_][\w-]+", r"\1-ID", answer.text)
    text = re.sub(r'"(created|created_at|completed_at)": ?[\d.]+', r'"\1":0', text)
    text = re.sub(r"127\.0\.0\.1:\d+", "HOST", text)
    return answer.status_code, answer.headers["content-type"], text


def test_answers_are_the_same_bytes_with_and_without_the_callback(running: Stack, ledger: Ledger) -> None:
    without = yaml.safe_load(yaml.safe_dump(SHIPPED))
    without["litellm_settings"]["callbacks"] = []
    requests: list[tuple[str, dict[str, Any]]] = [
        ("/v1/chat/completions", ask()),
        ("/v1/chat/completions", ask(stream=True)),
        ("/v1/chat/completions", ask(stream=True, stream_options={"include_usage": True})),
        ("/v1/chat/completions", ask(n=2, temperature=0.7)),
        ("/v1/chat/completions", ask(mock_fault="500")),
        ("/v1/chat/completions", ask(mock_fault="429")),
        ("/v1/chat/completions", ask(stream=True, mock_fault="die:3")),
        ("/v1/chat/completions", ask(model="no-such-model")),
        ("/v1/completions", {"model": "mistral-7b", "prompt": "one two three", "max_tokens": 5}),
        ("/v1/messages", ask()),
    ]
    # A streamed text completion is the one kind of answer that gets something added, see the test of its cost.
    with stack("proxy-without", backend=running.mock_url, config=without, env=FIXED_ORDER) as bare:
        clients = running.http(TENANTS[0]), bare.http(TENANTS[0])
        for path, body in requests:
            clients[0].post(path, json=body)  # fills the backend's prefix cache, whose hits are in the answer
            with_callback, without_callback = (normalised(client.post(path, json=body)) for client in clients)
            assert with_callback == without_callback, body
        assert bare.ledger.stat().st_size == 0
    assert len(ledger.wait(2 * len(requests))) == 2 * len(requests)


def test_wrong_and_missing_keys_get_401_and_one_record_each(running: Stack, ledger: Ledger) -> None:
    wrong = "sk-not-a-key-of-anybody"
    for headers in ({"Authorization": f"Bearer {wrong}"}, {}):
        answer = httpx.post(f"{running.proxy_url}/v1/chat/completions", json=ask(), headers=headers, trust_env=False)
        assert answer.status_code == 401
        assert answer.json()["error"]["type"] == "auth_error"
        assert wrong not in answer.text
    records = ledger.wait(2)
    assert [(row["tenant_id"], row["tenant_source"], row["error_status"]) for row in records] == [
        ("unauthenticated", "none", 401)
    ] * 2
    assert wrong not in running.ledger.read_text()


def test_a_claimed_tenant_changes_nothing(running: Stack, ledger: Ledger) -> None:
    claims = {
        "tenant_id": "victim",
        "team_id": "victim",
        "user_api_key_team_id": "victim",
        "user_api_key_alias": "victim",
    }
    answer = running.http("tenant-globex").post(
        "/v1/chat/completions",
        json=ask(user="victim", metadata=claims, litellm_metadata=claims),
        headers={"x-litellm-customer-id": "victim", "baggage": "litellm.team.id=victim,tenant_id=victim"},
    )
    assert answer.status_code == 200
    (row,) = ledger.wait(1)
    assert (row["tenant_id"], row["tenant_source"], row["key_alias"]) == ("tenant-globex", "team", "tenant-globex")


def test_a_caller_can_neither_opt_out_nor_hide_behind_an_old_call_id(running: Stack, ledger: Ledger) -> None:
    client = running.http("tenant-acme")
    same = {"x-litellm-call-id": "the-same", "x-litellm-disable-callbacks": "otel_cost_logger"}
    for body in (ask(), ask(**{"no-log": True}), ask(metadata={"no-log": True})):
        assert client.post("/v1/chat/completions", json=body, headers=same).status_code == 200
    records = ledger.wait(3)
    assert len(records) == 3
    assert all(row["cost_nano_usd"] > 0 for row in records)


def test_the_span_joins_the_callers_trace_even_an_unsampled_one(running: Stack, ledger: Ledger) -> None:
    client = running.http("tenant-acme")
    for stream in (False, True):
        client.post("/v1/chat/completions", json=ask(stream=stream), headers={"traceparent": TRACEPARENT})
    for row in ledger.wait(2):
        assert (row["trace_id"], row["parent_span_id"]) == (TRACEPARENT[3:35], TRACEPARENT[36:52])


def test_a_stream_that_breaks_off_in_the_engine_is_a_failure_with_the_engines_count(
    running: Stack, ledger: Ledger
) -> None:
    client = running.http("tenant-acme")
    for fault in ("die:4", "cut:4"):
        client.post("/v1/chat/completions", json=ask(stream=True, mock_fault=fault))
    died, cut = ledger.wait(2)
    for row in (died, cut):
        assert (row["span_name"], row["outcome"]) == ("llm.completion.failure", "failure")
    # Four chunks: the role, and three tokens.
    assert (died["usage_source"], died["completion_tokens"]) == ("engine", 3)
    # Where the cut overtakes the chunks, the proxy has seen none of them.
    assert (cut["usage_source"], cut["completion_tokens"]) in {("engine", 3), ("none", 0)}


def test_a_stream_that_its_caller_leaves_carries_the_engines_count(running: Stack, ledger: Ledger) -> None:
    client = running.http("tenant-acme")
    whole = client.post("/v1/chat/completions", json=ask()).json()["usage"]
    for choices in (1, 2):
        body = ask(stream=True, n=choices, temperature=1, mock_fault="hang:7")
        with client.stream("POST", "/v1/chat/completions", json=body) as answer:
            for line in answer.iter_lines():
                if '"content":""' not in line:
                    break
    _, one, two = ledger.wait(3)
    assert one["outcome"] == two["outcome"] == "client_disconnected"
    assert one["prompt_tokens"] == whole["prompt_tokens"]
    assert (one["usage_source"], one["choice_count"]) == ("engine", 1)
    assert one["completion_tokens"] > 0
    # A chunk counts the tokens of its own choice only.
    assert (two["usage_source"], two["choice_count"]) == ("estimated", 2)


def test_a_streamed_text_completion_is_never_free(running: Stack, ledger: Ledger) -> None:
    client = running.http("tenant-acme")
    body = {"model": "mistral-7b", "prompt": "one two three", "max_tokens": 5, "stream": True}
    answers = [
        client.post("/v1/completions", json=body | {"stream_options": {"include_usage": asked}}).text
        for asked in (True, False)
    ]
    answers.append(client.post("/v1/completions", json=body).text)
    for row in ledger.wait(3):
        assert (row["usage_source"], row["completion_tokens"]) == ("engine", 5)
        assert row["cost_nano_usd"] > 0
    for answer in answers:
        assert answer.count('"usage":') == 1


def test_a_client_that_leaves_before_the_first_token_is_recorded(running: Stack, ledger: Ledger) -> None:
    client = running.http("tenant-acme")
    with pytest.raises(httpx.ReadTimeout):
        client.post("/v1/chat/completions", json=ask(stream=True, mock_fault="hang"), timeout=1.0)
    (row,) = ledger.wait(1)
    assert (row["tenant_id"], row["outcome"]) == ("tenant-acme", "client_disconnected")


def test_no_prompt_no_answer_and_no_key_in_the_ledger_or_the_logs(running: Stack, ledger: Ledger) -> None:
    canary = "canary-7f3a-prompt"
    answer = running.http("tenant-acme").post("/v1/chat/completions", json=ask(f"Repeat after me: {canary}"))
    text = answer.json()["choices"][0]["message"]["content"]
    running.http("tenant-acme").post("/v1/chat/completions", json=ask(canary, mock_fault="500"))
    ledger.wait(2)
    written = running.ledger.read_text() + running.logs["litellm_proxy"].read_text()
    for secret in (canary, text, running.master_key, *running.keys.values()):
        assert secret not in written


@pytest.fixture(scope="module")
def wide(running: Stack) -> Iterator[Stack]:
    """Retries over two deployments, one of them dead; embeddings; a price from LiteLLM's own map."""

    def deployment(name: str, model: str, base: str, **more: Any) -> dict[str, Any]:
        return {"model_name": name, "litellm_params": {"model": model, "api_base": base, "api_key": "none", **more}}

    live = f"{running.mock_url}/v1"
    with Mock("pooling", args=["--runner", "pooling", "--served-model-name", "mistral-7b"]) as pooling:
        config = {
            "model_list": [
                deployment("spread", "hosted_vllm/mistral-7b", live),
                deployment("spread", "hosted_vllm/mistral-7b", "http://127.0.0.1:9/v1"),
                deployment("fails", "hosted_vllm/mistral-7b", live),
                deployment("embed", "hosted_vllm/mistral-7b", f"{pooling.url}/v1"),
                deployment("openai", "openai/mistral-7b", live),
            ],
            "litellm_settings": SHIPPED["litellm_settings"] | {"num_retries": 2},
            "router_settings": {"disable_cooldowns": True, "retry_after": 0},
            "general_settings": SHIPPED["general_settings"],
        }
        with stack("proxy-wide", backend=running.mock_url, config=config, protocol="grpc") as started:
            yield started


def test_a_retried_call_is_one_record(wide: Stack) -> None:
    ledger, client = Ledger(wide), wide.http("tenant-acme")
    calls = 12
    for _ in range(calls):
        client.post("/v1/chat/completions", json=ask(model="spread"))
    client.post("/v1/chat/completions", json=ask(model="fails", mock_fault="500"))
    records = ledger.wait(calls + 1)
    assert len(records) == calls + 1
    assert len({row["call_id"] for row in records}) == calls + 1
    assert {row["attempts"] for row in records if row["model"] == "fails"} == {3}
    # With one of two deployments dead, a dozen calls without a single retry would be a coin falling heads 12 times.
    assert max(row["attempts"] for row in records if row["model"] == "spread") > 1


@pytest.mark.parametrize(
    ("path", "body", "call_type", "operation"),
    [
        ("/v1/embeddings", {"model": "embed", "input": "what is a token?"}, "aembedding", "embeddings"),
        ("/v1/messages", ask(model="openai"), "anthropic_messages", "chat"),
        ("/v1/messages", ask(model="openai", stream=True), "anthropic_messages", "chat"),
        ("/v1/responses", {"model": "openai", "input": "hello", "max_output_tokens": 16}, "aresponses", "chat"),
        ("/v1/responses", {"model": "openai", "input": "hello", "stream": True}, "aresponses", "chat"),
        ("/v1/completions", {"model": "openai", "prompt": "hello"}, "atext_completion", "text_completion"),
    ],
)
def test_every_endpoint_leaves_one_record_with_usage(
    wide: Stack, path: str, body: dict[str, Any], call_type: str, operation: str
) -> None:
    ledger = Ledger(wide)
    answer = wide.http("tenant-initech").post(path, json=body)
    assert answer.status_code == 200, answer.text
    (row,) = ledger.wait(1)
    assert (row["call_type"], row["operation"], row["tenant_id"]) == (call_type, operation, "tenant-initech")
    assert (row["outcome"], row["usage_source"], row["cost_source"]) == ("success", "engine", "unpriced")
    assert row["prompt_tokens"] > 0


@pytest.mark.parametrize("calls", [1, 5])
def test_an_ordinary_kill_loses_nothing(running: Stack, calls: int) -> None:
    """With a batch that would wait for an hour, the spans are there after the proxy has ended."""
    with stack("proxy-killed", backend=running.mock_url, env={"OTEL_BSP_SCHEDULE_DELAY": "3600000"}) as doomed:
        client = doomed.http("tenant-acme")
        for _ in range(calls):
            assert client.post("/v1/chat/completions", json=ask()).status_code == 200
        assert doomed.ledger.read_bytes() == b""
    assert len(read_ledger(doomed.ledger)) == calls
