"""`/v1/chat/completions`."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

from mock_vllm import logprobs, tokenizer, validation
from mock_vllm.decoding import Token
from mock_vllm.errors import bad_parameter, bad_request, unknown_model
from mock_vllm.prompt import chat_prompt
from mock_vllm.sampling import check_length, make_job, read_sampling
from mock_vllm.settings import Settings
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
    stream_options,
    stream_usage,
)

_FIELDS = {
    **validation.SAMPLING_FIELDS,
    "messages": validation.LIST,
    "max_completion_tokens": validation.OPTIONAL_INT,
    "n": validation.OPTIONAL_INT,
    "logprobs": validation.OPTIONAL_BOOL,
    "tools": validation.OPTIONAL_LIST,
}

_AUTO_TOOLS = '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set'


class ChatCall(GeneratingCall):
    """A checked chat completion request."""

    def __init__(self, body: Any, headers: Mapping[str, str], settings: Settings) -> None:
        """Raises `ApiError`, in the order in which vLLM finds what is wrong."""
        body = validation.checked_body(body, _FIELDS, required=("messages",))
        validation.check_stream_options(body)
        top = _top_logprobs(body)
        check_tools(body)
        validation.check_messages(body["messages"], settings.model_name)
        check_model(body, settings)
        refuse_tool_calls(body)
        if not body["messages"]:
            raise bad_request("Cannot apply chat template to an empty conversation. Provide at least one message.")
        max_tokens = body.get("max_completion_tokens")
        if max_tokens is None:
            max_tokens = body.get("max_tokens")
        self._prompt = chat_prompt(body["messages"])
        check_length(self._prompt, max_tokens, settings.max_model_len)
        sampling = read_sampling(body, max_tokens, top)
        self.stream = bool(body.get("stream"))
        self.job = make_job([self._prompt], sampling, settings)
        self._top_logprobs = top
        self._return_token_ids = bool(body.get("return_token_ids"))
        self._include_usage, self._continuous_usage = stream_options(body)
        self._settings = settings
        self._id = f"chatcmpl-{request_id(headers, body)}"
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
            "prompt_logprobs": None,
            "prompt_token_ids": self._prompt.ids() if self._return_token_ids else None,
            "prompt_text": None,
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
                yield f"data: {head},{dumps(chunk)[1:]}\n\n"
        if self._include_usage:
            last = {
                "choices": [],
                "usage": stream_usage(self.job, self._settings),
                "system_fingerprint": self._settings.system_fingerprint,
            }
            if metrics := request_metrics(self.job, self._settings):
                last["metrics"] = metrics
            yield f"data: {head},{dumps(last)[1:]}\n\n"
        yield DONE

    def _choice(self, choice: Choice) -> Json:
        return {
            "index": choice.index,
            "message": {
                "role": "assistant",
                "content": choice.text,
                "refusal": None,
                "annotations": None,
                "audio": None,
                "function_call": None,
                "reasoning": None,
            },
            "logprobs": self._logprobs(choice.pieces, 0),
            "finish_reason": choice.finish_reason,
            "stop_reason": choice.stop_reason,
            "token_ids": self._ids(choice.pieces),
            "routed_experts": None,
        }

    def _first_chunk(self, index: int) -> Json:
        delta = {"role": "assistant", "content": ""}
        chunk: Json = {
            "choices": [{"index": index, "delta": delta, "logprobs": None, "finish_reason": None}],
        }
        if self._continuous_usage:
            chunk["usage"] = short_usage(len(self._prompt), 0)
        chunk["prompt_token_ids"] = self._prompt.ids() if self._return_token_ids else None
        chunk["prompt_text"] = None
        return chunk

    def _chunk(self, index: int, generated: int, token: Token) -> Json:
        choice: Json = {
            "index": index,
            "delta": {"content": token.delta},
            "logprobs": self._logprobs([token.piece], generated - 1),
            "finish_reason": token.finish_reason,
        }
        if token.finish_reason is not None:
            choice["stop_reason"] = token.stop_reason
        choice["token_ids"] = self._ids([token.piece])
        chunk: Json = {"choices": [choice]}
        if self._continuous_usage:
            chunk["usage"] = short_usage(len(self._prompt), generated)
        if token.finish_reason is not None and not self._include_usage:
            chunk["system_fingerprint"] = self._settings.system_fingerprint
        return chunk

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


def _top_logprobs(body: Json) -> int | None:
    """How many candidates to show per token; None when log probabilities are not asked for."""
    top = body.get("top_logprobs")
    if top is not None and (not isinstance(top, int) or isinstance(top, bool)):
        raise bad_parameter("`top_logprobs` must be an integer.", "top_logprobs", top)
    if top is not None and top < -1:
        raise bad_parameter("`top_logprobs` must be a positive value or -1.", "top_logprobs", top)
    if not body.get("logprobs"):
        if top:
            raise bad_parameter("when using `top_logprobs`, `logprobs` must be set to true.", "top_logprobs")
        return None
    return top or 0


def check_tools(body: Json) -> None:
    """The declaration of `tools` and `tool_choice`: is it one that any vLLM would take?"""
    if body.get("tools") == []:
        raise bad_parameter(
            "`tools` must not be an empty array. Either provide at least one tool or omit the field entirely.",
            "tools",
        )
    choice = body.get("tool_choice")
    if choice is None or choice == "none":
        return
    if body.get("tools") is None:
        raise bad_parameter("When using `tool_choice`, `tools` must be set.", "tool_choice")
    if not isinstance(choice, dict):
        if choice not in ("auto", "required"):
            raise bad_parameter(
                f"Invalid value for `tool_choice`: {choice}! Only named tools, "
                '"none", "auto" or "required" are supported.',
                "tool_choice",
            )
        return
    if _function_name(choice) not in map(_function_name, body["tools"]):
        raise bad_parameter(
            "The tool specified in `tool_choice` does not match any of the specified `tools`", "tool_choice"
        )


def refuse_tool_calls(body: Json) -> None:
    """Without `--tool-call-parser`, and the mock has none, only `tool_choice: none` may come with tools."""
    choice = body.get("tool_choice", "auto" if body.get("tools") else "none")
    if choice == "auto":
        raise bad_request(_AUTO_TOOLS)
    if choice == "required":
        raise bad_request('tool_choice="required" requires --tool-call-parser to be set')
    if isinstance(choice, dict):
        raise bad_request(f'tool_choice=function "{_function_name(choice)}" requires --tool-call-parser to be set')


def _function_name(tool: Any) -> str | None:
    function = tool.get("function") if isinstance(tool, dict) else None
    return function.get("name") if isinstance(function, dict) else None
