"""From LiteLLM's logging payload to one immutable `CallRecord`: what a call leaves behind.

This module is a pure function of its arguments. It knows LiteLLM and nothing of OpenTelemetry, and it does no
I/O. The source of truth is ``kwargs["standard_logging_object"]`` (LiteLLM's ``StandardLoggingPayload``); a
payload that is missing or broken still gives a record, with what the rest of ``kwargs`` says.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, NamedTuple, TypeGuard
from urllib.parse import urlsplit

from litellm.constants import LITELLM_LOGGING_NO_UPSTREAM_LLM_CALL

from otel_cost_logger.claims import claims_of
from otel_cost_logger.keys.entries import TenantKey
from otel_cost_logger.planned import PlannedSpan, planned_for, planned_for_logging_object
from otel_cost_logger.prices.book import PriceBook
from otel_cost_logger.pricing import Cost, cost_by_book, cost_of

SCHEMA_VERSION = "1"

# Outcomes.
SUCCESS = "success"
FAILURE = "failure"
CLIENT_DISCONNECTED = "client_disconnected"

# Where the token counts come from.
USAGE_ENGINE = "engine"  # the backend counted them
USAGE_ESTIMATED = "estimated"  # LiteLLM counted the text with a tokenizer of its own, which may be another one
USAGE_NONE = "none"  # the call ended before there was any

# Where the tenant comes from.
TENANT_TEAM = "team"  # the authenticated key's team
TENANT_KEY_ALIAS = "key_alias"  # the authenticated key's own name, for a key without a team
TENANT_CALLER = "caller"  # metadata.tenant_id, believed in library mode only: the caller is the program itself
TENANT_NONE = "none"  # nobody authenticated

DEFAULT_TENANT = "default"
UNKNOWN = "unknown"  # a call id or model that nobody gave
UNAUTHENTICATED_TENANT = "unauthenticated"

_MAX_TEXT = 256  # characters; identifiers and model names are far shorter
_MAX_ERROR = 1024  # characters of an error message, when the operator asked for messages
_MAX_COUNT = 2**63 - 1  # OTLP carries integers as int64
_MAX_USD = 1e15
_MAX_FINISH_REASONS = 16  # one per choice
_NOTHING: Mapping[Any, Any] = {}

# Budgets that the proxy authenticated together with the key: what may be spent, and what had been before this call.
_BUDGETS = (
    ("user_api_key_max_budget", "user_api_key_spend"),
    ("user_api_key_team_max_budget", "user_api_key_team_spend"),
)

# Call types of LiteLLM, without the leading "a" of the async ones, and the GenAI convention's operation name.
_OPERATIONS = {
    "completion": "chat",
    "anthropic_messages": "chat",
    "responses": "chat",
    "text_completion": "text_completion",
    "embedding": "embeddings",
    "rerank": "rerank",
    "transcription": "transcription",
    "speech": "speech",
    "generate_content": "generate_content",
    "generate_content_stream": "generate_content",
    "create_interaction": "generate_content",
}


class CallRecord(NamedTuple):  # made once per call: in half the time of a frozen dataclass
    """One LLM call. `attributes.SCHEMA` says what each field means and under which name it is exported.

    Tokens are counts, ``cost_usd`` is in US dollars and ``cost_nano_usd`` in billionths of one, ``start_ns``
    and ``end_ns`` are nanoseconds since the Unix epoch, durations are in milliseconds. ``None`` means that
    the fact is not known, never zero.
    """

    call_id: str
    call_type: str
    operation: str
    stream: bool
    choice_count: int
    model: str
    model_served: str | None
    provider: str | None
    tenant_id: str
    tenant_source: str
    key_alias: str | None
    outcome: str
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    cached_tokens: int | None
    reasoning_tokens: int | None
    usage_source: str
    cost: Cost
    budget_remaining_usd: float | None
    start_ns: int
    end_ns: int
    time_to_first_token_ms: float | None
    attempts: int
    response_id: str | None
    finish_reasons: tuple[str, ...] | None
    error_type: str | None
    error_status: int | None
    error: str | None
    server_address: str | None
    server_port: int | None
    traceparent: str | None
    planned: PlannedSpan | None
    tenant_claimed: str | None = None
    schema_version: str = SCHEMA_VERSION

    @property
    def success(self) -> bool:
        """True for a call that was answered in full."""
        return self.outcome == SUCCESS

    @property
    def duration_ms(self) -> float:
        """Wall-clock time of the call as LiteLLM saw it."""
        return round((self.end_ns - self.start_ns) / 1e6, 3)

    @property
    def cost_usd(self) -> float:
        """The cost as a float, for display; sum ``cost_nano_usd`` instead."""
        return self.cost.nano_usd / 1e9

    @property
    def cost_nano_usd(self) -> int:
        """The cost in billionths of a US dollar: integers add up exactly, floats do not."""
        return self.cost.nano_usd

    @property
    def cost_source(self) -> str:
        """Who says so, see `pricing`."""
        return self.cost.source

    @property
    def price_version(self) -> str | None:
        """Which version of the prices, see `pricing`."""
        return self.cost.price_version


def build_record(
    kwargs: object,
    response: object,
    start_time: object,
    end_time: object,
    *,
    failed: bool,
    behind_proxy: bool,
    keep_error_message: bool = False,
    book: PriceBook | None = None,
) -> CallRecord:
    """The record of one call, from the arguments of a LiteLLM logging hook.

    ``behind_proxy`` says whether callers are strangers: behind the proxy the tenant comes from the
    authenticated key alone. ``keep_error_message`` keeps the backend's error text, which may quote the prompt. The
    price is that of ``book``, as it was when the call began, and LiteLLM's for what the book does not price.
    Anything may be missing or of the wrong type; such a field becomes ``None``, zero or a stated default.
    """
    call = _mapping(kwargs)
    payload = _mapping(call.get("standard_logging_object"))
    params = _mapping(call.get("litellm_params"))
    metadata = _metadata(params)
    identity = _mapping(payload.get("metadata")) or metadata
    problem = _mapping(payload.get("error_information"))

    outcome = FAILURE if failed else SUCCESS
    if not failed and (problem.get("error_class") == "ClientDisconnected" or metadata.get("client_disconnected")):
        outcome = CLIENT_DISCONNECTED
    call_type = clean(call.get("call_type") or payload.get("call_type")) or "completion"
    error_type = clean(problem.get("error_class")) or (_class_name(call.get("exception")) if failed else None)
    error_status = _status(problem.get("error_code")) or (_status(_of(call.get("exception"), "status_code")))
    usage = _mapping(_mapping(payload.get("metadata")).get("usage_object"))
    prompt, completion, total = _tokens(payload, response)
    stream = bool(call.get("stream") or payload.get("stream"))
    choice_count = _count(call.get("n") or _mapping(call.get("optional_params")).get("n")) or 1
    planned = planned_for(call)
    start_ns, end_ns = _interval(payload, start_time, end_time)
    # Set when the proxy itself refused the request: wrong key, unknown model, malformed body.
    refused = failed and bool(call.get(LITELLM_LOGGING_NO_UPSTREAM_LLM_CALL))
    refused_key = _refused_key(call.get("exception"))
    tenant_id, tenant_source = (
        (refused_key.tenant, TENANT_TEAM)
        if refused_key
        else _tenant(identity, metadata, behind_proxy=behind_proxy, unknown_key=refused and error_status == 401)
    )
    api_base = payload.get("api_base") or params.get("api_base")
    address, port = server_of(api_base) if isinstance(api_base, str) else (None, None)
    model = clean(payload.get("model_group") or metadata.get("model_group") or call.get("model")) or UNKNOWN
    served = (None if refused else clean(call.get("model"))) or None
    cached = _detail(usage, ("prompt_tokens_details", "input_tokens_details"), "cached_tokens")
    cost = None
    if book is not None and total > 0:
        tokens = {"prompt_tokens": prompt, "completion_tokens": completion, "cached_tokens": cached or 0}
        cost = cost_by_book(book, model, served, start_ns, **tokens)
    cost = cost or cost_of(payload, params, used_tokens=total > 0)
    return CallRecord(
        call_id=clean(call.get("litellm_call_id") or payload.get("litellm_call_id")) or UNKNOWN,
        call_type=call_type,
        operation=_OPERATIONS.get(_sync_name(call_type), call_type),
        stream=stream,
        choice_count=choice_count,
        model=model,
        model_served=served,
        provider=clean(call.get("custom_llm_provider") or payload.get("custom_llm_provider")) or None,
        tenant_id=tenant_id,
        tenant_source=tenant_source,
        tenant_claimed=clean(claims_of(_mapping(params.get("proxy_server_request")))) or None if behind_proxy else None,
        key_alias=refused_key.alias if refused_key else clean(identity.get("user_api_key_alias")) or None,
        outcome=outcome,
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_tokens=total,
        cached_tokens=cached,
        reasoning_tokens=_detail(usage, ("completion_tokens_details", "output_tokens_details"), "reasoning_tokens"),
        usage_source=_usage_source(call, call_type, outcome, stream=stream, choices=choice_count, total=total),
        cost=cost,
        budget_remaining_usd=_budget_remaining(identity, cost),
        start_ns=start_ns,
        end_ns=end_ns,
        time_to_first_token_ms=_first_token_ms(payload, start_ns, end_ns) if stream else None,
        attempts=1 + _count(metadata.get("attempted_retries")),
        response_id=(None if failed else clean(payload.get("id"))) or None,  # a failure's is LiteLLM's call id
        finish_reasons=_finish_reasons(response),
        error_type=error_type,
        error_status=error_status,
        error=_error(call, payload, problem, error_type, error_status, keep_error_message) if failed else None,
        server_address=address,
        server_port=port,
        traceparent=planned.parent if planned else _traceparent(params, metadata),
        planned=planned,
    )


def record_of_abandoned(request: Mapping[Any, Any], ended_ns: int) -> CallRecord:
    """The record of a proxied call that its caller abandoned before anything came back.

    ``request`` is the proxy's request data with its ``call_type``; it ended at ``ended_ns``. Nobody knows how many
    tokens the engine generated, so none are recorded and `usage_source` says so.
    """
    began = _mapping(request.get("proxy_server_request")).get("arrival_time")
    kwargs = {
        "litellm_call_id": request.get("litellm_call_id"),
        "call_type": request.get("call_type"),
        "stream": request.get("stream"),
        "litellm_params": request,  # metadata, litellm_metadata and proxy_server_request are where they are there
        "standard_logging_object": {
            "model_group": request.get("model"),
            "startTime": began,
            "endTime": ended_ns / 1e9,
            "error_information": {"error_class": "ClientDisconnected", "error_code": "499"},
        },
    }
    if planned := planned_for_logging_object(request.get("litellm_logging_obj")):
        kwargs |= planned.as_detail()
    return build_record(kwargs, None, None, None, failed=False, behind_proxy=True)


def is_llm_call(call_type: object) -> bool:
    """True for the call types that this module has an operation for: those that use tokens."""
    return isinstance(call_type, str) and _sync_name(call_type) in _OPERATIONS


def tenant_of_key(user_api_key_dict: object) -> str:
    """The tenant of an authenticated key, as the proxy's own hooks show it: the same that the record will name."""
    team, alias = (getattr(user_api_key_dict, name, None) for name in ("team_id", "key_alias"))
    return clean(team) or clean(alias) or DEFAULT_TENANT


def caller_traceparent(params: Mapping[str, Any]) -> str | None:
    """The W3C trace context that came with a request: its header behind the proxy, metadata in library mode.

    ``params`` are LiteLLM's parameters of the call.
    """
    return _traceparent(params, _metadata(params))


def _traceparent(params: Mapping[Any, Any], metadata: Mapping[Any, Any]) -> str | None:
    headers = _mapping(_mapping(params.get("proxy_server_request")).get("headers"))
    value = headers.get("traceparent") or metadata.get("traceparent")
    return value if isinstance(value, str) and len(value) < _MAX_TEXT else None


def clean(value: object, limit: int = _MAX_TEXT) -> str:
    """``value`` as text that every exporter can carry: at most ``limit`` characters, no control characters and
    no lone surrogates (one of those would make the exporter refuse the whole batch)."""
    if value is None:
        return ""
    text = value if isinstance(value, str) else str(value)
    text = text[:limit]
    return text if text.isprintable() else "".join(c if c.isprintable() else "\ufffd" for c in text)


def _sync_name(call_type: str) -> str:
    """LiteLLM's ``acompletion`` is the async form of ``completion``."""
    return call_type[1:] if call_type[:1] == "a" and call_type[1:] in _OPERATIONS else call_type


# What is nearly always the case is asked first: these run a dozen times for each call.


def _mapping(value: object) -> Mapping[Any, Any]:
    return value if type(value) is dict or isinstance(value, Mapping) else _NOTHING


def _of(value: object, name: str) -> Any:
    return value.get(name) if type(value) is dict or isinstance(value, Mapping) else getattr(value, name, None)


def _metadata(params: Mapping[Any, Any]) -> Mapping[Any, Any]:
    """The proxy's notes on a call. For /v1/messages and /v1/responses they are in ``litellm_metadata``, and
    ``metadata`` is the caller's own."""
    metadata, notes = _mapping(params.get("metadata")), _mapping(params.get("litellm_metadata"))
    return {**metadata, **notes} if notes else metadata


def _is_number(value: object) -> TypeGuard[int | float]:
    """True for a finite number; `math.isfinite` raises for an integer that no float can hold."""
    return isinstance(value, int | float) and not isinstance(value, bool) and -math.inf < value < math.inf


def _count(value: object) -> int:
    if type(value) is int and 0 <= value <= _MAX_COUNT:
        return value
    return min(max(int(value), 0), _MAX_COUNT) if _is_number(value) else 0


def _tokens(payload: Mapping[Any, Any], response: object) -> tuple[int, int, int]:
    source = payload if "total_tokens" in payload else _of(response, "usage")
    prompt = _count(_of(source, "prompt_tokens"))
    completion = _count(_of(source, "completion_tokens"))
    return prompt, completion, min(prompt + completion, _MAX_COUNT)


def _detail(usage: Mapping[Any, Any], groups: Sequence[str], name: str) -> int | None:
    for group in groups:
        value = _of(usage.get(group), name)
        if value is not None:
            return _count(value)
    return None


def _usage_source(
    call: Mapping[Any, Any], call_type: str, outcome: str, *, stream: bool, choices: int, total: int
) -> str:
    if total == 0:
        return USAGE_NONE
    asked = call.get("stream_options") or _mapping(call.get("optional_params")).get("stream_options")
    if outcome != SUCCESS:
        # What the engine had counted when the stream broke off; of several choices each chunk counts only its own.
        counted = stream and choices == 1 and _of(asked, "continuous_usage_stats")
        return USAGE_ENGINE if counted else USAGE_ESTIMATED
    # A streamed chat or completion carries the engine's count only when it was asked for. The proxy always
    # asks; a program that calls LiteLLM itself has to.
    if stream and _sync_name(call_type) in ("completion", "text_completion"):
        return USAGE_ENGINE if _of(asked, "include_usage") else USAGE_ESTIMATED
    return USAGE_ENGINE


def _refused_key(exception: object) -> TenantKey | None:
    """The entry of a key that `auth` refused although it knows it: it is revoked, say. A caller cannot write one."""
    key = getattr(exception, "refused_key", None)
    return key if isinstance(key, TenantKey) else None


def _tenant(
    identity: Mapping[Any, Any], metadata: Mapping[Any, Any], *, behind_proxy: bool, unknown_key: bool
) -> tuple[str, str]:
    if unknown_key:
        return UNAUTHENTICATED_TENANT, TENANT_NONE
    if team := clean(identity.get("user_api_key_team_id")):
        return team, TENANT_TEAM
    if alias := clean(identity.get("user_api_key_alias")):
        return alias, TENANT_KEY_ALIAS
    if not behind_proxy and (claimed := clean(metadata.get("tenant_id"))):
        return claimed, TENANT_CALLER
    return DEFAULT_TENANT, TENANT_NONE


def _budget_remaining(identity: Mapping[Any, Any], cost: Cost) -> float | None:
    """What this call leaves of the tightest budget, in US dollars; below zero when it is overspent. LiteLLM adds up
    spending in the background, so calls that run at the same time are not in it yet."""
    left: float | None = None
    for name, spent in _BUDGETS:
        if (limit := _usd(identity.get(name))) is not None:
            after = limit - (_usd(identity.get(spent)) or 0.0) - cost.nano_usd / 1e9
            left = after if left is None else min(left, after)
    return left


def _usd(amount: object) -> float | None:
    return None if amount is None or not (_is_number(amount) and abs(amount) <= _MAX_USD) else float(amount)


def _interval(payload: Mapping[Any, Any], start_time: object, end_time: object) -> tuple[int, int]:
    end = _nanoseconds(payload.get("endTime")) or _nanoseconds(end_time) or time.time_ns()
    start = _nanoseconds(payload.get("startTime")) or _nanoseconds(start_time) or end
    return min(start, end), end


def _nanoseconds(moment: object) -> int | None:
    """``moment`` (Unix seconds, or a datetime; LiteLLM's naive ones are in local time) in nanoseconds."""
    seconds: object = moment
    if type(moment) is not float and isinstance(moment, datetime):
        try:
            seconds = moment.timestamp()
        except (OverflowError, OSError, ValueError):
            return None
    if not _is_number(seconds):
        return None
    whole = math.floor(seconds)  # apart from the fraction: the product would lose the last hundred nanoseconds
    nanoseconds = whole * 1_000_000_000 + round((seconds - whole) * 1e9)
    return nanoseconds if 0 < nanoseconds <= _MAX_COUNT else None


def _first_token_ms(payload: Mapping[Any, Any], start_ns: int, end_ns: int) -> float | None:
    first = _nanoseconds(payload.get("completionStartTime"))
    return round((first - start_ns) / 1e6, 3) if first and start_ns <= first <= end_ns else None


def _finish_reasons(response: object) -> tuple[str, ...] | None:
    choices = _of(response, "choices")
    if not isinstance(choices, list | tuple):
        return None
    reasons = [clean(_of(choice, "finish_reason")) for choice in choices[:_MAX_FINISH_REASONS]]
    return tuple(filter(None, reasons)) or None


def _status(code: object) -> int | None:
    if not code:
        return None
    try:
        number = int(str(code))
    except ValueError:
        return None
    return number if 100 <= number <= 599 else None


def _class_name(exception: object) -> str | None:
    return type(exception).__name__ if isinstance(exception, BaseException) else None


def _error(
    call: Mapping[Any, Any],
    payload: Mapping[Any, Any],
    problem: Mapping[Any, Any],
    error_type: str | None,
    error_status: int | None,
    keep_message: bool,
) -> str:
    if keep_message:
        text = payload.get("error_str") or problem.get("error_message") or call.get("exception")
        if message := clean(text, _MAX_ERROR):
            return message
    return " ".join(str(part) for part in (error_type or "unknown error", error_status) if part)


@lru_cache(maxsize=256)
def server_of(api_base: str) -> tuple[str | None, int | None]:
    """Host and port of an address, as far as it has them."""
    try:
        parts = urlsplit(api_base)
        return clean(parts.hostname) or None, parts.port
    except ValueError:
        return None, None
