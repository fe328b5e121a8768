"""`/v1/responses`: OpenAI's responses API over the same engine. Nothing is stored between requests."""

from __future__ import annotations

import itertools
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

from mock_vllm import logprobs, tokenizer
from mock_vllm.chat import check_model
from mock_vllm.chat_messages import checked_messages
from mock_vllm.checks import check_cache_salt
from mock_vllm.decoding import Token
from mock_vllm.errors import ApiError, bad_parameter
from mock_vllm.prompt import rendered
from mock_vllm.response_fields import RESPONSES, RESPONSES_IN_DETAIL
from mock_vllm.sampling import checked_length, make_job, read_sampling
from mock_vllm.settings import Settings
from mock_vllm.validation import as_object, checked_body
from mock_vllm.wire import Choice, GeneratingCall, Json, Tokens, named_event, random_id, request_metrics

_LOGPROBS = "message.output_text.logprobs"
_ITEM_TEXTS = {"function_call": "arguments", "function_call_output": "output", "reasoning": None}
_PART_KINDS = {"input_text": "text", "output_text": "text", "input_image": "image_url", "input_file": "file"}


class ResponsesCall(GeneratingCall):
    """A checked responses request."""

    def __init__(self, body: Any, headers: Mapping[str, str], settings: Settings) -> None:
        """Raises `ApiError`. Tools are taken and not called."""
        body = _checked_body(as_object(body))
        check_model(body, settings)
        if body.get("background") and body.get("store", True):
            raise not_stored(
                400,
                "background",
                "This vLLM engine does not support `store=True` and therefore does not support the background mode. "
                "To enable these features, set the environment variable `VLLM_ENABLE_RESPONSES_API_STORE=1` when "
                "launching the vLLM server.",
            )
        previous = body.get("previous_response_id")
        if previous is not None:
            raise not_stored(404, "response_id", f"Response with id '{previous}' not found.")
        messages = checked_messages(_read_input(body), settings.model_name)
        prompt = rendered(messages, {"mm_processor_kwargs": body.get("mm_processor_kwargs")})
        most = checked_length(prompt, body.get("max_output_tokens"), settings.max_model_len, "max_output_tokens")
        self._top_logprobs = body.get("top_logprobs") or 0
        self._logprobs = _LOGPROBS in (body.get("include") or ())
        top = self._top_logprobs if self._logprobs else None
        # This API has no `n`, and does not mind an empty stop string.
        stop = None if "" in (body.get("stop") or ()) or body.get("stop") == "" else body.get("stop")
        wanted = {**body, "response_format": _response_format(body), "n": 1, "stop": stop}
        sampling = read_sampling(wanted, most, top)
        self.stream = bool(body.get("stream"))
        self.job = make_job([prompt], [most], sampling, settings)
        self._prompt = prompt
        self._body = body
        self._settings = settings
        # vLLM names responses itself, and does not look at X-Request-Id for it.
        self._id = body.get("request_id") or f"resp_{random_id()}"
        self.job.request_ids = [f"{self._id}_0"]
        self._message_id = f"msg_{random_id()}"
        self._created = int(time.time())

    def answer(self, choices: list[Choice]) -> Json:
        choice = choices[0]
        status = "incomplete" if choice.finish_reason == "length" else "completed"
        part = self._whole_part(choice)
        return self._response(status, [self._message("completed", [part])], self._usage(), choice)

    async def events(self, tokens: Tokens) -> AsyncGenerator[str, None]:
        numbers = itertools.count()

        def numbered(kind: str, **values: Any) -> str:
            # As in vLLM's events, keys in the order of the alphabet.
            return named_event(dict(sorted({"type": kind, "sequence_number": next(numbers), **values}.items())))

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
                    entries = self._delta_entries(token, len(choice.pieces) - 1)
                    yield numbered("response.output_text.delta", **part, delta=token.delta, logprobs=entries)
        yield numbered("response.output_text.done", **part, text=choice.text, logprobs=[])
        whole = self._whole_part(choice)
        yield numbered("response.content_part.done", **part, part=whole)
        item = self._message("completed", [whole])
        yield numbered("response.output_item.done", output_index=0, item=item)
        # Also when the answer is incomplete: the status inside says so.
        yield numbered("response.completed", response=self.answer([choice]))

    @classmethod
    def last_words(cls, error: ApiError) -> list[str]:
        return [named_event({"type": "error", "code": str(error.status), "message": error.message, "param": None})]

    def _entries(self, pieces: list[str], first: int) -> list[Json]:
        """Log probabilities, with the keys in this API's order."""
        return [
            _in_order(logprobs.chat_entry(piece, position, self._top_logprobs))
            for position, piece in enumerate(pieces, first)
        ]

    def _delta_entries(self, token: Token, position: int) -> list[Json]:
        """In a delta without bytes, and in another order."""
        entries = self._entries([token.piece], position) if self._logprobs else []
        return [
            {
                "token": entry["token"],
                "logprob": entry["logprob"],
                "top_logprobs": [
                    {"token": other["token"], "logprob": other["logprob"]} for other in entry["top_logprobs"]
                ],
            }
            for entry in entries
        ]

    def _whole_part(self, choice: Choice) -> Json:
        return _text_part(choice.text, self._entries(choice.pieces, 0) if self._logprobs else None)

    def _response(self, status: str, output: list[Json], usage: Json | None, made: Choice | None = None) -> Json:
        body = self._body
        metrics = request_metrics(self.job, self._settings) if made is not None else None
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
            "parallel_tool_calls": body.get("parallel_tool_calls") is not False,
            "temperature": _or(body.get("temperature"), 1.0),
            "tool_choice": body.get("tool_choice", "auto"),
            "tools": body.get("tools") or [],
            "top_p": self.job.top_p,
            "background": False,
            "max_output_tokens": self.job.sequences[0].max_tokens,
            "max_tool_calls": body.get("max_tool_calls"),
            "previous_response_id": None,
            "prompt": None,
            "reasoning": body.get("reasoning"),
            "service_tier": body.get("service_tier", "auto"),
            "status": status,
            "text": body.get("text"),
            "top_logprobs": self._top_logprobs if self._logprobs else None,
            "truncation": body.get("truncation", "disabled"),
            "usage": usage,
            "user": body.get("user"),
            **({"metrics": metrics} if metrics else {}),
            "presence_penalty": _or(body.get("presence_penalty"), 0.0),
            "frequency_penalty": _or(body.get("frequency_penalty"), 0.0),
            "kv_transfer_params": None,
            "ec_transfer_params": None,
            "input_messages": self._raw(self._prompt.pieces) if made and self._shows_messages else None,
            "output_messages": self._raw(made.pieces) if made and self._shows_messages else None,
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

    @property
    def _shows_messages(self) -> bool:
        return bool(self._body.get("enable_response_messages"))

    def _raw(self, pieces: list[str]) -> list[Json]:
        ids = [tokenizer.token_id(piece) for piece in pieces]
        return [{"message": "".join(pieces), "tokens": ids, "type": "raw_message_tokens"}]

    def _usage(self) -> Json:
        prompt, completion = self.job.prompt_tokens, self.job.completion_tokens
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


def _checked_body(body: Json) -> Json:
    """The body with what vLLM adds: an id, and the tool choice that goes without tools."""
    body = dict(body)
    if not body.get("tools"):
        choice = body.get("tool_choice", "auto")
        if choice in ("auto", "none"):
            body["tool_choice"] = "none"
        elif choice == "required":
            raise bad_parameter("Tool choice 'required' must be specified with 'tools' parameter.", "tool_choice")
        elif isinstance(choice, dict) and choice.get("type") in ("function", "custom"):
            raise bad_parameter(f"Tool choice '{choice['type']}' not found in 'tools' parameter.", "tool_choice")
    if body.get("prompt") is not None:
        raise bad_parameter("prompt template is not supported", "prompt")
    if body.get("background") and not body.get("store", True):
        raise bad_parameter("background can only be used when `store` is true", "background")
    check_cache_salt(body)
    given = body.get("input")
    plain = isinstance(given, list) and all(_is_plain(item) for item in given)
    return checked_body(body, RESPONSES if plain else RESPONSES_IN_DETAIL, required=("input",))


def _is_plain(item: Any) -> bool:
    return (
        isinstance(item, dict)
        and item.keys() <= {"role", "content", "type"}
        and item.get("role") in ("user", "system", "developer", "assistant")
        and isinstance(item.get("content"), str)
        and item.get("type", "message") == "message"
    )


def _read_input(body: Json) -> list[Json]:
    """Chat messages from `instructions` and `input`: a string, or items of checked types."""
    given = body["input"]
    messages = [{"role": "user", "content": given}] if isinstance(given, str) else list(map(_message_of, given))
    if body.get("instructions"):
        messages.insert(0, {"role": "system", "content": body["instructions"]})
    return messages


def _message_of(item: Json) -> Json:
    """One item of the input as a chat message; calls and their results as the text in them."""
    kind = item.get("type") or "message"
    if kind != "message":
        key = _ITEM_TEXTS.get(kind)
        return {"role": "user", "content": str(item.get(key) or "") if key else ""}
    content = item.get("content") or ""
    if not isinstance(content, str):
        content = [_part_of(part) for part in content]
    return {"role": item["role"], "content": content}


def _part_of(part: Json) -> Json:
    kind = _PART_KINDS.get(part["type"], "text")
    if kind != "text":
        return {"type": "image_url", "image_url": {"url": "data:"}}
    return {"type": "text", "text": part.get("text") or part.get("refusal") or ""}


def _response_format(body: Json) -> Json | None:
    """`text.format` as the chat API has it."""
    wanted = (body.get("text") or {}).get("format") or {}
    if wanted.get("type") == "json_schema":
        return {"type": "json_schema", "json_schema": {"schema": wanted.get("schema")}}
    return {"type": "json_object"} if wanted.get("type") == "json_object" else None


def not_stored(status: int, param: str, message: str) -> ApiError:
    """What concerns responses of the past: neither vLLM by default nor the mock keeps any."""
    return ApiError(status, "invalid_request_error", message, param)


def _in_order(entry: Json) -> Json:
    shown = {key: entry[key] for key in ("token", "bytes", "logprob")}
    if "top_logprobs" in entry:
        shown["top_logprobs"] = [_in_order(other) for other in entry["top_logprobs"]]
    return shown


def _text_part(text: str, logprobs: list[Json] | None = None) -> Json:
    return {"annotations": [], "text": text, "type": "output_text", "logprobs": logprobs}


def _or(value: float | None, default: float) -> float:
    return default if value is None else float(value)
