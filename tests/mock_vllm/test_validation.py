"""What is refused, in vLLM's words; and what vLLM lets through, and so does the mock."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest

MESSAGES = [{"role": "user", "content": "hi"}]
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
JSON = {"content-type": "application/json"}
PATHS = ["/v1/chat/completions", "/v1/completions", "/v1/messages", "/v1/responses", "/tokenize", "/detokenize"]


def error_of(response: httpx.Response, status: int) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    assert list(body) == ["error"]
    assert list(body["error"]) == ["message", "type", "param", "code"]
    assert body["error"]["code"] == status
    return dict(body["error"])


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("content", "headers", "message", "param"),
    [
        (b'{"messages": [', JSON, "'type': 'json_invalid', 'loc': 'body.14'", "body.14"),
        (b"", JSON, "'type': 'missing', 'loc': 'body', 'msg': 'Field required', 'input': 'None'", "body"),
        (b"[1, 2]", JSON, "'input': '<list of 2 items>'", "body"),
        (b"{}", {"content-type": "text/plain"}, "Only 'application/json' is allowed", None),
        (b"{}", {}, "Only 'application/json' is allowed", None),
    ],
    ids=["not JSON", "empty", "not an object", "wrong content type", "no content type"],
)
def test_unreadable_bodies(
    mock: Any, path: str, content: bytes, headers: dict[str, str], message: str, param: str | None
) -> None:
    error = error_of(httpx.post(f"{mock.url}{path}", content=content, headers=headers), 400)
    assert error["type"] == "Bad Request"
    count = 2 if path == "/tokenize" and content == b"[1, 2]" else 1  # it may be of two kinds, and is of neither
    assert error["message"].startswith(("1 validation error:\n  ", "2 validation errors:\n  ")[count - 1])
    assert message in error["message"]
    assert error["param"] == param


@pytest.mark.parametrize(
    "content",
    [b"\xff\xfe\xfa", b"[" * 100_000, b'{"seed": ' + b"9" * 5000 + b"}"],
    ids=["not text", "deep", "long"],
)
def test_json_that_python_will_not_read(mock: Any, content: bytes) -> None:
    """The web framework answers before vLLM's own code comes to it."""
    response = httpx.post(f"{mock.url}/v1/chat/completions", content=content, headers=JSON)
    assert (response.status_code, response.json()) == (400, {"detail": "There was an error parsing the body"})


@pytest.mark.parametrize(
    ("field", "value", "kind"),
    [
        ("temperature", "hot", "float_parsing"),
        ("max_tokens", 1.5, "int_from_float"),
        ("max_tokens", "many", "int_parsing"),
        ("messages", "hi", "list_type"),
        ("stream", "perhaps", "bool_parsing"),
        ("model", 7, "string_type"),
        ("seed", [], "int_type"),
        ("seed", 2**63, "less_than_equal"),
        ("response_format", "json", "model_attributes_type"),
        ("min_tokens", None, "int_type"),
    ],
)
def test_wrong_types_are_named(mock: Any, field: str, value: Any, kind: str) -> None:
    error = error_of(mock.chat(**{field: value}), 400)
    assert error["type"] == "Bad Request"
    assert f"'type': '{kind}', 'loc': 'body.{field}'" in error["message"]
    assert error["param"] == f"body.{field}"


def test_all_wrong_types_are_named_at_once(mock: Any) -> None:
    error = error_of(mock.chat(temperature="hot", top_p="wide"), 400)
    assert error["message"].startswith("2 validation errors:\n  ")


def test_numbers_in_strings_are_numbers(mock: Any) -> None:
    assert mock.chat(max_tokens="3", temperature="0.5").json()["usage"]["completion_tokens"] == 3


@pytest.mark.parametrize(
    ("body", "message", "param"),
    [
        ({"max_tokens": 0}, "max_tokens must be at least 1, got 0. (parameter=max_tokens, value=0)", "max_tokens"),
        ({"temperature": -1}, "temperature must be non-negative, got -1.0.", "temperature"),
        ({"temperature": 2.1}, "temperature must be in [0, 2], got 2.1.", "temperature"),
        ({"top_p": 2}, "top_p must be in (0, 1], got 2.0.", "top_p"),
        ({"top_k": -2}, "top_k must be 0 (disable), or at least 1, got -2.", None),
        ({"min_p": 1.1}, "min_p must be in [0, 1], got 1.1.", None),
        ({"n": 0}, "n must be at least 1, got 0.", None),
        ({"n": 2, "temperature": 0}, "n must be 1 when using greedy sampling, got 2.", None),
        ({"presence_penalty": 3}, "presence_penalty must be in [-2, 2], got 3.0.", None),
        ({"repetition_penalty": 0}, "repetition_penalty must be greater than zero, got 0.0.", None),
        ({"min_tokens": -1}, "min_tokens must be greater than or equal to 0, got -1.", None),
        ({"min_tokens": 5, "max_tokens": 4}, "min_tokens must be less than or equal to max_tokens=4", None),
        ({"stop": ""}, "stop cannot contain an empty string.", None),
        ({"stop": ["a", ""]}, "stop cannot contain an empty string.", None),
        ({"top_logprobs": 2}, "when using `top_logprobs`, `logprobs` must be set to true.", "top_logprobs"),
        ({"logprobs": True, "top_logprobs": -1}, "which is greater than max allowed: 20", "logprobs"),
        ({"tools": []}, "`tools` must not be an empty array.", "tools"),
        ({"tools": TOOLS}, '"auto" tool choice requires', None),
        ({"tool_choice": "auto"}, "When using `tool_choice`, `tools` must be set.", "tool_choice"),
        ({"tools": TOOLS, "tool_choice": "any"}, "Invalid value for `tool_choice`: any!", "tool_choice"),
        (
            {"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "g"}}},
            "does not match any of the specified `tools`",
            "tool_choice",
        ),
        ({"response_format": {"type": "json_schema"}}, "'json_schema' field must be provided", "response_format"),
        ({"structured_outputs": {"choice": ["a"], "json": {}}}, "only use one kind of constraints", None),
        ({"structured_outputs": {}}, "You must use one kind of structured outputs constraint", None),
        ({"structured_outputs": {"json": "{"}}, "Invalid JSON grammar specification.", None),
        ({"max_tokens": 8193}, "max_tokens=8193 cannot be greater than max_model_len=8192.", "max_tokens"),
        (
            {"max_completion_tokens": 8193},
            "max_completion_tokens=8193 cannot be greater than max_model_len=8192.",
            "max_completion_tokens",
        ),
        ({"bad_words": [""]}, "bad_words cannot contain an empty string.", None),
        ({"logit_bias": {"a": 1}}, "cannot be converted to integer token IDs: ['a']", "logit_bias"),
        ({"allowed_token_ids": []}, "allowed_token_ids is not None and empty!", "allowed_token_ids"),
        ({"cache_salt": ""}, "must be a non-empty string", "cache_salt"),
        ({"truncate_prompt_tokens": 0}, "The decoder prompt cannot be empty", None),
        ({"chat_template": "x"}, "--trust-request-chat-template is not set", None),
        ({"continue_final_message": True}, "are not compatible", None),
    ],
)
def test_values_that_the_engine_refuses(mock: Any, body: dict[str, Any], message: str, param: str) -> None:
    response = mock.chat(messages=MESSAGES, **body)
    error = error_of(response, 400)
    assert error["type"] == "BadRequestError"
    assert message in error["message"]
    assert error["param"] == param


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([{"content": "x"}], "body.messages.0.ChatCompletionUserMessageParam.role"),
        (["hi"], "body.messages.0"),
        ([{"role": "user", "content": 7}], "body.messages.0.ChatCompletionUserMessageParam.content"),
        ([{"role": "user", "content": None}], "19 validation errors"),
        ([{"role": "user", "content": [{"type": "video"}]}], "validation errors for ValidatorIterator"),
        ([{"role": "user", "content": [{"type": "text"}]}], "Field required"),
        (
            [{"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}]}],
            "is not a multimodal model",
        ),
    ],
)
def test_messages_that_are_none(mock: Any, messages: list[Any], message: str) -> None:
    assert message in error_of(mock.chat(messages=messages), 400)["message"]


@pytest.mark.parametrize(
    "body",
    [
        {"model": None},
        {"unknown_field": {"deep": [1]}},
        {"messages": [{"role": "alien", "content": "x"}]},
        {"messages": [{"role": "assistant"}, {"role": "user"}]},
        {"structured_outputs": {"regex": "a+"}},
        {"response_format": {"type": "text"}},
        {"tools": TOOLS, "tool_choice": "none"},
        {"logit_bias": {"5": 1.0}, "user": "someone", "metadata": {"a": "b"}},
        {"n": None, "temperature": None, "max_tokens": None, "stream": None, "stop": None},
    ],
)
def test_what_vllm_lets_through(mock: Any, body: dict[str, Any]) -> None:
    assert mock.chat(**{"max_tokens": 2, **body}).status_code == 200


@pytest.mark.parametrize(
    ("prompt", "message", "param"),
    [
        ("", "Either prompt or prompt_embeds must be provided", "prompt"),
        ([], "You must pass at least one prompt", None),
        (7, "4 validation errors", "body.prompt"),
        ({"a": 1}, "4 validation errors", "body.prompt"),
        ([1, "a"], "5 validation errors", "body.prompt.1"),
        ([[]], "The decoder prompt cannot be empty", None),
        ([-5], "greater than or equal to 0", "body.prompt.0"),
        ([2**40], "Token id 1099511627776 is out of vocabulary", None),
    ],
)
def test_prompts_that_are_none(mock: Any, prompt: Any, message: str, param: str | None) -> None:
    error = error_of(httpx.post(f"{mock.url}/v1/completions", json={"prompt": prompt}), 400)
    assert message in error["message"]
    assert error["param"] == param


def test_what_is_asked_for_is_cut_to_what_the_context_has_room_for(mock: Any) -> None:
    """As vLLM: it refuses only what no prompt would leave room for."""
    usage = mock.chat(messages=MESSAGES, max_tokens=8192, ignore_eos=True).json()["usage"]
    assert usage["total_tokens"] == 8192


@pytest.mark.parametrize(
    "extra", [{"logprobs": True, "top_logprobs": 21}, {"allowed_token_ids": []}, {"thinking_token_budget": 5}]
)
def test_what_the_engine_refuses_comes_as_an_event_of_a_stream(
    mock: Any, extra: dict[str, Any], sse: Callable[[str], list[Any]]
) -> None:
    """The API server has begun to answer by then: status 200, and no token."""
    plain = mock.chat(messages=MESSAGES, **extra)
    streamed = mock.chat(messages=MESSAGES, stream=True, **extra)
    assert (plain.status_code, streamed.status_code) == (400, 200)
    assert sse(streamed.text) == [plain.json(), "[DONE]"]


def test_a_long_list_of_problems_is_cut(mock: Any) -> None:
    error = error_of(mock.chat(messages=[{}]), 400)
    assert error["message"].startswith("15 validation errors:")
    assert error["message"].endswith("\n  ...and 5 more errors")
    assert error["message"].count("\n") == 11


def test_what_a_caller_sent_is_not_repeated_at_length(mock: Any) -> None:
    error = error_of(mock.chat(temperature="x" * 5000), 400)
    assert "x" * 200 + "...[truncated]" in error["message"]
    assert "x" * 201 not in error["message"]


def test_paths_and_methods_that_do_not_exist(mock: Any) -> None:
    unknown = httpx.post(f"{mock.url}/v1/chat", json={})
    assert (unknown.status_code, unknown.json()) == (404, {"detail": "Not Found"})
    wrong = httpx.get(f"{mock.url}/v1/chat/completions")
    assert (wrong.status_code, wrong.json()) == (405, {"detail": "Method Not Allowed"})


def test_anthropic_errors_have_anthropics_envelope(mock: Any) -> None:
    body = {"model": "other", "max_tokens": 5, "messages": MESSAGES}
    response = httpx.post(f"{mock.url}/v1/messages", json=body)
    assert response.status_code == 404
    assert response.json()["type"] == "error"
    assert response.json()["error"]["type"] == "NotFoundError"


def test_responses_does_not_pretend_to_remember(mock: Any) -> None:
    body = {"input": "hi", "previous_response_id": "resp_1"}
    error = error_of(httpx.post(f"{mock.url}/v1/responses", json=body), 404)
    assert "resp_1" in error["message"]


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/v1/models", {}, 401),
        ("/v1/models", {"authorization": "Bearer wrong"}, 401),
        ("/v1/models", {"authorization": "Basic one"}, 401),
        ("/v1/models", {"x-api-key": "one"}, 401),
        ("/v1/nowhere", {}, 401),
        ("/v1/models", {"authorization": "Bearer one"}, 200),
        ("/v1/models", {"authorization": "bearer two"}, 200),
        ("/health", {}, 200),
        ("/metrics", {}, 200),
        ("/version", {}, 200),
    ],
)
def test_api_keys_guard_v1_alone(shared: Callable[..., Any], path: str, headers: dict[str, str], status: int) -> None:
    server = shared("--api-key", "one", "two", "--enable-request-id-headers")
    response = httpx.get(f"{server.url}{path}", headers=headers)
    assert response.status_code == status
    if status == 401:
        assert response.json() == {"error": "Unauthorized"}


def test_request_ids_are_echoed_when_enabled(shared: Callable[..., Any]) -> None:
    server = shared("--api-key", "one", "two", "--enable-request-id-headers")
    key = {"authorization": "Bearer one"}
    given = httpx.get(f"{server.url}/version", headers={**key, "x-request-id": "my-id"})
    assert given.headers["x-request-id"] == "my-id"
    made = [httpx.get(f"{server.url}/version").headers["x-request-id"] for _ in range(2)]
    assert made[0] != made[1]


def test_the_body_can_name_the_request_too(mock: Any) -> None:
    assert mock.chat(max_tokens=1, request_id="abc").json()["id"] == "chatcmpl-abc"


def test_a_failure_of_the_mock_itself_has_vllms_shape(mock: Any) -> None:
    # A number with a bound that no number meets: nonsense that is not looked for.
    schema = {"type": "integer", "minimum": "low"}
    response = mock.chat(response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": schema}})
    error = error_of(response, 500)
    assert error["type"] == "InternalServerError"
    assert mock.chat(max_tokens=1).status_code == 200
