"""The self-check's calls, and what their records must be, field by field."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from otel_cost_logger.attributes import SCHEMA
from otel_cost_logger.self_check import engine

MODEL = "self-check-model"
FALLING_BACK = "self-check-falls-back"  # to the other
TENANT = "self-check-tenant"
ALIAS = "self-check-key"
KEY = "sk-self-check"
WRONG_KEY = "sk-self-check-wrong"
TRACE_ID = "5e1fc4ec" * 4
PARENT_ID = "5e1fc4ec" * 2
TRACEPARENT = f"00-{TRACE_ID}-{PARENT_ID}-01"
# US dollars: the key's budget is the tighter one.
BUDGETS = {"max_budget": 1.0, "spend": 0.25, "team_max_budget": 2.0, "team_spend": 0.5}
PRICES = {"input_cost_per_token": 2e-7, "output_cost_per_token": 6e-7, "cache_read_input_token_cost": 2e-8}

_CHAT = "/v1/chat/completions"
_TEXT = "/v1/completions"
_MESSAGES = "/v1/messages"
_RAW = "/vllm/v1/chat/completions"


class Positive:
    """Equal to any number above 0: a duration."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, int | float) and other > 0

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return "above 0"


class AnyText:
    """Equal to any text that begins with ``beginning``."""

    def __init__(self, beginning: str = "") -> None:
        self._beginning = beginning

    def __eq__(self, other: object) -> bool:
        return isinstance(other, str) and other.startswith(self._beginning)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"{self._beginning}..."


@dataclass(frozen=True, slots=True)
class Call:
    """A call to the proxy. ``record`` are the fields of its record that differ from `_ANSWERED`."""

    name: str
    path: str
    prompt: str
    record: Mapping[str, Any] = field(default_factory=dict)
    model: str = MODEL
    stream: bool = False
    key: str = KEY
    hang_up: bool = False

    @property
    def body(self) -> dict[str, Any]:
        """The request."""
        body: dict[str, Any] = {"model": self.model, "user": "self-check-user", "max_tokens": 10}
        if self.path == _TEXT:
            body["prompt"] = self.prompt
        else:
            body["messages"] = [{"role": "user", "content": self.prompt}]
        return body | ({"stream": True} if self.stream else {})

    def expected(self, call_id: str, port: int, traceparent: str) -> dict[str, Any]:
        """What its span must say, by field of `CallRecord`; a field that is None must not be there. ``traceparent`` is
        what the engine was told."""
        ids = {"call_id": call_id, "server_port": port, "stream": self.stream, "span": traceparent, "parent": PARENT_ID}
        first_token = {"time_to_first_token_ms": Positive()} if self.stream else {}
        text = {"call_type": "atext_completion", "operation": "text_completion"} if self.path == _TEXT else {}
        return {**_ANSWERED, **ids, **first_token, **text, **self.record}


def _cost(completion: int) -> int:
    uncached = engine.PROMPT_TOKENS - engine.CACHED_TOKENS
    return uncached * 200 + engine.CACHED_TOKENS * 20 + completion * 600


def _left(nano_usd: int) -> float:
    return BUDGETS["max_budget"] - BUDGETS["spend"] - nano_usd / 1e9


def _tokens(completion: int) -> dict[str, Any]:
    return {
        "prompt_tokens": engine.PROMPT_TOKENS,
        "completion_tokens": completion,
        "total_tokens": engine.PROMPT_TOKENS + completion,
        "cached_tokens": engine.CACHED_TOKENS,
        "reasoning_tokens": min(engine.REASONING_TOKENS, completion),
        "usage_source": "engine",
        "cost_nano_usd": _cost(completion),
        "cost_usd": _cost(completion) / 1e9,
        "cost_source": "custom_price",
        "budget_remaining_usd": _left(_cost(completion)),
    }


_ANSWERED: dict[str, Any] = {
    **dict.fromkeys(row.field for row in SCHEMA),
    **_tokens(engine.COMPLETION_TOKENS),
    "model": MODEL,
    "model_served": engine.MODEL,
    "provider": "hosted_vllm",
    "call_type": "acompletion",
    "operation": "chat",
    "choice_count": 1,
    "tenant_id": TENANT,
    "tenant_source": "team",
    "tenant_claimed": "user=self-check-user",
    "key_alias": ALIAS,
    "outcome": "success",
    "success": True,
    "duration_ms": Positive(),
    "attempts": 1,
    "price_version": AnyText("sha256:"),
    "response_id": engine.RESPONSE_ID,
    "finish_reasons": ("stop",),
    "server_address": "127.0.0.1",
    "schema_version": "1",
}

_NOT_ANSWERED: dict[str, Any] = {
    **dict.fromkeys(("cached_tokens", "reasoning_tokens", "price_version", "response_id", "finish_reasons")),
    **dict.fromkeys(("prompt_tokens", "completion_tokens", "total_tokens", "cost_nano_usd"), 0),
    "cost_usd": 0.0,
    "budget_remaining_usd": _left(0),
    "usage_source": "none",
    "success": False,
}

_FAILED: dict[str, Any] = {
    **_NOT_ANSWERED,
    "outcome": "failure",
    "error": "InternalServerError 500",
    "error_type": "InternalServerError",
    "error_status": 500,
    "attempts": 2,
    "cost_source": "unknown",  # the engine may have worked
}

_REFUSED: dict[str, Any] = {
    **_FAILED,
    **dict.fromkeys(("model_served", "tenant_claimed", "key_alias", "server_address", "server_port")),
    "budget_remaining_usd": None,
    "tenant_id": "unauthenticated",
    "tenant_source": "none",
    "error": "KeyRefused 401",
    "error_type": "KeyRefused",
    "error_status": 401,
    "attempts": 1,
    "cost_source": "not_charged",
    # Refused before LiteLLM looks at the headers, and no engine was told anything.
    **dict.fromkeys(("call_id", "span"), AnyText()),
    "parent": None,
}

# By the net, and not by a hook.
_RAW_ANSWERED: dict[str, Any] = {
    **dict.fromkeys(("budget_remaining_usd", "finish_reasons")),
    "call_type": "pass_through",
    **dict.fromkeys(("call_id", "span"), AnyText()),
}

_CUT_OFF: dict[str, Any] = {
    **_tokens(engine.PARTIAL_TOKENS),
    "outcome": "client_disconnected",
    "success": False,
    "error_type": "ClientDisconnected",
    "error_status": 499,
}

CALLS: tuple[Call, ...] = (
    Call("a chat that was tried twice", _CHAT, engine.ONCE_BUSY, {"attempts": 2}),
    Call(
        "a chat that fell back",
        _CHAT,
        "fall back",
        {"attempts": 3, "model_requested": FALLING_BACK},
        model=FALLING_BACK,
    ),
    Call("a streamed chat", _CHAT, "stream", stream=True),
    Call("a streamed chat that is passed through", _RAW, "raw", _RAW_ANSWERED, stream=True),
    Call("a streamed text completion", _TEXT, "text", stream=True),
    Call("a call of Anthropic's kind", _MESSAGES, "messages", {"call_type": "anthropic_messages"}),
    Call("a failing chat", _CHAT, engine.ALWAYS_BUSY, _FAILED),
    Call("a stream whose caller hung up", _CHAT, engine.ENDLESS, _CUT_OFF, stream=True, hang_up=True),
    Call("a wrong key", _CHAT, "key", _REFUSED, key=WRONG_KEY),
)

# Of the record of a call that no hook reports, had the last one but the wrong key's been such.
ABANDONED: dict[str, Any] = {
    "model": MODEL,
    "tenant_id": TENANT,
    "tenant_source": "team",
    "key_alias": ALIAS,
    "outcome": "client_disconnected",
    "duration_ms": Positive(),
    "stream": True,
    "traceparent": TRACEPARENT,
}
