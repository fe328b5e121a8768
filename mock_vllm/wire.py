"""What every answer has in common: compact JSON, ids, usage, and the pieces of a stream."""

from __future__ import annotations

import json
import secrets
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from typing import Any

from mock_vllm.decoding import Token
from mock_vllm.engine import Job, Sequence
from mock_vllm.errors import ApiError
from mock_vllm.settings import Settings

Json = dict[str, Any]
Tokens = AsyncGenerator[tuple[Sequence, Token], None]

DONE = "data: [DONE]\n\n"

# json.dumps would build an encoder for each call.
dumps = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def event(value: Any) -> str:
    """A server-sent event as OpenAI's chat API has it: data only."""
    return f"data: {dumps(value)}\n\n"


def named_event(value: Json) -> str:
    """A server-sent event as the messages and responses APIs have it: named after its type."""
    return f"event: {value['type']}\ndata: {dumps(value)}\n\n"


def random_id() -> str:
    return secrets.token_hex(8)


def request_id(headers: Mapping[str, str], body: Json) -> str:
    """The id that answers carry after their prefix: the caller's own if it sent one."""
    return headers.get("x-request-id") or body.get("request_id") or random_id()


@dataclass(slots=True)
class Choice:
    """One finished sequence."""

    index: int
    text: str = ""
    pieces: list[str] = field(default_factory=list)
    finish_reason: str | None = None
    stop_reason: str | int | None = None

    def add(self, token: Token) -> None:
        self.text += token.delta
        self.pieces.append(token.piece)
        self.finish_reason = token.finish_reason
        self.stop_reason = token.stop_reason


class Call(ABC):
    """One request: what the engine is to do, and how what it did is shown.

    Reading a request builds one; every check is done by then.
    """

    job: Job

    @abstractmethod
    def __init__(self, body: Any, headers: Mapping[str, str], settings: Settings) -> None:
        """Read a request. Raises `ApiError`."""

    @abstractmethod
    def answer(self, choices: list[Choice]) -> Json:
        """The body of an answer that is not streamed."""


class GeneratingCall(Call):
    """A request whose answer can be streamed."""

    stream: bool

    @abstractmethod
    def events(self, tokens: Tokens) -> AsyncGenerator[str, None]:
        """The server-sent events of a streamed answer."""

    @classmethod
    def last_words(cls, error: ApiError) -> list[str]:
        """The events that end a stream when the engine fails or refuses. The HTTP status is 200 by then."""
        return [f"data: {json.dumps(error.body())}\n\n", DONE]


def completion_usage(job: Job, settings: Settings) -> Json:
    """The same for text completions, which do not say what was added to the cache."""
    usage = full_usage(job, settings)
    if usage["prompt_tokens_details"] is not None:
        usage["prompt_tokens_details"]["created_cache_tokens"] = None
    return usage


def full_usage(job: Job, settings: Settings) -> Json:
    """`usage` of an answer that is not streamed: every key, null where there is nothing to say."""
    return {
        **short_usage(job.prompt_tokens, job.completion_tokens),
        "prompt_tokens_details": _prompt_details(job, settings),
        "completion_tokens_details": None,
    }


def stream_usage(job: Job, settings: Settings) -> Json:
    """`usage` of a stream's last chunk: keys without a value are left out."""
    usage = short_usage(job.prompt_tokens, job.completion_tokens)
    if settings.enable_prompt_tokens_details:
        usage["prompt_tokens_details"] = cache_usage(job)
    return usage


def cache_usage(job: Job) -> Json:
    return {"cached_tokens": job.cached_tokens, "created_cache_tokens": job.created_cache_tokens}


def short_usage(prompt_tokens: int, completion_tokens: int) -> Json:
    return {
        "prompt_tokens": prompt_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        "completion_tokens": completion_tokens,
    }


def _prompt_details(job: Job, settings: Settings) -> Json | None:
    if not settings.enable_prompt_tokens_details:
        return None
    return {**cache_usage(job), "multimodal_tokens": None}


def request_metrics(job: Job, settings: Settings) -> Json | None:
    """`metrics` in milliseconds; None unless enabled, or when times cannot be told apart by choice."""
    if not settings.enable_per_request_metrics or len(job.sequences) != 1:
        return None
    timing, tokens = job.timing, job.completion_tokens
    generation = timing.finished - timing.first_token
    inference = timing.finished - timing.scheduled
    return {
        "time_to_first_token_ms": (timing.first_token - timing.arrived) * 1000,
        "generation_time_ms": generation * 1000,
        "queue_time_ms": (timing.scheduled - timing.arrived) * 1000,
        "mean_itl_ms": generation / (tokens - 1) * 1000 if tokens > 1 else None,
        "tokens_per_second": tokens / inference if inference > 0 else None,
        "speculative_decoding": None,
    }


def stream_metrics(job: Job, settings: Settings) -> Json | None:
    """The same in a stream's last chunk: keys without a value are left out."""
    metrics = request_metrics(job, settings)
    return metrics and {key: value for key, value in metrics.items() if value is not None}


def stream_options(body: Json) -> tuple[bool, bool]:
    """(usage in a last chunk, usage in every chunk)."""
    options = body.get("stream_options") or {}
    include = bool(options.get("include_usage"))
    return include, include and bool(options.get("continuous_usage_stats"))
