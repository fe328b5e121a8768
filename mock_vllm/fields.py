"""Every documented field of every endpoint, with its type, in the order in which vLLM declares them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidatorFunctionWrapHandler,
    model_validator,
)
from pydantic.dataclasses import dataclass

from mock_vllm.chat_messages import Message
from mock_vllm.errors import bad_parameter
from mock_vllm.validation import FieldType, field

_NONE = type(None)
_MOST_STOP_STRINGS = 4


class _Part(BaseModel):
    """An object inside a body. Unknown keys are let through, as everywhere in vLLM."""

    model_config = ConfigDict(extra="allow", protected_namespaces=())

    # vLLM's models have such a wrapper. It keeps their names out of the locations of errors.
    @model_validator(mode="wrap")
    @classmethod
    def _wrapped(cls, data: Any, handler: ValidatorFunctionWrapHandler) -> Any:
        return handler(data)


class _StreamOptions(_Part):
    include_usage: bool | None = False
    continuous_usage_stats: bool | None = False


class _JsonSchema(_Part):
    name: str
    description: str | None = None
    json_schema: dict[str, Any] | None = Field(default=None, alias="schema")
    strict: bool | None = None


class _ResponseFormat(_Part):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: _JsonSchema | None = None


class _StructuralTagFormat(_Part):
    type: Literal["structural_tag"]
    format: Any


class _LegacyStructure(_Part):
    begin: str
    structural_tag_schema: dict[str, Any] | None = Field(default=None, alias="schema")
    end: str


class _LegacyStructuralTagFormat(_Part):
    type: Literal["structural_tag"]
    structures: list[_LegacyStructure]
    triggers: list[str]


class _Function(_Part):
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None
    defer_loading: bool | None = None


class _Tool(_Part):
    type: Literal["function"] = "function"
    function: _Function
    defer_loading: bool | None = None


class _NamedFunction(_Part):
    name: str


class _NamedTool(_Part):
    function: _NamedFunction
    type: Literal["function"] = "function"


@dataclass
class StructuredOutputsParams:
    json: str | dict[str, Any] | None = None
    regex: str | None = None
    choice: list[str] | None = None
    grammar: str | None = None
    json_object: bool | None = None
    disable_any_whitespace: bool = False
    disable_additional_properties: bool = False
    whitespace_pattern: str | None = None
    structural_tag: str | None = None


@dataclass
class RepetitionDetectionParams:
    max_pattern_size: int = 0
    min_pattern_size: int = 0
    min_count: int = 0


def _null_is_zero(value: Any) -> Any:
    return 0 if value is None else value


def _budget(value: Any) -> Any:
    if type(value) is not int or value < -1:
        message = "`thinking_token_budget` must be a non-negative integer or -1 for unlimited."
        raise bad_parameter(message, "thinking_token_budget", value)
    return value


BOOL = field(bool, bool)
INT = field(int, int)
FLOAT = field(float, float, int)
STRING = field(str, str)
STRING_LIST = field(list[str])
OPTIONAL_BOOL = field(bool | None, bool, _NONE)
OPTIONAL_INT = field(int | None, int, _NONE)
OPTIONAL_FLOAT = field(float | None, float, int, _NONE)
OPTIONAL_STRING = field(str | None, str, _NONE)
OPTIONAL_OBJECT = field(dict[str, Any] | None, dict, _NONE)
OPTIONAL_INT_LIST = field(list[int] | None, _NONE)
ANY_LIST = field(list[Any], list)
ANY = field(Any, str, list)
NULL_IS_ZERO = field(Annotated[int, BeforeValidator(_null_is_zero)], int)
_LONG = Annotated[int, Field(ge=-(2**63), le=2**63 - 1)]
SEED = field(_LONG | None, _NONE)
PRIORITY = field(_LONG)
STOP = field(str | Annotated[list[str], Field(max_length=_MOST_STOP_STRINGS)] | None, str, _NONE)
LOGIT_BIAS = field(dict[str, float] | None, _NONE)
_AT_LEAST_ZERO = field(Annotated[int, Field(ge=0)])
_STREAM_INTERVAL = field(Annotated[int, Field(ge=1)] | None, _NONE)
_TRUNCATE = field(Annotated[int, Field(ge=-1, le=2**63 - 1)] | None, _NONE)
_SIDE = field(Literal["left", "right"] | None, _NONE)
SALT = field(Annotated[str, Field(min_length=1, max_length=1024)] | None, _NONE)
MM_PAYLOAD = field(Literal["tensors", "none"])
_BUDGET = field(Annotated[int | None, BeforeValidator(_budget)], _NONE)
_EXTRA_VALUE = str | int | float
EXTRA = field(dict[str, _EXTRA_VALUE | list[_EXTRA_VALUE]] | None, _NONE)
_EFFORT = field(Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None, _NONE)
_STREAM_OPTIONS = field(_StreamOptions | None, _NONE)
_RESPONSE_FORMAT = field(_ResponseFormat | _StructuralTagFormat | _LegacyStructuralTagFormat | None, _NONE)
STRUCTURED = field(StructuredOutputsParams | None, _NONE)
_REPETITION = field(RepetitionDetectionParams | None, _NONE)
NESTED_OBJECTS = field(dict[str, dict[str, Any]] | None, _NONE)
_TOOLS = field(list[_Tool] | None, _NONE)
_TOOL_CHOICE = field(
    Literal["none"] | Literal["auto"] | Literal["required"] | _NamedTool | None,
    _NONE,
)
PREVIOUS_MESSAGES = field(list[Message | dict[Any, Any]] | None, _NONE)
_TOKEN = Annotated[int, Field(ge=0)]
_PROMPT = field(list[_TOKEN] | list[list[_TOKEN]] | str | list[str] | None, str, _NONE)
_EMBEDS = field(bytes | list[bytes] | None, _NONE)

# What both of OpenAI's older endpoints have at the end.
_LAST = {
    "structured_outputs": STRUCTURED,
    "priority": PRIORITY,
    "request_id": STRING,
    "session_id": OPTIONAL_STRING,
    "return_tokens_as_token_ids": OPTIONAL_BOOL,
    "return_token_ids": OPTIONAL_BOOL,
    "routed_experts_prompt_start": _AT_LEAST_ZERO,
    "return_token_offsets": OPTIONAL_BOOL,
    "return_prompt_text": OPTIONAL_BOOL,
    "mm_payload": MM_PAYLOAD,
    "return_mm_kwargs": OPTIONAL_BOOL,
    "cache_salt": SALT,
    "kv_transfer_params": OPTIONAL_OBJECT,
    "ec_transfer_params": OPTIONAL_OBJECT,
    "vllm_xargs": EXTRA,
    "repetition_detection": _REPETITION,
}
_SAMPLING = {
    "use_beam_search": BOOL,
    "top_k": OPTIONAL_INT,
    "min_p": OPTIONAL_FLOAT,
    "repetition_penalty": OPTIONAL_FLOAT,
    "watermarking": OPTIONAL_BOOL,
    "length_penalty": FLOAT,
    "stop_token_ids": OPTIONAL_INT_LIST,
    "include_stop_str_in_output": BOOL,
    "ignore_eos": BOOL,
    "min_tokens": INT,
    "skip_special_tokens": BOOL,
    "spaces_between_special_tokens": BOOL,
    "truncate_prompt_tokens": _TRUNCATE,
    "truncation_side": _SIDE,
}
_TEMPLATE = {
    "add_generation_prompt": BOOL,
    "continue_final_message": BOOL,
    "add_special_tokens": BOOL,
}

CHAT: dict[str, FieldType] = {
    "messages": ANY_LIST,
    "model": OPTIONAL_STRING,
    "frequency_penalty": OPTIONAL_FLOAT,
    "logit_bias": LOGIT_BIAS,
    "logprobs": OPTIONAL_BOOL,
    "top_logprobs": NULL_IS_ZERO,
    "max_tokens": OPTIONAL_INT,
    "max_completion_tokens": OPTIONAL_INT,
    "n": OPTIONAL_INT,
    "presence_penalty": OPTIONAL_FLOAT,
    "response_format": _RESPONSE_FORMAT,
    "seed": SEED,
    "stop": STOP,
    "stream": OPTIONAL_BOOL,
    "stream_options": _STREAM_OPTIONS,
    "temperature": OPTIONAL_FLOAT,
    "top_p": OPTIONAL_FLOAT,
    "tools": _TOOLS,
    "tool_choice": _TOOL_CHOICE,
    "reasoning_effort": _EFFORT,
    "thinking_token_budget": _BUDGET,
    "include_reasoning": BOOL,
    "parallel_tool_calls": OPTIONAL_BOOL,
    "user": OPTIONAL_STRING,
    **_SAMPLING,
    "prompt_logprobs": OPTIONAL_INT,
    "logprob_token_ids": OPTIONAL_INT_LIST,
    "allowed_token_ids": OPTIONAL_INT_LIST,
    "bad_words": STRING_LIST,
    "echo": BOOL,
    **_TEMPLATE,
    "documents": field(list[dict[str, str]] | None, _NONE),
    "chat_template": OPTIONAL_STRING,
    "chat_template_kwargs": OPTIONAL_OBJECT,
    "media_io_kwargs": NESTED_OBJECTS,
    "mm_processor_kwargs": OPTIONAL_OBJECT,
    **_LAST,
    "stream_interval": _STREAM_INTERVAL,
}

COMPLETIONS: dict[str, FieldType] = {
    "model": OPTIONAL_STRING,
    "prompt": _PROMPT,
    "echo": OPTIONAL_BOOL,
    "frequency_penalty": OPTIONAL_FLOAT,
    "logit_bias": LOGIT_BIAS,
    "logprobs": OPTIONAL_INT,
    "max_tokens": OPTIONAL_INT,
    "n": INT,
    "presence_penalty": OPTIONAL_FLOAT,
    "seed": SEED,
    "stop": STOP,
    "stream": OPTIONAL_BOOL,
    "stream_options": _STREAM_OPTIONS,
    "suffix": OPTIONAL_STRING,
    "temperature": OPTIONAL_FLOAT,
    "top_p": OPTIONAL_FLOAT,
    "user": OPTIONAL_STRING,
    **_SAMPLING,
    "allowed_token_ids": OPTIONAL_INT_LIST,
    "prompt_logprobs": OPTIONAL_INT,
    "logprob_token_ids": OPTIONAL_INT_LIST,
    "bad_words": STRING_LIST,
    "prompt_embeds": _EMBEDS,
    "add_special_tokens": BOOL,
    "response_format": _RESPONSE_FORMAT,
    **{name: kind for name, kind in _LAST.items() if name != "return_prompt_text"},
    "thinking_token_budget": _BUDGET,
    "stream_interval": _STREAM_INTERVAL,
}

TOKENIZE_TEXT: dict[str, FieldType] = {
    "model": OPTIONAL_STRING,
    "prompt": STRING,
    "add_special_tokens": BOOL,
    "return_token_strs": OPTIONAL_BOOL,
}
TOKENIZE_CHAT: dict[str, FieldType] = {
    "model": OPTIONAL_STRING,
    "messages": ANY_LIST,
    "return_token_strs": OPTIONAL_BOOL,
    **_TEMPLATE,
    "chat_template": OPTIONAL_STRING,
    "chat_template_kwargs": OPTIONAL_OBJECT,
    "media_io_kwargs": NESTED_OBJECTS,
    "mm_processor_kwargs": OPTIONAL_OBJECT,
    "tools": _TOOLS,
}
DETOKENIZE: dict[str, FieldType] = {
    "model": OPTIONAL_STRING,
    "tokens": field(list[Annotated[int, Field(ge=0, le=2**63 - 1)]]),
}
EMBEDDINGS: dict[str, FieldType] = {
    "model": OPTIONAL_STRING,
    "encoding_format": STRING,
    "dimensions": OPTIONAL_INT,
    "add_special_tokens": BOOL,
}


class _ContentBlock(_Part):
    type: Literal[
        "text",
        "image",
        "tool_use",
        "tool_result",
        "tool_reference",
        "thinking",
        "redacted_thinking",
        "tool_addition",
        "tool_removal",
    ]
    text: str | None = None
    source: dict[str, Any] | None = None
    id: str | None = None
    tool_use_id: str | None = None
    name: str | None = None
    input: dict[str, Any] | None = None
    content: str | list[dict[str, Any]] | None = None
    is_error: bool | None = None


class _Message(_Part):
    role: Literal["user", "assistant", "system"]
    content: str | list[_ContentBlock]


class _AnthropicTool(_Part):
    name: str
    description: str | None = None
    input_schema: dict[str, Any]


class _AnthropicToolChoice(_Part):
    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None


class _Thinking(_Part):
    type: Literal["enabled"]
    budget_tokens: int = Field(ge=1024)


class _NoThinking(_Part):
    type: Literal["disabled"]


class _AdaptiveThinking(_Part):
    type: Literal["adaptive"]


class _OutputConfig(_Part):
    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    format: dict[str, Any] | None = None


def _some_model(name: str) -> str:
    if not name:
        raise ValueError("Model is required")
    return name


def _positive(number: int) -> int:
    if number <= 0:
        raise ValueError("max_tokens must be positive")
    return number


_COUNTED = {
    "model": field(Annotated[str, AfterValidator(_some_model)]),
    "messages": field(list[_Message]),
}
_ANTHROPIC_OPTIONS = {
    "output_config": field(_OutputConfig | None, _NONE),
    "system": field(str | list[_ContentBlock] | None, str, _NONE),
    "thinking": field(
        Annotated[_Thinking | _NoThinking | _AdaptiveThinking, Field(discriminator="type")] | None, _NONE
    ),
    "tool_choice": field(_AnthropicToolChoice | None, _NONE),
    "tools": field(list[_AnthropicTool] | None, _NONE),
}
COUNT_TOKENS: dict[str, FieldType] = {**_COUNTED, **_ANTHROPIC_OPTIONS, "chat_template_kwargs": OPTIONAL_OBJECT}
MESSAGES: dict[str, FieldType] = {
    **_COUNTED,
    "max_tokens": field(Annotated[int, AfterValidator(_positive)]),
    "metadata": OPTIONAL_OBJECT,
    "stop_sequences": field(Annotated[list[str], Field(max_length=_MOST_STOP_STRINGS)] | None, _NONE),
    "stream": OPTIONAL_BOOL,
    "temperature": OPTIONAL_FLOAT,
    **_ANTHROPIC_OPTIONS,
    "top_k": OPTIONAL_INT,
    "top_p": OPTIONAL_FLOAT,
    "mm_payload": MM_PAYLOAD,
    "return_mm_kwargs": OPTIONAL_BOOL,
    "cache_salt": SALT,
    "watermarking": OPTIONAL_BOOL,
    "kv_transfer_params": OPTIONAL_OBJECT,
    "ec_transfer_params": OPTIONAL_OBJECT,
    "vllm_xargs": EXTRA,
    "chat_template_kwargs": OPTIONAL_OBJECT,
}
