"""Gateway and engine in one trace: the engine's own span is the cost span's child."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pandas as pd
import pytest
import yaml

from workbook.paths import BUILD_VARIABLE, DEPLOY
from workbook.spans import read_ledger
from workbook.stacks import Stack, stack

pytestmark = pytest.mark.timeout(420)

TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TENANT = "tenant-acme"
QUESTION = {"messages": [{"role": "user", "content": "Who pays for this?"}], "max_tokens": 8}
# LiteLLM's two ways to vLLM's chat, and what each kind of call sends. `n` choices are as many requests to the engine.
MODELS = ("mistral-7b", "by-the-openai-provider")
CALLS: dict[str, tuple[str, dict[str, Any], int]] = {
    "plain": ("/v1/chat/completions", QUESTION, 1),
    "stream": ("/v1/chat/completions", QUESTION | {"stream": True}, 1),
    "two choices": ("/v1/chat/completions", QUESTION | {"n": 2, "temperature": 1}, 2),
    "text": ("/v1/completions", {"prompt": "Who pays?", "max_tokens": 8}, 1),
    "streamed text": ("/v1/completions", {"prompt": "Who pays?", "max_tokens": 8, "stream": True}, 1),
    "messages": ("/v1/messages", QUESTION, 1),
    "responses": ("/v1/responses", {"input": "Who pays?", "max_output_tokens": 8}, 1),
}


@pytest.fixture(scope="module", params=["mock", pytest.param("vllm-cpu", marks=pytest.mark.engine)])
def traced(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack whose backend sends its own spans too."""
    config = yaml.safe_load((DEPLOY / "litellm_config.yaml").read_text())
    backend = {"api_base": "os.environ/VLLM_API_BASE", "api_key": "none"}
    config["model_list"].append({"model_name": MODELS[1], "litellm_params": {"model": "openai/mistral-7b", **backend}})
    # The second deployment of this model is not there: calls are repeated until they meet the first.
    for base in ("os.environ/VLLM_API_BASE", "http://127.0.0.1:9/v1"):
        deployment = {"model": "hosted_vllm/mistral-7b", "api_key": "none", "api_base": base}
        config["model_list"].append({"model_name": "half-dead", "litellm_params": deployment})
    config["litellm_settings"]["num_retries"] = 4
    config["router_settings"]["retry_after"] = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(BUILD_VARIABLE, str(tmp_path_factory.mktemp("build")))
        with stack("one-trace", backend=request.param, config=config, trace_engine=True) as running:
            yield running


def record_and_engine_spans(traced: Stack, call_id: str, expected: int) -> tuple[pd.Series, pd.DataFrame]:
    record = traced.wait_for_call(call_id)
    return record, traced.wait_for_engine_spans(record["span_id"], expected)


@pytest.mark.parametrize("callers", [None, f"00-{TRACE}-{CALLER}-01", f"00-{TRACE}-{CALLER}-00"])
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("kind", CALLS)
def test_the_engines_span_is_the_cost_spans_child(traced: Stack, kind: str, model: str, callers: str | None) -> None:
    path, body, expected = CALLS[kind]
    answer = traced.http(TENANT).post(
        path, json=body | {"model": model}, headers={"traceparent": callers} if callers else {}
    )
    assert answer.status_code == 200, answer.text
    record, engine = record_and_engine_spans(traced, answer.headers["x-litellm-call-id"], expected)
    assert len(engine) == expected
    assert set(engine["trace_id"]) == {record["trace_id"]}
    if callers:
        assert (record["trace_id"], record["parent_span_id"]) == (TRACE, CALLER)
    else:
        assert record["trace_id"] != TRACE
        assert pd.isna(record["parent_span_id"])
    # The engine says the same of the call as the record does.
    assert set(engine["gen_ai.usage.prompt_tokens"]) == {record["prompt_tokens"]}
    assert engine["gen_ai.usage.completion_tokens"].sum() == record["completion_tokens"]
    assert (engine["start"] >= record["start"]).all()


def test_a_repeated_call_has_one_cost_span_with_the_engines_as_its_child(traced: Stack) -> None:
    client = traced.http(TENANT)
    attempts = []
    for _ in range(8):
        answer = client.post("/v1/chat/completions", json=QUESTION | {"model": "half-dead"})
        if answer.status_code != httpx.codes.OK:
            continue  # five times the dead one
        record, engine = record_and_engine_spans(traced, answer.headers["x-litellm-call-id"], 1)
        assert len(engine) == 1
        attempts.append(record["attempts"])
    # That eight calls all meet the live one first is a coin falling heads eight times.
    assert max(attempts) > 1


def test_no_engine_span_is_left_without_its_record(traced: Stack) -> None:
    answer = traced.http(TENANT).post("/v1/chat/completions", json=QUESTION | {"model": MODELS[0]})
    record_and_engine_spans(traced, answer.headers["x-litellm-call-id"], 1)
    records, engine = read_ledger(traced.ledger), read_ledger(traced.engine_spans)
    requests = engine[engine["span_name"] == "llm_request"]
    assert set(requests["parent_span_id"]) <= set(records["span_id"])
    assert not set(engine["span_name"]) & set(records["span_name"]), "the books hold cost spans only"


def test_what_a_caller_sends_does_not_reach_the_engines_trace(traced: Stack) -> None:
    forged = f"00-{TRACE}-{CALLER}-01"
    body = QUESTION | {"model": MODELS[0], "extra_headers": {"traceparent": forged, "Traceparent": forged}}
    answer = traced.http(TENANT).post("/v1/chat/completions", json=body)
    assert answer.status_code == 200, json.dumps(answer.json())
    record, _ = record_and_engine_spans(traced, answer.headers["x-litellm-call-id"], 1)
    assert record["trace_id"] != TRACE
