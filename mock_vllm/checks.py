"""What vLLM refuses before it looks at types, one check at a time and the first failure alone."""

from __future__ import annotations

from typing import Any

from mock_vllm.errors import ApiError, bad_parameter, bad_request

_MOST_SALT_CHARACTERS = 128
_NO_SALT = frozenset("@/\\\x00")
_USAGE = 'Correct usage: `{"type": "function", "function": {"name": "my_function"}}`'


def check_messages_are_iterable(body: dict[str, Any]) -> None:
    messages = body.get("messages", [])
    if not isinstance(messages, str | list | dict):
        raise bad_request(f"'{type(messages).__name__}' object is not iterable")


def check_generation_prompt(body: dict[str, Any]) -> None:
    if body.get("continue_final_message") and body.get("add_generation_prompt"):
        raise bad_request("Cannot set both `continue_final_message` and `add_generation_prompt` to True.")


def check_stream_options(body: dict[str, Any]) -> None:
    if body.get("stream_options") and not body.get("stream"):
        raise bad_parameter("Stream options can only be defined when `stream=True`.", "stream_options")


def check_response_format(body: dict[str, Any]) -> None:
    asked = body.get("response_format")
    if not isinstance(asked, dict):
        return
    kind = asked.get("type")
    if kind == "json_schema" and asked.get("json_schema") is None:
        raise bad_parameter(
            "When response_format type is 'json_schema', the 'json_schema' field must be provided.",
            "response_format",
        )
    if kind == "structural_tag":
        raise bad_parameter("Invalid response_format structural_tag specification.", "response_format")


def check_structured_outputs(body: dict[str, Any]) -> None:
    asked = body.get("structured_outputs")
    if asked is None:
        return
    if not isinstance(asked, dict):
        # vLLM's own slip: a 500 for what is a client's mistake.
        raise ApiError(500, "InternalServerError", f"'{type(asked).__name__}' object has no attribute 'get'")
    if sum(asked.get(key) is not None for key in ("json", "regex", "choice")) > 1:
        raise bad_request(
            "You can only use one kind of constraints for structured outputs ('json', 'regex' or 'choice')."
        )
    if asked.get("structural_tag") is not None:
        raise bad_parameter("Invalid structured_outputs structural_tag specification.", "structured_outputs")


def check_logprobs(body: dict[str, Any], chosen: str) -> None:
    """`chosen` is the endpoint's name for the number of candidates: `top_logprobs` or `logprobs`."""
    if body.get("logprob_token_ids") and not body.get("logprobs"):
        true = " to true" if chosen == "top_logprobs" else ""
        raise bad_parameter(f"when using `logprob_token_ids`, `logprobs` must be set{true}.", "logprob_token_ids")
    for name in ("prompt_logprobs", chosen):
        value = body.get(name)
        if value is not None and not isinstance(value, int | float):
            raise bad_parameter(f"`{name}` must be an integer.", name, value)
    wanted = body.get("prompt_logprobs")
    if wanted is not None and body.get("stream") and (wanted > 0 or wanted == -1):
        raise bad_parameter("`prompt_logprobs` are not available when `stream=True`.", "prompt_logprobs")
    for name in ("prompt_logprobs", chosen):
        value = body.get(name)
        if value is not None and value < 0 and value != -1:
            raise bad_parameter(f"`{name}` must be a positive value or -1.", name, value)
    if chosen == "top_logprobs" and body.get("top_logprobs") and not body.get("logprobs"):
        raise bad_parameter("when using `top_logprobs`, `logprobs` must be set to true.", "top_logprobs")


def check_cache_salt(body: dict[str, Any]) -> None:
    salt = body.get("cache_salt")
    if salt is None:
        return
    if not isinstance(salt, str) or not salt:
        raise bad_parameter("Parameter 'cache_salt' must be a non-empty string if provided.", "cache_salt")
    if len(salt) > _MOST_SALT_CHARACTERS or _NO_SALT.intersection(salt):
        raise bad_parameter(
            f"Parameter 'cache_salt' must be at most {_MOST_SALT_CHARACTERS} characters and must not contain "
            "'@', '/', '\\\\', or NUL.",
            "cache_salt",
        )


def check_tools(body: dict[str, Any]) -> None:
    """The declaration of `tools` and `tool_choice`: is it one that any vLLM would take?"""
    tools, choice = body.get("tools"), body.get("tool_choice")
    if tools == []:
        raise bad_parameter(
            "`tools` must not be an empty array. Either provide at least one tool or omit the field entirely.",
            "tools",
        )
    if choice is None or choice == "none":
        return
    if tools is None:
        raise bad_parameter("When using `tool_choice`, `tools` must be set.", "tool_choice")
    if isinstance(choice, dict):
        _check_named_tool(choice.get("function"), tools)
    elif choice not in ("auto", "required"):
        raise bad_parameter(
            f'Invalid value for `tool_choice`: {choice}! Only named tools, "none", "auto" or "required" are supported.',
            "tool_choice",
        )


def _check_named_tool(function: Any, tools: Any) -> None:
    if not isinstance(function, dict):
        raise bad_parameter(
            f"Invalid value for `function`: `{function}` in `tool_choice`! {_USAGE}", "tool_choice.function"
        )
    if "name" not in function:
        raise bad_parameter(
            f"Expected field `name` in `function` in `tool_choice`! {_USAGE}", "tool_choice.function.name"
        )
    name = function["name"]
    if not isinstance(name, str) or not name:
        raise bad_parameter(
            f"Invalid `name` in `function`: `{name}` in `tool_choice`! {_USAGE}", "tool_choice.function.name"
        )
    if name not in map(function_name, tools):
        raise bad_parameter(
            "The tool specified in `tool_choice` does not match any of the specified `tools`", "tool_choice"
        )


def function_name(tool: Any) -> str | None:
    """The name in a tool, or in a tool choice that names one."""
    function = tool.get("function") if isinstance(tool, dict) else None
    return function.get("name") if isinstance(function, dict) else None
