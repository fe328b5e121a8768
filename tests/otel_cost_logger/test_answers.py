"""Behind the real proxy: one record per answer, with what the engine counted for it and nobody else's facts.

Fallbacks, LiteLLM's response cache, guardrails, retries and lists of models, each held against the engine's counters.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import yaml

from workbook.counters import wait_idle
from workbook.paths import DEPLOY
from workbook.services import Mock
from workbook.spans import read_ledger
from workbook.stacks import TENANTS, Stack, stack

pytestmark = pytest.mark.timeout(300)

SHIPPED = yaml.safe_load((DEPLOY / "litellm_config.yaml").read_text())
OWN = {"input_cost_per_token": 2e-7, "output_cost_per_token": 6e-7}
OTHER = {"input_cost_per_token": 1e-6, "output_cost_per_token": 1e-6}
BOOK = """\
currency: USD
prices:
  - model: booked
    input_usd_per_million_tokens: 50
    output_usd_per_million_tokens: 70
    usd_per_request: 0.0001
    source: test
"""
GUARD = """
from fastapi import HTTPException
from litellm.integrations.custom_guardrail import CustomGuardrail

def block(data, where):
    text = str(data)
    if where in text:
        raise ValueError("blocked") if "plainly" in text else HTTPException(400, "blocked")

class Guard(CustomGuardrail):
    async def async_pre_call_hook(self, user_api_key_dict, cache, data, call_type):
        block(data, "block before")
        return data

    async def async_moderation_hook(self, data, user_api_key_dict, call_type):
        block(data, "block beside")
        return data

    async def async_post_call_success_hook(self, data, user_api_key_dict, response):
        block(data, "block after")

    async def async_post_call_streaming_iterator_hook(self, user_api_key_dict, response, request_data):
        pieces = 0
        async for piece in response:
            pieces += 1
            if pieces > 4:
                block(request_data, "block within")
            yield piece
"""
MODES = ("pre_call", "during_call", "post_call")
_numbers = itertools.count()


def deployment(name: str, served: str, base: str, prices: Mapping[str, float], **params: Any) -> dict[str, Any]:
    litellm_params = {"model": f"hosted_vllm/{served}", "api_base": f"{base}/v1", "api_key": "none", **params}
    return {"model_name": name, "litellm_params": litellm_params, "model_info": dict(prices)}


def chat(model: str = "mistral-7b", text: str = "", **more: Any) -> dict[str, Any]:
    """A chat unlike any before: LiteLLM's cache would answer it."""
    text = text or f"Question {next(_numbers)}: who pays for this answer?"
    return {"model": model, "max_tokens": 12, "messages": [{"role": "user", "content": text}], **more}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One proxy for all: a sound engine, one that fails on request, a cache that answers who asks for it, guardrails,
    and a price book for one model."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORKBOOK_BUILD_DIR", str(tmp_path_factory.mktemp("build")))
        prices = tmp_path_factory.mktemp("prices") / "prices.yaml"
        prices.write_text(BOOK)
        failing = Mock("failing", args=["--enable-faults", "--tpot-ms", "20", "--served-model-name", "failing"])
        sound = Mock("sound", args=["--enable-prompt-tokens-details"])
        env = {"OTEL_COST_LOGGER_PRICES_FILE": str(prices)}
        with failing, sound:
            settings, files = config(sound.url, failing.url), {"guard.py": GUARD}
            with stack("answers", backend=sound.url, config=settings, env=env, files=files) as started:
                yield started


def config(sound: str, failing: str) -> dict[str, Any]:
    cache = {"cache": True, "cache_params": {"type": "local", "mode": "default_off"}}
    return SHIPPED | {
        "model_list": [
            deployment("mistral-7b", "mistral-7b", sound, OWN),
            deployment("booked", "mistral-7b", sound, OTHER),
            deployment("a,b", "mistral-7b", sound, OTHER),
            deployment("not there", "nobody", sound, OTHER),
            deployment("failing", "failing", failing, OTHER),
            deployment("slow", "failing", failing, OTHER, timeout=0.5),
        ],
        "litellm_settings": SHIPPED["litellm_settings"] | {"num_retries": 2} | cache,
        "router_settings": {
            "disable_cooldowns": True,
            "retry_after": 0,
            "num_retries": 2,
            "fallbacks": [{"not there": ["mistral-7b"]}, {"failing": ["not there", "mistral-7b"]}],
        },
        "guardrails": [
            {"guardrail_name": mode, "litellm_params": {"guardrail": "guard.Guard", "mode": mode, "default_on": True}}
            for mode in MODES
        ],
    }


@dataclass
class Done:
    """A request that was answered with ``status`` (None where the connection broke), and its only record."""

    status: int | None
    record: Any

    @property
    def tokens(self) -> tuple[int, int]:
        return self.record["prompt_tokens"], self.record["completion_tokens"]

    @property
    def told(self) -> tuple[str, str, str]:
        return self.record["outcome"], self.record["usage_source"], self.record["cost_source"]

    def costs(self, prices: Mapping[str, float]) -> bool:
        usd = self.tokens[0] * prices["input_cost_per_token"] + self.tokens[1] * prices["output_cost_per_token"]
        return bool(self.record["cost_nano_usd"] == round(usd * 1e9))

    def no_error(self) -> bool:
        return bool(self.record[["error", "error_type", "error_status"]].isna().all())


class Desk:
    """Sends requests to the proxy, and asks the sound engine what it has counted since it was asked last."""

    def __init__(self, running: Stack) -> None:
        self._stack = running
        self.http = running.http(TENANTS[0])
        self._counters = wait_idle(running.engine_url)

    def ask(self, path: str, body: dict[str, Any]) -> Done:
        call_id = f"answers-{next(_numbers)}"
        try:
            status = self.http.post(path, json=body, headers={"x-litellm-call-id": call_id}).status_code
        except httpx.RemoteProtocolError:  # LiteLLM's way to end a stream that a guardrail blocks
            status = None
        record = self._stack.wait_for_call(call_id)
        ledger = read_ledger(self._stack.ledger)
        assert (ledger["call_id"] == call_id).sum() == 1
        return Done(status, record)

    def engine(self) -> tuple[int, int]:
        before, self._counters = self._counters, wait_idle(self._stack.engine_url)
        grown = self._counters.since(before)["mistral-7b"]
        return grown.prompt_tokens, grown.generation_tokens


@pytest.fixture(scope="module")
def desk(running: Stack) -> Desk:
    return Desk(running)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
@pytest.mark.parametrize("stream", [False, True])
def test_a_fallback_answers_as_itself(desk: Desk, path: str, stream: bool) -> None:
    done = desk.ask(path, chat("not there", stream=stream))
    assert done.told == ("success", "engine", "custom_price")
    assert done.tokens == desk.engine()
    assert done.costs(OWN)
    assert (done.record["model"], done.record["model_requested"]) == ("mistral-7b", "not there")
    assert done.record["attempts"] == 2
    assert done.no_error()


@pytest.mark.parametrize("fault", ["die:0", "die:1"])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
def test_a_fallback_in_the_middle_of_a_stream_has_its_own_tokens_and_price(desk: Desk, path: str, fault: str) -> None:
    done = desk.ask(path, chat("failing", stream=True, mock_fault=fault))
    assert done.told == ("success", "engine", "custom_price")
    assert done.tokens == desk.engine()
    assert done.costs(OWN)
    assert (done.record["model"], done.record["model_requested"]) == ("mistral-7b", "failing")
    assert done.record["attempts"] >= 3  # itself, the model that is not there, and the one that answers
    assert done.no_error()


def test_only_a_fallback_names_another_model_than_asked_for(desk: Desk) -> None:
    done = desk.ask("/v1/chat/completions", chat())
    assert done.tokens == desk.engine()
    assert done.record[["model_requested", "cache_hit"]].isna().all()
    assert done.record["attempts"] == 1


SAME = [{"role": "user", "content": "the same"}]
ROADS: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": ("/v1/chat/completions", {"model": "mistral-7b", "max_tokens": 6, "messages": SAME}),
    "priced by the book": ("/v1/chat/completions", {"model": "booked", "max_tokens": 6, "messages": SAME}),
    "text": ("/v1/completions", {"model": "mistral-7b", "max_tokens": 6, "prompt": "the same"}),
    "messages": ("/v1/messages", {"model": "mistral-7b", "max_tokens": 7, "messages": SAME}),
    "responses": ("/v1/responses", {"model": "mistral-7b", "max_output_tokens": 16, "input": "the same"}),
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("road", ROADS)
def test_an_answer_from_the_cache_shows_its_tokens_and_costs_nothing(desk: Desk, road: str, stream: bool) -> None:
    path, body = ROADS[road]
    body = body | {"stream": stream, "cache": {"use-cache": True}}
    first = desk.ask(path, body)
    assert first.tokens == desk.engine()
    assert first.told == ("success", "engine", "price_book" if "book" in road else "custom_price")
    assert first.record["cost_nano_usd"] > 0
    again = desk.ask(path, body)
    assert desk.engine() == (0, 0)
    assert again.tokens == first.tokens
    assert again.told == ("success", "cache", "not_charged")
    assert (again.record["cost_nano_usd"], again.record["cache_hit"]) == (0, True)
    assert again.record["model"] == body["model"]


@pytest.mark.parametrize("stream", [False, True])
def test_a_caller_cannot_claim_a_hit_of_the_cache(desk: Desk, stream: bool) -> None:
    claims = {"cache_hit": True, "standard_logging_object": {"cache_hit": True}, "metadata": {"cache_hit": True}}
    done = desk.ask("/v1/chat/completions", chat(stream=stream, **claims))
    assert done.told == ("success", "engine", "custom_price")
    assert done.tokens == desk.engine()
    assert done.costs(OWN)


@pytest.mark.parametrize("how", ["", "plainly"])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
def test_what_a_guardrail_blocks_after_the_call_is_paid_for(desk: Desk, path: str, how: str) -> None:
    done = desk.ask(path, chat(text=f"block after {how}"))
    assert done.status == (500 if how else 400)
    assert done.told == ("failure", "engine", "custom_price")
    assert done.tokens == desk.engine()
    assert done.tokens[1] > 0
    assert done.costs(OWN)
    call_type = "acompletion" if "chat" in path else "anthropic_messages"
    assert (done.record["call_type"], done.record["model_served"]) == (call_type, "mistral-7b")


@pytest.mark.parametrize("how", ["", "plainly"])
def test_what_a_guardrail_blocks_within_a_stream_is_counted_so_far(desk: Desk, how: str) -> None:
    done = desk.ask("/v1/chat/completions", chat(text=f"block within {how}", stream=True))
    prompt, generated = desk.engine()
    assert done.told == ("failure", "engine", "custom_price")
    assert done.tokens[0] == prompt
    assert 0 < done.tokens[1] <= generated
    assert done.costs(OWN)


@pytest.mark.parametrize("how", ["", "plainly"])
def test_what_a_guardrail_blocks_before_the_call_costs_nothing(desk: Desk, how: str) -> None:
    done = desk.ask("/v1/chat/completions", chat(text=f"block before {how}"))
    assert desk.engine() == (0, 0)
    assert done.told == ("failure", "none", "not_charged")


@pytest.mark.parametrize("how", ["", "plainly"])
def test_what_a_guardrail_blocks_beside_the_call_is_free_only_where_no_engine_worked(desk: Desk, how: str) -> None:
    done = desk.ask("/v1/chat/completions", chat(text=f"block beside {how}", stream=True))
    assert done.told[:2] == ("failure", "none")
    assert desk.engine() == (0, 0) or done.told[2] == "unknown"


@pytest.mark.parametrize(
    ("more", "status"), [({"max_tokens": 500, "ignore_eos": True}, 408), ({"mock_fault": "500"}, 500)]
)
def test_what_nobody_counted_is_unknown_and_tells_its_attempts(desk: Desk, more: dict[str, Any], status: int) -> None:
    done = desk.ask("/v1/chat/completions", chat("slow") | more)
    assert done.told == ("failure", "none", "unknown")
    assert (done.record["attempts"], done.record["error_status"]) == (3, status)


LISTED = "mistral-7b,booked"
LISTS: dict[str, tuple[str, dict[str, Any]]] = {
    "body": ("/v1/chat/completions", chat(LISTED)),
    "streamed": ("/v1/chat/completions", chat(LISTED, stream=True)),
    "the fastest": ("/v1/chat/completions", chat(LISTED, fastest_response=True)),
    "spaces": ("/v1/chat/completions", chat("mistral-7b , booked")),
    "a group that is named so": ("/v1/chat/completions", chat("a,b")),
    "query": (f"/v1/chat/completions?model={LISTED}", chat()),
    "path": (f"/engines/{LISTED}/chat/completions", chat()),
    "Azure's path": (f"/openai/deployments/{LISTED}/chat/completions", chat()),
    "text": ("/v1/completions", {"model": LISTED, "prompt": "x"}),
    "messages": ("/v1/messages", chat(LISTED)),
    "responses": ("/v1/responses", {"model": LISTED, "input": "x"}),
    "embeddings": ("/v1/embeddings", {"model": LISTED, "input": "x"}),
}


def test_a_list_of_models_is_refused_before_anything_is_sent(desk: Desk) -> None:
    for shape, (path, body) in LISTS.items():
        done = desk.ask(path, body)
        assert done.status == 400, shape
        assert done.told == ("failure", "none", "not_charged"), shape
    assert desk.engine() == (0, 0)


@pytest.mark.parametrize("road", ROADS)
def test_a_model_that_is_no_text_is_refused_by_litellm_itself(desk: Desk, road: str) -> None:
    path, body = ROADS[road]
    assert desk.http.post(path, json=body | {"model": LISTED.split(",")}).status_code == 400
    assert desk.engine() == (0, 0)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/completions", {"model": "a,b", "prompt": "one two", "max_tokens": 3}),
        ("/v1/messages", chat("a,b")),
        ("/v1/responses", {"model": "a,b", "input": "one two", "max_output_tokens": 16}),
        ("/v1/chat/completions", chat(models=LISTED.split(","), fastest_response=True)),
    ],
)
def test_what_litellm_answers_once_is_recorded_once(desk: Desk, path: str, body: dict[str, Any]) -> None:
    done = desk.ask(path, body)
    assert done.told == ("success", "engine", "custom_price")
    assert done.tokens == desk.engine()
    assert done.costs(OTHER if body["model"] == "a,b" else OWN)
