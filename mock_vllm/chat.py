"""`/v1/chat/completions`."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

from mock_vllm import checks, fields, logprobs, tokenizer, tool_calls
from mock_vllm.chat_messages import checked_messages
from mock_vllm.decoding import Token
from mock_vllm.errors import unknown_model
from mock_vllm.prompt import rendered, truncated
from mock_vllm.sampling import checked_length, make_job, read_sampling
from mock_vllm.settings import Settings
from mock_vllm.validation import as_object, checked_body
from mock_vllm.wire import (
    DONE,
    Choice,
    GeneratingCall,
    Json,
    Tokens,
    dumps,
    full_usage,
    request_id,
    request_metrics,
    short_usage,
    stream_metrics,
    stream_options,
    stream_usage,
)


class ChatCall(GeneratingCall):
    """A checked chat completion request."""

    def __init__(self, body: Any, headers: Mapping[str, str], settings: Settings) -> None:
        """Raises `ApiError`, in the order in which vLLM finds what is wrong."""
        body = checked_chat_body(as_object(body))
        messages = checked_messages(body["messages"], settings.model_name)
        check_model(body, settings)
        tool_calls.refuse_without_parser(body, settings)
        limit = "max_completion_tokens" if body.get("max_completion_tokens") is not None else "max_tokens"
        prompt = rendered(messages, body)
        self._prompt = truncated(prompt, body, settings.max_model_len)
        max_tokens = checked_length(self._prompt, body.get(limit), settings.max_model_len, limit)
        top = (body.get("top_logprobs") or 0) if body.get("logprobs") else None
        sampling = read_sampling(body, max_tokens, top, tool_calls.forced_tool(body))
        self.stream = bool(body.get("stream"))
        self.job = make_job([self._prompt], [max_tokens], sampling, settings)
        self._top_logprobs = top
        self._return_token_ids = bool(body.get("return_token_ids"))
        self._prompt_text = self._prompt.text if body.get("return_prompt_text") else None
        # A conversation that is continued, or not handed over, is answered in its last speaker's place.
        self._role = "assistant" if body.get("add_generation_prompt", True) else messages[-1]["role"]
        shown = 0 if body.get("echo") and body.get("prompt_logprobs") is None else body.get("prompt_logprobs")
        self._prompt_logprobs = None if shown is None else logprobs.prompt_entries(self._prompt, shown)
        self._include_usage, self._continuous_usage = stream_options(body)
        self._parses_tools = settings.tool_call_parser is not None
        self._calls_tool = sampling.tool is not None
        self._tool_required = body.get("tool_choice") == "required"
        self._call_streams = [tool_calls.CallStream() for _ in self.job.sequences] if self._calls_tool else []
        self._settings = settings
        self._id = f"chatcmpl-{request_id(headers, body)}"
        self.job.request_ids = [self._id]
        self._created = int(time.time())

    def answer(self, choices: list[Choice]) -> Json:
        return {
            "id": self._id,
            "object": "chat.completion",
            "created": self._created,
            "model": self._settings.model_name,
            "choices": [self._choice(choice) for choice in choices],
            "service_tier": None,
            "system_fingerprint": self._settings.system_fingerprint,
            "usage": full_usage(self.job, self._settings),
            "prompt_logprobs": self._prompt_logprobs,
            "prompt_token_ids": self._prompt.ids() if self._return_token_ids else None,
            "prompt_text": self._prompt_text,
            "kv_transfer_params": None,
            "ec_transfer_params": None,
            "metrics": request_metrics(self.job, self._settings),
        }

    async def events(self, tokens: Tokens) -> AsyncGenerator[str, None]:
        # Everything before the choices is the same in all chunks, and encoding it once halves the work.
        head = dumps(
            {
                "id": self._id,
                "object": "chat.completion.chunk",
                "created": self._created,
                "model": self._settings.model_name,
            }
        )[:-1]
        started = False
        async with aclosing(tokens):
            async for sequence, token in tokens:
                if not started:
                    started = True
                    for other in self.job.sequences:
                        yield f"data: {head},{dumps(self._first_chunk(other.index))[1:]}\n\n"
                chunk = self._chunk(sequence.index, sequence.generated, token)
                if chunk is not None:
                    yield f"data: {head},{dumps(chunk)[1:]}\n\n"
        if self._include_usage:
            last = {
                "choices": [],
                "usage": stream_usage(self.job, self._settings),
                "system_fingerprint": self._settings.system_fingerprint,
            }
            if metrics := stream_metrics(self.job, self._settings):
                last["metrics"] = metrics
            yield f"data: {head},{dumps(last)[1:]}\n\n"
        yield DONE

    def _choice(self, choice: Choice) -> Json:
        calls = tool_calls.parsed(choice.text) if self._calls_tool else []
        finish_reason = choice.finish_reason
        if self._tool_required and finish_reason == "stop":
            finish_reason = "tool_calls"
        return {
            "index": choice.index,
            "message": {
                "role": self._role,
                "content": "" if calls else choice.text,
                "refusal": None,
                "annotations": None,
                "audio": None,
                "function_call": None,
                **({"tool_calls": calls} if calls else {}),
                "reasoning": None,
            },
            "logprobs": self._logprobs(choice.pieces, 0),
            "finish_reason": finish_reason,
            "stop_reason": choice.stop_reason,
            "token_ids": self._ids(choice.pieces),
            "routed_experts": None,
        }

    def _first_chunk(self, index: int) -> Json:
        delta = {"role": self._role, "content": ""}
        chunk: Json = {
            "choices": [{"index": index, "delta": delta, "logprobs": None, "finish_reason": None}],
        }
        if self._continuous_usage:
            chunk["usage"] = self._running_usage(0)
        chunk["prompt_token_ids"] = self._prompt.ids() if self._return_token_ids else None
        chunk["prompt_text"] = self._prompt_text
        return chunk

    def _chunk(self, index: int, generated: int, token: Token) -> Json | None:
        """None when a parser keeps a token to itself that shows nothing."""
        logprobs, ids, finish_reason = self._logprobs([token.piece], generated - 1), self._ids([token.piece]), token[2]
        delta: Json = {"content": token.delta}
        if self._parses_tools:
            delta = self._parsed_delta(index, token.delta)
            if not delta and finish_reason is None and logprobs is None and ids is None:
                return None
            if self._tool_required and finish_reason == "stop" and self._call_streams[index].named:
                finish_reason = "tool_calls"
        choice: Json = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}
        if finish_reason is not None:
            choice["stop_reason"] = token.stop_reason
        choice["token_ids"] = ids
        chunk: Json = {"choices": [choice]}
        if self._continuous_usage:
            chunk["usage"] = self._running_usage(generated)
        if finish_reason is not None and not self._include_usage:
            chunk["system_fingerprint"] = self._settings.system_fingerprint
        return chunk

    def _parsed_delta(self, index: int, text: str) -> Json:
        if self._calls_tool:
            return self._call_streams[index].delta(text)
        return {"content": text} if text else {}

    def _running_usage(self, generated: int) -> Json:
        return {**short_usage(len(self._prompt), generated), "completion_tokens_details": None}

    def _logprobs(self, pieces: list[str], first_position: int) -> Json | None:
        top = self._top_logprobs
        if top is None:
            return None
        return {
            "content": [
                logprobs.chat_entry(piece, position, top) for position, piece in enumerate(pieces, first_position)
            ]
        }

    def _ids(self, pieces: list[str]) -> list[int] | None:
        return [tokenizer.token_id(piece) for piece in pieces] if self._return_token_ids else None


def check_model(body: Json, settings: Settings) -> None:
    """No model is as good as the right one, in vLLM as here."""
    model = body.get("model")
    if model and model not in settings.served_model_names:
        raise unknown_model(model, settings.served_model_names)


def checked_chat_body(body: Json) -> Json:
    """Everything that can be said about a chat request's fields one by one. Raises `ApiError`."""
    checks.check_messages_are_iterable(body)
    checks.check_generation_prompt(body)
    checks.check_tools(body)
    checks.check_structured_outputs(body)
    checks.check_logprobs(body, "top_logprobs")
    checks.check_stream_options(body)
    checks.check_response_format(body)
    checks.check_cache_salt(body)
    return checked_body(body, fields.CHAT, required=("messages",))
