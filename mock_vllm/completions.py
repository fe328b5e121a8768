"""`/v1/completions`."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

from mock_vllm import checks, fields, logprobs, tokenizer
from mock_vllm.chat import check_model
from mock_vllm.decoding import Token
from mock_vllm.engine import Sequence
from mock_vllm.errors import bad_parameter, bad_request
from mock_vllm.prompt import Prompt, given_prompts, truncated
from mock_vllm.sampling import checked_length, make_job, read_sampling
from mock_vllm.settings import Settings
from mock_vllm.validation import as_object, checked_body
from mock_vllm.wire import (
    DONE,
    Choice,
    GeneratingCall,
    Json,
    Tokens,
    completion_usage,
    event,
    request_id,
    request_metrics,
    short_usage,
    stream_metrics,
    stream_options,
)

_DEFAULT_MAX_TOKENS = 16


class CompletionsCall(GeneratingCall):
    """A checked text completion request."""

    def __init__(self, body: Any, headers: Mapping[str, str], settings: Settings) -> None:
        """Raises `ApiError`."""
        body = _checked_body(as_object(body))
        check_model(body, settings)
        if body.get("suffix") is not None:
            raise bad_request("suffix is only supported for models with FIM completion rendering", "suffix")
        if body.get("prompt_embeds") not in (None, []):
            raise bad_parameter("You must set `--enable-prompt-embeds` to input `prompt_embeds`.", "prompt_embeds")
        self._top_logprobs: int | None = body.get("logprobs")
        self._prompt_logprobs: int | None = body.get("prompt_logprobs")
        max_tokens = body.get("max_tokens")
        if max_tokens is None:
            max_tokens = _DEFAULT_MAX_TOKENS
        prompts = [
            truncated(prompt, body, settings.max_model_len)
            for prompt in given_prompts(body["prompt"], body.get("add_special_tokens", True))
        ]
        self._echo = bool(body.get("echo"))
        self._echo_only = self._echo and max_tokens == 0
        # vLLM generates one token to get at the prompt, and does not show it.
        wanted = 1 if self._echo_only else max_tokens
        most = [checked_length(prompt, wanted, settings.max_model_len) for prompt in prompts]
        sampling = read_sampling(body, min(most), self._top_logprobs)
        self.stream = bool(body.get("stream"))
        self.job = make_job(prompts, most, sampling, settings)
        self._return_token_ids = bool(body.get("return_token_ids"))
        self._include_usage, self._continuous_usage = stream_options(body)
        self._settings = settings
        self._id = f"cmpl-{request_id(headers, body)}"
        self.job.request_ids = [f"{self._id}-{number}" for number in range(len(prompts))]
        self._created = int(time.time())

    def answer(self, choices: list[Choice]) -> Json:
        return {
            **self._head(),
            "choices": [self._choice(choice) for choice in choices],
            "service_tier": None,
            "system_fingerprint": self._settings.system_fingerprint,
            "usage": completion_usage(self.job, self._settings),
            "kv_transfer_params": None,
            "ec_transfer_params": None,
            "metrics": request_metrics(self.job, self._settings),
        }

    async def events(self, tokens: Tokens) -> AsyncGenerator[str, None]:
        shown_lengths = [0] * len(self.job.sequences)
        async with aclosing(tokens):
            async for sequence, token in tokens:
                yield event(self._chunk(sequence, token, shown_lengths))
        if self._include_usage:
            last = {
                **self._head(),
                "choices": [],
                "usage": self._last_usage(),
                "system_fingerprint": self._settings.system_fingerprint,
            }
            if metrics := stream_metrics(self.job, self._settings):
                last["metrics"] = metrics
            yield event(last)
        yield DONE

    def _last_usage(self) -> Json:
        usage = short_usage(self.job.prompt_tokens, self.job.completion_tokens)
        if self._settings.enable_prompt_tokens_details:
            usage["prompt_tokens_details"] = {"cached_tokens": self.job.cached_tokens}
        return usage

    def _head(self) -> Json:
        return {
            "id": self._id,
            "object": "text_completion",
            "created": self._created,
            "model": self._settings.model_name,
        }

    def _choice(self, choice: Choice) -> Json:
        prompt = self.job.sequences[choice.index].prompt
        echoed = _visible(prompt) if self._echo else ""
        shown = [*(prompt.pieces if self._echo else []), *([] if self._echo_only else choice.pieces)]
        return {
            "index": choice.index,
            "text": echoed + ("" if self._echo_only else choice.text),
            "logprobs": self._logprobs(shown, 0, 0),
            "finish_reason": choice.finish_reason,
            "stop_reason": choice.stop_reason,
            "token_ids": self._ids(choice.pieces),
            "prompt_logprobs": self._prompt_entries(prompt),
            "prompt_token_ids": prompt.ids() if self._return_token_ids else None,
            "routed_experts": None,
        }

    def _chunk(self, sequence: Sequence, token: Token, shown_lengths: list[int]) -> Json:
        first = sequence.generated == 1
        text, pieces = ("", []) if self._echo_only else (token.delta, [token.piece])
        if first and self._echo:
            text = _visible(sequence.prompt) + text
            pieces = [*sequence.prompt.pieces, *pieces]
        chunk: Json = {
            **self._head(),
            "choices": [
                {
                    "index": sequence.index,
                    "text": text,
                    "logprobs": self._logprobs(pieces, sequence.generated - 1, shown_lengths[sequence.index]),
                    "finish_reason": token.finish_reason,
                    "stop_reason": token.stop_reason,
                    "prompt_token_ids": sequence.prompt.ids() if first and self._return_token_ids else None,
                    "token_ids": self._ids([token.piece]),
                }
            ],
        }
        shown_lengths[sequence.index] += len(text)
        if self._continuous_usage:
            chunk["usage"] = short_usage(len(sequence.prompt), sequence.generated)
        if token.finish_reason is not None and not self._include_usage:
            chunk["system_fingerprint"] = self._settings.system_fingerprint
        return chunk

    def _logprobs(self, pieces: list[str], first_position: int, text_offset: int) -> Json | None:
        if self._top_logprobs is None:
            return None
        return logprobs.completion_block(pieces, first_position, self._top_logprobs, text_offset)

    def _prompt_entries(self, prompt: Prompt) -> list[Json | None] | None:
        if self._prompt_logprobs is None:
            return None
        return logprobs.prompt_entries(prompt, self._prompt_logprobs)

    def _ids(self, pieces: list[str]) -> list[int] | None:
        return [tokenizer.token_id(piece) for piece in pieces] if self._return_token_ids else None


def _checked_body(body: Json) -> Json:
    checks.check_cache_salt(body)
    if body.get("prompt") in (None, "") and not body.get("prompt_embeds"):
        raise bad_parameter("Either prompt or prompt_embeds must be provided and non-empty.", "prompt")
    checks.check_stream_options(body)
    checks.check_logprobs(body, "logprobs")
    checks.check_structured_outputs(body)
    checks.check_response_format(body)
    return checked_body(body, fields.COMPLETIONS)


def _visible(prompt: Prompt) -> str:
    return "".join(piece for piece in prompt.pieces if piece not in tokenizer.SPECIAL_TOKENS)
