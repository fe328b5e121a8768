"""From LiteLLM's logging payload to one immutable `CallRecord`: what a call leaves behind.

This module is a pure function of its arguments. It knows LiteLLM and nothing of OpenTelemetry, and it does no
I/O. The facts are those of ``kwargs["standard_logging_object"]`` (LiteLLM's ``StandardLoggingPayload``); a payload that
is missing or broken still gives a record, with what the rest of ``kwargs`` says. Of a call that was sent more than once
the payload may keep what an earlier attempt left, so the answer's own count comes before it, and what our hooks saw
(see `progress`) before both.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, NamedTuple, TypeGuard
from urllib.parse import urlsplit

import litellm
from litellm.constants import LITELLM_LOGGING_NO_UPSTREAM_LLM_CALL

from otel_cost_logger.claims import claims_of
from otel_cost_logger.keys.entries import TenantKey
from otel_cost_logger.planned import PlannedSpan, planned_for
from otel_cost_logger.prices.book import PriceBook
from otel_cost_logger.pricing import (
    NOT_CHARGED,
    UNKNOWN_COST,
    Cost,
    cost_by_book,
    cost_of,
    cost_of_tokens,
    has_custom_price,
)
from otel_cost_logger.progress import Progress, details_of, progress_of

SCHEMA_VERSION = "1"

# Outcomes.
SUCCESS = "success"
FAILURE = "failure"
CLIENT_DISCONNECTED = "client_disconnected"

# Where the token counts come from.
USAGE_ENGINE = "engine"  # the backend counted them
USAGE_ESTIMATED = "estimated"  # LiteLLM counted the text with a tokenizer of its own, which may be another one
USAGE_CACHE = "cache"  # LiteLLM's cache answered: the engine counted them for an earlier call
USAGE_NONE = "none"  # nobody counted; the cost's source says whether there was anything to count

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
_NO_TOKENS = (0, 0)

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
_ERROR_FIELDS = ("error_class", "error_code")
_DISCONNECTED = ("ClientDisconnected", 499)  # the error of a call whose caller left, as LiteLLM names it
# With these a gateway gives up waiting, or notes that the caller has: the engine may have worked all the same.
MAY_HAVE_WORKED = frozenset({408, 499})


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
    model_requested: str | None = None
    cache_hit: bool | None = None
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

    seen = progress_of(call)
    # Set when the proxy itself has refused: a wrong key, an unknown model, an answer that a guardrail blocks.
    by_proxy = bool(call.get(LITELLM_LOGGING_NO_UPSTREAM_LLM_CALL))
    refused = by_proxy and not seen.begun

    outcome = FAILURE if failed else SUCCESS
    if not failed and (problem.get("error_class") == _DISCONNECTED[0] or metadata.get("client_disconnected")):
        outcome = CLIENT_DISCONNECTED
    error_type, error_status = _error_facts(call, problem, outcome)
    # The proxy's refusal guesses the type from the body's fields.
    call_type = seen.call_type if by_proxy else None
    call_type = clean(call_type or call.get("call_type") or payload.get("call_type")) or "completion"
    stream = bool(call.get("stream") or payload.get("stream"))
    choice_count = _count(call.get("n") or _mapping(call.get("optional_params")).get("n")) or 1
    used = _used(response) or (_used(seen.answer) if outcome != SUCCESS else None)
    told = _counts(used)
    reported = _counts(payload)
    agreed = told in (_NO_TOKENS, reported)
    prompt, completion = reported if agreed else told
    details = _mapping(payload.get("metadata")).get("usage_object") if agreed else used  # if it can be, in one form
    cached = _detail(details, ("prompt_tokens_details", "input_tokens_details"), "cached_tokens")
    total = min(prompt + completion, _MAX_COUNT)
    cache_hit = total > 0 and not failed and from_cache(call, outcome)
    planned = planned_for(call)
    start_ns, end_ns = _interval(payload, start_time, end_time)
    refused_key = _refused_key(call.get("exception"))
    tenant_id, tenant_source = (
        (refused_key.tenant, TENANT_TEAM)
        if refused_key
        else _tenant(identity, metadata, behind_proxy=behind_proxy, unknown_key=refused and error_status == 401)
    )
    api_base = payload.get("api_base") or params.get("api_base")
    address, port = server_of(api_base) if isinstance(api_base, str) else (None, None)
    model = clean(payload.get("model_group") or metadata.get("model_group") or call.get("model")) or UNKNOWN
    # The proxy's own refusal puts the name that the caller asked for in the place of the served one.
    served = (None if refused else clean(seen.served if by_proxy else call.get("model"))) or None
    first_asked = clean(metadata.get("original_model_group"))
    # An answer from the cache is an attempt that was not sent.
    attempts = max(seen.attempts + cache_hit, 1 + _count(metadata.get("attempted_retries")))

    source = USAGE_CACHE
    if not cache_hit:
        answered = told != _NO_TOKENS
        source = _usage_source(call, seen, call_type, outcome, stream, choice_count, total, answered=answered)

    if cache_hit:
        cost = Cost(0, NOT_CHARGED, None)
    elif total > 0:
        # LiteLLM's cost may be that of an attempt before, or of other tokens than the answer says.
        tokens = {"prompt_tokens": prompt, "completion_tokens": completion, "cached_tokens": cached or 0}
        stale = attempts > 1 or not agreed
        cost = _cost(payload, params, book, model, served, start_ns, tokens, stale=stale)
    else:
        # What LiteLLM itself could not send, or the engine did not take. The proxy may refuse what is about to be sent.
        by_litellm = failed and not by_proxy
        never_sent = by_litellm and seen.begun and seen.attempts == 0 and is_llm_call(call_type)
        by_engine = by_litellm and attempts == 1 and refuses(error_status)
        nothing_to_count = refused or never_sent or by_engine
        cost = cost_of(payload, params, without_tokens=NOT_CHARGED if nothing_to_count else UNKNOWN_COST)
    return CallRecord(
        call_id=clean(call.get("litellm_call_id") or payload.get("litellm_call_id")) or UNKNOWN,
        call_type=call_type,
        operation=_OPERATIONS.get(_sync_name(call_type), call_type),
        stream=stream,
        choice_count=choice_count,
        model=model,
        model_requested=first_asked if first_asked and first_asked != model else None,
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
        reasoning_tokens=_detail(details, ("completion_tokens_details", "output_tokens_details"), "reasoning_tokens"),
        usage_source=source,
        cache_hit=True if cache_hit else None,
        cost=cost,
        budget_remaining_usd=_budget_remaining(identity, cost),
        start_ns=start_ns,
        end_ns=end_ns,
        time_to_first_token_ms=_first_token_ms(payload, start_ns, end_ns) if stream else None,
        attempts=attempts,
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


def record_of_unreported(
    request: Mapping[Any, Any],
    ended_ns: int,
    exception: BaseException | None = None,
    *,
    keep_error_message: bool = False,
    book: PriceBook | None = None,
) -> CallRecord:
    """The record of a proxied call of which LiteLLM reports nothing: its caller left before anything came back, or
    ``exception`` was raised between the proxy and LiteLLM, by a guardrail for example.

    ``request`` is the proxy's request data with its ``call_type``; it ended at ``ended_ns``. What the engine answered
    until then is counted where our hooks saw it. The other arguments are those of `build_record`.
    """
    details = details_of(request)
    params = {name: request.get(name) for name in ("metadata", "litellm_metadata", "proxy_server_request")}
    began = _mapping(request.get("proxy_server_request")).get("arrival_time")
    kwargs = {
        **details,
        "litellm_call_id": request.get("litellm_call_id"),
        "call_type": request.get("call_type"),
        "stream": request.get("stream"),
        "exception": exception,
        LITELLM_LOGGING_NO_UPSTREAM_LLM_CALL: True,  # whether an engine worked, our hooks tell
        "litellm_params": {**params, **{k: v for k, v in _mapping(details.get("litellm_params")).items() if v}},
        "standard_logging_object": {
            "model_group": request.get("model"),
            "startTime": began,
            "endTime": ended_ns / 1e9,
            "error_information": {} if exception else dict(zip(_ERROR_FIELDS, _DISCONNECTED, strict=True)),
        },
    }
    return build_record(
        kwargs,
        None,
        None,
        None,
        failed=exception is not None,
        behind_proxy=True,
        keep_error_message=keep_error_message,
        book=book,
    )


def after_attempts(record: CallRecord, attempts: int) -> CallRecord:
    """``record`` of the first attempt of a call that was sent ``attempts`` times and failed each time.

    Nobody says what the later ones made the engine do, so a cost of nothing becomes an unknown one.
    """
    if attempts <= record.attempts:
        return record
    unknown = record.cost.source == NOT_CHARGED
    return record._replace(attempts=attempts, cost=Cost(0, UNKNOWN_COST, None) if unknown else record.cost)


def from_cache(call: Mapping[Any, Any], outcome: str) -> bool:
    """True for an answer from LiteLLM's cache; ``call`` are a logging hook's ``kwargs``. A caller may say so, too, but
    then the call was sent."""
    seen = progress_of(call)
    if seen.sent:
        return False
    return call.get("cache_hit") is True or (seen.begun and outcome == CLIENT_DISCONNECTED)


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


def _used(answer: object) -> object:
    """What an answer says it used, or a stream that broke off in its pieces; None where it says nothing."""
    if answer is None:
        return None
    usage = _of(answer, "usage")
    return _of(_assembled(answer), "usage") if usage is None else usage


def _counts(usage: object) -> tuple[int, int]:
    """Tokens of the prompt and of the answer; both 0 where there is no count, as in LiteLLM's answers without one."""
    if usage is None:
        return _NO_TOKENS
    prompt = _of(usage, "prompt_tokens") or _of(usage, "input_tokens")
    completion = _of(usage, "completion_tokens") or _of(usage, "output_tokens")
    return _count(prompt), _count(completion)


def _assembled(stream: object) -> object:
    """What has come of a stream of LiteLLM's so far, as one answer; None for anything else."""
    chunks = getattr(stream, "chunks", None)
    if not (isinstance(chunks, list) and chunks):
        return None
    try:
        return litellm.stream_chunk_builder(list(chunks), messages=getattr(stream, "messages", None))
    except Exception:  # pieces that LiteLLM itself cannot put together
        return None


def _detail(usage: object, groups: Sequence[str], name: str) -> int | None:
    for group in groups:
        value = _of(_of(usage, group), name)
        if value is not None:
            return _count(value)
    return None


def _cost(
    payload: Mapping[Any, Any],
    params: Mapping[Any, Any],
    book: PriceBook | None,
    model: str,
    served: str | None,
    start_ns: int,
    tokens: dict[str, int],
    *,
    stale: bool,
) -> Cost:
    # LiteLLM from 1.110 on charges a reranking by its search units alone: 0, whatever its tokens cost.
    if stale or (payload.get("response_cost") == 0 and has_custom_price(params)):
        cost = cost_of_tokens(book, model, served, params, start_ns, **tokens)
    else:
        cost = cost_by_book(book, model, served, start_ns, **tokens) if book is not None else None
    return cost or cost_of(payload, params)


def refuses(status: int | None) -> bool:
    """True for the HTTP status of an answer for which no engine has worked."""
    return status is not None and 400 <= status < 500 and status not in MAY_HAVE_WORKED


def _usage_source(
    call: Mapping[Any, Any],
    seen: Progress,
    call_type: str,
    outcome: str,
    stream: bool,
    choices: int,
    total: int,
    *,
    answered: bool,
) -> str:
    if total == 0:
        return USAGE_NONE
    if not stream:
        return USAGE_ENGINE if answered or outcome == SUCCESS else USAGE_ESTIMATED
    asked = (
        seen.stream_options or call.get("stream_options") or _mapping(call.get("optional_params")).get("stream_options")
    )
    if outcome != SUCCESS:
        # What the engine had counted when the stream broke off; of several choices each chunk counts only its own.
        counted = choices == 1 and _of(asked, "continuous_usage_stats")
        return USAGE_ENGINE if counted else USAGE_ESTIMATED
    # A streamed chat or completion carries the engine's count only when it was asked for. The proxy always
    # asks; a program that calls LiteLLM itself has to.
    if _sync_name(call_type) in ("completion", "text_completion"):
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


def _error_facts(call: Mapping[Any, Any], problem: Mapping[Any, Any], outcome: str) -> tuple[str | None, int | None]:
    """Class and HTTP status of what went wrong; LiteLLM keeps those of a failed attempt after one that succeeds."""
    if outcome == SUCCESS:
        return None, None
    if outcome == CLIENT_DISCONNECTED:
        return _DISCONNECTED
    exception = call.get("exception")
    return (
        clean(problem.get("error_class")) or _class_name(exception),
        _status(problem.get("error_code")) or _status(_of(exception, "status_code")),
    )


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
