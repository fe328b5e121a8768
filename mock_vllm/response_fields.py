"""The documented fields of `/v1/responses`, in vLLM's order.

Many have types of the `openai` package, as in vLLM. They are looked up when a value comes that is not plain.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from mock_vllm import fields
from mock_vllm.validation import FieldType, deferred, field

_NONE = type(None)

_INCLUDED = Literal[
    "code_interpreter_call.outputs",
    "computer_call_output.output.image_url",
    "file_search_call.results",
    "message.input_image.image_url",
    "message.output_text.logprobs",
    "reasoning.encrypted_content",
]
_PENALTY = field(Annotated[float, Field(ge=-2.0, le=2.0)] | None, _NONE)


def _input() -> Any:
    from openai.types.responses import ResponseInputItemParam, ResponseOutputItem

    return str | list[Annotated[ResponseInputItemParam | ResponseOutputItem, BeforeValidator(_with_image_detail)]]


def _with_image_detail(item: Any) -> Any:
    """An image without `detail` is one with the default, though its type demands it."""
    parts = item.get("content") if isinstance(item, dict) else None
    if not isinstance(parts, list):
        return item
    return {
        **item,
        "content": [
            {"detail": "auto", **part} if isinstance(part, dict) and part.get("type") == "input_image" else part
            for part in parts
        ],
    }


def _prompt() -> Any:
    from openai.types.responses import ResponsePrompt

    return ResponsePrompt | None


def _reasoning() -> Any:
    from openai.types.shared import Reasoning

    return Reasoning | None


def _text() -> Any:
    from openai.types.responses import ResponseTextConfig

    return ResponseTextConfig | None


def _tool_choice() -> Any:
    from openai.types.responses.response import ToolChoice

    return ToolChoice


def _tools() -> Any:
    from openai.types.responses.tool import Tool

    return list[Tool]


INPUT = deferred(_input, str)
RESPONSES: dict[str, FieldType] = {
    "background": fields.OPTIONAL_BOOL,
    "include": field(list[_INCLUDED] | None, _NONE),
    "input": fields.ANY,
    "instructions": fields.OPTIONAL_STRING,
    "max_output_tokens": fields.OPTIONAL_INT,
    "max_tool_calls": fields.OPTIONAL_INT,
    "metadata": field(dict[str, str] | None, _NONE),
    "model": fields.OPTIONAL_STRING,
    "logit_bias": fields.LOGIT_BIAS,
    "parallel_tool_calls": fields.OPTIONAL_BOOL,
    "previous_response_id": fields.OPTIONAL_STRING,
    "prompt": deferred(_prompt, _NONE),
    "reasoning": deferred(_reasoning, _NONE),
    "include_reasoning": fields.BOOL,
    "service_tier": field(Literal["auto", "default", "flex", "scale", "priority"]),
    "store": fields.OPTIONAL_BOOL,
    "stream": fields.OPTIONAL_BOOL,
    "temperature": fields.OPTIONAL_FLOAT,
    "text": deferred(_text, _NONE),
    "tool_choice": deferred(_tool_choice),
    "tools": deferred(_tools),
    "top_logprobs": fields.NULL_IS_ZERO,
    "top_p": fields.OPTIONAL_FLOAT,
    "top_k": fields.OPTIONAL_INT,
    "min_p": fields.OPTIONAL_FLOAT,
    "truncation": field(Literal["auto", "disabled"] | None, _NONE),
    "user": fields.OPTIONAL_STRING,
    "skip_special_tokens": fields.BOOL,
    "include_stop_str_in_output": fields.BOOL,
    "presence_penalty": _PENALTY,
    "frequency_penalty": _PENALTY,
    "prompt_cache_key": fields.OPTIONAL_STRING,
    "watermarking": fields.OPTIONAL_BOOL,
    "request_id": fields.STRING,
    "session_id": fields.OPTIONAL_STRING,
    "media_io_kwargs": fields.NESTED_OBJECTS,
    "mm_processor_kwargs": fields.OPTIONAL_OBJECT,
    "priority": fields.PRIORITY,
    "mm_payload": fields.MM_PAYLOAD,
    "return_mm_kwargs": fields.OPTIONAL_BOOL,
    "cache_salt": fields.SALT,
    "enable_response_messages": fields.BOOL,
    "previous_input_messages": fields.PREVIOUS_MESSAGES,
    "structured_outputs": fields.STRUCTURED,
    "repetition_penalty": fields.OPTIONAL_FLOAT,
    "seed": fields.SEED,
    "stop": fields.STOP,
    "stop_token_ids": fields.OPTIONAL_INT_LIST,
    "ignore_eos": fields.BOOL,
    "vllm_xargs": fields.EXTRA,
    "kv_transfer_params": fields.OPTIONAL_OBJECT,
    "ec_transfer_params": fields.OPTIONAL_OBJECT,
    "chat_template_kwargs": fields.OPTIONAL_OBJECT,
}
RESPONSES_IN_DETAIL = {**RESPONSES, "input": INPUT}
