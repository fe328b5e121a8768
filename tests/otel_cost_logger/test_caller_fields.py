"""Fields that are the operator's are taken out of a request before it is dispatched."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from litellm.proxy._types import ProxyException

from otel_cost_logger import OtelCostLogger
from otel_cost_logger.caller_fields import NotAllowed, remove_operators_fields


def cleaned(request: dict[str, Any], call_type: str = "acompletion") -> dict[str, Any]:
    remove_operators_fields(request, call_type)
    return request


def test_what_a_caller_may_say_stays() -> None:
    request = {"model": "m", "n": 2, "stream": True, "stream_options": {"include_usage": False}, "user": "x"}
    assert cleaned(dict(request)) == request
    extra = {"top_k": 5, "chat_template_kwargs": {"enable_thinking": False}}
    assert cleaned({"extra_body": dict(extra)})["extra_body"] == extra


def test_what_is_the_operators_goes() -> None:
    operators = {"custom_llm_provider": "openai", "deployment_id": "x", "azure": True, "use_litellm_proxy": True}
    assert cleaned({"model": "m", **operators, "additional_drop_params": ["stream_options"]}) == {"model": "m"}
    extra = {"stream": True, "stream_options": {}, "n": 3, "model": "x", "top_k": 5}
    assert cleaned({"extra_body": extra}) == {"extra_body": {"top_k": 5}}


def test_embeddings_are_never_streamed() -> None:
    assert cleaned({"input": "x", "stream": True}, "aembedding") == {"input": "x"}


@pytest.mark.parametrize("stream", ["true", "false", 1, 0, [], {}])
def test_a_stream_that_is_neither_true_nor_false_is_refused(stream: object) -> None:
    with pytest.raises(NotAllowed, match='"stream" must be true or false'):
        cleaned({"stream": stream})
    hook = OtelCostLogger().async_pre_call_hook
    with pytest.raises(ProxyException) as raised:
        asyncio.run(hook(None, None, {"stream": stream}, "acompletion"))
    assert raised.value.code == "400"
    # A route that is no LLM call has a meaning of its own for the field.
    assert asyncio.run(hook(None, None, {"stream": stream}, "list_files")) == {"stream": stream}


@pytest.mark.parametrize("model", ["a,b", "a, b", ",", ["a", "b"], ["a"], {"a": 1}, 7])
def test_several_models_are_refused(model: object) -> None:
    with pytest.raises(NotAllowed, match='"model" must name one model'):
        cleaned({"model": model})


@pytest.mark.parametrize("call_type", ["atext_completion", "aembedding", "aresponses", "anthropic_messages"])
def test_a_comma_in_a_name_is_no_list_where_litellm_does_not_take_it_for_one(call_type: str) -> None:
    assert cleaned({"model": "a,b"}, call_type) == {"model": "a,b"}
    with pytest.raises(NotAllowed, match='"model" must name one model'):
        cleaned({"model": ["a", "b"]}, call_type)
