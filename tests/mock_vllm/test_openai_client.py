"""The official client against the mock: plain, streamed, and what its exceptions become."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import openai
import pytest

PROMPT = [{"role": "user", "content": "What is the capital of France?"}]


@pytest.fixture
def client(mock: Any) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{mock.url}/v1", api_key="none", max_retries=0)


def test_models(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["mistral-7b", "alias"]


def test_chat(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="mistral-7b", messages=PROMPT, max_tokens=16, temperature=0)
    assert answer.choices[0].message.content
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens == 16
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 16


def test_an_alias_is_served_and_answers_with_the_first_name(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="alias", messages=PROMPT, max_tokens=1)
    assert answer.model == "mistral-7b"


def test_streamed_chat_says_what_the_plain_one_says(client: openai.OpenAI) -> None:
    plain = client.chat.completions.create(model="mistral-7b", messages=PROMPT, seed=3)
    chunks = list(
        client.chat.completions.create(
            model="mistral-7b",
            messages=PROMPT,
            seed=3,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1])
    assert text == plain.choices[0].message.content
    assert chunks[-2].choices[0].finish_reason == plain.choices[0].finish_reason == "stop"
    assert chunks[-1].usage.completion_tokens == plain.usage.completion_tokens
    assert chunks[-1].usage.prompt_tokens == plain.usage.prompt_tokens
    # A role chunk, one per token, usage: the token that ends the text brings none.
    assert len(chunks) == 1 + plain.usage.completion_tokens + 1


def test_continuous_usage_counts_up(client: openai.OpenAI) -> None:
    chunks = client.chat.completions.create(
        model="mistral-7b",
        messages=PROMPT,
        max_tokens=4,
        stream=True,
        stream_options={"include_usage": True, "continuous_usage_stats": True},  # type: ignore[typeddict-unknown-key]
    )
    usages = [chunk.usage for chunk in chunks]
    assert [usage.completion_tokens for usage in usages] == [0, 1, 2, 3, 4, 4]
    assert all(usage.total_tokens == usage.prompt_tokens + usage.completion_tokens for usage in usages)


@pytest.mark.parametrize("stream", [False, True])
def test_choices_are_separate_and_summed_in_usage(client: openai.OpenAI, stream: bool) -> None:
    options: Any = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
    options["extra_body"] = {"ignore_eos": True}
    answer: Any = client.chat.completions.create(
        model="mistral-7b", messages=PROMPT, n=3, max_tokens=20, seed=1, **options
    )
    texts = ["", "", ""]
    if stream:
        for chunk in answer:
            usage = chunk.usage
            for choice in chunk.choices:
                texts[choice.index] += choice.delta.content
    else:
        usage = answer.usage
        texts = [choice.message.content for choice in answer.choices]
    assert len(set(texts)) == 3
    assert usage.completion_tokens == 60


def test_stop_string_ends_the_text_before_itself(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(model="mistral-7b", messages=PROMPT, temperature=0)
    text = whole.choices[0].message.content or ""
    stop = text[20:26]
    options: Any = {"model": "mistral-7b", "messages": PROMPT, "temperature": 0, "stop": ["no such text", stop]}
    plain = client.chat.completions.create(**options)
    assert plain.choices[0].message.content == text[: text.index(stop)]
    assert plain.choices[0].finish_reason == "stop"
    assert plain.choices[0].stop_reason == stop  # type: ignore[attr-defined]
    assert plain.usage.completion_tokens < whole.usage.completion_tokens
    chunks = list(client.chat.completions.create(stream=True, **options))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == text[: text.index(stop)]
    assert chunks[-1].choices[0].stop_reason == stop


def test_min_tokens_and_ignore_eos_hold_off_the_end(client: openai.OpenAI) -> None:
    for extra in ({"min_tokens": 300}, {"ignore_eos": True}):
        answer = client.chat.completions.create(model="mistral-7b", messages=PROMPT, max_tokens=300, extra_body=extra)
        assert answer.usage.completion_tokens == 300
        assert answer.choices[0].finish_reason == "length"


def test_completions_with_several_prompts(client: openai.OpenAI) -> None:
    answer = client.completions.create(model="mistral-7b", prompt=["The statement", "A claim"], n=2, max_tokens=5)
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    assert answer.usage.completion_tokens == 20
    single = client.completions.create(model="mistral-7b", prompt="The statement", n=2, max_tokens=5)
    assert [choice.text for choice in single.choices] == [choice.text for choice in answer.choices[:2]]


def test_streamed_completions_with_echo(client: openai.OpenAI) -> None:
    options: Any = {"model": "mistral-7b", "prompt": "The statement", "max_tokens": 5, "echo": True}
    plain = client.completions.create(**options)
    assert plain.choices[0].text.startswith("The statement")
    chunks = client.completions.create(stream=True, **options)
    assert "".join(chunk.choices[0].text for chunk in chunks) == plain.choices[0].text


def test_logprobs_cover_every_token(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="mistral-7b", messages=PROMPT, max_tokens=5, logprobs=True, top_logprobs=3
    )
    entries = answer.choices[0].logprobs.content
    assert "".join(entry.token for entry in entries) == answer.choices[0].message.content
    for entry in entries:
        ranked = [candidate.logprob for candidate in entry.top_logprobs]
        assert len({candidate.token for candidate in entry.top_logprobs}) == 3
        assert ranked == sorted(ranked, reverse=True)
        assert ranked[0] == entry.logprob <= 0


def test_json_schema_is_obeyed(client: openai.OpenAI) -> None:
    schema = {
        "type": "object",
        "properties": {
            "city": {"type": "string", "maxLength": 4},
            "size": {"type": "integer", "minimum": 3, "maximum": 5},
            "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "minItems": 2},
            "next": {"$ref": "#/$defs/end"},
        },
        "required": ["city", "size", "tags", "next"],
        "$defs": {"end": {"type": "null"}},
    }
    answer = client.chat.completions.create(
        model="mistral-7b",
        messages=PROMPT,
        response_format={"type": "json_schema", "json_schema": {"name": "city", "schema": schema}},
    )
    made = json.loads(answer.choices[0].message.content or "")
    assert set(made) == {"city", "size", "tags", "next"}
    assert len(made["city"]) <= 4
    assert 3 <= made["size"] <= 5
    assert set(made["tags"]) <= {"a", "b"}
    assert len(made["tags"]) == 2
    assert made["next"] is None


def test_structured_choice_is_one_of_the_choices(client: openai.OpenAI) -> None:
    seen = {
        client.chat.completions.create(
            model="mistral-7b",
            messages=PROMPT,
            seed=seed,
            extra_body={"structured_outputs": {"choice": ["yes", "no"]}},
        )
        .choices[0]
        .message.content
        for seed in range(12)
    }
    assert seen == {"yes", "no"}


def test_responses(client: openai.OpenAI) -> None:
    whole = client.responses.create(model="mistral-7b", input="Tell me about rivers", instructions="Be brief")
    assert whole.status == "completed"
    assert whole.usage.total_tokens == whole.usage.input_tokens + whole.usage.output_tokens
    short = client.responses.create(model="mistral-7b", input="Tell me about rivers", max_output_tokens=3)
    assert short.status == "incomplete"
    assert short.usage.output_tokens == 3


def test_streamed_responses_say_what_the_plain_one_says(client: openai.OpenAI) -> None:
    plain = client.responses.create(model="mistral-7b", input="Tell me about rivers")
    events = list(client.responses.create(model="mistral-7b", input="Tell me about rivers", stream=True))
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == plain.output_text
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert events[0].type == "response.created"
    assert events[-1].type == "response.completed"
    assert events[-1].response.usage == plain.usage


def test_embeddings(shared: Callable[..., Any]) -> None:
    server = shared("--runner", "pooling")
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
    texts = ["the price of a token", "the price of a thousand tokens", "wolves sing at dusk"]
    answer = client.embeddings.create(model="mistral-7b", input=texts)
    first, near, far = (item.embedding for item in answer.data)

    def dot(left: list[float], right: list[float]) -> float:
        return sum(one * other for one, other in zip(left, right, strict=True))

    assert dot(first, first) == pytest.approx(1.0, abs=1e-5)
    assert dot(first, near) > dot(first, far)
    assert answer.usage.prompt_tokens == answer.usage.total_tokens > 0
    as_floats = client.embeddings.create(model="mistral-7b", input=texts[0], encoding_format="float")
    assert as_floats.data[0].embedding == pytest.approx(first, abs=1e-6)
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="mistral-7b", messages=PROMPT)
    with pytest.raises(openai.BadRequestError, match="matryoshka"):
        client.embeddings.create(model="mistral-7b", input="x", dimensions=3)


def test_errors_become_the_exceptions_that_callers_catch(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="`gpt-9` does not exist"):
        client.chat.completions.create(model="gpt-9", messages=PROMPT)
    with pytest.raises(openai.BadRequestError, match="temperature must be in"):
        client.chat.completions.create(model="mistral-7b", messages=PROMPT, temperature=3)
    with pytest.raises(openai.BadRequestError, match="maximum context length"):
        client.chat.completions.create(model="mistral-7b", messages=[{"role": "user", "content": "a b " * 5000}])
