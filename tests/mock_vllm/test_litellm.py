"""LiteLLM's two ways to a vLLM server, used as a library."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

PROMPT = [{"role": "user", "content": "What is the capital of France?"}]


@pytest.fixture(scope="module")
def litellm() -> Any:
    # Read at import: without it the price list comes from the internet.
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    import litellm

    return litellm


@pytest.fixture(params=["hosted_vllm", "openai"])
def target(request: pytest.FixtureRequest, mock: Any) -> dict[str, Any]:
    return {
        "model": f"{request.param}/mistral-7b",
        "api_base": f"{mock.url}/v1",
        "api_key": "none",
        "num_retries": 0,
    }


def test_plain(litellm: Any, target: dict[str, Any]) -> None:
    answer = litellm.completion(**target, messages=PROMPT, max_tokens=7)
    assert answer.usage.completion_tokens == 7
    assert answer.choices[0].finish_reason == "length"
    assert answer.choices[0].message.content


def test_stream_with_usage(litellm: Any, target: dict[str, Any]) -> None:
    plain = litellm.completion(**target, messages=PROMPT, max_tokens=7, seed=2)
    chunks = list(
        litellm.completion(
            **target,
            messages=PROMPT,
            max_tokens=7,
            seed=2,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == plain.choices[0].message.content
    assert chunks[-1].usage.completion_tokens == 7
    assert chunks[-1].usage.prompt_tokens == plain.usage.prompt_tokens


def test_errors(litellm: Any, target: dict[str, Any]) -> None:
    with pytest.raises(litellm.BadRequestError, match="temperature"):
        litellm.completion(**target, messages=PROMPT, temperature=3)
    with pytest.raises(litellm.NotFoundError, match="does not exist"):
        litellm.completion(**{**target, "model": target["model"] + "-x"}, messages=PROMPT)


def test_a_fault_asked_for_in_the_body_arrives(litellm: Any, slow: Any) -> None:
    target = {"model": "hosted_vllm/mistral-7b", "api_base": f"{slow.url}/v1", "api_key": "none"}
    with pytest.raises(litellm.RateLimitError):
        litellm.completion(**target, messages=PROMPT, num_retries=0, extra_body={"mock_fault": "429"})


def test_embedding(litellm: Any, shared: Callable[..., Any]) -> None:
    answer = litellm.embedding(
        model="hosted_vllm/mistral-7b",
        api_base=f"{shared('--runner', 'pooling').url}/v1",
        api_key="none",
        input=["one", "two"],
    )
    assert len(answer.data) == 2
    assert answer.usage.prompt_tokens > 0
