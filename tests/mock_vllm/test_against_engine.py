"""The same requests to the mock and to a real engine, side by side: bad input of every kind, and ordinary calls.

Recordings say what vLLM did once; this says what the vLLM does that is installed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import conformance
import pytest
from conformance import Answer, Recording

pytestmark = pytest.mark.engine

MODEL = "mistral-7b"
JSON = {"content-type": "application/json"}
MESSAGES = [{"role": "user", "content": "What is the capital of France?"}]
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}

CHAT, TEXT, ANTHROPIC, RESPONSES = "/v1/chat/completions", "/v1/completions", "/v1/messages", "/v1/responses"
ORDINARY: dict[str, dict[str, Any]] = {
    CHAT: {"model": MODEL, "messages": MESSAGES, "max_tokens": 4, "temperature": 0, "ignore_eos": True},
    TEXT: {"model": MODEL, "prompt": "Once upon", "max_tokens": 4, "temperature": 0, "ignore_eos": True},
    ANTHROPIC: {"model": MODEL, "messages": MESSAGES, "max_tokens": 4},
    RESPONSES: {"model": MODEL, "input": "Say hello", "max_output_tokens": 4, "ignore_eos": True},
    "/tokenize": {"model": MODEL, "prompt": "Say hello"},
    "/detokenize": {"model": MODEL, "tokens": [5, 6]},
}

# What a client may send for any field. A type that is right for one is wrong for another, and some are refused.
VALUES: tuple[Any, ...] = ("hot", 7, 1.5, -1, 0, None, True, [], ["a"], {}, {"a": 1}, 2**63, "", "3")
FIELDS = {
    CHAT: (
        "messages model frequency_penalty logit_bias logprobs top_logprobs max_tokens max_completion_tokens n "
        "presence_penalty response_format stop stream_options temperature top_p tools tool_choice reasoning_effort "
        "thinking_token_budget parallel_tool_calls user top_k min_p repetition_penalty stop_token_ids "
        "include_stop_str_in_output ignore_eos min_tokens truncate_prompt_tokens prompt_logprobs bad_words "
        "add_generation_prompt structured_outputs priority request_id return_token_ids cache_salt vllm_xargs "
        "stream_interval"
    ),
    TEXT: "model prompt echo logit_bias logprobs max_tokens n stop stream suffix temperature top_p prompt_embeds",
    ANTHROPIC: "model messages max_tokens metadata stop_sequences stream system temperature tools tool_choice top_k",
    RESPONSES: "model instructions max_output_tokens metadata previous_response_id stream store temperature top_p user",
    "/tokenize": "model prompt add_special_tokens return_token_strs",
    "/detokenize": "model tokens",
}

# Without a limit an answer fills the context, which takes a real engine minutes.
LIMITS = ("max_tokens", "max_output_tokens")


def raw_bodies() -> Iterator[tuple[str, dict[str, Any]]]:
    """Bodies that are no JSON object, or not said to be JSON."""
    unreadable = {
        "empty": "",
        "blank": "   ",
        "cut short": '{"messages": [',
        "a list": "[1, 2]",
        "a string": '"x"',
        "null": "null",
        "an empty object": "{}",
        "two values": "{} {}",
        "single quotes": "{'a': 1}",
        "deep": "[" * 100_000,
        "a long number": '{"seed": ' + "9" * 5000 + "}",
    }
    for path in ORDINARY:
        for what, content in unreadable.items():
            yield f"{path}: {what}", {"method": "POST", "path": path, "raw_body": content, "headers": JSON}
        body = json.dumps(ORDINARY[path])
        for kind in ("text/plain", "application/x-www-form-urlencoded", "application/vnd.api+json", None):
            headers = {"content-type": kind} if kind else {}
            yield f"{path}: {kind}", {"method": "POST", "path": path, "raw_body": body, "headers": headers}
        for method in ("GET", "PUT", "DELETE"):
            yield f"{method} {path}", {"method": method, "path": path}
    for path in ("/v1/embeddings", "/v1/nowhere", "/", "/v1/models/one"):
        for method in ("GET", "POST"):
            yield f"{method} {path}", {"method": method, "path": path, "body": {} if method == "POST" else None}


def cases() -> Iterator[tuple[str, dict[str, Any]]]:
    """What is worth a look of its own."""

    def post(path: str, **more: Any) -> dict[str, Any]:
        return {"method": "POST", "path": path, "body": {**ORDINARY[path], **more}}

    for path in (CHAT, TEXT, ANTHROPIC, RESPONSES):
        yield f"{path} plain", post(path)
        yield f"{path} streamed", post(path, stream=True)
        yield f"{path} of an unknown model", post(path, model="nope")
        yield f"{path} with an unknown field", post(path, unknown={"a": [1]})
    for path in (CHAT, TEXT):
        usage = {"include_usage": True}
        yield f"{path} with usage", post(path, stream=True, stream_options=usage)
        yield (
            f"{path} with usage all along",
            post(path, stream=True, stream_options={**usage, "continuous_usage_stats": True}),
        )
        yield f"{path} n", post(path, n=2, temperature=1)
        yield f"{path} n greedy", post(path, n=2)
        yield f"{path} out of range, streamed", post(path, temperature=3, stream=True)
        yield f"{path} refused by the engine, streamed", post(path, allowed_token_ids=[], stream=True)
    for number, messages in enumerate(
        [
            [],
            [{}],
            ["hi"],
            [None],
            [{"role": "user"}],
            [{"role": "user", "content": None}],
            [{"role": "user", "content": 7}],
            [{"role": "user", "content": [{"type": "text"}]}],
            [{"role": "user", "content": [{"type": "nope"}]}],
            [{"role": "user", "content": ["hi"]}],
            [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}]}],
            [{"role": 7, "content": "hi"}],
            [{"content": "hi"}],
            [{"role": "alien", "content": "hi"}],
            [{"role": "assistant", "tool_calls": "x"}],
            [{"role": "user", "content": "\ud800"}],
            [{"role": "user", "content": "\u0000"}],
        ]
    ):
        yield f"chat messages {number}", post(CHAT, messages=messages)
    for number, extra in enumerate(
        [
            {"tools": [TOOL]},
            {"tools": [TOOL], "tool_choice": "required"},
            {"tools": [TOOL], "tool_choice": "none"},
            {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "f"}}},
            {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "g"}}},
            {"tools": [TOOL], "tool_choice": {"type": "function"}},
            {"tools": [TOOL], "tool_choice": "any"},
            {"tools": []},
            {"tools": [{}]},
            {"tool_choice": "auto"},
        ]
    ):
        yield f"chat tools {number}", post(CHAT, **extra)
    long = "word " * 2_000_000
    yield "10 MB of chat", post(CHAT, messages=[{"role": "user", "content": long}])
    yield "10 MB of text", post(TEXT, prompt=long)
    yield "10 MB in the wrong field", post(CHAT, temperature=long)
    yield "a prompt that is too long", post(CHAT, messages=[{"role": "user", "content": "word " * 20_000}])
    yield "too many token ids", post(TEXT, prompt=[7] * 50_000)
    yield "more output than the context holds", post(CHAT, max_tokens=100_000)
    yield "messages to be counted", {"method": "POST", "path": f"{ANTHROPIC}/count_tokens", "body": ORDINARY[ANTHROPIC]}


@pytest.fixture(scope="module")
def compared(engine: Any, shared: Callable[..., Any]) -> Callable[[dict[str, Any]], tuple[list[str], str]]:
    """Sends a request to both; returns how the mock's answer differs, and both answers for the reader."""
    mock = shared(MODEL, "--max-model-len", "8192", "--enable-prompt-tokens-details")

    def compare(request: dict[str, Any]) -> tuple[list[str], str]:
        asked = Recording("", request, Answer(0, None, ""), (), whole=True)
        real, mocked = (conformance.send(asked, url) for url in (engine.url, mock.url))
        found = conformance.differences(replace(asked, answer=_comparable(real)), _comparable(mocked))
        # How long an answer is, and where it ends, is the model's affair.
        ends = ("length", "finish_reason: value", "finish_reason: type", "stop_reason: type", "tokens: value")
        return [change for change in found if not change.endswith(ends)], f"{real.text[:900]}\n{mocked.text[:900]}"

    return compare


def _comparable(answer: Answer) -> Answer:
    """Without the numbers in an error's text: how many tokens a text has, and how many there are, differs."""
    if answer.status == 200 or not answer.text.startswith('{"'):
        return answer
    body = json.loads(answer.text)
    error = body.get("error")
    if isinstance(error, dict) and error["type"] != "Bad Request":
        error["message"] = "".join("#" if letter.isdigit() else letter for letter in error["message"])
        while "##" in error["message"]:
            error["message"] = error["message"].replace("##", "#")
    return replace(answer, text=json.dumps(body))


@pytest.mark.parametrize("request_", [request for _, request in cases()], ids=[name for name, _ in cases()])
def test_ordinary_and_odd_calls(compared: Any, request_: dict[str, Any]) -> None:
    found, shown = compared(request_)
    assert not found, shown


@pytest.mark.parametrize("request_", [request for _, request in raw_bodies()], ids=[name for name, _ in raw_bodies()])
def test_what_is_no_request(compared: Any, request_: dict[str, Any]) -> None:
    found, shown = compared(request_)
    assert not found, shown


@pytest.mark.parametrize(("path", "name"), [(path, name) for path, names in FIELDS.items() for name in names.split()])
def test_every_value_for_every_field(compared: Any, path: str, name: str) -> None:
    wrong = {}
    for value in VALUES:
        if value is None and name in LIMITS:
            continue
        request = {"method": "POST", "path": path, "body": {**ORDINARY[path], name: value}}
        found, shown = compared(request)
        if found:
            wrong[str(value)] = (found, shown)
    assert not wrong, json.dumps(wrong, indent=1)
