"""Everything that a caller can write into a request, tried on every endpoint of a real proxy: none of it changes whose
call is recorded, at which price, or how many tokens."""

from __future__ import annotations

import json
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
import yaml

from workbook.counters import wait_idle
from workbook.paths import DEPLOY
from workbook.services import Mock
from workbook.spans import read_ledger
from workbook.stacks import stack

pytestmark = pytest.mark.timeout(300)

VICTIM = "tenant-globex"  # who exists, and has a key of its own
ME = "tenant-acme"
CLAIMS = {
    **dict.fromkeys(("tenant_id", "tenant", "team_id", "team_alias", "user_id", "organization_id", "customer"), VICTIM),
    **{
        f"user_api_key_{name}": VICTIM
        for name in ("team_id", "team_alias", "alias", "hash", "user_id", "org_id", "end_user_id", "project_id")
    },
    "user_api_key": VICTIM,
    "user_api_key_max_budget": 1e9,
    "user_api_key_spend": -5.0,
    "user_api_key_team_max_budget": 1e9,
}
FREE = {"input_cost_per_token": 0, "output_cost_per_token": 0, "cache_read_input_token_cost": 0}
NOWHERE = "http://127.0.0.1:9/v1"
UNTRUE_PAYLOAD = {"response_cost": 0, "prompt_tokens": 0, "total_tokens": 0, "metadata": CLAIMS}

BODIES: dict[str, dict[str, Any]] = {
    "metadata": {"metadata": CLAIMS},
    "litellm_metadata": {"litellm_metadata": CLAIMS},
    "both, the second as JSON text": {"metadata": CLAIMS, "litellm_metadata": json.dumps(CLAIMS)},
    "metadata within metadata": {"metadata": {"metadata": CLAIMS, "requester_metadata": CLAIMS, "hidden_params": FREE}},
    "the same at the top": CLAIMS,
    "litellm_params": {"litellm_params": {"metadata": CLAIMS, "model_info": FREE}},
    "user": {"user": VICTIM},
    "user that is an object": {"user": {"team_id": VICTIM}},
    "safety_identifier": {"safety_identifier": VICTIM},
    "tags": {"metadata": {"tags": [VICTIM]}},
    "metadata.spend_logs_metadata": {"metadata": {"spend_logs_metadata": CLAIMS}},
    "metadata.model_group": {"metadata": {"model_group": "mistral-7b-unpriced", "deployment": "x"}},
    "metadata.attempted_retries": {
        "metadata": {"attempted_retries": 99},
        "litellm_metadata": {"attempted_retries": 99},
    },
    "metadata.client_disconnected": {
        "metadata": {"client_disconnected": True, "error_information": {"error_code": "499"}}
    },
    "metadata.usage_object": {"metadata": {"usage_object": {"prompt_tokens_details": {"cached_tokens": 99}}}},
    "metadata.model_info": {"metadata": {"model_info": FREE}, "litellm_metadata": {"model_info": FREE}},
    "metadata, a negative cost": {"metadata": {"standard_logging_guardrail_information": [{"guardrail_cost": -1}]}},
    "model_info": {"model_info": {"id": "x", "base_model": "gpt-3.5-turbo", **FREE}},
    "prices": FREE,
    "prices in extra_body": {"extra_body": FREE},
    "a price by the second": {"input_cost_per_second": 0},
    "costs that nobody knows": {"cost_per_query": 0, "response_cost": 0, "my_cost": -1},
    "base_model": {"base_model": "gpt-3.5-turbo"},
    "custom_llm_provider": {"custom_llm_provider": "openai"},
    "deployment_id": {"deployment_id": "another-model", "azure": True},
    "use_litellm_proxy": {"use_litellm_proxy": True},
    "api_base": {"api_base": NOWHERE},
    "base_url": {"base_url": NOWHERE},
    "metadata.api_base": {"metadata": {"api_base": NOWHERE}},
    "api_key": {"api_key": "sk-another"},
    "no-log": {"no-log": True, "no_log": True, "metadata": {"no-log": True}},
    "callbacks": {"callbacks": [], "success_callback": [], "litellm_disabled_callbacks": ["otel_cost_logger"]},
    "standard_logging_object": {"standard_logging_object": UNTRUE_PAYLOAD},
    "proxy_server_request": {"proxy_server_request": {"headers": {}, "body": CLAIMS, "arrival_time": 0}},
    "litellm_logging_obj": {"litellm_logging_obj": {"model_call_details": UNTRUE_PAYLOAD}},
    "user_api_key_dict": {"user_api_key_dict": CLAIMS},
    "litellm_call_id": {"litellm_call_id": "the-same"},
    "litellm_no_upstream_llm_call": {"litellm_no_upstream_llm_call": True},
    "mock_response": {"mock_response": "for free", "mock_tool_calls": []},
    "mock_testing_fallbacks": {"mock_testing_fallbacks": True},
    "cache": {"cache": {"namespace": VICTIM, "ttl": 60}, "caching": True, "preset_cache_key": "x"},
    "num_retries": {"num_retries": 9, "max_retries": 9},
    "fallbacks": {"fallbacks": ["mistral-7b-unpriced"]},
    "fallbacks with a price": {"fallbacks": [{"model": "mistral-7b-unpriced", **FREE}]},
    "router settings": {"router_settings_override": {"model_group_alias": {"mistral-7b": "mistral-7b-unpriced"}}},
    "service_tier": {"service_tier": "flex"},
    "stream_options": {"stream_options": {"include_usage": False, "continuous_usage_stats": False}},
    "additional_drop_params": {"additional_drop_params": ["stream_options", "max_tokens"], "drop_params": True},
    "extra_body.stream_options": {"extra_body": {"stream_options": {"include_usage": False}}},
    "extra_body.stream": {"extra_body": {"stream": True}},
    "extra_body.n": {"extra_body": {"n": 3}},
    "extra_body.model": {"extra_body": {"model": "another-model"}},
    "stream as a number": {"stream": 1},
    "stream as text": {"stream": "false"},
    "call_type": {"call_type": "avector_store_search", "start_time": 0},
    "a planned span": {"otel_cost_logger_planned_span": {"trace_id": 1, "span_id": 1}},
}
HEADERS: dict[str, dict[str, str]] = {
    "x-litellm-customer-id": {"x-litellm-customer-id": VICTIM},
    "x-litellm-end-user-id": {"x-litellm-end-user-id": VICTIM, "x-litellm-end-user": VICTIM},
    "x-litellm-team-id": {"x-litellm-team-id": VICTIM, "x-litellm-user-id": VICTIM},
    "x-litellm-tags": {"x-litellm-tags": VICTIM},
    "x-litellm-spend-logs-metadata": {"x-litellm-spend-logs-metadata": json.dumps(CLAIMS)},
    "x-litellm-agent-id": {"x-litellm-agent-id": VICTIM},
    "x-litellm-trace-id": {"x-litellm-trace-id": VICTIM, "x-litellm-session-id": VICTIM},
    "x-litellm-timeout": {"x-litellm-timeout": "30", "x-litellm-stream-timeout": "30"},
    "x-litellm-num-retries": {"x-litellm-num-retries": "9"},
    "x-litellm-disable-callbacks": {"x-litellm-disable-callbacks": "otel_cost_logger"},
    "x-litellm-api-base": {"x-litellm-api-base": NOWHERE, "x-litellm-model": "mistral-7b-unpriced"},
    "x-litellm-metadata": {"x-litellm-metadata": json.dumps(CLAIMS)},
    "x-openwebui-user-id": {"x-openwebui-user-id": VICTIM, "x-openwebui-user-email": VICTIM},
    "names that gateways use": {"x-tenant-id": VICTIM, "x-user": VICTIM, "x-forwarded-user": VICTIM},
    "openai-organization": {"openai-organization": VICTIM, "openai-project": VICTIM},
    "a second key": {"x-api-key": "sk-another", "api-key": "sk-another"},
    "baggage": {"baggage": f"litellm.team.id={VICTIM},tenant_id={VICTIM},user_api_key_team_id={VICTIM}"},
    "traceparent": {
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00",
        "tracestate": f"tenant={VICTIM}",
    },
    "cache-control": {"cache-control": "s-maxage=99"},
}
SAID = [{"role": "user", "content": "Who pays for the tokens of this answer?"}]
ENDPOINTS: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": ("/v1/chat/completions", {"model": "mistral-7b", "max_tokens": 6, "messages": SAID}),
    "stream": ("/v1/chat/completions", {"model": "mistral-7b", "max_tokens": 6, "messages": SAID, "stream": True}),
    "completions": ("/v1/completions", {"model": "mistral-7b", "max_tokens": 6, "prompt": "Who pays?"}),
    "embeddings": ("/v1/embeddings", {"model": "embed", "input": "Who pays?"}),
    "messages": ("/v1/messages", {"model": "mistral-7b", "max_tokens": 6, "messages": SAID}),
    "responses": ("/v1/responses", {"model": "mistral-7b", "max_output_tokens": 16, "input": "Who pays?"}),
}
# What must be as it is without any attempt. The budget: these keys have none, so a record shows none.
IDENTITY = ("tenant_id", "tenant_source", "key_alias")
PRICE = ("cost_nano_usd", "cost_source", "price_version", "prompt_tokens", "completion_tokens", "budget_remaining_usd")
CALL = ("model", "model_served", "provider", "outcome", "usage_source", "choice_count", "attempts", "server_port")
ATTEMPTS = [*BODIES, *HEADERS]


@dataclass
class Tried:
    """What came of one attempt on one endpoint."""

    status: int
    call_id: str | None
    text: str
    records: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class Outcome:
    """``tried`` by attempt ("" for none) and endpoint; ``strangers`` are records of requests refused before they had an
    id; ``engine`` and ``recorded`` are tokens in all: prompt and completion."""

    tried: dict[tuple[str, str], Tried]
    strangers: list[dict[str, Any]]
    engine: Counter[str]
    recorded: Counter[str]


def known(value: object) -> object:
    return None if value != value or str(value) == "<NA>" else value


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outcome]:
    """Every attempt on every endpoint, behind the shipped configuration and a model for embeddings."""
    config = yaml.safe_load((DEPLOY / "litellm_config.yaml").read_text())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORKBOOK_BUILD_DIR", str(tmp_path_factory.mktemp("build")))
        names = ["--served-model-name", "mistral-7b", "another-model"]
        with Mock("spoof-pooling", args=["--runner", "pooling", *names]) as pooling:
            embed = {"model": "hosted_vllm/mistral-7b", "api_base": f"{pooling.url}/v1", "api_key": "none"}
            config["model_list"].append(
                {"model_name": "embed", "litellm_params": embed, "model_info": {"input_cost_per_token": 2e-7}}
            )
            with stack("spoofing", config=config, mock_args=names) as running:
                yield _try_all(running, [running.mock_url, pooling.url])


def _try_all(running: Any, engines: list[str]) -> Outcome:
    client = running.http(ME)

    def attempt(place: tuple[str, str]) -> Tried:
        name, endpoint = place
        path, body = ENDPOINTS[endpoint]
        answer: httpx.Response = client.post(path, json={**body, **BODIES.get(name, {})}, headers=HEADERS.get(name, {}))
        return Tried(answer.status_code, answer.headers.get("x-litellm-call-id"), answer.text)

    places = [(name, endpoint) for name in ["", *ATTEMPTS] for endpoint in ENDPOINTS]
    with ThreadPoolExecutor(8) as pool:
        tried = dict(zip(places, pool.map(attempt, places), strict=True))
    answered = {one.call_id for one in tried.values() if one.status == 200}
    deadline = time.monotonic() + 60
    while not answered <= set(read_ledger(running.ledger)["call_id"]):
        assert time.monotonic() < deadline, "an answered call left no record"
        time.sleep(0.2)
    running.proxy.stop()  # so that nothing is under way any more
    engine: Counter[str] = Counter()
    for counted in wait_idle(*engines).models.values():
        engine.update(prompt=counted.prompt_tokens, completion=counted.generation_tokens)
    by_id: dict[str, list[dict[str, Any]]] = defaultdict(list)
    recorded: Counter[str] = Counter()
    for row in read_ledger(running.ledger).to_dict("records"):
        by_id[row["call_id"]].append({name: known(value) for name, value in row.items()})
        recorded.update(prompt=row["prompt_tokens"], completion=row["completion_tokens"])
    for one in tried.values():
        one.records = by_id.pop(one.call_id, []) if one.call_id else []
    return Outcome(tried, [row for rows in by_id.values() for row in rows], engine, recorded)


def test_the_table_is_long_enough_and_starts_from_calls_that_cost() -> None:
    assert len(ATTEMPTS) >= 25
    assert not BODIES.keys() & HEADERS.keys()


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_without_an_attempt_the_call_is_answered_and_costs(outcome: Outcome, endpoint: str) -> None:
    plain = outcome.tried["", endpoint]
    assert plain.status == 200, plain.text
    (record,) = plain.records
    assert (record["tenant_id"], record["tenant_source"], record["cost_source"]) == (ME, "team", "custom_price")
    assert record["cost_nano_usd"] > 0
    assert record["tenant_claimed"] is None


@pytest.mark.parametrize("name", ATTEMPTS)
def test_an_attempt_changes_neither_tenant_nor_price_nor_budget(outcome: Outcome, name: str) -> None:
    for endpoint in ENDPOINTS:
        one, plain = outcome.tried[name, endpoint], outcome.tried["", endpoint].records[0]
        assert len(one.records) <= 1, (endpoint, one)
        for record in one.records:
            assert {field: record[field] for field in IDENTITY} == {field: plain[field] for field in IDENTITY}, endpoint
        if one.status == 200:
            (record,) = one.records
            facts = (*PRICE, *CALL)
            assert {field: record[field] for field in facts} == {field: plain[field] for field in facts}, endpoint
        else:
            assert all(record["cost_nano_usd"] == 0 for record in one.records), endpoint


def test_requests_refused_before_their_key_was_looked_at_are_nobodys_and_cost_nothing(outcome: Outcome) -> None:
    for record in outcome.strangers:
        assert record["tenant_id"] in ("default", "unauthenticated", ME), record
        assert (record["outcome"], record["cost_nano_usd"], record["total_tokens"]) == ("failure", 0, 0)


def test_every_token_that_the_engines_counted_is_recorded(outcome: Outcome) -> None:
    assert outcome.recorded == outcome.engine


@pytest.mark.parametrize(
    ("name", "endpoint", "claim"),
    [
        ("user", "chat", f"user={VICTIM}"),
        ("x-litellm-customer-id", "stream", f"x-litellm-customer-id={VICTIM}"),
        ("metadata", "messages", f"metadata.team_id={VICTIM}"),
        ("baggage", "embeddings", f"baggage.litellm.team.id={VICTIM}"),
    ],
)
def test_a_claim_is_kept_apart(outcome: Outcome, name: str, endpoint: str, claim: str) -> None:
    (record,) = outcome.tried[name, endpoint].records
    assert claim in record["tenant_claimed"]
    assert len(record["tenant_claimed"]) <= 256
