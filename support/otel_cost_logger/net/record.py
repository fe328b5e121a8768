"""From a passage that the net counted to one `CallRecord`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import litellm

from otel_cost_logger.budgets.bound import sequences
from otel_cost_logger.claims import claims_of
from otel_cost_logger.deployments import Deployment, served_name, serving
from otel_cost_logger.net.roads import CLOSED, OPENED, REPORTED
from otel_cost_logger.net.stopping import ProxyStopped
from otel_cost_logger.net.usage import AnswerReader, Usage, usage_in
from otel_cost_logger.pricing import NOT_CHARGED, UNKNOWN_COST, UNPRICED, Cost, cost_of_tokens
from otel_cost_logger.record import (
    CLIENT_DISCONNECTED,
    DEFAULT_TENANT,
    FAILURE,
    SUCCESS,
    TENANT_KEY_ALIAS,
    TENANT_NONE,
    TENANT_TEAM,
    UNAUTHENTICATED_TENANT,
    UNKNOWN,
    USAGE_CACHE,
    USAGE_ENGINE,
    USAGE_ESTIMATED,
    USAGE_NONE,
    CallRecord,
    clean,
    from_cache,
    refuses,
    server_of,
)

if TYPE_CHECKING:
    from otel_cost_logger.net.boundary import Answer
    from otel_cost_logger.net.passage import Identity, Passage
    from otel_cost_logger.prices.book import PriceBook

CALL_TYPE = "pass_through"
CLOSED_CALL_TYPE = "closed_road"
_OPERATIONS = {
    "completions": "text_completion",
    "embeddings": "embeddings",
    "rerank": "rerank",
    "score": "rerank",
    "messages": "chat",
    "responses": "chat",
}
_PRICES = ("input_cost_per_token", "output_cost_per_token", "cache_read_input_token_cost")
_PROMPT_FIELDS = ("messages", "prompt", "input", "contents", "query", "documents")


def record_of_passage(passage: Passage, answer: Answer, book: PriceBook | None) -> CallRecord:
    """What a request leaves behind of which LiteLLM's hooks report nothing that can be used."""
    body = passage.body
    reader = answer.reader or AnswerReader(stream=False)
    document = reader.last_document()
    nested = document.get("response")  # of an event
    said = nested if isinstance(nested, Mapping) else document
    outcome, status = _outcome(passage, answer, reader)
    usage, source = usage_of(reader, body, outcome)
    model = clean(body.get("model") if isinstance(body.get("model"), str) else said.get("model")) or UNKNOWN
    served = clean(said.get("model")) or None
    deployment = passage.deployment or deployment_of(model, served)
    identity = passage.identity or passage.whose()  # what is refused at once, nobody has authenticated
    tenant_id, tenant_source = tenant_of(identity, unknown_key=status in (401, 403))
    if passage.road.kind == OPENED and source == USAGE_ESTIMATED:
        cost = Cost(0, UNKNOWN_COST, None)  # nobody counted what the operator has opened
    elif usage is not None and usage.total:
        cost = cost_of_passage(model, served, deployment, passage.began_ns, book, usage)
    else:
        # Nothing was dispatched, or the engine refused it.
        refused = refuses(status) or (outcome != SUCCESS and not passage.admitted)
        counted_zero = usage is not None or refused
        cost = Cost(0, NOT_CHARGED if counted_zero else UNKNOWN_COST, None)
    params = _mapping(deployment.get("litellm_params"))
    base = params.get("api_base") or passage.engine
    address, port = server_of(str(base))
    closed = passage.road.kind == CLOSED
    failure = ProxyStopped.__name__ if passage.stopped else "RoadClosed" if closed else "PassThroughError"
    error_type = {FAILURE: failure, CLIENT_DISCONNECTED: "ClientDisconnected"}
    headers = passage.headers
    return CallRecord(
        call_id=passage.call_id,
        call_type=CLOSED_CALL_TYPE if closed else CALL_TYPE,
        operation=_operation(passage.engine),
        stream=answer.stream,
        choice_count=_choices(body),
        model=model,
        model_served=served,
        provider=clean(_provider(params)) or None,
        tenant_id=tenant_id,
        tenant_source=tenant_source,
        tenant_claimed=clean(claims_of({"body": body, "headers": headers})) or None,
        key_alias=(clean(identity.key_alias) or None) if identity else None,
        outcome=outcome,
        prompt_tokens=usage.prompt if usage else 0,
        completion_tokens=usage.completion if usage else 0,
        total_tokens=usage.total if usage else 0,
        cached_tokens=usage.cached if usage else None,
        reasoning_tokens=usage.reasoning if usage else None,
        usage_source=source,
        cost=cost,
        budget_remaining_usd=None,
        start_ns=passage.began_ns,
        end_ns=max(answer.ended_ns, passage.began_ns),
        time_to_first_token_ms=_first_ms(passage, answer),
        attempts=1,
        response_id=clean(said.get("id")) or None if outcome == SUCCESS else None,
        finish_reasons=None,
        error_type=error_type.get(outcome),
        error_status=status,
        error=f"{failure} {status} {clean(passage.address)}" if outcome == FAILURE else None,
        server_address=None if closed else address,
        server_port=None if closed else port,
        traceparent=headers.get("traceparent"),
        planned=None,
    )


def completed(
    record: CallRecord, passage: Passage, response: object, book: PriceBook | None, *, request: Mapping[str, Any]
) -> CallRecord:
    """``record``, which LiteLLM's hooks gave for a call of this passage, with what they did not know: whose key it was,
    and what the engine counted. ``request`` is the call's."""
    identity = passage.identity or (passage.whose() if record.tenant_source == TENANT_NONE else None)
    # Behind a road that was opened LiteLLM may make calls in a name of its own.
    if identity is not None and (record.tenant_source == TENANT_NONE or passage.road.kind == OPENED):
        tenant_id, tenant_source = tenant_of(identity)
        alias = clean(identity.key_alias) or None
        record = record._replace(tenant_id=tenant_id, tenant_source=tenant_source, key_alias=alias)
    if passage.road.kind != REPORTED:
        record = record._replace(call_id=passage.call_id)
    usage, source = None, USAGE_ENGINE
    if record.total_tokens == 0:
        usage = usage_in(_document(response))
    if usage is None and passage.upstream is not None and (record.total_tokens == 0 or record.outcome != SUCCESS):
        usage, source = usage_of(passage.upstream, request, record.outcome)
    already = record.total_tokens > 0
    if usage is not None and already and source == USAGE_ESTIMATED:
        usage = usage._replace(prompt=record.prompt_tokens)
    # Of a stream that broke off, LiteLLM may have kept the first count alone.
    recounted = usage is not None and usage.completion > record.completion_tokens
    if usage is not None and (recounted or (usage.total and record.total_tokens == 0)):
        record = record._replace(
            prompt_tokens=usage.prompt,
            completion_tokens=usage.completion,
            total_tokens=usage.total,
            cached_tokens=usage.cached,
            reasoning_tokens=usage.reasoning,
            usage_source=source,
            model_served=record.model_served
            or (clean(passage.upstream.last_document().get("model")) if passage.upstream is not None else "")
            or None,
        )
    if not record.total_tokens:
        return record
    if not already and record.outcome == SUCCESS and from_cache(request, record.outcome):
        return record._replace(usage_source=USAGE_CACHE, cache_hit=True, cost=Cost(0, NOT_CHARGED, None))
    stale = recounted and already
    if stale or (usage is not None and not record.cost.nano_usd) or record.cost.source == UNPRICED:
        record = record._replace(cost=_priced(record, book))
    return record


def _priced(record: CallRecord, book: PriceBook | None) -> Cost:
    counted = Usage(record.prompt_tokens, record.completion_tokens, record.cached_tokens)
    deployment = deployment_of(record.model, record.model_served)
    return cost_of_passage(record.model, record.model_served, deployment, record.start_ns, book, counted)


def usage_of(reader: AnswerReader, body: Mapping[str, Any], outcome: str) -> tuple[Usage | None, str]:
    """The tokens of an answer, and who counted them.

    Where the engine said nothing in a stream, its pieces are counted, and the prompt is by LiteLLM's tokenizer; without
    a ``body`` nobody knows the prompt.
    """
    usage = reader.usage()
    if usage is not None and outcome != SUCCESS and reader.uncounted and reader.deltas > usage.completion:
        return usage._replace(completion=reader.deltas), USAGE_ESTIMATED  # it would have counted at the end
    if usage is not None:
        # Of several prompts or choices each piece of a stream counts its own only.
        whole = outcome == SUCCESS or sequences(body) == 1
        return usage, (USAGE_ENGINE if whole else USAGE_ESTIMATED) if usage.total else USAGE_NONE
    if not reader.deltas or not body:
        return None, USAGE_NONE
    prompt = " ".join(str(body[field]) for field in _PROMPT_FIELDS if field in body)
    return Usage(litellm.token_counter(model="", text=prompt), reader.deltas), USAGE_ESTIMATED


def cost_of_passage(
    model: str, served: str | None, deployment: Deployment, at_ns: int, book: PriceBook | None, usage: Usage
) -> Cost:
    """The price of ``usage`` by the price book or the deployment's own."""
    params = {**_mapping(deployment.get("litellm_params")), "metadata": {"model_info": deployment.get("model_info")}}
    return cost_of_tokens(
        book,
        model,
        served,
        params,
        at_ns,
        prompt_tokens=usage.prompt,
        completion_tokens=usage.completion,
        cached_tokens=usage.cached or 0,
    ) or Cost(0, UNPRICED, None)


def deployment_of(model: str, served: str | None) -> Deployment:
    """The one that served ``model``; empty where that cannot be told, as there are several at different prices."""
    found = serving(model)
    fitting = [each for each in found if served is None or served_name(_mapping(each.get("litellm_params"))) == served]
    several = fitting or found
    prices = [[_mapping(each.get("model_info")).get(name) for name in _PRICES] for each in several]
    return several[0] if several and all(each == prices[0] for each in prices) else {}


def tenant_of(identity: Identity | None, *, unknown_key: bool = False) -> tuple[str, str]:
    """The tenant of an authenticated key, and how that is known."""
    if identity is None:
        return UNAUTHENTICATED_TENANT if unknown_key else DEFAULT_TENANT, TENANT_NONE
    if team := clean(identity.team_id):
        return team, TENANT_TEAM
    if alias := clean(identity.key_alias):
        return alias, TENANT_KEY_ALIAS
    return DEFAULT_TENANT, TENANT_NONE


def _document(response: object) -> object:
    dump = getattr(response, "model_dump", None)  # LiteLLM's answers are pydantic's models
    return dump() if callable(dump) else response


def _outcome(passage: Passage, answer: Answer, reader: AnswerReader) -> tuple[str, int | None]:
    if answer.status is not None and answer.status >= 400:
        return FAILURE, answer.status
    if passage.stopped and not answer.finished:
        return FAILURE, ProxyStopped.status_code
    if answer.left and not answer.finished:
        return CLIENT_DISCONNECTED, 499
    if reader.failed or not answer.finished:
        return FAILURE, 500
    return SUCCESS, None


def _operation(engine: str) -> str:
    if engine.endswith("chat/completions"):
        return "chat"
    return _OPERATIONS.get(engine.rpartition("/")[2], CALL_TYPE)


def _choices(body: Mapping[str, Any]) -> int:
    number = body.get("n")
    return number if isinstance(number, int) and 0 < number < 2**31 else 1


def _provider(params: Mapping[str, Any]) -> str:
    return str(params.get("custom_llm_provider") or str(params.get("model") or "").partition("/")[0])


def _first_ms(passage: Passage, answer: Answer) -> float | None:
    return round((answer.first_ns - passage.began_ns) / 1e6, 3) if answer.stream and answer.first_ns else None


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
