"""`/v1/responses`: OpenAI's responses API over the same engine. Nothing is stored between requests."""

from __future__ import annotations

import itertools
import time
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing
from typing import Any

from mock_vllm import validation
from mock_vllm.chat import check_model
from mock_vllm.errors import ApiError, bad_parameter
from mock_vllm.prompt import chat_prompt
from mock_vllm.sampling import check_length, make_job, read_sampling
from mock_vllm.settings import Settings
from mock_vllm.wire import Choice, GeneratingCall, Json, Tokens, named_event, random_id

_FIELDS = {
    "model": validation.OPTIONAL_STRING,
    "instructions": validation.OPTIONAL_STRING,
    "max_output_tokens": validation.OPTIONAL_INT,
    "temperature": validation.OPTIONAL_FLOAT,
    "top_p": validation.OPTIONAL_FLOAT,
    "top_k": validation.OPTIONAL_INT,
    "seed": validation.SEED,
    "presence_penalty": validation.OPTIONAL_FLOAT,
    "frequency_penalty": validation.OPTIONAL_FLOAT,
    "metadata": validation.OPTIONAL_OBJECT,
    "previous_response_id": validation.OPTIONAL_STRING,
    "stream": validation.OPTIONAL_BOOL,
    "tools": validation.OPTIONAL_LIST,
    "user": validation.OPTIONAL_STRING,
}


class ResponsesCall(GeneratingCall):
    """A checked responses request."""

    def __init__(self, body: Any, headers: Mapping[str, str], settings: Settings) -> None:
        """Raises `ApiError`."""
        body = validation.checked_body(body, _FIELDS, required=("input",))
        messages = _read_input(body)
        validation.check_messages(messages, settings.model_name)
        check_model(body, settings)
        previous = body.get("previous_response_id")
        if previous is not None:
            raise ApiError(404, "NotFoundError", f"Response with id '{previous}' not found.", "response_id")
        prompt = chat_prompt(messages)
        max_tokens = body.get("max_output_tokens")
        check_length(prompt, max_tokens, settings.max_model_len)
        sampling = read_sampling(body, max_tokens, None)
        self.stream = bool(body.get("stream"))
        self.job = make_job([prompt], sampling, settings)
        self._body = body
        self._settings = settings
        # vLLM names responses itself, and does not look at X-Request-Id for it.
        self._id = f"resp_{random_id()}"
        self._message_id = f"msg_{random_id()}"
        self._created = int(time.time())

    def answer(self, choices: list[Choice]) -> Json:
        choice = choices[0]
        status = "incomplete" if choice.finish_reason == "length" else "completed"
        return self._response(status, [self._message("completed", [_text_part(choice.text)])], self._usage())

    async def events(self, tokens: Tokens) -> AsyncGenerator[str, None]:
        numbers = itertools.count()

        def numbered(kind: str, **fields: Any) -> str:
            return named_event({"type": kind, "sequence_number": next(numbers), **fields})

        part = {"item_id": self._message_id, "output_index": 0, "content_index": 0}
        choice = Choice(0)
        opened = False
        yield numbered("response.created", response=self._response("in_progress", [], None))
        yield numbered("response.in_progress", response=self._response("in_progress", [], None))
        async with aclosing(tokens):
            async for _, token in tokens:
                if not opened:
                    opened = True
                    item = self._message("in_progress", [])
                    yield numbered("response.output_item.added", output_index=0, item=item)
                    yield numbered("response.content_part.added", **part, part=_text_part("", []))
                choice.add(token)
                if token.delta:
                    yield numbered("response.output_text.delta", **part, delta=token.delta, logprobs=[])
        yield numbered("response.output_text.done", **part, text=choice.text, logprobs=[])
        yield numbered("response.content_part.done", **part, part=_text_part(choice.text))
        item = self._message("completed", [_text_part(choice.text)])
        yield numbered("response.output_item.done", output_index=0, item=item)
        # Also when the answer is incomplete: the status inside says so.
        yield numbered("response.completed", response=self.answer([choice]))

    def last_words(self, error: ApiError) -> list[str]:
        return [named_event({"type": "error", "code": str(error.status), "message": error.message, "param": None})]

    def _response(self, status: str, output: list[Json], usage: Json | None) -> Json:
        body = self._body
        reason = {"reason": "max_output_tokens"} if status == "incomplete" else None
        return {
            "id": self._id,
            "created_at": self._created,
            "incomplete_details": reason,
            "instructions": body.get("instructions"),
            "metadata": body.get("metadata"),
            "model": self._settings.model_name,
            "object": "response",
            "output": output,
            "parallel_tool_calls": body.get("parallel_tool_calls", True),
            "temperature": _or(body.get("temperature"), 1.0),
            "tool_choice": body.get("tool_choice", "auto" if body.get("tools") else "none"),
            "tools": body.get("tools") or [],
            "top_p": _or(body.get("top_p"), 1.0),
            "background": False,
            "max_output_tokens": self.job.sequences[0].max_tokens,
            "max_tool_calls": body.get("max_tool_calls"),
            "previous_response_id": None,
            "prompt": None,
            "reasoning": body.get("reasoning"),
            "service_tier": body.get("service_tier", "auto"),
            "status": status,
            "text": body.get("text"),
            "top_logprobs": None,
            "truncation": body.get("truncation", "disabled"),
            "usage": usage,
            "user": body.get("user"),
            "presence_penalty": _or(body.get("presence_penalty"), 0.0),
            "frequency_penalty": _or(body.get("frequency_penalty"), 0.0),
            "kv_transfer_params": None,
            "ec_transfer_params": None,
            "input_messages": None,
            "output_messages": None,
        }

    def _message(self, status: str, content: list[Json]) -> Json:
        return {
            "id": self._message_id,
            "content": content,
            "role": "assistant",
            "status": status,
            "type": "message",
            "phase": None,
        }

    def _usage(self) -> Json:
        prompt, completion = self.job.prompt_tokens, self.job.completion_tokens
        # Reported only on request, as everywhere: what is cached depends on what came before.
        details = self._settings.enable_prompt_tokens_details
        return {
            "input_tokens": prompt,
            "input_tokens_details": {
                "cached_tokens": self.job.cached_tokens if details else 0,
                "cache_write_tokens": self.job.created_cache_tokens if details else 0,
                "input_tokens_per_turn": [],
                "cached_tokens_per_turn": [],
            },
            "output_tokens": completion,
            "output_tokens_details": {
                "reasoning_tokens": 0,
                "tool_output_tokens": 0,
                "output_tokens_per_turn": [],
                "tool_output_tokens_per_turn": [],
            },
            "total_tokens": prompt + completion,
        }


def _read_input(body: Json) -> list[Json]:
    """Chat messages from `instructions` and `input`: a string, or items that are messages."""
    messages = list(_input_messages(body["input"]))
    if not messages:
        raise bad_parameter("`input` must not be empty.", "input")
    if body.get("instructions"):
        messages.insert(0, {"role": "system", "content": body["instructions"]})
    return messages


def _input_messages(given: Any) -> Iterator[Json]:
    if isinstance(given, str):
        yield {"role": "user", "content": given}
        return
    for item in given if isinstance(given, list) else [None]:
        if not isinstance(item, dict) or item.get("type", "message") != "message":
            raise bad_parameter("mock_vllm reads `input` as a string or a list of messages", "input")
        yield item


def _text_part(text: str, logprobs: list[Json] | None = None) -> Json:
    return {"annotations": [], "text": text, "type": "output_text", "logprobs": logprobs}


def _or(value: Any, default: float) -> Any:
    return default if value is None else value
