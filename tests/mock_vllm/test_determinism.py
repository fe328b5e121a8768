"""The same request and seed give the same bytes, whatever happens around them."""

from __future__ import annotations

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

_VOLATILE = re.compile(r'"(id|created|created_at)":("[^"]*"|\d+)|msg_[0-9a-f]{16}')


def requests() -> list[tuple[str, dict[str, Any]]]:
    chat = [
        {
            "messages": [{"role": "user", "content": f"Question {number} about the harbour"}],
            "max_tokens": 40,
            "seed": number % 3,
            "stream": bool(number % 2),
            "temperature": 0.0 if number % 5 == 0 else 0.9,
            "logprobs": number % 4 == 0,
        }
        for number in range(20)
    ]
    return [
        *(("/v1/chat/completions", body) for body in chat),
        ("/v1/chat/completions", {**chat[1], "n": 2}),
        ("/v1/completions", {"prompt": ["a harbour", "a ship"], "n": 2, "logprobs": 2}),
        ("/v1/messages", {"model": "mistral-7b", "max_tokens": 20, "messages": chat[0]["messages"]}),
        ("/v1/responses", {"input": "a harbour", "stream": True}),
        ("/tokenize", {"prompt": "a harbour"}),
    ]


def answers(url: str, order: int, workers: int) -> list[str]:
    """The answers in the order of `requests`, asked for forwards (1) or backwards (-1), ids and times out."""
    asked = requests()[::order]

    def ask(request: tuple[str, dict[str, Any]]) -> str:
        response = client.post(f"{url}{request[0]}", json=request[1])
        assert response.status_code == 200, response.text
        return _VOLATILE.sub("", response.text)

    with httpx.Client(timeout=20) as client, ThreadPoolExecutor(workers) as pool:
        return list(pool.map(ask, asked))[::order]


def test_order_concurrency_and_process_do_not_matter(start: Callable[..., Any]) -> None:
    one = start(env={"PYTHONHASHSEED": "1"})
    other = start("--ttft-ms", "2", "--tpot-ms", "1", "--latency-jitter", "0.5", env={"PYTHONHASHSEED": "2"})
    expected = answers(one.url, order=1, workers=1)
    assert answers(one.url, order=-1, workers=12) == expected
    assert answers(other.url, order=-1, workers=12) == expected


def test_seeds_matter(start: Callable[..., Any], mock: Any) -> None:
    def text(server: Any, **extra: Any) -> str:
        return str(server.chat(**extra).json()["choices"][0]["message"]["content"])

    assert text(mock, seed=1) != text(mock, seed=2)
    assert text(mock, seed=1) == text(mock, seed=1)
    assert text(mock, seed=1, temperature=0) == text(mock, seed=2, temperature=0)
    assert text(start("--seed", "7"), seed=1) != text(mock, seed=1)


def test_streams_and_plain_answers_of_all_apis_agree(mock: Any) -> None:
    messages = [{"role": "user", "content": "hello"}]
    chat = mock.chat(messages=messages, max_tokens=20).json()["choices"][0]["message"]["content"]
    anthropic = {"model": "mistral-7b", "messages": messages, "max_tokens": 20}
    plain = httpx.post(f"{mock.url}/v1/messages", json=anthropic).json()
    assert plain["content"][0]["text"] == chat
    streamed = httpx.post(f"{mock.url}/v1/messages", json={**anthropic, "stream": True}).text
    assert "".join(re.findall(r'"text_delta","text":"([^"]*)"', streamed)) == chat
    response = httpx.post(f"{mock.url}/v1/responses", json={"input": "hello", "max_output_tokens": 20}).json()
    assert response["output"][0]["content"][0]["text"] == chat


def test_some_answers_end_by_themselves_and_some_do_not(mock: Any) -> None:
    reasons = [
        mock.chat(messages=[{"role": "user", "content": f"Topic {number}"}], max_tokens=60).json()["choices"][0][
            "finish_reason"
        ]
        for number in range(20)
    ]
    assert set(reasons) == {"stop", "length"}


@pytest.mark.parametrize("prompt", ["", "?!", "hi", "what is it", "漢" * 50])
def test_every_prompt_has_a_readable_answer(mock: Any, prompt: str) -> None:
    content = mock.chat(messages=[{"role": "user", "content": prompt}]).json()["choices"][0]["message"]["content"]
    assert re.fullmatch(r"[A-Z][A-Za-z ,:'.]+\.", content), content


def test_half_a_character_is_refused_as_vllms_tokenizer_refuses_it(mock: Any) -> None:
    body = b'{"messages": [{"role": "user", "content": "\\ud83d broken"}], "max_tokens": 5, "return_token_ids": true}'
    headers = {"content-type": "application/json"}
    response = httpx.post(f"{mock.url}/v1/chat/completions", content=body, headers=headers)
    assert response.status_code == 400
    assert response.json()["error"]["message"].startswith("TextEncodeInput must be")
