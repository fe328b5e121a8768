"""`/v1/messages` and `/v1/messages/count_tokens`: Anthropic's API over the same engine."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

from mock_vllm import validation
from mock_vllm.chat import check_model
from mock_vllm.errors import ApiError
from mock_vllm.prompt import Prompt, chat_prompt
from mock_vllm.sampling import check_length, make_job, read_sampling
from mock_vllm.settings import Settings
from mock_vllm.wire import Choice, GeneratingCall, Json, Tokens, named_event, request_id

_COUNT_FIELDS = {
    "model": validation.STRING,
    "messages": validation.LIST,
    "tools": validation.OPTIONAL_LIST,
}
_FIELDS = {
    **_COUNT_FIELDS,
    "max_tokens": validation.INT,
    "temperature": validation.OPTIONAL_FLOAT,
    "top_p": validation.OPTIONAL_FLOAT,
    "top_k": validation.OPTIONAL_INT,
    "stop_sequences": validation.STRINGS,
    "stream": validation.OPTIONAL_BOOL,
}

_STOP_REASONS = {"stop": "end_turn", "length": "max_tokens"}


class MessagesCall(GeneratingCall):
    """A checked messages request."""

    def __init__(self, body: Any, headers: Mapping[str, str], settings: Settings) -> None:
        """Raises `ApiError`."""
        body = validation.checked_body(body, _FIELDS, required=("model", "messages", "max_tokens"))
        prompt = _read_prompt(body, settings)
        check_length(prompt, body["max_tokens"], settings.max_model_len)
        sampling = read_sampling({**body, "stop": body.get("stop_sequences")}, body["max_tokens"], None)
        self.stream = bool(body.get("stream"))
        self.job = make_job([prompt], sampling, settings)
        self._settings = settings
        self._id = f"chatcmpl-{request_id(headers, body)}"

    def answer(self, choices: list[Choice]) -> Json:
        choice = choices[0]
        return {
            **self._head(),
            "content": [{"type": "text", "text": choice.text}] if choice.text else [],
            "model": self._settings.model_name,
            "stop_reason": _STOP_REASONS[choice.finish_reason or "stop"],
            "usage": self._usage(),
        }

    async def events(self, tokens: Tokens) -> AsyncGenerator[str, None]:
        finish_reason = "stop"
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
                finish_reason = token.finish_reason or finish_reason
        if writing:
            yield named_event({"type": "content_block_stop", "index": 0})
        stop = {"stop_reason": _STOP_REASONS[finish_reason]}
        yield named_event({"type": "message_delta", "delta": stop, "usage": self._usage()})
        yield named_event({"type": "message_stop"})

    def last_words(self, error: ApiError) -> list[str]:
        return [named_event(self.error_body(error))]

    def error_body(self, error: ApiError) -> Json:
        return messages_error(error)

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
        return {"input_tokens": self.job.prompt_tokens, "output_tokens": self.job.completion_tokens}


def messages_error(error: ApiError) -> Json:
    """Anthropic's error envelope. A body of the wrong types is refused before it is known whose it is."""
    if error.kind in ("Bad Request", "Unauthorized"):
        return error.body()
    return {"type": "error", "error": {"type": error.kind, "message": error.message}}


def count_tokens(body: Any, settings: Settings) -> Json:
    """The answer of `/v1/messages/count_tokens`. Raises `ApiError`."""
    checked = validation.checked_body(body, _COUNT_FIELDS, required=("model", "messages"))
    return {"input_tokens": len(_read_prompt(checked, settings))}


def _read_prompt(body: Json, settings: Settings) -> Prompt:
    messages = list(body["messages"])
    if body.get("system"):
        messages.insert(0, {"role": "system", "content": body["system"]})
    validation.check_messages(messages, settings.model_name)
    check_model(body, settings)
    return chat_prompt(messages)
