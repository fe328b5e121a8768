"""The tokenizer: nothing is lost, ids are stable, and it counts what it should."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mock_vllm import tokenizer
from mock_vllm.prompt import chat_prompt


@given(st.text())
@settings(deadline=None)
def test_nothing_is_lost(text: str) -> None:
    pieces = tokenizer.pieces(text)
    assert "".join(pieces) == text
    assert [tokenizer.token_text(tokenizer.token_id(piece)) for piece in pieces] == pieces


@given(st.integers(min_value=0, max_value=2**29 + 15) | st.integers(min_value=2**30, max_value=2**30 + 0x10FFFF))
@settings(deadline=None)
def test_ids_within_the_vocabulary_mean_a_token(number: int) -> None:
    if len(tokenizer.SPECIAL_TOKENS) <= number < 16:
        number = 0
    assert tokenizer.token_text(number)


@pytest.mark.parametrize("number", [-1, 15, 2**29 + 16, 2**30 - 1, 2**30 + 0x110000, 2**63])
def test_other_ids_mean_nothing(number: int) -> None:
    with pytest.raises(ValueError, match="out of vocabulary"):
        tokenizer.token_text(number)


def test_ids_are_the_same_everywhere() -> None:
    assert [tokenizer.token_id(piece) for piece in tokenizer.pieces("What is it? 漢")] == [
        184168708, 268449027, 268449028, 79, 48, 1073770274,
    ]  # fmt: skip


def test_english_comes_out_at_about_three_characters_a_token() -> None:
    text = "Every inference call has a tenant, a model, a number of tokens and a price that somebody pays. " * 20
    assert 2.8 < len(text) / len(tokenizer.pieces(text)) < 3.6


@pytest.mark.parametrize(
    "content",
    ["one two three", ["one two three"], [{"type": "text", "text": "one two three"}]],
    ids=["string", "list of strings", "list of parts"],
)
def test_all_forms_of_content_count_alike(content: Any) -> None:
    assert chat_prompt([{"role": "user", "content": content}]) == chat_prompt(
        [{"role": "user", "content": "one two three"}]
    )


def test_every_message_counts() -> None:
    one = chat_prompt([{"role": "user", "content": "hello"}])
    more = chat_prompt(
        [
            {"role": "system", "content": "be kind"},
            {"role": "user", "content": "hello"},
            {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "function": {"name": "f"}}]},
            {"role": "tool", "content": [{"type": "text", "text": "result"}]},
            {"role": "user", "content": "hello"},
        ]
    )
    assert len(more) > 2 * len(one)
    assert more.text.count("hello") == 2
    assert '"name":"f"' in more.text


def test_tokenize_counts_what_usage_counts(mock: Any) -> None:
    messages = [{"role": "user", "content": [{"type": "text", "text": "¿Qué? 1234567"}, {"type": "text", "text": "x"}]}]
    tokens = httpx.post(f"{mock.url}/tokenize", json={"messages": messages, "return_token_strs": True}).json()
    usage = mock.chat(messages=messages, max_tokens=1).json()["usage"]
    assert tokens["count"] == usage["prompt_tokens"] == len(tokens["tokens"]) == len(tokens["token_strs"])
    count = httpx.post(f"{mock.url}/v1/messages/count_tokens", json={"model": "mistral-7b", "messages": messages})
    assert count.json()["input_tokens"] == tokens["count"]


def test_detokenize_undoes_tokenize(mock: Any) -> None:
    text = "  Žluťoučký kůň,\n\tpaid 1,234.50 €  "
    tokens = httpx.post(f"{mock.url}/tokenize", json={"prompt": text, "add_special_tokens": False}).json()["tokens"]
    assert httpx.post(f"{mock.url}/detokenize", json={"tokens": tokens}).json() == {"prompt": text}
    unknown = httpx.post(f"{mock.url}/detokenize", json={"tokens": [2**31]})
    assert unknown.status_code == 400
    assert "out of vocabulary" in unknown.json()["error"]["message"]


def test_returned_token_ids_are_the_text(mock: Any) -> None:
    body = mock.chat(temperature=0, return_token_ids=True).json()
    ids = body["choices"][0]["token_ids"]
    text = body["choices"][0]["message"]["content"]
    assert len(ids) == body["usage"]["completion_tokens"]
    assert len(body["prompt_token_ids"]) == body["usage"]["prompt_tokens"]
    assert httpx.post(f"{mock.url}/detokenize", json={"tokens": ids}).json()["prompt"] == text + "</s>"
    tokens = httpx.post(f"{mock.url}/tokenize", json={"prompt": text, "add_special_tokens": False}).json()["tokens"]
    assert tokens == ids[:-1]
