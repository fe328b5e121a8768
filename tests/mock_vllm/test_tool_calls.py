"""With `--tool-call-parser`: calls that must be made are made, whole and in deltas, and arguments fit their schema."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import openai
import pytest

from mock_vllm.tool_calls import CallStream, call_text, parsed

SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 1, "maximum": 7}},
    "required": ["city", "days"],
}
TOOLS: Any = [{"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}]
NAMED: Any = {"type": "function", "function": {"name": "weather"}}
PROMPT: Any = [{"role": "user", "content": "How is the weather in Paris?"}]


@pytest.fixture
def client(shared: Callable[..., Any]) -> openai.OpenAI:
    server = shared("--enable-auto-tool-choice", "--tool-call-parser", "hermes")
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)


@pytest.mark.parametrize(("choice", "finish_reason"), [("required", "tool_calls"), (NAMED, "stop")])
def test_a_call_that_must_be_made(client: openai.OpenAI, choice: Any, finish_reason: str) -> None:
    answer = client.chat.completions.create(model="mistral-7b", messages=PROMPT, tools=TOOLS, tool_choice=choice)
    assert answer.choices[0].finish_reason == finish_reason
    [call] = answer.choices[0].message.tool_calls or []
    assert call.type == "function"
    assert call.function.name == "weather"
    arguments = json.loads(call.function.arguments)
    assert 1 <= arguments["days"] <= 7
    chunks = list(
        client.chat.completions.create(
            model="mistral-7b", messages=PROMPT, tools=TOOLS, tool_choice=choice, stream=True
        )
    )
    deltas = [delta for chunk in chunks for delta in chunk.choices[0].delta.tool_calls or []]
    assert deltas[0].function is not None
    assert deltas[0].function.name == "weather"
    assert "".join(delta.function.arguments or "" for delta in deltas if delta.function) == call.function.arguments
    assert chunks[-1].choices[0].finish_reason == finish_reason


def test_auto_is_answered_in_prose(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="mistral-7b", messages=PROMPT, tools=TOOLS, max_tokens=5)
    assert answer.choices[0].message.tool_calls is None
    assert answer.choices[0].message.content


def test_a_call_that_is_cut_short_is_text(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="mistral-7b", messages=PROMPT, tools=TOOLS, tool_choice="required", max_tokens=5
    )
    assert answer.choices[0].finish_reason == "length"
    assert answer.choices[0].message.tool_calls is None
    assert (answer.choices[0].message.content or "").startswith("<tool")


@pytest.mark.parametrize("step", [1, 2, 3, 7, 1000])
def test_however_a_text_is_cut_the_deltas_make_the_same_call(step: int) -> None:
    text = call_text('od"d', {"a": "}</tool_call", "b": [1, {"c": "é"}]})
    stream = CallStream()
    deltas = [stream.delta(text[at : at + step]) for at in range(0, len(text), step)]
    # One more, as the end of a sequence brings one without text.
    functions = [call["function"] for delta in [*deltas, stream.delta("")] for call in delta.get("tool_calls", [])]
    assert functions[0]["name"] == 'od"d'
    [call] = parsed(text)
    assert "".join(function.get("arguments", "") for function in functions) == call["function"]["arguments"]
