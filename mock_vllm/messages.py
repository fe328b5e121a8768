"""`/v1/messages` and `/v1/messages/count_tokens`: Anthropic's API over the same engine."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing
from typing import Any

from mock_vllm import fields, tool_calls
from mock_vllm.chat import check_model
from mock_vllm.chat_messages import checked_messages
from mock_vllm.checks import check_cache_salt
from mock_vllm.errors import ApiError
from mock_vllm.prompt import Prompt, rendered
from mock_vllm.sampling import checked_length, make_job, read_sampling
from mock_vllm.settings import Settings
from mock_vllm.validation import as_object, checked_body, problems
from mock_vllm.wire import Choice, GeneratingCall, Json, Tokens, named_event, request_id

_STOP_REASONS = {"stop": "end_turn", "length": "max_tokens"}
_TOOL_CHOICES = {"auto": "auto", "any": "required", "none": "none"}


class MessagesCall(GeneratingCall):
    """A checked messages request. Tools are taken and not called."""

    def __init__(self, body: Any, headers: Mapping[str, str], settings: Settings) -> None:
        """Raises `ApiError`."""
        body = checked_body(as_object(body), fields.MESSAGES, required=("model", "messages", "max_tokens"))
        _check_thinking(body)
        check_cache_salt(body)
        prompt = _read_prompt(body, settings)
        most = checked_length(prompt, body["max_tokens"], settings.max_model_len, "max_completion_tokens")
        sampling = read_sampling({**body, "stop": body.get("stop_sequences")}, most, None)
        self.stream = bool(body.get("stream"))
        self.job = make_job([prompt], [most], sampling, settings)
        self._settings = settings
        self._id = f"chatcmpl-{request_id(headers, body)}"
        self.job.request_ids = [self._id]

    def answer(self, choices: list[Choice]) -> Json:
        choice = choices[0]
        stop = _stop(choice.finish_reason, choice.stop_reason)
        return {
            **self._head(),
            "content": [{"type": "text", "text": choice.text}] if choice.text else [],
            "model": self._settings.model_name,
            **{key: value for key, value in stop.items() if value is not None},
            "usage": self._usage(),
        }

    async def events(self, tokens: Tokens) -> AsyncGenerator[str, None]:
        stop = _stop("stop", None)
        started = writing = False
        async with aclosing(tokens):
            async for _, token in tokens:
                if not started:
                    started = True
                    yield named_event({"type": "message_start", "message": self._empty_message()})
                if token.delta and not writing:
                    writing = True
                    block = {"type": "text", "text": ""}
                    yield named_event({"type": "content_block_start", "content_block": block, "index": 0})
                if token.delta:
                    delta = {"type": "text_delta", "text": token.delta}
                    yield named_event({"type": "content_block_delta", "delta": delta, "index": 0})
                if token.finish_reason is not None:
                    stop = _stop(token.finish_reason, token.stop_reason)
        if writing:
            yield named_event({"type": "content_block_stop", "index": 0})
        yield named_event({"type": "message_delta", "delta": stop, "usage": self._usage()})
        yield named_event({"type": "message_stop"})

    @classmethod
    def last_words(cls, error: ApiError) -> list[str]:
        return [named_event(messages_error(error))]

    def _head(self) -> Json:
        return {"id": self._id, "type": "message", "role": "assistant"}

    def _empty_message(self) -> Json:
        return {
            **self._head(),
            "content": [],
            "model": self._settings.model_name,
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {"input_tokens": self.job.prompt_tokens, "output_tokens": 0},
        }

    def _usage(self) -> Json:
        job = self.job
        usage = {"input_tokens": job.prompt_tokens, "output_tokens": job.completion_tokens}
        if self._settings.enable_prompt_tokens_details:
            # Anthropic counts what was read from the cache apart.
            usage["input_tokens"] -= job.cached_tokens
            usage["cache_creation_input_tokens"] = job.created_cache_tokens
            usage["cache_read_input_tokens"] = job.cached_tokens
        return usage


def messages_error(error: ApiError) -> Json:
    """Anthropic's error envelope. A body of the wrong types is refused before it is known whose it is."""
    if error.kind in ("", "Bad Request", "Unauthorized"):
        return error.body()
    return {"type": "error", "error": {"type": error.kind, "message": error.message}}


def count_tokens(body: Any, settings: Settings) -> Json:
    """The answer of `/v1/messages/count_tokens`. Raises `ApiError`."""
    checked = checked_body(as_object(body), fields.COUNT_TOKENS, required=("model", "messages"))
    count = len(_read_prompt(checked, settings))
    return {"input_tokens": count, "context_management": {"original_input_tokens": count}}


def _stop(finish_reason: str | None, stop_reason: str | int | None) -> Json:
    if isinstance(stop_reason, str):
        return {"stop_reason": "stop_sequence", "stop_sequence": stop_reason}
    return {"stop_reason": _STOP_REASONS[finish_reason or "stop"], "stop_sequence": None}


def _check_thinking(body: Json) -> None:
    budget = (body.get("thinking") or {}).get("budget_tokens")
    if budget is not None and budget >= body["max_tokens"]:
        text = "thinking.budget_tokens must be less than max_tokens"
        raise problems(
            [
                {
                    "type": "value_error",
                    "loc": ("body",),
                    "msg": f"Value error, {text}",
                    "input": body,
                    "ctx": {"error": ValueError(text)},
                }
            ]
        )


def _read_prompt(body: Json, settings: Settings) -> Prompt:
    check_model(body, settings)
    messages = checked_messages(list(_chat_messages(body)), settings.model_name)
    tool_calls.refuse_without_parser(_chat_tools(body), settings)
    return rendered(messages, {})


def _chat_tools(body: Json) -> Json:
    """`tools` and `tool_choice` as the chat API has them."""
    choice = body.get("tool_choice")
    if choice is None:
        return {"tool_choice": "none" if body.get("tools") is None else "auto"}
    if choice["type"] == "tool":
        return {"tool_choice": {"type": "function", "function": {"name": choice.get("name")}}}
    return {"tool_choice": _TOOL_CHOICES[choice["type"]]}


def _chat_messages(body: Json) -> Iterator[Json]:
    system = body.get("system")
    if isinstance(system, list):
        system = "".join(block.get("text") or "" for block in system)
    if system:
        yield {"role": "system", "content": system}
    for message in body["messages"]:
        content = message["content"]
        if isinstance(content, str):
            yield {"role": message["role"], "content": content}
        else:
            yield from _from_blocks(message["role"], content)


def _from_blocks(role: str, blocks: list[Json]) -> Iterator[Json]:
    """Tool results are messages of their own in the chat API, and calls stand beside the text."""
    parts: list[Json] = []
    calls: list[Json] = []
    for block in blocks:
        kind = block["type"]
        if kind == "text" and block.get("text"):
            parts.append({"type": "text", "text": block["text"]})
        elif kind == "image":
            parts.append({"type": "image_url", "image_url": {"url": "data:"}})
        elif kind == "tool_use":
            arguments = json.dumps(block.get("input") or {})
            function = {"name": block.get("name") or "", "arguments": arguments}
            calls.append({"id": block.get("id") or "", "type": "function", "function": function})
        elif kind == "tool_result":
            result = block.get("content") or ""
            if isinstance(result, list):
                result = "".join(part.get("text") or "" for part in result)
            yield {"role": "tool", "tool_call_id": block.get("tool_use_id") or "", "content": result}
    if parts or calls:
        yield {"role": role, "content": parts, **({"tool_calls": calls} if calls else {})}
